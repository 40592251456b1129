"""``os.open`` and the calls that write by descriptor (C3.5)."""

from __future__ import annotations

import operator
import os
import stat as modes
import threading
from collections.abc import Callable, Sequence
from errno import EINVAL, ENOSPC, EROFS
from functools import partial
from typing import Any, Final, TypeVar

from tmpguard.core import originals
from tmpguard.core.aliases import (
    PathOrDescriptor,
    ReadableBuffer,
    StrOrBytes,
    StrOrBytesPath,
    WriteableBuffer,
)
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports.remedies import note_full_disk
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.openfiles import fill_holes
from tmpguard.interpose.given import Given
from tmpguard.interpose.modes import CHANGING, WRITING
from tmpguard.interpose.paths import exists, hold, readable, resolve
from tmpguard.interpose.raising import alive, alive_to_read, refuse, reraise
from tmpguard.interpose.readonly import O_PATH, O_TMPFILE, truncate_error

from .charge import bytes_of, full_remedy, touched
from .raw import Unopened, handing_over
from .target import locate, making, opening

T = TypeVar("T")

_WITH_O_PATH: Final = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RWF_APPEND: Final = getattr(os, "RWF_APPEND", 0)
#: What file systems support or refuse: the disk's is not the one that an invocation sees.
_RWF_SUPPORTED: Final = (
    getattr(os, "RWF_NOWAIT", 0) | getattr(os, "RWF_ATOMIC", 0) | getattr(os, "RWF_DONTCACHE", 0)
)


def open(
    invocation: Invocation, path: StrOrBytesPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
) -> int:
    """:func:`os.open`: the descriptor is a real one, of the file behind the invocation's path."""
    given = Given(path, dir_fd)
    if given.odd:
        return originals.os_open(given.name, flags, mode)
    if flags & O_PATH:
        flags &= _WITH_O_PATH  # the kernel ignores the others
    try:
        _check_flags(flags)
        if flags & CHANGING:
            return _open_to_change(invocation, given, flags, mode)
        alive_to_read(invocation, "os.open", given)
        real = readable(invocation, given, operation="os.open", follow=not flags & os.O_NOFOLLOW)
        hold(invocation, real)
        fd = originals.os_open(real, flags, mode)
        invocation.namespace.opened(fd, real)
        return fd
    except OSError as exc:
        reraise(exc, given.name, "os.open", making=bool(flags & os.O_CREAT))


def _check_flags(flags: int) -> None:
    """Flags that do not go together are reported before the path is looked at; which, the kernel knows."""
    if flags & os.O_DIRECTORY and (flags & os.O_CREAT or _is_nameless(flags)):
        try:
            originals.close(originals.os_open(Unopened("/dev/null/"), flags))
        except OSError as exc:
            if exc.errno == EINVAL:
                raise


def _is_nameless(flags: int) -> bool:
    return bool(O_TMPFILE) and flags & O_TMPFILE == O_TMPFILE


def _open_to_change(invocation: Invocation, given: Given, flags: int, mode: int) -> int:
    alive(invocation, "os.open", given.name)
    real, charged = locate(invocation, given, flags, "os.open")
    if not charged:
        return _open_elsewhere(invocation, real, flags, mode)
    fd = _open_charged(invocation, given, real, flags, mode)
    if flags & WRITING and threading.get_ident() not in handing_over:
        status = originals.fstat(fd)
        if modes.S_ISREG(status.st_mode):
            invocation.expose(fd, status, "" if flags & O_TMPFILE else os.fsdecode(real))
    return fd


def _open_elsewhere(invocation: Invocation, real: StrOrBytes, flags: int, mode: int) -> int:
    """Open what is not charged: on a writable mount, or a device."""
    if not flags & os.O_TRUNC and flags & WRITING in (os.O_RDONLY, WRITING) and exists(real):
        flags &= ~os.O_CREAT  # there is nothing to make, so nothing for the backstop to refuse
    fd = originals.os_open(real, flags, mode)
    invocation.namespace.opened(fd, os.fsdecode(real))
    return fd


def _open_charged(invocation: Invocation, given: Given, real: StrOrBytes, flags: int, mode: int) -> int:
    call = partial(originals.os_open, real, flags, mode)
    if not _is_nameless(flags):
        return opening(invocation, given.name, real, flags, call, "os.open")
    # Nameless, but an inode all the same.
    invocation.reusable = False
    fd = making(invocation, "os.open", given.name, real, call, nameless=True)
    invocation.quota.reused(originals.fstat(fd).st_ino)
    return fd


