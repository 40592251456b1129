"""The processes of an instance, as the janitor finds them in /proc."""

from __future__ import annotations

import os
import time

from . import tracing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Family:
    """All processes but the janitor.

    In a PID namespace of their own, /proc shows no others. Without one (``is_alone`` is false), they are
    those that descend from the janitor, which is made the parent of those whose own parent has ended.
    """

    def __init__(self, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self._own = os.getpid()

    def processes(self) -> list[int]:
        """Their IDs."""
        found = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        if self.is_alone:
            return [process for process in found if process != self._own]
        parents = {process: fields[1] for process in found if (fields := stat_of(process))}
        return [process for process in found if process != self._own and self._descends(process, parents)]

    def _descends(self, process: int, parents: dict[int, bytes]) -> bool:
        seen = set()
        while process in parents and process not in seen:
            seen.add(process)
            process = int(parents[process])
            if process == self._own:
                return True
        return False

    def signal(self, number: int) -> None:
        """Send all of them a signal."""
        if self.is_alone:
            _kill(-1, number)
            return
        for process in self.processes():
            _kill(process, number)

    def end(self) -> None:
        """Kill all of them, before the janitor ends.

        Not needed in a PID namespace, or with a tracer: the kernel kills them with those.
        """
        while not self.is_alone and (processes := self.processes()):
            for process in processes:
                _kill(process, 9)
            # Those that have ended stay until their parent takes note of it.
            if all(fields[0] == b"Z" for process in processes if (fields := stat_of(process))):
                return
            time.sleep(0.005)

    def listening(self) -> Iterator[tuple[str, int]]:
        """The TCP addresses on which they listen, by what /proc tells."""
        inodes = {
            tracing.link_of(f"/proc/{process}/fd/{name}").removeprefix("socket:[").removesuffix("]")
            for process in self.processes()
            for name in _names(f"/proc/{process}/fd")
        }
        for table, host in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
            for line in _lines(f"/proc/net/{table}"):
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    yield _address(fields[1], host)


def stat_of(process: int) -> list[bytes]:
    """The fields of the process's /proc/PID/stat from its state on; [] if it is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].split()
    except OSError:
        return []


def _address(text: str, loopback: str) -> tuple[str, int]:
    """An address of /proc/net; one that means all of them is reached by the loopback one."""
    address, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8))
    if not any(raw):
        return "127.0.0.1", int(port, 16)
    host = ".".join(map(str, raw[-4:])) if raw[:-4] in (b"", bytes(10) + b"\xff\xff") else loopback
    return host, int(port, 16)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()[1:]
    except OSError:
        return []


def _kill(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return
