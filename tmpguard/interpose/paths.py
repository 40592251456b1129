"""From the path that the application gave to the path that the original function is called with."""

from __future__ import annotations

import operator
import os
import stat as modes
import sys
import warnings
from errno import ENAMETOOLONG, ENOENT, ENOTDIR, EROFS
from typing import Any, Final, NoReturn

from tmpguard.core import originals
from tmpguard.core.callers import is_observer
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import SOURCE_ROOT
from tmpguard.core.mounts.table import NotInBundle, Place
from tmpguard.core.spelling import descriptor_path, spelled

from .readonly import check_search

#: What the functions of ``os`` take for a path besides str, bytes and PathLike, with a warning.
BUFFERS: Final[tuple[Any, ...]] = (bytearray, memoryview) if sys.version_info < (3, 12) else ()


def text(path: Any) -> str:
    """The path as str. Raises TypeError as ``os.fsdecode`` does."""
    if type(path) is str:
        return path
    return os.fsdecode(bytes(path) if isinstance(path, BUFFERS) else path)


def plain(path: Any) -> Any:
    """The path as str or bytes, whichever it is. Raises TypeError as ``os.fspath`` does."""
    return bytes(path) if isinstance(path, BUFFERS) else os.fspath(path)


def like(given: Any, real: str) -> Any:
    """``real`` in the type of ``given``: bytes for bytes, so that listings come in bytes, too."""
    if type(given) is str:
        return real
    return os.fsencode(real) if isinstance(plain(given), bytes) else real


def quick_real(invocation: Invocation, path: Any) -> str | None:
    """The real path of most paths below /tmp by string work alone (DESIGN, decision 2); None: walk.

    While the invocation has made no symlink, such a path leads where its text says.
    """
    if type(path) is not str:
        return None
    mounts = invocation.guard.mounts
    tail = mounts.tails.get(path)
    if tail is None:
        tail = mounts.tail_of(path)
    if not tail:
        return None
    prefix = invocation.mounted.prefix or invocation.first_prefix()
    return prefix and prefix + tail


def truth_as_descriptor(truth: bool) -> int:
    """The number that it stands for; since 3.13 with a warning, for the line outside of tmpguard."""
    if sys.version_info >= (3, 13):
        warnings.warn("bool is used as a file descriptor", RuntimeWarning, skip_file_prefixes=(SOURCE_ROOT,))
    return int(truth)


def base_of(invocation: Invocation, dir_fd: int | None, name: str = ".") -> str | None:
    """The canonical path of the directory that ``dir_fd`` has open, for a relative ``name`` (C1.2).

    Raises OSError(EBADF) for one that is not open, OSError(ENOTDIR) for one that is no directory.
    """
    if dir_fd is None:
        return None
    if type(dir_fd) is bool:
        dir_fd = truth_as_descriptor(dir_fd)
    elif type(dir_fd) is not int:
        originals.stat("/", dir_fd=dir_fd)  # knows the words for what is no descriptor
        dir_fd = operator.index(dir_fd)
    if not name or name.startswith("/"):
        originals.stat("/", dir_fd=dir_fd)  # a number that is too large is told all the same
        return None
    if not modes.S_ISDIR(originals.fstat(dir_fd).st_mode):
        raise os_error(ENOTDIR)
    real = descriptor_path(dir_fd)
    if not real.startswith("/"):
        raise os_error(ENAMETOOLONG)  # too deep for the kernel to tell where it is
    return invocation.namespace.path_of(dir_fd, real)


def place(
    invocation: Invocation,
    path: Any,
    dir_fd: int | None = None,
    *,
    follow: bool = True,
    operation: str = "",
    making: bool = False,
) -> Place:
    """Where a look-up of ``path`` leads.

    Raises what is not in the bundle as absent, and records it for ``operation`` (C5.2). Where ``making``, the
    last component need not be there.
    """
    name = text(path)
    base = None if dir_fd is None else base_of(invocation, dir_fd, name)
    try:
        where = invocation.namespace.resolve(name, follow=follow, base=base)
    except NotInBundle as exc:
        why, there = exc.why, exc.there or making
    else:
        if not where.why or making:
            return where
        why, there = where.why, True
    invocation.absent(operation, path, why, there=there)
    return where  # the guard only watches


def entry(invocation: Invocation, path: Any, dir_fd: int | None = None, operation: str = "") -> Place:
    """The directory entry that ``path`` names, for the calls that make or remove one."""
    name = text(path)
    base = None if dir_fd is None else base_of(invocation, dir_fd, name)
    try:
        return invocation.namespace.resolve_entry(name, base=base)
    except NotInBundle as exc:
        why = exc.why
    invocation.absent(operation, path, why)
    raise os_error(ENOENT)


