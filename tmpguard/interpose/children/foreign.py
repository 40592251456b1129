"""Less usual ways to start a child process, patched if their modules are imported."""

from __future__ import annotations

import functools
import os
import stat as modes
from collections.abc import Awaitable, Callable, Iterable
from errno import ENOTDIR
from typing import Any, Final, TypeVar

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytesPath
from tmpguard.core.context import unguarded
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import get_current, redirecting
from tmpguard.core.reports import remedies
from tmpguard.interpose.raising import reraise

from .accounts import children_of, ended
from .commands import check_programs, entries_of, orders, program_start, quick_command, searched
from .permission import contained, named, refuse_child

T = TypeVar("T")

_SHELL: Final = "/bin/sh"


# --- uvloop --------------------------------------------------------------------------------------------


def uvloop_exec(original: Callable[..., Any]) -> Callable[..., Any]:
    """``uvloop.Loop.subprocess_exec``, which forks in native code."""

    @functools.wraps(original)
    async def subprocess_exec(
        self: object, protocol_factory: object, program: StrOrBytesPath, *args: StrOrBytesPath, **more: Any
    ) -> Any:
        start = functools.partial(original, self, protocol_factory)
        return await _in_uvloop(start, [program, *args], more)

    return subprocess_exec


def uvloop_shell(original: Callable[..., Any]) -> Callable[..., Any]:
    """``uvloop.Loop.subprocess_shell``: within an invocation, it calls ``subprocess_exec``."""

    @functools.wraps(original)
    async def subprocess_shell(self: Any, protocol_factory: object, command: object, **more: Any) -> Any:
        invocation = get_current()
        if invocation is not None and invocation.watches:
            contained(invocation, "loop.subprocess_shell", command)
        if redirecting() is None or not isinstance(command, (str, bytes)) or not more.pop("shell", True):
            return await original(self, protocol_factory, command, **more)
        shell = more.pop("executable", None) or _SHELL
        return await self.subprocess_exec(protocol_factory, shell, "-c", command, **more)

    return subprocess_shell


async def _in_uvloop(
    start: Callable[..., Awaitable[Any]], args: list[StrOrBytesPath], more: dict[str, Any]
) -> Any:
    """Run ``start``, which takes a command. Raises OSError if the program cannot be executed."""
    invocation = get_current()
    if invocation is None:
        return await start(*args, **more)
    operation, program = "loop.subprocess_exec", more.get("executable") or args[0]
    namespace = contained(invocation, operation, program)
    if namespace is None:
        return await start(*args, **more)
    more.pop("executable", None)
    environment = entries_of(more.pop("env", None))
    name = os.fsencode(program)
    programs = (name,) if b"/" in name else searched(name, _path_of(environment))
    directory = more.pop("cwd", None)
    wanted = program_start(invocation, programs, args, directory, environment)
    try:
        where = invocation.namespace.resolve(os.fsdecode(wanted.directory), follow=True)
        if not modes.S_ISDIR(originals.stat(where.real).st_mode):
            raise os_error(ENOTDIR)
    except OSError as exc:
        reraise(exc, directory)
    try:
        check_programs(invocation, wanted)
    except OSError as exc:
        reraise(exc, program)
    command = quick_command(invocation, namespace, wanted)
    if command is not None:
        result = await start(*command, env=_mapping(environment), **more)
        namespace.entering(result[0].get_pid())
    else:
        with namespace.careful(orders(wanted)) as (careful, descriptors):
            kept = (*more.pop("pass_fds", ()), *descriptors)
            result = await start(*careful, pass_fds=kept, **more)
    children_of(invocation).started(result[0].get_pid(), named(program))
    return result


def _path_of(environment: Iterable[bytes] | None) -> bytes | None:
    paths = (entry[5:] for entry in environment or () if entry.startswith(b"PATH="))
    return next(paths, None if environment is None else os.fsencode(os.defpath))


def _mapping(environment: Iterable[bytes] | None) -> dict[str, str] | None:
    if environment is None:
        return None
    return dict(os.fsdecode(entry).split("=", 1) for entry in environment)


def process_exited(original: Callable[..., Any]) -> Callable[..., Any]:
    """``process_exited`` of asyncio's subprocess protocol. uvloop waits for the process in native code."""

    @functools.wraps(original)
    def exited(self: object) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None:
            ended(transport.get_pid())
        original(self)

    return exited


# --- the fork server -----------------------------------------------------------------------------------


def fork_server(original: Callable[..., T]) -> Callable[..., T]:
    """Guard a call to multiprocessing's fork server, which belongs to the process, as its children do."""

    @functools.wraps(original)
    def call(*args: object) -> T:
        invocation = get_current()
        if invocation is not None:
            operation = "multiprocessing.Process"
            if invocation.guard.children == "contain":
                refuse_child(invocation, operation, "forkserver", remedies.FORK_SERVER)
            else:
                contained(invocation, operation, "forkserver")
        with unguarded():
            return original(*args)

    return call
