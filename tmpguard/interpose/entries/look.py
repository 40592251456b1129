"""The calls that look at the file system and change nothing."""

from __future__ import annotations

import functools
import os
import stat as modes
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.lookup import own_descriptor
from tmpguard.core.mounts.table import Mount
from tmpguard.core.spelling import descriptor_path
from tmpguard.interpose.paths import (
    alive_to_read,
    is_odd,
    known_path,
    like,
    place,
    quick_real,
    readable,
    reraise,
    text,
)
from tmpguard.interpose.wrapper import quick

if TYPE_CHECKING:
    pass

_stat = originals.stat
_lstat = originals.lstat


def _looked_up(
    invocation: Invocation,
    operation: str,
    call: Callable[[Any], Any],
    path: Any,
    dir_fd: int | None = None,
    follow: bool = True,
) -> Any:
    """``call`` with the real path behind ``path``, or with a descriptor as it is; errors name ``path``."""
    alive_to_read(invocation, operation, path)
    if type(path) is int or is_odd(path):
        return call(path)
    try:
        return call(like(path, readable(invocation, path, dir_fd, operation=operation, follow=follow)))
    except OSError as exc:
        reraise(exc, path)


# --- stat: the two quick wrappers ----------------------------------------------------------------------


# Whoever stands in `positional` is refused by the original, in its own words. Parameters that are for
# keywords alone would do so too, but they keep the interpreter from its quickest way to call a function.
_NOTHING: Final[Any] = object()


