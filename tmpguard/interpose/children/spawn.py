"""The two functions that start a child process: ``fork_exec`` and ``posix_spawn``.

subprocess, asyncio and multiprocessing all end up in one of them. For a contained child, the command is
replaced, below anything that the application sees, by one that enters the invocation's namespace and then
executes the program. Descriptors, signals, users and errors stay the same as without containment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import Argv, Environment, StrOrBytesPath
from tmpguard.core.callers import calling_frame
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.interpose.files.raw import Unopened
from tmpguard.interpose.files.target import locate
from tmpguard.interpose.given import Given
from tmpguard.interpose.modes import CHANGING
from tmpguard.interpose.paths import readable
from tmpguard.interpose.raising import reraise
from tmpguard.kernel.descriptors import raised

from .accounts import children_of
from .commands import IGNORED, ProgramStart, entries_of, orders, program_start, quick_command, searched
from .permission import contained, named, refuse_child

if TYPE_CHECKING:
    from tmpguard.kernel.containment import MountNamespace

# --- fork_exec: subprocess, asyncio, multiprocessing ---------------------------------------------------


class _Rest(NamedTuple):
    """The arguments of fork_exec from the seventh on. There may be more."""

    p2cread: int
    p2cwrite: int
    c2pread: int
    c2pwrite: int
    errread: int
    errwrite: int
    errpipe_read: int
    errpipe_write: int
    restore_signals: bool
    new_session: bool
    process_group: int
    gid: int | None
    groups: Sequence[int] | None
    uid: int | None
    umask: int
    preexec: Callable[[], object] | None


def fork_exec(
    original: Callable[..., int],
    invocation: Invocation,
    args: Argv,
    programs: Sequence[bytes],
    close_fds: bool,
    pass_fds: tuple[int, ...],
    directory: StrOrBytesPath | None,
    environment: Sequence[bytes] | None,
    *more: Any,
) -> int:
    """``_posixsubprocess.fork_exec``. Returns the child's process ID."""
    if not _are_in_order(pass_fds):  # the original raises the right error
        return original(args, programs, close_fds, pass_fds, directory, environment, *more)
    operation, program = "subprocess.Popen", _program(args, programs)
    parent = _starter()
    if parent == "multiprocessing.resource_tracker":  # it serves all requests and outlives them
        return original(args, programs, close_fds, pass_fds, directory, environment, *more)
    if parent == "multiprocessing.forkserver" and invocation.guard.children == "contain":
        refuse_child(invocation, operation, program, remedies.FORK_SERVER)
    namespace = contained(invocation, operation, program, shared_memory=bool(parent))
    rest = _Rest(*more[: len(_Rest._fields)])
    if namespace is None:
        return original(args, programs, close_fds, pass_fds, directory, environment, *more)
    start = program_start(invocation, programs, args, directory, environment)
    command = None
    if rest.uid is None and rest.gid is None and rest.groups is None:
        command = quick_command(invocation, namespace, start)
    if command is not None:
        process = original(command, command[:1], close_fds, pass_fds, None, environment, *more)
        namespace.entering(process)
    else:
        _check_ids(rest)
        tail = (*rest._replace(gid=None, groups=None, uid=None), *more[len(rest) :])
        with _orders(start, rest) as given, namespace.careful(given) as (careful, descriptors):
            kept = tuple(sorted({*pass_fds, *descriptors}))
            process = original(careful, [os.fsencode(careful[0])], close_fds, kept, None, None, *tail)
    children_of(invocation).started(process, program)
    return process


def _are_in_order(descriptors: object) -> bool:
    """True if fork_exec accepts ``descriptors``: a tuple of descriptor numbers in ascending order."""
    if not isinstance(descriptors, tuple):
        return False
    are_descriptors = all(type(fd) is int and 0 <= fd < 2**31 for fd in descriptors)
    return are_descriptors and all(one < other for one, other in pairwise(descriptors))


def _program(args: Argv, programs: Sequence[bytes]) -> str:
    """The program as the caller named it, for the file name of an error."""
    first = os.fsdecode(programs[0]) if programs else ""
    name = os.fsdecode(args[0]) if args else ""
    return name if name and os.path.basename(first) == os.path.basename(name) else first


def _starter() -> str:
    """The multiprocessing module that starts the process, "" if it is not multiprocessing."""
    frame = calling_frame()
    if frame is None or _module_of(frame) != "multiprocessing.util":
        return ""
    return _module_of(frame.f_back)