def dup(invocation: Invocation, fd: int, /) -> int:
    """:func:`os.dup`: it may be written by when the first one is closed."""
    new = originals.dup(fd)
    if invocation.owns(new) and not invocation.ended and modes.S_ISREG(originals.fstat(new).st_mode):
        invocation.expose(new)
    return new


def dup2(invocation: Invocation, fd: int, fd2: int, inheritable: bool = True) -> int:
    """:func:`os.dup2`."""
    new: int = originals.dup2(fd, fd2, inheritable)
    if invocation.owns(new) and not invocation.ended and modes.S_ISREG(originals.fstat(new).st_mode):
        invocation.expose(new)
    return new


# --- which descriptors are charged ---------------------------------------------------------------------


def is_charged(invocation: Invocation, operation: str, fd: int) -> bool:
    """Is ``fd`` a regular file of the scratch directory? Sockets, pipes and devices pass (C1.3).

    Raises OSError(ESTALE) for a regular file when the invocation is over (C4.5).
    """
    if type(fd) is not int:
        try:
            fd = operator.index(fd)
        except TypeError:
            return False  # the original says what it wants
    try:
        regular = modes.S_ISREG(originals.fstat(fd).st_mode)
    except OSError:
        return False
    if not regular:
        return False
    alive(invocation, operation, fd)
    return invocation.owns(fd)


def charged(
    invocation: Invocation, operation: str, fd: int, size: int, offset: int | None, call: Callable[[int], T]
) -> T:
    """``call`` with as many of ``size`` bytes as fit (C3.4)."""
    quota = invocation.quota
    with quota.lock:
        stamp = quota.stamp + 1
        try:
            fits = quota.charge(fd, size, offset)
        except Full:
            fits = 0
        if size and not fits:
            call(0)  # what the kernel has against the call itself is told first
            touched(fd)
            raise invocation.refusal(operation, ENOSPC, None, about=fd, remedy=full_remedy(invocation))
        try:
            result = call(fits)
        except BaseException as exc:
            quota.doubt()
            note_full_disk(exc)
            raise
        if quota.stamp != stamp or (isinstance(result, int) and result != fits):
            quota.doubt()
        return result


# --- writing -------------------------------------------------------------------------------------------


def write(invocation: Invocation, fd: int, data: ReadableBuffer, /) -> int:
    view = bytes_of(data) if is_charged(invocation, "os.write", fd) else None
    if view is None:
        return originals.write(fd, data)
    return charged(invocation, "os.write", fd, len(view), None, lambda size: originals.write(fd, view[:size]))


def pwrite(invocation: Invocation, fd: int, buffer: ReadableBuffer, offset: int, /) -> int:
    view = bytes_of(buffer) if is_charged(invocation, "os.pwrite", fd) else None
    if view is None:
        return originals.pwrite(fd, buffer, offset)  # type: ignore[no-any-return]
    return charged(  # type: ignore[no-any-return]
        invocation,
        "os.pwrite",
        fd,
        len(view),
        offset,
        lambda size: originals.pwrite(fd, view[:size], offset),
    )


def writev(invocation: Invocation, fd: int, buffers: Sequence[ReadableBuffer], /) -> int:
    views = _views(buffers) if is_charged(invocation, "os.writev", fd) else None
    if views is None:
        return originals.writev(fd, buffers)  # type: ignore[no-any-return]
    total = _total(views)
    return charged(  # type: ignore[no-any-return]
        invocation, "os.writev", fd, total, None, lambda size: originals.writev(fd, _first(views, size))
    )


def pwritev(
    invocation: Invocation, fd: int, buffers: Sequence[ReadableBuffer], offset: int, flags: int = 0, /
) -> int:
    views = _views(buffers) if is_charged(invocation, "os.pwritev", fd) else None
    if views is None:
        return originals.pwritev(fd, buffers, offset, flags)  # type: ignore[no-any-return]
    total = _total(views)

    def call(size: int) -> Any:
        return originals.pwritev(fd, _first(views, size), offset, flags)

    if flags & _RWF_SUPPORTED and total:
        call(0)  # what the kernel has against the call itself is told first
        _try_on_tmpfs(lambda memory: originals.pwritev(memory, [b"-"], 0, flags))
    at = None if offset == -1 else offset  # -1 stands for where the descriptor is
    if flags & _RWF_APPEND:
        at = originals.fstat(fd).st_size
    return charged(invocation, "os.pwritev", fd, total, at, call)  # type: ignore[no-any-return]


