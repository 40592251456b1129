"""Makes a mount namespace, and holds it for as long as it takes to get descriptors of it.

A process makes it, prints ``ready`` and its number, and ends when its standard input does. Anything else that
it prints is the reason why it could not.
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

#: Seconds for a namespace to be made: far more than it takes, far less than for ever.
PATIENCE: Final = 30.0
_HOLD: Final = "echo ready $$; read line"


class Wanted(NamedTuple):
    """What is to be seen in a namespace.

    ``scratch`` is what stands behind /tmp, ``binds`` the other mounts in the order of their places, those
    below /tmp among them. ``read_only`` says of the rest whether it becomes so, ``own_user`` whether the
    namespace gets a user namespace of its own.
    """

    scratch: str
    binds: Sequence[Bind]
    read_only: bool
    own_user: bool


@contextmanager
def held(command: list[str], descriptors: tuple[int, ...] = ()) -> Iterator[int]:
    """Run ``command``, which makes a namespace; gives the number of a process in it. Raises NotPermitted."""
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
                said = maker.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise NotPermitted(rest or said or f"{command[0]} ended without a word")
            yield int(rest)
        finally:
            assert maker.stdin is not None
            maker.stdin.close()


def _line(pipe: IO[bytes]) -> str:
    """The first line that comes; "" where none comes in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return pipe.readline().decode(errors="replace").strip() if selector.select(PATIENCE) else ""


# --- bubblewrap ----------------------------------------------------------------------------------------


def by_bwrap(wanted: Wanted) -> list[str]:
    """The command of bubblewrap. Raises NotPermitted where it is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NotPermitted("it is not installed")
    command = [bwrap]
    if wanted.own_user:
        command.append("--unshare-user")
    hold = _HOLD
    if wanted.read_only:
        # Devices can only be used in a mount that is made like this, and it cannot become read-only.
        command += ["--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"]
        for mount in mounted():
            if mount.path == "/dev" and not os.geteuid():
                # Nobody else has the right to write there, but the superuser.
                command += ["--cap-add", "CAP_SYS_ADMIN"]
                hold = f"{shlex.join(_read_only('/dev', f'{mount.options},nosuid'))} && {hold}"
            elif is_below(mount.path, "/dev") and mount.kind in ("tmpfs", "mqueue", "hugetlbfs"):
                command += ["--remount-ro", mount.path]
    else:
        command += ["--dev-bind", "/", "/"]
    command += ["--bind", wanted.scratch, TMP]
    for bind in wanted.binds:
        command += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    return [*command, "--", "/bin/sh", "-c", hold]


def _read_only(path: str, options: str) -> list[str]:
    return ["mount", "--no-mtab", "-o", f"remount,bind,ro{options}", path]


# --- what is mounted -----------------------------------------------------------------------------------


class Mounted(NamedTuple):
    """A mount of this process: its path, the options that it keeps as ``,nosuid,nodev``, and its type."""

    path: str
    options: str
    kind: str


#: A mount keeps them when it becomes read-only; a user namespace may not even drop them.
_KEPT: Final = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"})


def mounted() -> Iterator[Mounted]:
    """The mounts that can be reached by their path."""
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
    """The number of the mount that a look-up of ``path`` ends in; -1 where there is none."""
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
    """A path of mountinfo, in which blanks and backslashes are written as octal numbers."""
    for character in b" \t\n\\":
        name = name.replace(b"\\%03o" % character, bytes([character]))
    return name
