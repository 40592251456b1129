"""The calls that change metadata: mode, owner, times and extended attributes."""

from __future__ import annotations

import fcntl
import functools
import stat as modes
import sys
from collections.abc import Callable
from errno import EBADF, EROFS
from typing import Any, Final, NoReturn

from tmpguard.core import originals
from tmpguard.core.aliases import PathOrDescriptor, ReadableBuffer, StrOrBytesPath
from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import TMP
from tmpguard.core.spelling import descriptor_path
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import quick_real_of, resolve
from tmpguard.interpose.raising import alive, raise_or_refuse, reraise, reraise_nameless
from tmpguard.interpose.readonly import O_PATH, change_error


def _alter(
    invocation: Invocation,
    operation: str,
    path: PathOrDescriptor,
    call: Callable[[Any], None],
    dir_fd: int | None = None,
    follow: bool = True,
    *,
    named: bool = True,
) -> None:
    """Call ``call`` with the real path of ``path``, whose metadata it changes.

    ``named`` says whether the original's errors contain the path.
    """
    alive(invocation, operation, path)
    if type(path) is int:
        if path > 0 and not follow and operation != "os.chmod":
            raise ValueError(f"{operation[3:]}: cannot use fd and follow_symlinks together")
        check_descriptor(invocation, operation, path, path if named else None)
        _may_lock_by(invocation, path)
        return call(path)
    given = Given(path, dir_fd)
    if given.odd:
        return call(given.name)  # raises the right error
    try:
        real = quick_real_of(invocation, given)
        if real is None:
            where = resolve(invocation, given, follow=follow, operation=operation)
            if not where.mount.writable:
                raise_or_refuse(invocation, operation, change_error(where), given, where)
            _may_lock(invocation, where.virtual)
            real = where.real
        return call(real)
    except OSError as exc:
        if not named:
            reraise_nameless(exc)
        reraise(exc, given.name, operation)


def _may_lock(invocation: Invocation, virtual: str) -> None:
    """The metadata of ``virtual`` are about to change: mount points below it may become unreachable."""
    if virtual in invocation.guard.mounts.ancestors or virtual == TMP:
        invocation.reusable = False
        invocation.namespace.locked = True


def _may_lock_by(invocation: Invocation, fd: int) -> None:
    if invocation.owns(fd):
        _may_lock(invocation, invocation.namespace.virtual_of(descriptor_path(fd)))


def check_descriptor(invocation: Invocation, operation: str, fd: int, name: int | None = None) -> None:
    """Refuse to change the file of ``fd`` if its mount is read-only. ``name`` is the path in the error."""
    real = descriptor_path(fd)
    if not real.startswith("/") or invocation.owns(fd) or fcntl.fcntl(fd, fcntl.F_GETFL) & O_PATH:
        return
    table = invocation.guard.mounts
    mount = table.mount_of(invocation.namespace.path_of(fd, real))
    if not mount.writable or mount is table.scratch:  # what is in the real /tmp is hidden behind the scratch
        raise invocation.refusal(operation, EROFS, name, about=fd)


def _is_link(invocation: Invocation, path: PathOrDescriptor, dir_fd: int | None) -> bool:
    try:
        where = resolve(invocation, Given(path, dir_fd), follow=False)
        return modes.S_ISLNK(originals.lstat(where.real).st_mode)
    except (OSError, TypeError, ValueError):
        return False  # the original raises the error


def _is_both(path: object, dir_fd: int | None) -> bool:
    """Whether both a descriptor and ``dir_fd`` are given. The original then raises the right error."""
    return type(path) is int and dir_fd is not None


def _without_default(follow: bool) -> dict[str, bool]:
    """``follow_symlinks`` for the original, unless it is the default: some do not accept the argument."""
    return {} if follow else {"follow_symlinks": False}