def preadv(
    invocation: Invocation, fd: int, buffers: Sequence[WriteableBuffer], offset: int, flags: int = 0, /
) -> int:
    """:func:`os.preadv`: reading needs nothing, but for flags that a tmpfs may refuse."""
    if flags & _RWF_SUPPORTED and invocation.owns(fd):
        views = _views(buffers)
        if views and _total(views) and not any(view.readonly for view in views):
            originals.preadv(fd, [bytearray()], offset, flags)
            _try_on_tmpfs(lambda memory: originals.preadv(memory, [bytearray(1)], 0, flags))
    return originals.preadv(fd, buffers, offset, flags)  # type: ignore[no-any-return]


def _try_on_tmpfs(call: Callable[[int], object]) -> None:
    """Raises OSError as ``call`` does with a file of one byte on a tmpfs."""
    memory = os.memfd_create("tmpguard", os.MFD_CLOEXEC)
    try:
        originals.write(memory, b"-")
        call(memory)
    finally:
        originals.close(memory)


def _views(buffers: Sequence[ReadableBuffer]) -> list[memoryview] | None:
    """The bytes of ``buffers``; None where the original refuses one of them in its own words."""
    if not hasattr(type(buffers), "__getitem__") or isinstance(buffers, dict):
        return None
    views = []
    for buffer in buffers:
        view = bytes_of(buffer)
        if view is None and not _is_empty(buffer):
            return None
        views.append(memoryview(b"") if view is None else view)  # an empty one is false
    return views


def _is_empty(buffer: ReadableBuffer) -> bool:
    try:
        view = memoryview(buffer)
    except TypeError:
        return False
    return view.c_contiguous and not view.nbytes


def _total(views: list[memoryview]) -> int:
    return sum(view.nbytes for view in views)


def _first(views: list[memoryview], size: int) -> list[memoryview]:
    """The first ``size`` bytes of ``views``."""
    taken = []
    for view in views:
        taken.append(view[:size])
        size -= len(taken[-1])
        if not size:
            break
    return taken


# --- lengths -------------------------------------------------------------------------------------------


def ftruncate(invocation: Invocation, fd: int, length: int, /) -> None:
    if not is_charged(invocation, "os.ftruncate", fd):
        return originals.ftruncate(fd, length)
    invocation.quota.changing(fd, lambda: originals.ftruncate(fd, length))
    return None


def truncate(invocation: Invocation, path: PathOrDescriptor, length: int) -> None:
    alive(invocation, "os.truncate", path)
    if type(path) is int:
        return ftruncate(invocation, path, length)
    given = Given(path)
    if given.odd:
        return originals.truncate(given.name, length)
    try:
        if length < 0:
            raise os_error(EINVAL)
        return _truncate(invocation, given, length)
    except OSError as exc:
        reraise(exc, given.name, "os.truncate")


def _truncate(invocation: Invocation, given: Given, length: int) -> None:
    where = resolve(invocation, given, operation="os.truncate")
    if not where.mount.writable:
        code = truncate_error(where, length)
        if code == EROFS:
            refuse(invocation, "os.truncate", given, where)
        elif code:
            raise os_error(code)
    if not where.mount.charged or not modes.S_ISREG(originals.stat(where.real).st_mode):
        return originals.truncate(where.real, length)
    fd = originals.os_open(where.real, os.O_WRONLY | os.O_CLOEXEC)
    try:
        invocation.quota.changing(fd, lambda: originals.ftruncate(fd, length))
    finally:
        originals.close(fd)
    return None


def posix_fallocate(invocation: Invocation, fd: int, offset: int, length: int, /) -> None:
    if offset < 0 or length <= 0 or not is_charged(invocation, "os.posix_fallocate", fd):
        return originals.posix_fallocate(fd, offset, length)  # type: ignore[no-any-return]
    quota = invocation.quota
    with quota.lock:
        try:
            quota.charge_whole(fd, length, offset)
        except Full:
            originals.write(fd, b"")  # may not be open for writing, which is told first
            remedy = full_remedy(invocation)
            raise invocation.refusal("os.posix_fallocate", ENOSPC, None, about=fd, remedy=remedy) from None
        originals.posix_fallocate(fd, offset, length)
        fill_holes(fd, offset, length)
    return None