def _quick_stat(
    _: object, path: Any, positional: Any = _NOTHING, dir_fd: int | None = None, follow_symlinks: bool = True
) -> Any:
    if (invocation := get_current()) is None:
        if dir_fd is None and follow_symlinks is True and positional is _NOTHING:
            return _stat(path)
        return _as_given(_stat, path, positional, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    if positional is not _NOTHING:
        return _as_given(_stat, path, positional)
    real = quick_real(invocation, path) if dir_fd is None else None
    if real is None:
        return _slow_stat(invocation, path, dir_fd, follow_symlinks)
    try:
        return _stat(real, follow_symlinks=follow_symlinks)
    except OSError as exc:
        reraise(exc, path)


def _quick_lstat(_: object, path: Any, positional: Any = _NOTHING, dir_fd: int | None = None) -> Any:
    if (invocation := get_current()) is None:
        if dir_fd is None and positional is _NOTHING:
            return _lstat(path)
        return _as_given(_lstat, path, positional, dir_fd=dir_fd)
    if positional is not _NOTHING:
        return _as_given(_lstat, path, positional)
    real = quick_real(invocation, path) if dir_fd is None else None
    if real is None:
        if is_odd(path):
            return _lstat(path)
        return _slow_stat(invocation, path, dir_fd, False)
    try:
        return _lstat(real)
    except OSError as exc:
        reraise(exc, path)


def _as_given(call: Any, path: Any, positional: Any, **options: Any) -> Any:
    return call(path, **options) if positional is _NOTHING else call(path, positional)


def _slow_stat(invocation: Invocation, path: Any, dir_fd: int | None, follow: bool) -> Any:
    alive_to_read(invocation, "os.stat" if follow else "os.lstat", path)
    if type(path) is int or is_odd(path, wanted="string, bytes, os.PathLike or integer"):
        return _stat(path, dir_fd=dir_fd, follow_symlinks=follow)
    try:
        known = known_path(invocation, path) if dir_fd is None else None
        if known is not None:
            status = _lstat(known)
            if not follow or not modes.S_ISLNK(status.st_mode):
                return status
        operation = "os.stat" if follow else "os.lstat"
        where = place(invocation, path, dir_fd, follow=follow, operation=operation)
        return _stat(where.real, follow_symlinks=follow)
    except OSError as exc:
        reraise(exc, path)


stat = quick(_stat, _quick_stat, "os.stat")
lstat = quick(_lstat, _quick_lstat, "os.lstat")


# --- other look-ups ------------------------------------------------------------------------------------


def access(
    invocation: Invocation,
    path: Any,
    mode: int,
    *,
    dir_fd: int | None = None,
    effective_ids: bool = False,
    follow_symlinks: bool = True,
) -> bool:
    alive_to_read(invocation, "os.access", path)
    if is_odd(path):
        return originals.access(path, mode)
    try:
        where = place(invocation, path, dir_fd, follow=follow_symlinks, operation="os.access")
        if mode & os.W_OK and not where.mount.writable and not _is_special(where.real):
            return False  # a read-only mount: root may not write there either (C2.2)
    except OSError:
        return False
    return originals.access(where.real, mode, effective_ids=effective_ids, follow_symlinks=follow_symlinks)


def _is_special(real: str) -> bool:
    mode = _stat(real).st_mode
    return not (modes.S_ISREG(mode) or modes.S_ISDIR(mode) or modes.S_ISLNK(mode))


def statvfs(invocation: Invocation, path: Any) -> Any:
    alive_to_read(invocation, "os.statvfs", path)
    if type(path) is int:
        try:
            return fstatvfs(invocation, path)
        except OSError as exc:
            reraise(exc, path)
    if is_odd(path):
        return originals.statvfs(path)
    try:
        where = place(invocation, path, operation="os.statvfs")
        _stat(where.real)  # what is not there has no file system
        return _statvfs_of(invocation, where.mount, where.real)
    except OSError as exc:
        reraise(exc, path)


def fstatvfs(invocation: Invocation, fd: int, /) -> Any:
    originals.fstat(fd)
    real = descriptor_path(fd)
    table = invocation.guard.mounts
    if not real.startswith("/") or invocation.owns(fd):
        return _statvfs_of(invocation, table.scratch if real.startswith("/") else None, fd)
    return _statvfs_of(invocation, table.mount_of(real), fd)


def _statvfs_of(invocation: Invocation, mount: Mount | None, real: Any) -> Any:
    if mount is not None and mount.charged:
        return _quota_statvfs(invocation)
    result = originals.statvfs(real)
    if mount is None or mount.writable:
        return result
    return os.statvfs_result((*result[:8], result.f_flag | os.ST_RDONLY, result.f_namemax, result.f_fsid))


def _quota_statvfs(invocation: Invocation) -> os.statvfs_result:
    """The quota as ``df`` sees it, exactly (C3.6): blocks of 4 KiB, and inodes where they are limited."""
    used = invocation.quota.measured()
    blocks = invocation.guard.quota_bytes // 4096
    free = max(0, blocks - used.bytes // 4096)
    files = invocation.guard.max_files or 0
    free_files = max(0, files - used.files)
    flags = os.ST_NOSUID | os.ST_NODEV
    identity = originals.statvfs(invocation.namespace.scratch()).f_fsid
    return os.statvfs_result(
        (4096, 4096, blocks, free, free, files, free_files, free_files, flags, 255, identity)
    )


def pathconf(invocation: Invocation, path: Any, name: Any) -> Any:
    try:
        return _looked_up(invocation, "os.pathconf", lambda real: originals.pathconf(real, name), path)
    except OSError:
        if not path:
            raise
        # Some are constants of the C library's, whatever the path.
        with suppress(OSError):
            return originals.pathconf("/dev/null/", name)
        raise


def readlink(invocation: Invocation, path: Any, *, dir_fd: int | None = None) -> Any:
    target = _looked_up(invocation, "os.readlink", originals.readlink, path, dir_fd, False)
    if text(path) in ("/proc/self/cwd", f"/proc/{os.getpid()}/cwd"):
        return like(path, invocation.namespace.working_directory())
    # A link holds the text that it was given; only those of /proc can name the scratch directory.
    name = os.fsdecode(target)
    root = invocation.namespace.root
    if root is not None and name.startswith(root):
        name = TMP + name[len(root) :]
    elif (fd := own_descriptor(text(path))) >= 0:
        name = invocation.namespace.path_of(fd, name)
    return os.fsencode(name) if isinstance(target, bytes) else name


def ismount(invocation: Invocation, path: Any) -> bool:
    """:func:`os.path.ismount`, which cannot tell by the device numbers behind the mounts."""
    if is_odd(path):
        return originals.ismount(path)
    # What is wrong with the path the original finds by itself, by an os.lstat that is perhaps another one.
    with suppress(OSError, ValueError):
        where = place(invocation, path, follow=False)
        _lstat(where.real)
        if where.virtual == TMP or where.virtual in invocation.guard.mounts.points:
            return True
    return originals.ismount(path)


#: Does Path.is_mount look at the device numbers by itself?
_BY_DEVICES: Final = sys.version_info < (3, 12)


@functools.wraps(originals.path_is_mount)
def path_is_mount(self: Any) -> bool:
    """:meth:`pathlib.Path.is_mount`, which up to 3.11 goes by the device numbers, after links."""
    invocation = get_current()
    if invocation is None or not _BY_DEVICES:
        return originals.path_is_mount(self)
    if not self.exists() or not self.is_dir():
        return False
    try:
        where, parent = place(invocation, self), place(invocation, self.parent)
        status, above = _stat(where.real), _stat(parent.real)
    except OSError:
        return False
    # A path without a parent of its own, such as ".", is taken for the root.
    return where.mount is not parent.mount or status.st_dev != above.st_dev or os.path.samestat(status, above)


def getxattr(invocation: Invocation, path: Any, attribute: Any, *, follow_symlinks: bool = True) -> Any:
    def call(real: Any) -> Any:
        return originals.getxattr(real, attribute, follow_symlinks=follow_symlinks)

    return _looked_up(invocation, "os.getxattr", call, path, None, follow_symlinks)


def listxattr(invocation: Invocation, path: Any = None, *, follow_symlinks: bool = True) -> Any:
    def call(real: Any) -> Any:
        return originals.listxattr(real, follow_symlinks=follow_symlinks)

    return _looked_up(invocation, "os.listxattr", call, "." if path is None else path, None, follow_symlinks)


def get_data(invocation: Invocation, package: str, resource: str) -> bytes | None:
    """:func:`pkgutil.get_data`, which reads by the importer's own means, past the patched layer (C5.2)."""
    data: bytes | None = originals.pkgutil_get_data(package, resource)
    table = invocation.guard.mounts
    if data is not None and (table.hidden or table.watched):
        file = getattr(sys.modules.get(package), "__file__", None) or ""
        path = os.path.join(os.path.dirname(file), *resource.split("/"))
        try:
            originals.lstat(path)
        except OSError:
            return data  # in an archive, or made by the loader
        place(invocation, path, operation="pkgutil.get_data")
    return data
