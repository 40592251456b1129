"""The calls that make, remove, rename and alter directory entries."""

from __future__ import annotations

import os
import stat as modes
import sys
from collections.abc import Callable
from errno import EBUSY, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, EROFS, EXDEV
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.lookup import PATH_MAX
from tmpguard.core.mounts.table import Place
from tmpguard.core.spelling import spelled
from tmpguard.core.storage.pages import SHORT_SYMLINK, allocated
from tmpguard.core.storage.quota import Full
from tmpguard.interpose.files.charge import full
from tmpguard.interpose.files.target import making
from tmpguard.interpose.paths import alive, entry, is_odd, place, put_name, quick_real, stop, text
from tmpguard.interpose.readonly import (
    check_search,
    making_error,
    mount_point_error,
    rename_error,
    rmdir_error,
    unlink_error,
)

# --- making --------------------------------------------------------------------------------------------


def _make(
    invocation: Invocation,
    operation: str,
    given: Any,
    dir_fd: int | None,
    call: Callable[[Any], Any],
    *,
    directory: bool = False,
    names: bool = True,
) -> Any:
    """``call`` with the real path at which ``given`` is to be made.

    ``names`` says whether the original's errors bear the path: mkfifo's and mknod's do not.
    """
    alive(invocation, operation, given)
    if is_odd(given):
        return call(given)
    try:
        real = quick_real(invocation, given) if dir_fd is None else None
        if real is None:
            where = entry(invocation, given, dir_fd, operation)
            if where.last or where.virtual in invocation.guard.mounts.points:
                originals.lstat(where.real)
                raise os_error(EEXIST)
            if not where.parent.writable:
                stop(invocation, operation, making_error(where, directory=directory), given, where)
            real = where.real
            if not where.parent.charged:
                return call(real)
        return making(invocation, operation, given, real, partial(call, real))
    except OSError as exc:
        put_name(exc, given, names)
        raise


