"""The backstop: what slips by the patched layer is refused by an audit hook (SURFACE rule 1.4).

A reference to a function that was taken before tmpguard was installed and could not be reached, or a call
of ``posix`` itself, arrives at the real file system. It cannot be redirected from here, so a change outside
of the scratch directories and the writable mounts is refused. Reading passes. An audit hook cannot be taken
out again: uninstalled, it returns at its first step. And since every audited event pays for it, a process
pays only from its first invocation on.
"""

from __future__ import annotations

import os
import stat as modes
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EROFS
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.callers import is_importing
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import is_below
from tmpguard.core.reports import remedies
from tmpguard.core.spelling import descriptor_path
from tmpguard.interpose.files.raw import Unopened
from tmpguard.interpose.sqlite.fallback import Resolved

from . import importing
from .given import text_of
from .modes import CHANGING, WRITING
from .wrapper import is_descriptor

_IMPORTERS: Final = ("<frozen importlib._bootstrap_external>", importing.__file__)


def _opened(args: tuple[Any, ...]) -> list[tuple[Any, int]]:
    flags = args[2]
    changes = isinstance(flags, int) and (
        flags & WRITING in (os.O_WRONLY, os.O_RDWR) or flags & (os.O_CREAT | os.O_TRUNC)
    )
    return [(args[0], -1)] if changes else []


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


def _child(_: tuple[Any, ...]) -> list[tuple[Any, int]]:
    invocation = get_current()
    if invocation is not None:
        invocation.mounted.share()
    return []


#: The paths that each event is about to change, with the descriptors they are relative to (-1: none).
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
    "sqlite3.connect": _database,
    "subprocess.Popen": _child,
    "os.posix_spawn": _child,
    "os.fork": _child,
    "os.forkpty": _child,
}

_active: dict[str, Callable[[tuple[Any, ...]], list[tuple[Any, int]]]] = {}
_added = False


def arm() -> None:
    """Refuse what slips by from now on."""
    global _added
    _active.update(_EVENTS)
    if not _added:
        _added = True
        sys.addaudithook(_hook)


def disarm() -> None:
    """Let everything pass again."""
    _active.clear()


def is_armed() -> bool:
    return bool(_active)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every open() of the process pays for these lines: what is outside of an invocation leaves first.
    invocation = get_current()
    if invocation is None:
        return
    if event == "open":
        flags = args[2]
        if type(flags) is int and not flags & CHANGING:
            return  # nearly all that is opened is opened for reading
    paths_of = _active.get(event)
    if paths_of is None:
        return
    for path, dir_fd in paths_of(args):
        if not _may_pass(invocation, path, dir_fd):
            _refuse(invocation, event, path)
            return


def _may_pass(invocation: Invocation, path: Any, dir_fd: int) -> bool:
    if isinstance(path, Unopened) or is_descriptor(path):
        return True  # a descriptor was checked when it was opened
    name = text_of(path)
    if not name.startswith("/"):
        base = originals.getcwd() if dir_fd < 0 else descriptor_path(dir_fd)
        if not base:
            return True  # too deep for the kernel to tell where it is
        name = os.path.normpath(os.path.join(base, name))
    return _may_change(invocation, name)


def _refuse(invocation: Invocation, event: str, path: object) -> None:
    if sys._getframe(2).f_code.co_filename in _IMPORTERS and is_importing():
        if not invocation.guard.enforce:
            return
        # The interpreter does without its bytecode there; that is nothing to report.
        raise OSError(EROFS, os.strerror(EROFS), path)
    if not invocation.was_let_through():
        invocation.refuse(event, EROFS, path, remedy=remedies.NOT_REPLACED, advise=False)


def _may_change(invocation: Invocation, real: str) -> bool:
    guard = invocation.guard
    if real.startswith("/proc/") and os.path.dirname(real).endswith("/fd"):
        with suppress(OSError):
            target = originals.readlink(real)
            real = target if target.startswith("/") else real
    if guard.scratch.holds(real) or any(is_below(real, path) for path in guard.writable):
        return True
    try:
        mode = originals.stat(real).st_mode
    except OSError:
        return False
    return not (modes.S_ISREG(mode) or modes.S_ISDIR(mode))
