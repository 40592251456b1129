"""The calls that read metadata and change nothing: ``os.stat``, ``os.access``, ``os.readlink`` and others."""

from __future__ import annotations

import functools
import os
import stat as modes
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import ENOENT
from pathlib import Path
from typing import Any, Final, TypeVar

from tmpguard.core import originals
from tmpguard.core.aliases import PathOrDescriptor, StrOrBytes, StrOrBytesPath
from tmpguard.core.invocation import Invocation, get_current, redirecting
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.lookup import is_own_cwd, own_descriptor
from tmpguard.core.mounts.private import shown_target
from tmpguard.core.mounts.table import Mount
from tmpguard.core.real import monotonic
from tmpguard.core.spelling import descriptor_path
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import known_path, quick_known, quick_real, quick_real_of, readable, resolve
from tmpguard.interpose.raising import alive_to_read, missing, reraise, spell_look
from tmpguard.interpose.watching.judging import found, quietly
from tmpguard.interpose.wrapper import quick

T = TypeVar("T")

_stat = originals.stat
_lstat = originals.lstat


def _looked_up(
    invocation: Invocation, operation: str, call: Callable[[Any], T], given: Given, follow: bool = True
) -> T:
    """Call ``call`` with the real path of ``given``. Errors contain the path as given (C2.1)."""
    alive_to_read(invocation, operation, given)
    if given.odd:
        return call(given.name)  # raises the right error
    try:
        return call(given.like(readable(invocation, given, operation=operation, follow=follow)))
    except OSError as exc:
        reraise(exc, given.name, operation)


# --- stat: the two quick wrappers ----------------------------------------------------------------------


# The parameter `positional` catches a surplus positional argument, so that the original can raise its own
# error. Keyword-only parameters would do so too, but they prevent the interpreter's fastest call path.
_NOTHING: Final = object()