def chmod(
    invocation: Invocation,
    path: PathOrDescriptor,
    mode: int,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """:func:`os.chmod`."""
    if follow_symlinks:

        def call(real: PathOrDescriptor) -> None:
            originals.chmod(real, mode)

    else:
        if not _chmod_reaches_links() and _is_link(invocation, path, dir_fd):
            _complain_of_link(dir_fd)

        def call(real: PathOrDescriptor) -> None:
            originals.chmod(real, mode, follow_symlinks=False)

    try:
        _alter(invocation, "os.chmod", path, call, dir_fd, bool(follow_symlinks))
    except NotImplementedError:
        _complain_of_link(dir_fd)


@functools.cache
def _chmod_reaches_links() -> bool:
    """Whether the C library passes a request to change a symlink's mode to the kernel (fchmodat2).

    The kernel refuses it, but reports EROFS first on a read-only mount. An older C library checks by itself
    whether the file is a symlink. Only a C library that calls fchmodat2 accepts the flag used here, and
    reports EBADF for the invalid descriptor.
    """
    try:
        import ctypes

        chmod = ctypes.CDLL(None, use_errno=True).fchmodat
    except (AttributeError, ImportError, OSError):
        return False
    return chmod(-1, b"", 0, _AT_EMPTY_PATH) == -1 and ctypes.get_errno() == EBADF


_AT_EMPTY_PATH: Final = 0x1000


def _complain_of_link(dir_fd: int | None) -> NoReturn:
    """Raise what the original raises for a symlink that is not followed."""
    if dir_fd is not None:
        raise ValueError("chmod: cannot use dir_fd and follow_symlinks together") from None
    raise NotImplementedError("chmod: follow_symlinks unavailable on this platform") from None


def lchmod(invocation: Invocation, path: StrOrBytesPath, mode: int) -> None:
    """:func:`os.lchmod`."""
    _alter(invocation, "os.lchmod", path, lambda real: originals.lchmod(real, mode), follow=False)


def chown(
    invocation: Invocation,
    path: PathOrDescriptor,
    uid: int,
    gid: int,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
) -> None:
    """:func:`os.chown`."""
    options = _without_default(follow_symlinks)
    if _is_both(path, dir_fd):
        originals.chown(path, uid, gid, dir_fd=dir_fd, **options)
    _alter(
        invocation,
        "os.chown",
        path,
        lambda real: originals.chown(real, uid, gid, **options),
        dir_fd,
        follow_symlinks,
    )


def lchown(invocation: Invocation, path: PathOrDescriptor, uid: int, gid: int) -> None:
    """:func:`os.lchown`."""
    if type(path) is int:
        originals.lchown(path, uid, gid)  # takes a path only: raises the right error
    _alter(invocation, "os.lchown", path, lambda real: originals.lchown(real, uid, gid), follow=False)


def utime(
    invocation: Invocation,
    path: PathOrDescriptor,
    times: tuple[float, float] | None = None,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = True,
    **ns: tuple[int, int],
) -> None:
    """:func:`os.utime`. Its errors contain no path before 3.13."""
    options: dict[str, Any] = {**_without_default(follow_symlinks), **ns}
    if _is_both(path, dir_fd):
        originals.utime(path, times, dir_fd=dir_fd, **options)
    _alter(
        invocation,
        "os.utime",
        path,
        lambda real: originals.utime(real, times, **options),
        dir_fd,
        follow_symlinks,
        named=sys.version_info >= (3, 13),
    )


def setxattr(
    invocation: Invocation,
    path: PathOrDescriptor,
    attribute: StrOrBytesPath,
    value: ReadableBuffer,
    flags: int = 0,
    *,
    follow_symlinks: bool = True,
) -> None:
    """:func:`os.setxattr`."""

    def call(real: PathOrDescriptor) -> None:
        originals.setxattr(real, attribute, value, flags, follow_symlinks=follow_symlinks)

    _alter(invocation, "os.setxattr", path, call, None, follow_symlinks)


def removexattr(
    invocation: Invocation,
    path: PathOrDescriptor,
    attribute: StrOrBytesPath,
    *,
    follow_symlinks: bool = True,
) -> None:
    """:func:`os.removexattr`."""

    def call(real: PathOrDescriptor) -> None:
        originals.removexattr(real, attribute, follow_symlinks=follow_symlinks)

    _alter(invocation, "os.removexattr", path, call, None, follow_symlinks)


def fchmod(invocation: Invocation, fd: int, mode: int) -> None:
    """:func:`os.fchmod`."""
    alive(invocation, "os.fchmod", fd)
    check_descriptor(invocation, "os.fchmod", fd)
    _may_lock_by(invocation, fd)
    originals.fchmod(fd, mode)


def fchown(invocation: Invocation, fd: int, uid: int, gid: int) -> None:
    """:func:`os.fchown`."""
    alive(invocation, "os.fchown", fd)
    check_descriptor(invocation, "os.fchown", fd)
    originals.fchown(fd, uid, gid)
