"""The calls that create, remove and rename directory entries."""

from __future__ import annotations

import os
import stat as modes
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EBUSY, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, EROFS, EXDEV
from functools import partial
from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes, StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.known import forget
from tmpguard.core.mounts.lookup import PATH_MAX
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.pages import SHORT_SYMLINK
from tmpguard.interpose.files.charge import full_remedy
from tmpguard.interpose.files.target import making
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import quick_real_of, resolve, resolve_entry
from tmpguard.interpose.raising import alive, raise_or_refuse, reraise, reraise_both, reraise_nameless
from tmpguard.interpose.readonly import (
    check_search,
    making_error,
    mount_point_error,
    rename_error,
    rmdir_error,
    unlink_error,
)

# --- creating ------------------------------------------------------------------------------------------


def _make(
    invocation: Invocation,
    operation: str,
    given: Given,
    call: Callable[[StrOrBytes], None],
    *,
    directory: bool = False,
    named: bool = True,
) -> None:
    """Call ``call`` with the real path at which the entry is to be created.

    ``named`` says whether the original's errors contain the path; those of mkfifo and mknod do not.
    """
    if invocation.ended:
        alive(invocation, operation, given.name)
    if given.odd:
        return call(given.name)  # raises the right error
    try:
        real = quick_real_of(invocation, given)
        if real is None:
            where = _place_to_make(invocation, operation, given, directory=directory)
            real = where.real
            if not where.parent.charged:
                call(real)
                return forget()
        if invocation.guard.max_files is None:
            return call(real)
        making(invocation, operation, given.name, real, partial(call, real))
    except OSError as exc:
        if not named:
            reraise_nameless(exc)
        reraise(exc, given.name, operation, making=True)


def _place_to_make(invocation: Invocation, operation: str, given: Given, *, directory: bool) -> Place:
    """The place of the new entry. Raises OSError if it cannot be created there."""
    where = resolve_entry(invocation, given, operation)
    if where.last or where.virtual in invocation.guard.mounts.points:
        originals.lstat(where.real)
        raise os_error(EEXIST)
    if not where.parent.writable:
        raise_or_refuse(invocation, operation, making_error(where, directory=directory), given, where)
    return where


def mkdir(
    invocation: Invocation, path: StrOrBytesPath, mode: int = 0o777, *, dir_fd: int | None = None
) -> None:
    """:func:`os.mkdir`. Counts as an inode if ``max_files`` limits them (C3.6)."""
    given = Given(path, dir_fd)
    _make(invocation, "os.mkdir", given, partial(originals.mkdir, mode=mode), directory=True)


def mkfifo(
    invocation: Invocation, path: StrOrBytesPath, mode: int = 0o666, *, dir_fd: int | None = None
) -> None:
    """:func:`os.mkfifo`. Its errors contain no path."""
    given = Given(path, dir_fd)
    _make(invocation, "os.mkfifo", given, partial(originals.mkfifo, mode=mode), named=False)


def mknod(
    invocation: Invocation,
    path: StrOrBytesPath,
    mode: int = 0o600,
    device: int = 0,
    *,
    dir_fd: int | None = None,
) -> None:
    """:func:`os.mknod`. Its errors contain no path."""
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
    """:func:`os.symlink`. The link contains the text as given, which readlink returns and a walk follows."""
    source, target = Given(src), Given(dst, dir_fd)
    if source.odd or target.odd:
        # Raises the right error before any look-up.
        return originals.symlink(source.name, target.name, target_is_directory, dir_fd=dir_fd)
    call = partial(_symlink, invocation, source, target, target_is_directory)
    try:
        if not 0 < len(os.fsencode(source.text)) < PATH_MAX:
            raise os_error(ENAMETOOLONG if source.text else ENOENT)  # reported before the target is looked up
        return _make(invocation, "os.symlink", target, call)
    except OSError as exc:
        reraise_both(exc, source, target)


def _symlink(
    invocation: Invocation, source: Given, target: Given, target_is_directory: bool, real: StrOrBytes
) -> None:
    # From now on, a path's text alone does not show where it leads.
    invocation.volume.forget_prefix()
    make = partial(originals.symlink, source.name, real, target_is_directory)
    length = len(os.fsencode(source.text))
    if length < SHORT_SYMLINK or not invocation.guard.scratch.holds(os.fsdecode(real)):
        make()
        return
    try:
        invocation.quota.charging(length, make)
    except Full:
        originals.symlink(".", real)  # any other error takes precedence
        originals.unlink(real)
        remedy = full_remedy(invocation)
        names = source.name, target.name
        raise invocation.refusal("os.symlink", ENOSPC, *names, about=target.name, remedy=remedy) from None


#: True if ``os.link`` follows symlinks by default. Before 3.14 it does so only if it is given a descriptor:
#: otherwise it calls link(2), which follows none.
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
    """:func:`os.link`. Raises OSError(EXDEV) across mounts (C2.2). The file is charged once (C3.2)."""
    source, target = Given(src, src_dir_fd), Given(dst, dst_dir_fd)
    alive(invocation, "os.link", target.name)
    if source.odd or target.odd:
        return originals.link(source.name, target.name)  # raises the right error
    by_linkat = _LINK_FOLLOWS or src_dir_fd is not None or dst_dir_fd is not None
    follow = follow_symlinks and by_linkat
    try:
        return _link(invocation, source, target, follow=follow)
    except OSError as exc:
        reraise_both(exc, source, target, "os.link")


