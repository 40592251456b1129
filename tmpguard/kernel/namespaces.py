"""Makes a mount namespace by one of three ways, and holds it as long as it takes to get descriptors of it.

Each way starts a process that makes the namespace, says ``ready`` and its number, and ends when its standard
input does; whatever else it says is the reason why it could not.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
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


def program(name: str) -> str:
    """The path of a program that a way needs. Raises NotPermitted where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise NotPermitted("it is not installed" if name == "bwrap" else f"{name} is not installed")
    return path


# --- bubblewrap ----------------------------------------------------------------------------------------


def by_bwrap(wanted: Wanted) -> list[str]:
    """The command of bubblewrap."""
    command = [program("bwrap")]
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


# --- util-linux ----------------------------------------------------------------------------------------


def by_unshare(wanted: Wanted) -> list[str]:
    """The command of util-linux's unshare, with a script of mount commands."""
    unshare, _ = program("unshare"), program("mount")
    commands = list(_mount_commands(wanted))
    if not wanted.own_user:
        return [unshare, "--mount", "--", "/bin/sh", "-c", _script([*commands, _HOLD])]
    # mount wants to be run by the superuser, even where it needs no privilege but the namespace's. So there
    # is an outer namespace with one, and within it the one that is kept, which has the user's own number.
    # To give it that, /proc has to be written: it becomes read-only last, from outside.
    last = [command for command in commands if command[-1] == "/proc" and "--rbind" not in command]
    commands = [command for command in commands if command not in last]
    user, group = f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"
    inner = [unshare, "--user", user, group, "--mount", "--", "/bin/sh", "-c", "echo $$; read line"]
    within = [f'{program("nsenter")} --mount="/proc/$inner/ns/mnt" {shlex.join(command)}' for command in last]
    finish = _script(["read inner", *within, "echo ready $inner"])
    outer = [unshare, "--user", "--map-root-user", "--mount", "--", "/bin/sh", "-c"]
    return [*outer, _script([*commands, f"{shlex.join(inner)} | {{\n{finish}\n}}"])]


def _script(steps: Sequence[str | list[str]]) -> str:
    return "\n".join(["set -e", *(step if isinstance(step, str) else shlex.join(step) for step in steps)])


def _mount_commands(wanted: Wanted) -> Iterator[list[str]]:
    """Those below /tmp are mounted where the scratch directory lies; all of it is mounted on /tmp at last."""
    before = list(mounted())
    scratch = wanted.scratch
    yield _bind(scratch, scratch)
    writable = [scratch]
    for bind in wanted.binds:
        place = scratch + bind.target[len(TMP) :] if is_below(bind.target, TMP) else bind.target
        yield _bind(bind.source, place)
        if bind.writable:
            writable.append(place)
            continue
        around = max((mount for mount in before if is_below(bind.source, mount.path)), key=_depth)
        yield _read_only(place, around.options)
        for mount in before:
            if mount.path != bind.source and is_below(mount.path, bind.source):
                yield _read_only(place + mount.path[len(bind.source.rstrip("/")) :], mount.options)
    if wanted.read_only:
        for mount in before:
            if not any(is_below(mount.path, place) for place in writable):
                yield _read_only(mount.path, mount.options)
    yield _bind(scratch, TMP)


def _bind(source: str, target: str) -> list[str]:
    return ["mount", "--no-mtab", "--rbind", source, target]


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


def _depth(mount: Mounted) -> int:
    return len(mount.path)


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


COMMANDS: Final[dict[str, Callable[[Wanted], list[str]]]] = {"bwrap": by_bwrap, "unshare": by_unshare}
