"""``os.system``, ``os.spawn*`` and ``os.exec*``: the other ways to run a program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from tmpguard.core import originals
from tmpguard.core.aliases import Argv, Environment, PathOrDescriptor, StrOrBytesPath
from tmpguard.core.invocation import Invocation
from tmpguard.interpose.given import Given

from .accounts import children_of
from .commands import ProgramStart, check_programs, entries_of, orders, program_start, quick_command, searched
from .permission import contained, named

_SHELL: Final = b"/bin/sh"


# --- system --------------------------------------------------------------------------------------------


def system(original: Callable[..., int], invocation: Invocation, command: StrOrBytesPath) -> int:
    """:func:`os.system`."""
    if not isinstance(command, (str, bytes, os.PathLike)) or Given(command).odd:
        return original(command)  # raises the right error
    namespace = contained(invocation, "os.system", command)
    if namespace is None:
        return original(command)
    start = _shell_start(invocation, os.fsencode(command))
    # ``exec`` replaces the first shell: signals work as with the original, and there is no third process.
    if (enter := quick_command(invocation, namespace, start)) is not None:
        status = original(b"exec " + os.fsencode(shlex.join(map(os.fsdecode, enter))))
    else:
        with namespace.careful(orders(start)) as (careful, descriptors), _inheritable(descriptors):
            status = original(f"exec {shlex.join(careful)}")
    children_of(invocation).finished(named(command))
    return status


def _shell_start(invocation: Invocation, command: bytes) -> ProgramStart:
    """The shell as system(3) starts it: by its path, with ``sh`` as its argv[0]."""
    start = program_start(invocation, [_SHELL], [b"sh", b"-c", command])
    for directory in os.environ.get("PATH", "").split(":"):
        with suppress(OSError):
            if os.path.samestat(originals.stat(f"{directory}/sh"), originals.stat(_SHELL)):
                return start._replace(programs=searched(b"sh"))
            break  # PATH leads to another shell
    return start


@contextmanager
def _inheritable(descriptors: Iterable[int]) -> Iterator[None]:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


# --- spawn ---------------------------------------------------------------------------------------------


def spawnvef(
    original: Callable[..., int],
    invocation: Invocation,
    mode: int,
    file: StrOrBytesPath,
    args: Argv,
    env: Environment | None,
    func: Callable[..., NoReturn],
) -> int:
    """``os._spawnvef``, on which all ``os.spawn*`` are built: it forks, and the child calls ``func``."""
    namespace = contained(invocation, "os.spawn", file)  # created before the fork, for the child to use
    result: int = original(mode, file, args, env, func)
    if namespace is not None and mode == os.P_NOWAIT:
        children_of(invocation).started(result, named(file))
    elif namespace is not None:
        children_of(invocation).finished(named(file))
    return result


# --- exec ----------------------------------------------------------------------------------------------


def execv(
    original: Callable[..., NoReturn], invocation: Invocation, path: PathOrDescriptor, argv: Argv, /
) -> NoReturn:
    """:func:`os.execv`."""
    _execute(invocation, "os.execv", original, path, argv)


def execve(
    original: Callable[..., NoReturn],
    invocation: Invocation,
    path: PathOrDescriptor,
    argv: Argv,
    env: Environment,
) -> NoReturn:
    """:func:`os.execve`."""
    _execute(invocation, "os.execve", original, path, argv, env)


def _execute(
    invocation: Invocation,
    operation: str,
    original: Callable[..., NoReturn],
    path: PathOrDescriptor,
    argv: Argv,
    *env: Environment,
) -> NoReturn:
    if not _is_usual(path, argv):
        original(path, argv, *env)  # raises the right error
    namespace = contained(invocation, operation, path)
    if namespace is None:
        original(path, argv, *env)
    assert namespace is not None
    descriptor = path if isinstance(path, int) else None
    program = f"/proc/self/fd/{path}" if isinstance(path, int) else path
    start = program_start(invocation, [program], argv, None, entries_of(*env) if env else None)
    try:
        check_programs(invocation, start)
    except OSError as exc:
        raise type(exc)(exc.errno, exc.strerror) from None  # exec's errors name no file
    inherited = [] if descriptor is None else [descriptor]
    with (
        namespace.careful(orders(start, inherited=inherited)) as (command, descriptors),
        _inheritable(descriptors),
    ):
        originals.execv(command[0], command)


def _is_usual(path: PathOrDescriptor, argv: object) -> bool:
    usual = isinstance(argv, (list, tuple)) and bool(argv) and bool(argv[0])
    return usual and (path >= 0 if type(path) is int else not Given(path).odd)
