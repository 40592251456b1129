"""The calls that make, remove, rename and alter directory entries."""

from __future__ import annotations

import os
import stat as modes
import sys
from collections.abc import Callable
from errno import EBUSY, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, EROFS, EXDEV
from functools import partial
from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes, StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.lookup import PATH_MAX
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.pages import SHORT_SYMLINK, allocated
from tmpguard.core.storage.quota import Full
from tmpguard.interpose.files.charge import full
from tmpguard.interpose.files.target import making
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import quick_real_of, resolve, resolve_entry
from tmpguard.interpose.raising import alive, reraise, reraise_both, reraise_nameless, stop
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
    given: Given,
    call: Callable[[StrOrBytes], None],
    *,
    directory: bool = False,
    named: bool = True,
) -> None:
    """``call`` with the real path at which ``given`` is to be made.

    ``named`` says whether the original's errors bear the path: mkfifo's and mknod's do not.
    """
    alive(invocation, operation, given.name)
    if given.odd:
        return call(given.name)  # raises the right error
    try:
        real = quick_real_of(invocation, given)
        if real is None:
            where = _place_to_make(invocation, operation, given, directory=directory)
            real = where.real
            if not where.parent.charged:
                return call(real)
        making(invocation, operation, given.name, real, partial(call, real))
    except OSError as exc:
        if not named:
            reraise_nameless(exc)
        reraise(exc, given.name)


def _place_to_make(invocation: Invocation, operation: str, given: Given, *, directory: bool) -> Place:
    """Where the entry is to be made. Raises OSError where none can be."""
    where = resolve_entry(invocation, given, operation)
    if where.last or where.virtual in invocation.guard.mounts.points:
        originals.lstat(where.real)
        raise os_error(EEXIST)
    if not where.parent.writable:
        stop(invocation, operation, making_error(where, directory=directory), given, where)
    return where


def mkdir(
    invocation: Invocation, path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None
) -> None:
    given = Given(path, dir_fd)
    _make(invocation, "os.mkdir", given, lambda real: originals.mkdir(real, mode), directory=True)


def mkfifo(
    invocation: Invocation, path: StrOrBytesPath, mode: int = 0o666, *, dir_fd: int | None = None
) -> None:
    given = Given(path, dir_fd)
    _make(invocation, "os.mkfifo", given, lambda real: originals.mkfifo(real, mode), named=False)


def mknod(
    invocation: Invocation,
    path: StrOrBytesPath,
    mode: int = 0o600,
    device: int = 0,
    *,
    dir_fd: int | None = None,
) -> None:
    given = Given(path, dir_fd)
    _make(invocation, "os.mknod", given, lambda real: originals.mknod(real, mode, device), named=False)


def symlink(
    invocation: Invocation,
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    target_is_directory: bool = False,
    *,
    dir_fd: int | None = None,
) -> None:
    """The link holds the text that it was given: readlink gives it back, and the walk reads it as ours."""
    source, target = Given(src), Given(dst, dir_fd)
    if source.odd or target.odd:
        # Raises the right error before it looks.
        return originals.symlink(source.name, target.name, target_is_directory, dir_fd=dir_fd)
    call = partial(_symlink, invocation, source, target, target_is_directory)
    try:
        if not 0 < len(os.fsencode(source.text)) < PATH_MAX:
            raise os_error(ENAMETOOLONG if source.text else ENOENT)  # reported before the link is looked at
        return _make(invocation, "os.symlink", target, call)
    except OSError as exc:
        reraise_both(exc, source, target)


def _symlink(
    invocation: Invocation, source: Given, target: Given, target_is_directory: bool, real: StrOrBytes
) -> None:
    # From now on text alone does not tell where a path leads.
    invocation.volume.forget_prefix()
    make = partial(originals.symlink, source.name, real, target_is_directory)
    length = len(os.fsencode(source.text))
    if length < SHORT_SYMLINK or not invocation.guard.scratch.holds(os.fsdecode(real)):
        make()
        return
    try:
        invocation.quota.charging(length, make)
    except Full:
        originals.symlink(".", real)  # what else is in its way is reported first
        originals.unlink(real)
        remedy = full(invocation)
        invocation.refuse("os.symlink", ENOSPC, source.name, target.name, about=target.name, remedy=remedy)
        make()


#: Does ``os.link`` follow a link by default? Before 3.14 only where it was given a descriptor, since it calls
#: link(2) otherwise, which follows none.
_LINK_FOLLOWS: Final = sys.version_info >= (3, 14)


