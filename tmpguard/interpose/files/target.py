"""Where a file to be written lies, and what opening or making it there costs."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from errno import EEXIST, EISDIR, ENOSPC, EROFS
from functools import partial
from typing import Any

from tmpguard.core import originals
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.pages import allocated
from tmpguard.core.storage.quota import Full
from tmpguard.interpose.paths import (
    BUFFERS,
    alive,
    entry,
    is_odd,
    like,
    place,
    quick_real,
    refuse,
    reraise,
    text,
)
from tmpguard.interpose.readonly import O_PATH, check_search, open_error

from .charge import too_many


def locate(
    invocation: Invocation, file: Any, flags: int, dir_fd: int | None = None, operation: str = "open"
) -> tuple[Any, bool]:
    """The real path to open ``file`` by for writing, and whether the file is charged to the quota.

    Raises OSError(EROFS) with the note and the violation outside the writable mounts (C2.1), and before it
    what the kernel reports first (C2.2).
    """
    real = quick_real(invocation, file) if dir_fd is None else None
    if real is not None:
        return real, True
    alive(invocation, operation, file)
    if (operation == "open" and isinstance(file, BUFFERS)) or is_odd(file):
        return file, False  # the original refuses it by itself
    try:
        making = bool(flags & os.O_CREAT)
        if making and not flags & O_PATH:
            _check_last(invocation, file, dir_fd, flags, operation)
        where = place(invocation, file, dir_fd, follow=_follows(flags), operation=operation, making=making)
        if not where.mount.writable:
            _check_read_only(invocation, file, where, flags, operation)
    except OSError as exc:
        reraise(exc, file)
    return like(file, where.real), where.mount.charged


def _check_last(invocation: Invocation, file: Any, dir_fd: int | None, flags: int, operation: str) -> None:
    """Raises EISDIR or EEXIST for a path that only a directory may have: what has it is not looked at."""
    name = text(file)
    if not name.endswith(("/", ".")):
        return
    where = entry(invocation, file, dir_fd, operation)
    if where.last or where.slash:
        check_search(where)  # whether it may be searched is told before
        raise os_error(EEXIST if where.last and flags & os.O_EXCL else EISDIR)


def _follows(flags: int) -> bool:
    return not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def _check_read_only(invocation: Invocation, file: Any, where: Place, flags: int, operation: str) -> None:
    code = open_error(where, flags)
    if code == EROFS:
        refuse(invocation, operation, file, where)
    elif code:
        raise OSError(code, os.strerror(code), file)


def opening(
    invocation: Invocation, name: Any, real: str, flags: int, call: Callable[[], Any], operation: str = "open"
) -> Any:
    """Run ``call``, which opens ``real`` in the scratch directory, and charge what it frees and makes.

    Without the lock where that is a FIFO: who opens it waits for its other end, perhaps.
    """
    quota = invocation.quota
    if flags & os.O_CREAT and quota.max_files is not None and not _is_pipe(real):
        call = partial(making, invocation, operation, name, real, call)
    if not flags & os.O_TRUNC or quota.credit >= quota.limit:
        return call()
    with quota.lock:
        try:
            status = originals.stat(real)
        except (OSError, ValueError):
            return call()  # which will say so, or make it
        if not modes.S_ISFIFO(status.st_mode):
            before = allocated(status, real)
            result = call()
            if before:
                quota.freed(before, status.st_ino)
            return result
    return call()


def _is_pipe(real: Any) -> bool:
    try:
        return modes.S_ISFIFO(originals.stat(real).st_mode)
    except (OSError, ValueError):
        return False


def making(
    invocation: Invocation,
    operation: str,
    name: Any,
    real: str,
    call: Callable[[], Any],
    *,
    nameless: bool = False,
) -> Any:
    """Run ``call``, which may make ``real``, or a nameless file in it, within ``max_files`` (C3.6)."""
    real = os.fsdecode(real)
    if real.endswith("/") and operation != "os.mkdir" and not nameless:
        return call()  # only a directory may be named like that, which the kernel says
    try:
        return invocation.quota.making(real, call, nameless=nameless)
    except Full:
        invocation.refuse(operation, ENOSPC, name, remedy=too_many(invocation))
        return call()
