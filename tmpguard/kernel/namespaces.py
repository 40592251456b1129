"""Makes a mount namespace and holds it until it can be opened.

A helper process makes the namespace, prints ``ready`` and its PID, and ends when its standard input is
closed. Any other output is the reason for a failure.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.errors import NotPermitted
from tmpguard.core.layout import TMP, is_below
from tmpguard.core.mounts.table import Bind

#: Seconds to wait for a namespace: far more than it normally takes.
PATIENCE: Final = 30.0
_HOLD: Final = "echo ready $$; read line"


class Wanted(NamedTuple):
    """What a namespace is to contain.

    ``scratch`` is the real directory mounted at /tmp. ``binds`` are the other mounts, including those below
    /tmp, outer ones first; everything else is read-only. ``own_user`` gives the namespace a user namespace of
    its own.
    """

    scratch: str
    binds: Sequence[Bind]
    own_user: bool


@contextmanager
def held(command: list[str], descriptors: tuple[int, ...] = ()) -> Iterator[int]:
    """Run ``command``, which makes a namespace; yields the PID of a process in it. Raises NotPermitted."""
    try:
        maker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            cwd="/",
        )
    except OSError as exc:
        raise NotPermitted(f"running {command[0]}: {exc.strerror}") from None
    with maker:
        assert maker.stdout is not None
        assert maker.stderr is not None
        try:
            word, _, rest = _line(maker.stdout).partition(" ")
            if word != "ready":
                maker.kill()
                error = maker.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise NotPermitted(rest or error or f"{command[0]} ended without an error message")
            yield int(rest)
        finally:
            assert maker.stdin is not None
            maker.stdin.close()


def _line(pipe: IO[bytes]) -> str:
    """The first line from ``pipe``; "" if none arrives in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return pipe.readline().decode(errors="replace").strip() if selector.select(PATIENCE) else ""


# --- bubblewrap ----------------------------------------------------------------------------------------


def by_bwrap(wanted: Wanted) -> list[str]:
    """The bubblewrap command. Raises NotPermitted if it is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NotPermitted("it is not installed")
    command = [bwrap]
    if wanted.own_user:
        command.append("--unshare-user")
    hold = _HOLD
    # Devices work only in a --dev-bind mount, which cannot be made read-only.
    command += ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    for mount in mounted():
        if mount.path == "/dev" and not os.geteuid():
            # Only root can write there.
            command += ["--cap-add", "CAP_SYS_ADMIN"]
            hold = f"{shlex.join(_read_only('/dev', f'{mount.options},nosuid'))} && {hold}"
        elif is_below(mount.path, "/dev") and mount.kind in ("tmpfs", "mqueue", "hugetlbfs"):
            command += ["--remount-ro", mount.path]
    command += ["--bind", wanted.scratch, TMP]
    for bind in wanted.binds:
        command += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    return [*command, "--", "/bin/sh", "-c", hold]


def _read_only(path: str, options: str) -> list[str]:
    return ["mount", "--no-mtab", "-o", f"remount,bind,ro{options}", path]


# --- what is mounted -----------------------------------------------------------------------------------


class Mounted(NamedTuple):
    """A mount of this process: its path, the options to keep (as ``,nosuid,nodev``) and its type."""

    path: str
    options: str
    kind: str


#: Options that a mount keeps when it becomes read-only. In a user namespace they may not be dropped.
_KEPT: Final = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"})


def mounted() -> Iterator[Mounted]:
    """The mounts that can be reached by path."""
    with originals.open("/proc/self/mountinfo", "rb") as file:
        lines = file.read().splitlines()
    for line in lines:
        head, _, tail = line.partition(b" - ")
        number, _, _, _, name, given, *_ = head.split(b" ")
        path = os.fsdecode(_unescaped(name))
        if _mount_at(path) == int(number):
            kept = [option for option in given.decode().split(",") if option in _KEPT]
            yield Mounted(path, "".join(f",{option}" for option in kept), tail.split(b" ")[0].decode())


def _mount_at(path: str) -> int:
    """The ID of the mount on which ``path`` lies; -1 if ``path`` cannot be opened."""
    try:
        descriptor = originals.os_open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        with originals.open(f"/proc/self/fdinfo/{descriptor}") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["mnt_id"])
    finally:
        originals.close(descriptor)


def _unescaped(name: bytes) -> bytes:
    """A path from mountinfo with its octal escapes for whitespace and backslashes decoded."""
    for character in b" \t\n\\":
        name = name.replace(b"\\%03o" % character, bytes([character]))
    return name