def _quick_stat(
    _: object,
    path: PathOrDescriptor,
    positional: object = _NOTHING,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> os.stat_result:
    if (invocation := get_current()) is None:
        if dir_fd is None and follow_symlinks is True and positional is _NOTHING:
            return _stat(path)
        return _as_given(_stat, path, positional, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    if invocation.watches:
        options = {"dir_fd": dir_fd, "follow_symlinks": follow_symlinks}
        return _watched(invocation, "os.stat", _stat, path, positional, options)
    if positional is not _NOTHING:
        return _as_given(_stat, path, positional)
    real = None
    if dir_fd is None and type(path) is str:
        # quick_known() and quick_real(), inlined for paths that are cached
        known = invocation.guard.mounts.known
        if path in known.paths:
            if monotonic() < known.expires:
                return _stat(path)  # not a symlink, so follow_symlinks makes no difference
        elif (
            path in known.relative
            and (namespace := invocation.made_namespace) is not None
            and namespace.cwd == known.process_directory
            and monotonic() < known.expires
        ):
            return _stat(path)
        prefix, tail = invocation.mounted.prefix, invocation.guard.mounts.tails.get(path)
        if prefix and tail:
            real = prefix + tail
        else:
            real = quick_known(invocation, path) or quick_real(invocation, path)
    if real is None:
        try:
            return _slow_stat(invocation, path, dir_fd, follow_symlinks)
        except FileNotFoundError:
            if not invocation.mounted.mend():
                raise
        return _slow_stat(invocation, path, dir_fd, follow_symlinks)
    try:
        return _stat(real, follow_symlinks=follow_symlinks)
    except OSError as exc:
        spell_look(invocation, exc, path, "os.stat")
        raise


def _quick_lstat(
    _: object, path: StrOrBytesPath, positional: object = _NOTHING, dir_fd: int | None = None
) -> os.stat_result:
    if (invocation := get_current()) is None:
        if dir_fd is None and positional is _NOTHING:
            return _lstat(path)
        return _as_given(_lstat, path, positional, dir_fd=dir_fd)
    if invocation.watches:
        options = {"dir_fd": dir_fd}
        return _watched(invocation, "os.lstat", _lstat, path, positional, options)
    if positional is not _NOTHING:
        return _as_given(_lstat, path, positional)
    real = None
    if dir_fd is None:
        real = quick_known(invocation, path) or quick_real(invocation, path)
    if real is None:
        try:
            return _slow_lstat(invocation, path, dir_fd)
        except FileNotFoundError:
            if not invocation.mounted.mend():
                raise
        return _slow_lstat(invocation, path, dir_fd)
    try:
        return _lstat(real)
    except OSError as exc:
        spell_look(invocation, exc, path, "os.lstat")
        raise


def _watched(
    invocation: Any,
    operation: str,
    call: Callable[..., os.stat_result],
    path: PathOrDescriptor,
    positional: object,
    options: Mapping[str, object],
) -> os.stat_result:
    """The same for an invocation that only watches (C2.5)."""
    status = _as_given(call, path, positional, **options)
    quietly(found, invocation, operation, path, options, status)
    return status


def _as_given(
    call: Callable[..., os.stat_result], path: PathOrDescriptor, positional: object, **options: object
) -> os.stat_result:
    return call(path, **options) if positional is _NOTHING else call(path, positional)


def _slow_stat(
    invocation: Invocation, path: PathOrDescriptor, dir_fd: int | None, follow: bool
) -> os.stat_result:
    status = _known_status(invocation, path, follow) if dir_fd is None else None
    if status is not None:
        return status
    given = Given(path, dir_fd, wanted="string, bytes, os.PathLike or integer")
    if given.odd:
        return _stat(given.name, dir_fd=dir_fd, follow_symlinks=follow)
    return _walk_to_stat(invocation, given, follow)


def _slow_lstat(invocation: Invocation, path: StrOrBytesPath, dir_fd: int | None) -> os.stat_result:
    status = _known_status(invocation, path, False) if dir_fd is None else None
    if status is not None:
        return status
    given = Given(path, dir_fd)
    return _lstat(given.name) if given.odd else _walk_to_stat(invocation, given, False)


def _known_status(invocation: Invocation, path: object, follow: bool) -> os.stat_result | None:
    """The status of an entry of a cached read-only directory; None if a walk is needed."""
    known = invocation.guard.mounts.fresh()
    full = known_path(invocation, path, known)
    if full is None:
        return None
    try:
        status = _lstat(full)
    except OSError as exc:
        if exc.errno == ENOENT:
            known.add_path(full)
        reraise(exc, path)
    if not modes.S_ISLNK(status.st_mode):
        known.add_path(full)
        return status
    return None if follow else status


def _walk_to_stat(invocation: Invocation, given: Given, follow: bool) -> os.stat_result:
    operation = "os.stat" if follow else "os.lstat"
    alive_to_read(invocation, operation, given)
    try:
        where = resolve(invocation, given, follow=follow, operation=operation)
        return _stat(where.real, follow_symlinks=follow)
    except OSError as exc:
        reraise(exc, given.name, operation)


stat = quick(_stat, _quick_stat, "os.stat")
lstat = quick(_lstat, _quick_lstat, "os.lstat")


def statx(
    invocation: Invocation,
    path: PathOrDescriptor,
    mask: int,
    *,
    flags: int = 0,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> Any:
    """:func:`os.statx`, since 3.15."""
    given = Given(path, dir_fd, wanted="string, bytes, os.PathLike or integer")
    if given.odd:
        return originals.statx(given.name, mask, flags=flags, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    follow = bool(follow_symlinks) or not _statx_sees_links()

    def call(real: StrOrBytes) -> Any:
        return originals.statx(real, mask, flags=flags, follow_symlinks=follow)

    if flags or type(mask) is not int:
        _check_flags(call, given)
    return _looked_up(invocation, "os.statx", call, given, follow)


@functools.cache
def _statx_sees_links() -> bool:
    """Whether ``os.statx`` respects ``follow_symlinks=False``. CPython 3.15.2 ignores it."""
    try:
        # Not os.STATX_TYPE: the type stubs do not have it before 3.15.
        status = originals.statx("/proc/self", vars(os)["STATX_TYPE"], follow_symlinks=False)
    except OSError:
        return True  # no /proc
    return modes.S_ISLNK(status.stx_mode)


def _check_flags(call: Callable[[str], object], given: Given) -> None:
    """Raise what ``call`` raises for any path: the kernel checks flags before it looks up the path."""
    try:
        call("/")
    except OSError as exc:
        reraise(exc, given.name)


# --- other look-ups ------------------------------------------------------------------------------------


def access(
    invocation: Invocation,
    path: StrOrBytesPath,
    mode: int,
    *,
    dir_fd: int | None = None,
    effective_ids: bool = False,
    follow_symlinks: bool = True,
) -> bool:
    """:func:`os.access`. False for ``os.W_OK`` on a read-only mount, even for root (C2.2)."""
    given = Given(path, dir_fd)
    alive_to_read(invocation, "os.access", given)
    if given.odd:
        return originals.access(given.name, mode)  # raises the right error
    try:
        real = _real_to_access(invocation, given, mode, follow_symlinks)
    except OSError:
        return False
    if real is None:
        return False
    allowed = originals.access(real, mode, effective_ids=effective_ids, follow_symlinks=follow_symlinks)
    if not allowed:
        missing(invocation, "os.access", given.name, real)
    return allowed


def _real_to_access(invocation: Invocation, given: Given, mode: int, follow: bool) -> str | None:
    """The real path to check. None if it is not writable because its mount is read-only (C2.2)."""
    if not mode & os.W_OK:
        return readable(invocation, given, operation="os.access", follow=follow)
    real = quick_real_of(invocation, given)
    if real is not None:
        return real
    where = resolve(invocation, given, follow=follow, operation="os.access")
    return where.real if where.mount.writable or _is_special(where.real) else None


def _is_special(real: str) -> bool:
    mode = _stat(real).st_mode
    return not (modes.S_ISREG(mode) or modes.S_ISDIR(mode) or modes.S_ISLNK(mode))


def statvfs(invocation: Invocation, path: PathOrDescriptor) -> os.statvfs_result:
    """:func:`os.statvfs`. Reports the quota for /tmp, and ST_RDONLY on a read-only mount (C2.2, C3.6)."""
    if isinstance(path, int):
        try:
            return fstatvfs(invocation, path)
        except OSError as exc:
            reraise(exc, path)
    given = Given(path)
    alive_to_read(invocation, "os.statvfs", given)
    if given.odd:
        return originals.statvfs(given.name)  # type: ignore[no-any-return]
    try:
        where = resolve(invocation, given, operation="os.statvfs")
        _stat(where.real)  # raises ENOENT if nothing is there
        return _statvfs_of(invocation, where.mount, where.real)
    except OSError as exc:
        reraise(exc, given.name, "os.statvfs")


def fstatvfs(invocation: Invocation, fd: int, /) -> os.statvfs_result:
    """:func:`os.fstatvfs`. Reports what :func:`statvfs` does."""
    originals.fstat(fd)
    real = descriptor_path(fd)
    table = invocation.guard.mounts
    if not real.startswith("/") or invocation.owns(fd):
        return _statvfs_of(invocation, table.scratch if real.startswith("/") else None, fd)
    return _statvfs_of(invocation, table.mount_of(real), fd)


def _statvfs_of(invocation: Invocation, mount: Mount | None, real: int | str) -> os.statvfs_result:
    if mount is not None and mount.charged:
        return _quota_statvfs(invocation)
    result: os.statvfs_result = originals.statvfs(real)
    if mount is None or mount.writable:
        return result
    return os.statvfs_result((*result[:8], result.f_flag | os.ST_RDONLY, result.f_namemax, result.f_fsid))


def _quota_statvfs(invocation: Invocation) -> os.statvfs_result:
    """The quota as ``df`` sees it, exactly (C3.6): in blocks of 4 KiB, and in inodes if they are limited."""
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


def pathconf(invocation: Invocation, path: PathOrDescriptor, name: str | int) -> Any:
    """:func:`os.pathconf`."""
    try:
        return _looked_up(invocation, "os.pathconf", lambda real: originals.pathconf(real, name), Given(path))
    except OSError:
        if not path or type(path) is int:
            raise
        # Some values are constants of the C library, whatever the path.
        with suppress(OSError):
            return originals.pathconf("/dev/null/", name)
        raise


def readlink(invocation: Invocation, path: StrOrBytesPath, *, dir_fd: int | None = None) -> Any:
    """:func:`os.readlink`. The text never contains a scratch path (C7.1)."""
    given = Given(path, dir_fd)
    target: StrOrBytes = _looked_up(invocation, "os.readlink", originals.readlink, given, follow=False)
    if given.text.endswith("cwd") and is_own_cwd(resolve(invocation, given, follow=False).virtual):
        return given.like(invocation.namespace.working_directory())
    # A symlink contains the text that it was created with. Only /proc links can show the scratch directory.
    name = os.fsdecode(target)
    root = invocation.namespace.root
    if root is not None and name.startswith(root):
        name = TMP + name[len(root) :]
    elif (fd := own_descriptor(given.text)) >= 0:
        name = invocation.namespace.path_of(fd, name)
    name = shown_target(name)
    return os.fsencode(name) if isinstance(target, bytes) else name


def ismount(invocation: Invocation, path: StrOrBytesPath) -> bool:
    """:func:`os.path.ismount`, which compares device numbers and so does not recognize our mounts."""
    given = Given(path)
    if given.odd:
        return originals.ismount(path)
    # The original deals with errors itself. It calls os.lstat, which other code may have replaced.
    with suppress(OSError, ValueError):
        where = resolve(invocation, given, follow=False)
        _lstat(where.real)
        if where.virtual == TMP or where.virtual in invocation.guard.mounts.points:
            return True
    return originals.ismount(path)


#: True if Path.is_mount compares device numbers itself instead of calling os.path.ismount.
_BY_DEVICES: Final = sys.version_info < (3, 12)


@functools.wraps(originals.path_is_mount)
def path_is_mount(self: Path) -> bool:
    """:meth:`pathlib.Path.is_mount`, which up to 3.11 follows symlinks and compares device numbers."""
    invocation = redirecting()
    if invocation is None or not _BY_DEVICES:
        return originals.path_is_mount(self)
    if not self.exists() or not self.is_dir():
        return False
    try:
        where, parent = resolve(invocation, Given(self)), resolve(invocation, Given(self.parent))
        status, above = _stat(where.real), _stat(parent.real)
    except OSError:
        return False
    # A path that is its own parent, such as ".", is taken for the root, as the original does.
    return where.mount is not parent.mount or status.st_dev != above.st_dev or os.path.samestat(status, above)


def getxattr(
    invocation: Invocation,
    path: PathOrDescriptor,
    attribute: StrOrBytesPath,
    *,
    follow_symlinks: bool = True,
) -> bytes:
    """:func:`os.getxattr`."""

    def call(real: StrOrBytes) -> bytes:
        return originals.getxattr(real, attribute, follow_symlinks=follow_symlinks)  # type: ignore[no-any-return]

    return _looked_up(invocation, "os.getxattr", call, Given(path), follow_symlinks)


def listxattr(
    invocation: Invocation, path: PathOrDescriptor | None = None, *, follow_symlinks: bool = True
) -> list[str]:
    """:func:`os.listxattr`."""

    def call(real: StrOrBytes) -> list[str]:
        return originals.listxattr(real, follow_symlinks=follow_symlinks)  # type: ignore[no-any-return]

    given = Given("." if path is None else path)
    return _looked_up(invocation, "os.listxattr", call, given, follow_symlinks)


def get_data(invocation: Invocation, package: str, resource: str) -> bytes | None:
    """:func:`pkgutil.get_data`, which reads with the importer and bypasses the patched layer (C5.2)."""
    data: bytes | None = originals.pkgutil_get_data(package, resource)
    table = invocation.guard.mounts
    if data is not None and (table.hidden or table.watched):
        file = getattr(sys.modules.get(package), "__file__", None) or ""
        path = os.path.join(os.path.dirname(file), *resource.split("/"))
        try:
            originals.lstat(path)
        except OSError:
            return data  # from an archive, or generated by the loader
        resolve(invocation, Given(path), operation="pkgutil.get_data")
    return data
