"""Where a file to be written lies, and what opening or making it there costs."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from contextlib import suppress
from errno import EEXIST, EISDIR, ENOSPC, EROFS
from functools import partial
from typing import Any, TypeVar

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.quota import Quota
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import quick_real_of, resolve, resolve_entry
from tmpguard.interpose.raising import alive, refuse, reraise
from tmpguard.interpose.readonly import O_PATH, check_search, open_error

from .charge import too_many

T = TypeVar("T")


def locate(invocation: Invocation, given: Given, flags: int, operation: str = "open") -> tuple[Any, bool]:
    """The real path to open a file by for writing, and whether the file is charged to the quota.

    Raises OSError(EROFS) with the note and the violation outside the writable mounts (C2.1), and before it
    what the kernel reports first (C2.2).
    """
    real = quick_real_of(invocation, given)
    if real is not None:
        return given.like(real), True
    alive(invocation, operation, given.name)
    if given.odd:
        return given.name, False  # the original refuses it by itself
    try:
        making = bool(flags & os.O_CREAT)
        creating = making and not flags & O_PATH
        if creating:
            _check_last(invocation, given, flags, operation)
        where = resolve(
            invocation,
            given,
            follow=_follows(flags),
            operation=operation,
            making=making,
            creating=creating,
        )
        if not where.mount.writable:
            code = open_error(where, flags)
            if code == EROFS:
                refuse(invocation, operation, given, where)
            elif code:
                raise os_error(code)
    except OSError as exc:
        reraise(exc, given.name, operation, making=bool(flags & os.O_CREAT))
    return given.like(where.real), where.mount.charged


def _check_last(invocation: Invocation, given: Given, flags: int, operation: str) -> None:
    """Raises EISDIR or EEXIST for a path that only a directory may have: what has it is not looked at."""
    if not given.text.endswith(("/", ".")):
        return
    where = resolve_entry(invocation, given, operation)
    if where.last or where.slash:
        check_search(where)  # whether it may be searched is reported before
        raise os_error(EEXIST if where.last and flags & os.O_EXCL else EISDIR)


def _follows(flags: int) -> bool:
    return not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def opening(
    invocation: Invocation,
    name: object,
    real: StrOrBytes,
    flags: int,
    call: Callable[[], T],
    operation: str = "open",
) -> T:
    """Run ``call``, which opens ``real`` in the scratch directory, perhaps while other files are written."""
    volume = invocation.volume
    if volume.writes():
        share(volume.quota, real)
    return accounting(invocation, name, real, flags, call, operation)


def accounting(
    invocation: Invocation,
    name: object,
    real: StrOrBytes,
    flags: int,
    call: Callable[[], T],
    operation: str = "open",
) -> T:
    """Run ``call``, which opens ``real`` in the scratch directory, and charge or free what it changes."""
    quota = invocation.quota
    if flags & os.O_CREAT and quota.max_files is not None and not _is_pipe(real):
        call = partial(making, invocation, operation, name, real, call)
    if not flags & os.O_TRUNC or quota.credit >= quota.limit:
        return call()
    return quota.emptying(real, call)


def share(quota: Quota, real: StrOrBytes) -> None:
    """Before ``real`` is opened for writing while other files are: if it exists, it may be one of them."""
    with suppress(OSError, ValueError):
        inode = originals.stat(real).st_ino
        with quota.lock:
            quota.shared.add(inode)
            quota.cuts += 1


def _is_pipe(real: StrOrBytes) -> bool:
    try:
        return modes.S_ISFIFO(originals.stat(real).st_mode)
    except (OSError, ValueError):
        return False


def making(
    invocation: Invocation,
    operation: str,
    name: object,
    real: StrOrBytes,
    call: Callable[[], T],
    *,
    nameless: bool = False,
) -> T:
    """Run ``call``, which may make ``real``, or a nameless file in it, within ``max_files`` (C3.6)."""
    quota = invocation.quota
    if quota.max_files is None:
        return call()
    real = os.fsdecode(real)
    if real.endswith("/") and operation != "os.mkdir" and not nameless:
        return call()  # only a directory may be named like that, which the kernel says
    try:
        return quota.making(real, call, nameless=nameless)
    except Full:
        raise invocation.refusal(operation, ENOSPC, name, remedy=too_many(invocation)) from None