def link(
    invocation: Invocation,
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    source, target = Given(src, src_dir_fd), Given(dst, dst_dir_fd)
    alive(invocation, "os.link", target.name)
    if source.odd or target.odd:
        return originals.link(source.name, target.name)  # raises the right error
    by_linkat = _LINK_FOLLOWS or src_dir_fd is not None or dst_dir_fd is not None
    follow = follow_symlinks and by_linkat
    try:
        return _link(invocation, source, target, follow=follow)
    except OSError as exc:
        reraise_both(exc, source, target)


def _link(invocation: Invocation, source: Given, target: Given, *, follow: bool) -> None:
    origin = resolve(invocation, source, follow=follow, operation="os.link")
    status = originals.lstat(origin.real)
    where = resolve_entry(invocation, target, "os.link")
    is_foreign = origin.mount is not where.parent or bool(where.last)
    if is_foreign or not where.parent.writable or where.virtual in invocation.guard.mounts.points:
        _stop_link(invocation, source, target, where)
    # What a link of /proc stands for is linked only by way of it, which linkat(2) does.
    by_way = follow and origin.mount is not origin.parent
    way: dict[str, Any] = {"src_dir_fd": 0} if by_way else {"follow_symlinks": False}
    call = partial(originals.link, origin.real, where.real, **way)
    if by_way:
        status = originals.stat(origin.real)
    if where.parent.charged and by_way and not status.st_nlink:
        call()  # the first name of a nameless file is no further inode
        invocation.quota.named(status.st_ino)
    elif where.parent.charged and not modes.S_ISDIR(status.st_mode):
        making(invocation, "os.link", target.name, where.real, call)
    else:
        call()


def _stop_link(invocation: Invocation, source: Given, target: Given, where: Place) -> None:
    """Raises OSError for a link across mounts, to a read-only one, or to what only a directory may be."""
    check_search(where)
    code = making_error(where, directory=False)
    code = EXDEV if code == EROFS and where.parent.writable else code
    stop(invocation, "os.link", code, source, where, target)


# --- removing ------------------------------------------------------------------------------------------


def _remove(
    invocation: Invocation,
    operation: str,
    given: Given,
    call: Callable[[StrOrBytes], None],
    code_of: Callable[[Place], int],
) -> None:
    alive(invocation, operation, given.name)
    if given.odd:
        return call(given.name)  # raises the right error
    try:
        real = quick_real_of(invocation, given)
        if real is None:
            where = _place_to_remove(invocation, operation, given, code_of)
            real = where.real
            if not where.parent.charged:
                return call(real)
        return _remove_charged(invocation, real, call)
    except OSError as exc:
        reraise(exc, given.name)


def _place_to_remove(
    invocation: Invocation, operation: str, given: Given, code_of: Callable[[Place], int]
) -> Place:
    """The entry that is to be removed. Raises OSError where it cannot be."""
    where = resolve_entry(invocation, given, operation)
    if where.last:
        originals.lstat(where.real)
        raise os_error(code_of(where))
    if not where.parent.writable:
        stop(invocation, operation, code_of(where), given, where)
    elif where.virtual in invocation.guard.mounts.points:
        raise os_error(EBUSY if code_of is rmdir_error else EISDIR)
    return where


def _remove_charged(invocation: Invocation, real: str, call: Callable[[StrOrBytes], None]) -> None:
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


def unlink(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.unlink", Given(path, dir_fd), originals.unlink, unlink_error)


def remove(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.remove", Given(path, dir_fd), originals.remove, unlink_error)


def rmdir(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    _remove(invocation, "os.rmdir", Given(path, dir_fd), originals.rmdir, rmdir_error)


# --- renaming ------------------------------------------------------------------------------------------


def _rename(
    invocation: Invocation,
    operation: str,
    call: Callable[[StrOrBytes, StrOrBytes], None],
    source: Given,
    target: Given,
) -> None:
    alive(invocation, operation, target.name)
    if source.odd or target.odd:
        return call(source.name, target.name)  # raises the right error
    try:
        old, new = quick_real_of(invocation, source), quick_real_of(invocation, target)
        if old is None or new is None:
            return _rename_entry(invocation, operation, call, source, target)
        _rename_charged(invocation, old, new, call)
        return invocation.namespace.moved(source.text.rstrip("/"), target.text.rstrip("/"))
    except OSError as exc:
        reraise_both(exc, source, target)


class _End(NamedTuple):
    """One of the two ends of a rename: what was given, and the entry that it names."""

    given: Given
    where: Place


def _rename_entry(
    invocation: Invocation,
    operation: str,
    call: Callable[[StrOrBytes, StrOrBytes], None],
    source: Given,
    target: Given,
) -> None:
    old = resolve_entry(invocation, source, operation)
    try:
        new = resolve_entry(invocation, target, operation)
    except OSError:
        check_search(old)  # whether it may be searched is reported before
        raise
    code = rename_error(old, new)
    if code:
        _stop_rename(invocation, operation, code, _End(source, old), _End(target, new))
    points = invocation.guard.mounts.points
    if old.virtual == new.virtual and old.virtual in points:
        return  # it has that name
    if old.virtual in points or new.virtual in points:
        raise os_error(mount_point_error(old, new))
    if new.parent.charged and old.parent.charged:
        _rename_charged(invocation, old.real, new.real, call)
    else:
        call(old.real, new.real)
    invocation.namespace.moved(old.virtual, new.virtual)


def _stop_rename(invocation: Invocation, operation: str, code: int, source: _End, target: _End) -> None:
    """Raise what the kernel says; returns where the guard only watches."""
    check_search(source.where)
    check_search(target.where)
    writable = source.where.parent.writable
    if code != EXDEV or (writable and target.where.parent.writable):
        stop(invocation, operation, code, source.given, target.where, target.given)
        return
    # Refused because one side is read-only: a finding, though the errno is the mounts'.
    refused = target if writable else source
    names = source.given.name, target.given.name
    invocation.refuse(operation, EXDEV, *names, about=refused.given.name, where=refused.where)


def _rename_charged(
    invocation: Invocation, source: str, target: str, call: Callable[[StrOrBytes, StrOrBytes], None]
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
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    source, target = Given(src, src_dir_fd), Given(dst, dst_dir_fd)
    _rename(invocation, "os.rename", originals.rename, source, target)


def replace(
    invocation: Invocation,
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    source, target = Given(src, src_dir_fd), Given(dst, dst_dir_fd)
    _rename(invocation, "os.replace", originals.replace, source, target)
