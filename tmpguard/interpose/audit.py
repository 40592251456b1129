"""The backstop: an audit hook that refuses what bypasses the patched layer (SURFACE rule 1.4).

A call through a reference that could not be replaced, or through ``posix`` itself, reaches the real file
system. The hook cannot redirect it, so it refuses a change outside the scratch directories and the writable
mounts. Reads pass. An audit hook cannot be removed: after an uninstall it returns at its first step. It is
added at the first invocation, because every audited event of the process pays for it.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from contextlib import suppress
from errno import EROFS
from socket import AF_UNIX
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.callers import calling_frame, is_importing
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import is_below
from tmpguard.core.presence import is_found
from tmpguard.core.reports import remedies
from tmpguard.core.speedups import add_audit_hook
from tmpguard.core.spelling import descriptor_path, is_encodable
from tmpguard.core.watching import Watching
from tmpguard.interpose.files.raw import Unopened
from tmpguard.interpose.sqlite.fallback import Resolved

from .given import Given, is_descriptor, text_of
from .modes import CHANGING, opens_to_write
from .paths import resolve, resolve_entry
from .readonly import holder_of
from .watching.judging import is_charged, quietly

_IMPORTER: Final = "<frozen importlib._bootstrap_external>"


def _opened(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    _, mode, flags = args
    changes = isinstance(flags, int) and (opens_to_write(flags) or flags & (os.O_CREAT | os.O_TRUNC))
    return [(args[0], -1)] if changes or (not flags and _is_for_writing(mode)) else []


def _is_for_writing(mode: object) -> bool:
    """True for the mode of a C stream (``FILE *``) that native code opens for writing."""
    return isinstance(mode, str) and not {"w", "a", "+", "x"}.isdisjoint(mode)


def _first_with(index: int) -> Callable[[tuple[Any, ...]], list[tuple[Any, int]]]:
    return lambda args: [(args[0], args[index])]


def _first(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    return [(args[0], -1)]


def _both(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    return [(args[0], args[2]), (args[1], args[3])]


def _second(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    return [(args[1], args[-1])]


def _database(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    if isinstance(args[0], Resolved):
        return []
    name = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes, os.PathLike)) else ""
    if not name or name == ":memory:" or "mode=memory" in name or "mode=ro" in name or "immutable=1" in name:
        return []
    return [(name.removeprefix("file:").partition("?")[0], -1)]


def _bound(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    sock, address = args
    if not isinstance(address, (str, bytes, bytearray, memoryview)) or sock.family != AF_UNIX:
        return []
    name = os.fsdecode(bytes(address) if not isinstance(address, str) else address).partition("\0")[0]
    return [(name, -1)] if name else []  # otherwise the address is not a path


def _child(_: tuple[Any, ...]) -> list[tuple[Any, int]]:
    invocation = get_current()
    if invocation is not None:
        invocation.mounted.share()
    return []


#: By event, the function that returns the paths about to be changed, each with the descriptor of the
#: directory that it is relative to (-1 for none).
_EVENTS: Final[dict[str, Callable[[tuple[Any, ...]], list[tuple[Any, int]]]]] = {
    "open": _opened,
    "os.mkdir": _first_with(2),
    "os.remove": _first_with(1),
    "os.rmdir": _first_with(1),
    "os.rename": _both,
    "os.link": lambda args: [(args[1], args[3])],
    "os.symlink": _second,
    "os.truncate": _first,
    "os.chmod": _first_with(2),
    "os.chown": _first_with(3),
    "os.utime": _first_with(3),
    "os.setxattr": _first,
    "os.removexattr": _first,
    "socket.bind": _bound,
    "sqlite3.connect": _database,
    "subprocess.Popen": _child,
    "os.posix_spawn": _child,
    "os.fork": _child,
    "os.forkpty": _child,
}

#: Events that change the directory entry at the path, and so its directory, rather than the file itself.
_OF_ENTRIES: Final = frozenset(
    {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "socket.bind"}
)

#: Those that only remove an entry.
_REMOVING: Final = frozenset({"os.remove", "os.rmdir"})

_active: dict[str, Callable[[tuple[Any, ...]], list[tuple[Any, int]]]] = {}
_added = False


def arm() -> None:
    """Start refusing changes that bypass the patched layer."""
    global _added
    _active.update(_EVENTS)
    if not _added:
        _added = True
        add_audit_hook(_hook, CHANGING)


def disarm() -> None:
    """Stop refusing anything."""
    _active.clear()


def is_armed() -> bool:
    """Whether the hook refuses changes."""
    return bool(_active)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every open() of the process pays for these lines. Outside an invocation, return at once.
    invocation = get_current()
    if invocation is None:
        return
    if event == "open":
        flags = args[2]
        # Nearly all files are opened for reading. If there are no flags, it is a C stream.
        if type(flags) is int and not flags & CHANGING and (flags or not _is_for_writing(args[1])):
            return
    paths_of = _active.get(event)
    if paths_of is None:
        return
    if isinstance(invocation, Watching):
        if event != "sqlite3.connect":  # judged where it is intercepted
            quietly(_watch, invocation, event, paths_of(args))
        return
    for path, dir_fd in paths_of(args):
        if not _may_pass(invocation, path, dir_fd, entry=event in _OF_ENTRIES):
            _refuse(invocation, event, path)
            return


def _watch(invocation: Watching, event: str, paths: list[tuple[Any, int]]) -> None:
    """Record what is about to bypass the patched layer, unless it is going to fail (C2.5)."""
    for path, dir_fd in paths:
        if isinstance(path, Unopened) or is_descriptor(path):
            continue
        given = Given(path, None if dir_fd < 0 else dir_fd, wanted=None)
        if given.odd:
            continue
        of_entry = event in _OF_ENTRIES
        where = resolve_entry(invocation, given) if of_entry else resolve(invocation, given, making=True)
        if is_charged(invocation, where.virtual, where.parent if of_entry else where.mount):
            invocation.ledger.removing(where.real) if event in _REMOVING else invocation.ledger.follow(
                where.real
            )
        elif not _may_change(invocation, where.real, entry=of_entry) and is_found(holder_of(where)):
            _refuse(invocation, event, path)
            return


def _may_pass(invocation: Invocation, path: Any, dir_fd: int, *, entry: bool) -> bool:
    if isinstance(path, Unopened) or is_descriptor(path):
        return True  # a descriptor was checked when it was opened
    name = text_of(path)
    if not is_encodable(name):
        return True  # the call itself refuses it
    if not name.startswith("/"):
        base = originals.getcwd() if dir_fd < 0 else descriptor_path(dir_fd)
        if not base:
            return True  # too deep for the kernel to report its path
        name = os.path.normpath(os.path.join(base, name))
    elif "/.." in name:
        name = os.path.normpath(name)
    return _may_change(invocation, name, entry=entry)


def _refuse(invocation: Invocation, event: str, path: object) -> None:
    if _by_importer() and is_importing():
        if invocation.watches:
            return
        # The interpreter continues without writing bytecode, so there is nothing to report.
        raise OSError(EROFS, os.strerror(EROFS), path)
    invocation.refuse(event, EROFS, path, remedy=remedies.NOT_REPLACED, advise=False)


def _by_importer() -> bool:
    """Whether the interpreter's importer made the call, directly or through its proxy module."""
    frame = calling_frame()
    return frame is not None and frame.f_code.co_filename == _IMPORTER


def _may_change(invocation: Invocation, real: str, *, entry: bool) -> bool:
    guard = invocation.guard
    if real.startswith("/proc/"):
        real = _behind_descriptor(real)
    if guard.scratch.holds(real) or real in guard.mounts.journals:
        return True
    changed = os.path.dirname(real) if entry else real
    if any(is_below(changed, path) for path in guard.passed_through):
        return True
    try:
        mode = originals.stat(real).st_mode
    except OSError:
        return False
    return not (modes.S_ISREG(mode) or modes.S_ISDIR(mode))


def _behind_descriptor(real: str) -> str:
    """The path that ``real``, of the form ``/proc/self/fd/N`` or ``/proc/self/fd/N/name``, leads to."""
    head, separator, tail = real.partition("/fd/")
    number, slash, rest = tail.partition("/")
    with suppress(OSError):
        target = originals.readlink(f"{head}{separator}{number}")
        if target.startswith("/"):
            return f"{target}{slash}{rest}"
    return real