def _module_of(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__"))


def _check_ids(rest: _Rest) -> None:
    """Raise what fork_exec raises for an invalid user or group ID."""
    nowhere = Unopened("")
    with suppress(FileNotFoundError):  # chown checks the IDs before it looks for the file
        originals.chown(nowhere, *(-1 if number is None else number for number in (rest.uid, rest.gid)))
    for number in rest.groups or ():
        try:
            with suppress(FileNotFoundError):
                originals.chown(nowhere, -1, number)
        except OverflowError:
            raise ValueError("invalid group id") from None


@contextmanager
def _orders(start: ProgramStart, rest: _Rest) -> Iterator[dict[str, Any]]:
    # The interpreter's start closes the pipe itself. The duplicate stays open until the program starts.
    errors = raised(os.dup(rest.errpipe_write))
    try:
        yield orders(
            start,
            IGNORED if rest.restore_signals else (),
            errors=errors,
            inherited=[errors],
            groups=None if rest.groups is None else list(rest.groups),
            gid=rest.gid,
            uid=rest.uid,
            **_no_directory(),
        )
    finally:
        originals.close(errors)


def _no_directory() -> dict[str, bytes]:
    """The message that subprocess expects for a directory that cannot be entered."""
    import subprocess

    execute: Any = vars(subprocess.Popen)["_execute_child"]
    newer = "noexec:chdir" in execute.__code__.co_consts
    return {"no directory": b"noexec:chdir" if newer else b"noexec"}


# --- posix_spawn ---------------------------------------------------------------------------------------

_OPEN: Final = getattr(os, "POSIX_SPAWN_OPEN", None)
_CLOSE_FROM: Final = getattr(os, "POSIX_SPAWN_CLOSEFROM", None)


def _spawn(
    operation: str,
    original: Callable[..., int],
    invocation: Invocation,
    path: StrOrBytesPath,
    argv: Argv,
    env: Environment | None,
    /,
    **more: Any,
) -> int:
    if not isinstance(argv, (list, tuple)) or not argv or Given(path).odd:
        return original(path, argv, env, **more)  # raises the right error
    sought = operation == "os.posix_spawnp"
    if _module_of(calling_frame()) == "subprocess":
        operation = "subprocess.Popen"
    namespace = contained(invocation, operation, path)
    if namespace is None:
        return original(path, argv, env, **more)
    name = os.fsencode(path)
    programs = searched(name) if sought and b"/" not in name else [name]
    start = program_start(invocation, programs, argv, None, entries_of(env))
    if more.get("file_actions") is not None:
        more["file_actions"] = [_action(invocation, action) for action in more["file_actions"]]
    command = quick_command(invocation, namespace, start)
    if command is not None:
        process: int = originals.posix_spawn(command[0], command, env, **more)
        namespace.entering(process)
    else:
        process = _spawn_carefully(namespace, start, path, more)
    children_of(invocation).started(process, named(path))
    return process


#: :func:`os.posix_spawn` and :func:`os.posix_spawnp`. Both take the original and the invocation first.
posix_spawn: Final = partial(_spawn, "os.posix_spawn")
posix_spawnp: Final = partial(_spawn, "os.posix_spawnp")


def _action(invocation: Invocation, action: tuple[Any, ...]) -> tuple[Any, ...]:
    """Translate the path of a file action that opens a file. Raises OSError as opening it does."""
    if not isinstance(action, tuple) or len(action) != 5 or action[0] != _OPEN:
        return action
    kind, fd, path, flags, mode = action
    given = Given(path)
    if flags & CHANGING:
        real, _ = locate(invocation, given, flags, "os.posix_spawn")
    else:
        try:
            real = readable(invocation, given, operation="os.posix_spawn")
        except OSError as exc:
            reraise(exc, path)
    return kind, fd, real, flags, mode


def _spawn_carefully(
    namespace: MountNamespace, start: ProgramStart, path: StrOrBytesPath, more: dict[str, Any]
) -> int:
    """Start the child with the careful command. Raises OSError with ``path`` if the program cannot run."""
    actions = list(more.pop("file_actions", None) or ())
    lowest = [action[1] for action in actions if action[0] == _CLOSE_FROM]
    actions = [action for action in actions if action[0] != _CLOSE_FROM]
    reading, writing = os.pipe()
    try:
        writing = raised(writing)
        given = orders(
            start,
            more.get("setsigdef", ()),
            errors=writing,
            inherited=[writing],
            **({"close from": min(lowest)} if lowest else {}),
        )
        with namespace.careful(given) as (command, descriptors):
            # Duplicating a descriptor to itself lets the child inherit it.
            actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in descriptors]
            process: int = originals.posix_spawn(
                command[0], command, os.environ, file_actions=actions, **more
            )
        writing = originals.close(writing) or -1
        message = b"".join(iter(lambda: originals.read(reading, 1000), b""))
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                originals.close(descriptor)
    if message:
        originals.waitpid(process, 0)
        code = int(message.split(b":")[1], 16)
        raise OSError(code, os.strerror(code), path)
    return process
