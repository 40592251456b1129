"""``os.system``, ``os.spawn*`` and ``os.exec*``: the other ways to run a program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation
from tmpguard.interpose.given import Given

from .accounts import children_of
from .commands import Start, check, entries_of, orders, quick, searched, start_of
from .permission import contained, named

_SHELL: Final = b"/bin/sh"


# --- system --------------------------------------------------------------------------------------------


def system(invocation: Invocation, command: Any) -> int:
    """:func:`os.system`."""
    if not isinstance(command, (str, bytes, os.PathLike)) or Given(command).odd:
        return originals.system(command)  # raises the right error
    namespace = contained(invocation, "os.system", command)
    if namespace is None:
        return originals.system(command)
    start = _start_of_shell(invocation, os.fsencode(command))
    # ``exec`` replaces the first shell: signals work as with the original, and there is no third process.
    if (enter := quick(invocation, namespace, start)) is not None:
        status = originals.system(b"exec " + os.fsencode(shlex.join(map(os.fsdecode, enter))))
    else:
        with namespace.careful(orders(start)) as (careful, descriptors), _inheritable(descriptors):
            status = originals.system(f"exec {shlex.join(careful)}")
    children_of(invocation).finished(named(command))
    return status


def _start_of_shell(invocation: Invocation, command: bytes) -> Start:
    """The shell as system(3) starts it: by its path, with ``sh`` as its argv[0]."""
    start = start_of(invocation, [_SHELL], [b"sh", b"-c", command])
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


def spawnvef(invocation: Invocation, mode: int, file: Any, args: Any, env: Any, func: Any) -> Any:
    """``os._spawnvef``, on which all ``os.spawn*`` are built: it forks, and the child calls ``func``."""
    namespace = contained(invocation, "os.spawn", file)  # created before the fork, for the child to use
    result = originals.spawnvef(mode, file, args, env, func)
    if namespace is not None and mode == os.P_NOWAIT:
        children_of(invocation).started(result, named(file))
    elif namespace is not None:
        children_of(invocation).finished(named(file))
    return result


# --- exec ----------------------------------------------------------------------------------------------


def execv(invocation: Invocation, path: Any, argv: Any, /) -> NoReturn:
    """:func:`os.execv`."""
    _execute(invocation, originals.execv, path, argv)


def execve(invocation: Invocation, path: Any, argv: Any, env: Any) -> NoReturn:
    """:func:`os.execve`."""
    _execute(invocation, originals.execve, path, argv, env)


def _execute(
    invocation: Invocation, original: Callable[..., Any], path: Any, argv: Any, *env: Any
) -> NoReturn:
    if not _is_usual(path, argv):
        original(path, argv, *env)  # raises the right error
    namespace = contained(invocation, f"os.{original.__name__}", path)
    if namespace is None:
        original(path, argv, *env)
    assert namespace is not None
    descriptor = path if type(path) is int else None
    program = path if descriptor is None else f"/proc/self/fd/{path}"
    start = start_of(invocation, [program], argv, None, entries_of(*env) if env else None)
    try:
        check(invocation, start)
    except OSError as exc:
        raise type(exc)(exc.errno, exc.strerror) from None  # exec's errors name no file
    inherited = [] if descriptor is None else [descriptor]
    with (
        namespace.careful(orders(start, inherited=inherited)) as (command, descriptors),
        _inheritable(descriptors),
    ):
        originals.execv(command[0], command)


def _is_usual(path: Any, argv: Any) -> bool:
    usual = isinstance(argv, (list, tuple)) and bool(argv) and bool(argv[0])
    return usual and (type(path) is int or not Given(path).odd)