def mkdir(invocation: Invocation, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    _make(invocation, "os.mkdir", path, dir_fd, lambda real: originals.mkdir(real, mode), directory=True)


def mkfifo(invocation: Invocation, path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
    _make(invocation, "os.mkfifo", path, dir_fd, lambda real: originals.mkfifo(real, mode), names=False)


def mknod(
    invocation: Invocation, path: Any, mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None
) -> None:
    _make(invocation, "os.mknod", path, dir_fd, lambda real: originals.mknod(real, mode, device), names=False)


def symlink(
    invocation: Invocation,
    src: Any,
    dst: Any,
    target_is_directory: bool = False,
    *,
    dir_fd: int | None = None,
) -> None:
    """The link holds the text that it was given: readlink gives it back, and the walk reads it as ours."""

    def call(real: Any) -> None:
        # From now on text alone does not tell where a path leads.
        invocation.volume.forget_prefix()
        make = partial(originals.symlink, src, real, target_is_directory)
        length = len(os.fsencode(src))
        if length < SHORT_SYMLINK or not invocation.guard.scratch.holds(text(real)):
            make()
            return
        try:
            invocation.quota.charging(length, make)
        except Full:
            originals.symlink(".", real)  # what else is in its way is told first
            originals.unlink(real)
            invocation.refuse("os.symlink", ENOSPC, src, dst, about=dst, remedy=full(invocation))
            make()

    if is_odd(src) or is_odd(dst):
        return originals.symlink(src, dst, target_is_directory, dir_fd=dir_fd)  # says so before it looks
    try:
        if not 0 < len(os.fsencode(src)) < PATH_MAX:
            raise os_error(ENAMETOOLONG if src else ENOENT)  # told before the link is looked at
        _make(invocation, "os.symlink", dst, dir_fd, call)
    except OSError as exc:
        exc.filename, exc.filename2 = spelled(src), spelled(dst)
        raise


#: Does ``os.link`` follow a link by default? Before 3.14 only where it was given a descriptor, since it calls
#: link(2) otherwise, which follows none.
_LINK_FOLLOWS: Final = sys.version_info >= (3, 14)


def link(
    invocation: Invocation,
    src: Any,
    dst: Any,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    alive(invocation, "os.link", dst)
    if is_odd(src) or is_odd(dst):
        originals.link(src, dst)
    by_linkat = _LINK_FOLLOWS or src_dir_fd is not None or dst_dir_fd is not None
    follow = follow_symlinks and by_linkat
    try:
        source = place(invocation, src, src_dir_fd, follow=follow, operation="os.link")
        status = originals.lstat(source.real)
        target = entry(invocation, dst, dst_dir_fd, "os.link")
        foreign = source.mount is not target.parent or bool(target.last)
        if foreign or not target.parent.writable or target.virtual in invocation.guard.mounts.points:
            check_search(target)
            code = making_error(target, directory=False)
            code = EXDEV if code == EROFS and target.parent.writable else code
            stop(invocation, "os.link", code, src, target, dst)
        # What a link of /proc stands for is linked only by way of it, which linkat(2) does.
        by_way = follow and source.mount is not source.parent
        way: dict[str, Any] = {"src_dir_fd": 0} if by_way else {"follow_symlinks": False}
        call = partial(originals.link, source.real, target.real, **way)
        if by_way:
            status = originals.stat(source.real)
        if target.parent.charged and by_way and not status.st_nlink:
            call()  # the first name of a nameless file is no further inode
            invocation.quota.named(status.st_ino)
        elif target.parent.charged and not modes.S_ISDIR(status.st_mode):
            making(invocation, "os.link", dst, target.real, call)
        else:
            call()
    except OSError as exc:
        exc.filename, exc.filename2 = spelled(src), spelled(dst)
        raise


# --- removing ------------------------------------------------------------------------------------------


def _remove(
    invocation: Invocation,
    operation: str,
    given: Any,
    dir_fd: int | None,
    call: Callable[[Any], None],
    code_of: Callable[[Place], int],
) -> None:
    alive(invocation, operation, given)
    if is_odd(given):
        call(given)
    try:
        real = quick_real(invocation, given) if dir_fd is None else None
        if real is None:
            where = entry(invocation, given, dir_fd, operation)
            if where.last:
                originals.lstat(where.real)
                raise os_error(code_of(where))
            if not where.parent.writable:
                stop(invocation, operation, code_of(where), given, where)
            elif where.virtual in invocation.guard.mounts.points:
                raise os_error(EBUSY if call is originals.rmdir else EISDIR)
            real = where.real
            if not where.parent.charged:
                call(real)
                return
        _remove_charged(invocation, real, call)
    except OSError as exc:
        exc.filename = spelled(given)
        raise


def _remove_charged(invocation: Invocation, real: str, call: Callable[[Any], None]) -> None:
    invocation.reusable = False  # what was unlinked may be open
    quota = invocation.quota
    if quota.credit >= quota.limit and quota.max_files is None:
        call(real)  # nothing was charged, so nothing can be given back
        return
    with quota.lock:
        status = originals.lstat(real.rstrip("/"))
        size = allocated(status, real)
        call(real)
        quota.unlinked(status, size)


def unlink(invocation: Invocation, path: Any, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.unlink", path, dir_fd, originals.unlink, unlink_error)


def remove(invocation: Invocation, path: Any, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.remove", path, dir_fd, originals.remove, unlink_error)


def rmdir(invocation: Invocation, path: Any, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.rmdir", path, dir_fd, originals.rmdir, rmdir_error)


# --- renaming ------------------------------------------------------------------------------------------


def _rename(
    invocation: Invocation,
    operation: str,
    call: Callable[[Any, Any], None],
    src: Any,
    dst: Any,
    src_dir_fd: int | None,
    dst_dir_fd: int | None,
) -> None:
    alive(invocation, operation, dst)
    if is_odd(src) or is_odd(dst):
        call(src, dst)
    try:
        source = entry(invocation, src, src_dir_fd, operation)
        try:
            target = entry(invocation, dst, dst_dir_fd, operation)
        except OSError:
            check_search(source)  # whether it may be searched is told before
            raise
        code = rename_error(source, target)
        if code:
            check_search(source)
            check_search(target)
        if code == EXDEV and not (source.parent.writable and target.parent.writable):
            # Refused because one side is read-only: a finding, though the errno is the mounts'.
            where, given = (target, dst) if source.parent.writable else (source, src)
            invocation.refuse(
                operation, EXDEV, src, dst, about=given, remedy=invocation.remedy_for(where, given)
            )
        else:
            stop(invocation, operation, code, src, target, dst)
        points = invocation.guard.mounts.points
        if source.virtual == target.virtual and source.virtual in points:
            return  # it has that name
        if source.virtual in points or target.virtual in points:
            raise os_error(mount_point_error(source, target))
        if target.parent.charged and source.parent.charged:
            _rename_charged(invocation, source.real, target.real, call)
        else:
            call(source.real, target.real)
        invocation.namespace.moved(source.virtual, target.virtual)
    except OSError as exc:
        exc.filename, exc.filename2 = spelled(src), spelled(dst)
        raise


def _rename_charged(
    invocation: Invocation, source: str, target: str, call: Callable[[Any, Any], None]
) -> None:
    quota = invocation.quota
    with quota.lock:
        try:
            replaced = originals.lstat(target.rstrip("/"))
            size = allocated(replaced, target)
            same = originals.lstat(source.rstrip("/")).st_ino == replaced.st_ino
        except OSError:
            call(source, target)
            return
        invocation.reusable = False  # what is replaced may be open
        call(source, target)
        if not same:
            quota.unlinked(replaced, size)


def rename(
    invocation: Invocation,
    src: Any,
    dst: Any,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    _rename(invocation, "os.rename", originals.rename, src, dst, src_dir_fd, dst_dir_fd)


def replace(
    invocation: Invocation,
    src: Any,
    dst: Any,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    _rename(invocation, "os.replace", originals.replace, src, dst, src_dir_fd, dst_dir_fd)