def readable(
    invocation: Invocation, path: Any, dir_fd: int | None = None, *, operation: str, follow: bool = True
) -> str:
    """The real path to read ``path`` from: absolute, free of links that lead elsewhere."""
    real = quick_real(invocation, path) if dir_fd is None else None
    if real is not None:
        return real
    known = known_path(invocation, path) if dir_fd is None else None
    if known is not None and not _is_link(known):
        return known
    return place(invocation, path, dir_fd, follow=follow, operation=operation).real


def hold(invocation: Invocation, real: Any) -> None:
    """The caller is about to get a descriptor of ``real``. If that is /tmp, it is nobody else's later."""
    root = invocation.namespace.root
    if root is not None and os.fsdecode(real).rstrip("/.") == root:
        invocation.reusable = False


def _is_link(real: str) -> bool:
    try:
        return modes.S_ISLNK(originals.lstat(real).st_mode)
    except OSError:
        return False  # the call itself will say so


def known_path(invocation: Invocation, path: Any) -> str | None:
    """The absolute path of an entry of a directory of the read-only file system that was walked before.

    Its last component may be a link. None where nothing is known about the directory.
    """
    if type(path) is not str:
        return None
    if not path:
        return None
    namespace = invocation.namespace
    full = path if path.startswith("/") else f"{namespace.working_directory()}/{path}"
    return None if "/." in full or not namespace.knows(full) else full


def is_odd(path: Any, *, wanted: str = "string, bytes or os.PathLike") -> bool:
    """Is ``path`` something that the originals refuse by themselves (a NUL byte, no path at all)?"""
    if type(path) is str:
        return "\0" in path
    if isinstance(path, BUFFERS):
        complaint = f"path should be {wanted}, not {type(path).__name__}"
        warnings.warn(complaint, DeprecationWarning, stacklevel=4)
    try:
        return "\0" in text(path)
    except TypeError:
        return True


def reraise(exc: OSError, given: Any) -> NoReturn:
    """Raise ``exc`` again with the caller's own spelling in place of the real path (C2.1, C7.1)."""
    exc.filename = spelled(given)
    try:
        raise exc
    finally:
        del exc  # it holds this frame, which would hold it: the caller's objects would wait for the collector


def alive(invocation: Invocation, operation: str, path: Any = None) -> None:
    """Before a change: raises OSError(ESTALE) when the invocation is over (C4.5)."""
    if invocation.ended:
        raise invocation.stale(operation, path)


def alive_to_read(invocation: Invocation, operation: str, path: Any) -> None:
    """Before a look: raises OSError(ESTALE) when the invocation is over and ``path`` lies in its /tmp.

    The read-only rest can still be read: the printer of a traceback looks for the sources there.
    """
    if not invocation.ended or type(path) is int or is_odd(path):
        return
    namespace = invocation.namespace
    virtual = os.path.normpath(os.path.join(namespace.working_directory(), text(path)))
    if namespace.table.mount_of(virtual).charged and not is_observer():
        raise invocation.stale(operation, path)


def refuse(
    invocation: Invocation, operation: str, given: Any, where: Place | None, second: Any = None
) -> None:
    """Refuse a change outside the writable mounts with EROFS (C2.1)."""
    target = given if second is None else second
    invocation.refuse(operation, EROFS, given, second, remedy=invocation.remedy_for(where, target))


def exists(real: str) -> bool:
    """Is there a directory entry ``real``? Raises OSError other than ENOENT, as a look-up would."""
    try:
        originals.lstat(real)
    except FileNotFoundError:
        return False
    return True


def is_directory(real: str) -> bool:
    try:
        return modes.S_ISDIR(originals.lstat(real).st_mode)
    except OSError:
        return False


def stop(
    invocation: Invocation, operation: str, code: int, given: Any, where: Place | None, second: Any = None
) -> None:
    """Raise what the kernel says; only EROFS is a refusal of ours and on the report."""
    if code and where is not None:
        check_search(where)  # whether it may be searched is asked first
    if code == EROFS:
        refuse(invocation, operation, given, where, second)
    elif code:
        raise os_error(code)


def put_name(exc: OSError, given: Any, names: bool) -> None:
    """Put ``given`` into an error that bears the path, and no trace of one into another."""
    if names:
        exc.filename = spelled(given)
    elif exc.filename is not None:
        del exc.filename