def _link(invocation: Invocation, source: Given, target: Given, *, follow: bool) -> None:
    origin = resolve(invocation, source, follow=follow, operation="os.link")
    status = originals.lstat(origin.real)
    where = resolve_entry(invocation, target, "os.link")
    is_foreign = origin.mount is not where.parent or bool(where.last)
    if is_foreign or not where.parent.writable or where.virtual in invocation.guard.mounts.points:
        _stop_link(invocation, source, target, where)
    # The target of a magic link in /proc can only be linked through it, which linkat(2) does.
    by_way = follow and origin.mount is not origin.parent
    way: dict[str, Any] = {"src_dir_fd": 0} if by_way else {"follow_symlinks": False}
    call = partial(originals.link, origin.real, where.real, **way)
    if by_way:
        status = originals.stat(origin.real)
    if where.parent.charged and by_way and not status.st_nlink:
        call()  # the first name of an unnamed file adds no inode
        invocation.quota.named(status.st_ino)
    elif where.parent.charged and not modes.S_ISDIR(status.st_mode):
        making(invocation, "os.link", target.name, where.real, call)
    else:
        call()
        forget()


def _stop_link(invocation: Invocation, source: Given, target: Given, where: Place) -> None:
    """Raise OSError for a link across mounts, to a read-only mount, or at a name only for directories."""
    check_search(where)
    code = making_error(where, directory=False)
    code = EXDEV if code == EROFS and where.parent.writable else code
    raise_or_refuse(invocation, "os.link", code, source, where, target)


# --- removing ------------------------------------------------------------------------------------------


def _remove(
    invocation: Invocation,
    operation: str,
    given: Given,
    call: Callable[[StrOrBytes], None],
    code_of: Callable[[Place], int],
) -> None:
    if invocation.ended:
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
        _remove_charged(invocation, real, call, code_of)
        return invocation.forget(real)
    except OSError as exc:
        reraise(exc, given.name, operation)


def _place_to_remove(
    invocation: Invocation, operation: str, given: Given, code_of: Callable[[Place], int]
) -> Place:
    """The entry to remove. Raises OSError if it cannot be removed."""
    where = resolve_entry(invocation, given, operation)
    if where.last:
        originals.lstat(where.real)
        raise os_error(code_of(where))
    if not where.parent.writable:
        raise_or_refuse(invocation, operation, code_of(where), given, where)
    elif where.virtual in invocation.guard.mounts.points:
        raise os_error(EBUSY if code_of is rmdir_error else EISDIR)
    return where


def _remove_charged(
    invocation: Invocation, real: str, call: Callable[[StrOrBytes], None], code_of: Callable[[Place], int]
) -> None:
    invocation.reusable = False  # the unlinked file may be open
    quota = invocation.mounted.quota
    if quota.max_files is None and (code_of is rmdir_error or quota.credit >= quota.limit):
        call(real)  # nothing is charged for a directory, or at all
        return
    quota.removing(real, partial(call, real))


def unlink(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """:func:`os.unlink`. The space of an open file is freed when it is closed (C3.2)."""
    _remove(invocation, "os.unlink", Given(path, dir_fd), originals.unlink, unlink_error)


def remove(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """:func:`os.remove`, which is :func:`os.unlink` under another name."""
    _remove(invocation, "os.remove", Given(path, dir_fd), originals.remove, unlink_error)


def rmdir(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> None:
    """:func:`os.rmdir`. Raises OSError(EBUSY) for a mount point."""
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
        invocation.forget(old)
        return invocation.namespace.moved(source.text.rstrip("/"), target.text.rstrip("/"))
    except OSError as exc:
        reraise_both(exc, source, target, operation)


class _End(NamedTuple):
    """The source or the target of a rename: the argument, and the entry that it names."""

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
        check_search(old)  # EACCES for the source comes first
        raise
    code = rename_error(old, new)
    if code:
        _stop_rename(invocation, operation, code, _End(source, old), _End(target, new))
    points = invocation.guard.mounts.points
    if old.virtual == new.virtual and old.virtual in points:
        return  # it has that name already
    if old.virtual in points or new.virtual in points:
        raise os_error(mount_point_error(old, new))
    if new.parent.charged and old.parent.charged:
        _rename_charged(invocation, old.real, new.real, call)
        invocation.forget(old.real)
    else:
        call(old.real, new.real)
        forget()
    invocation.namespace.moved(old.virtual, new.virtual)


def _stop_rename(invocation: Invocation, operation: str, code: int, source: _End, target: _End) -> None:
    """Raise OSError with the kernel's errno ``code``."""
    check_search(source.where)
    check_search(target.where)
    writable = source.where.parent.writable
    if code == EXDEV and not (writable and target.where.parent.writable):
        # Refused because one side is read-only: a violation, although the errno says that the mounts differ.
        refused = target if writable else source
        names = source.given.name, target.given.name
        raise invocation.refusal(operation, EXDEV, *names, about=refused.given.name, where=refused.where)
    raise_or_refuse(invocation, operation, code, source.given, target.where, target.given)


def _rename_charged(
    invocation: Invocation, source: str, target: str, call: Callable[[StrOrBytes, StrOrBytes], None]
) -> None:
    quota = invocation.quota
    with quota.lock:
        same: bool | None = None
        with suppress(OSError):  # which the call will say, and without the real path
            replaced = originals.lstat(target.rstrip("/"))
            same = originals.lstat(source.rstrip("/")).st_ino == replaced.st_ino
        if same is not None:
            invocation.reusable = False  # the replaced file may be open
        if same is None or same:
            call(source, target)
        else:
            quota.removing(target, partial(call, source, target))


def rename(
    invocation: Invocation,
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """:func:`os.rename`. Raises OSError(EXDEV) across mounts, OSError(EBUSY) for a mount point (C2.2)."""
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
    """:func:`os.replace`, which is :func:`os.rename` under another name."""
    source, target = Given(src, src_dir_fd), Given(dst, dst_dir_fd)
    _rename(invocation, "os.replace", originals.replace, source, target)
