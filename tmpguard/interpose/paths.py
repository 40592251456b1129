"""Translates paths that the application gives to the real paths that the originals are called with."""

from __future__ import annotations

import operator
import stat as modes
import sys
import warnings
from errno import ENAMETOOLONG, ENOENT, ENOTDIR

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import SOURCE_PREFIX
from tmpguard.core.mounts.known import Known
from tmpguard.core.mounts.table import NotInBundle, Place
from tmpguard.core.real import monotonic
from tmpguard.core.spelling import descriptor_path, is_encodable

from .given import Given

# --- by the text of the path alone ---------------------------------------------------------------------


def quick_real(invocation: Invocation, path: object) -> str | None:
    """The real path of a path below /tmp, if its text alone determines it; None if a walk is needed.

    That is true of most paths, as long as the invocation has created no symlink (DESIGN, decision 2).
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


def quick_real_of(invocation: Invocation, given: Given) -> str | None:
    """:func:`quick_real` for a parsed argument of any type."""
    if given.odd or given.dir_fd is not None:
        return None
    text = given.text
    prefix, tail = invocation.mounted.prefix, invocation.guard.mounts.tails.get(text)
    return prefix + tail if prefix and tail else quick_real(invocation, text)


def quick_known(invocation: Invocation, path: object) -> str | None:
    """The real path of a path outside ``/tmp`` that is cached as containing no symlink, otherwise None.

    It is relative if the process is in the invocation's working directory.
    """
    known = invocation.guard.mounts.known
    if type(path) is not str or monotonic() >= known.expires:
        return None
    if path in known.paths:
        return path
    cwd = invocation.namespace.cwd
    if cwd is None:
        return None
    if path in known.relative and cwd == known.process_directory:
        return path
    full = f"{cwd}/{path}"
    if full not in known.paths:
        return None
    known.add_relative(path, cwd)
    return full


def quick_known_directory(invocation: Invocation, path: object) -> str | None:
    """:func:`quick_known` for a directory whose listing leaves no name out."""
    mounts = invocation.guard.mounts
    known = mounts.known
    if type(path) is not str or not mounts.lists_all or monotonic() >= known.expires:
        return None
    directories = known.directories
    full = path if path in directories else f"{invocation.namespace.cwd}/{path}"
    return full if directories.get(full) == full else None


def known_path(invocation: Invocation, path: object, known: Known) -> str | None:
    """The absolute path of ``path``, if its directory is in the cache ``known``, otherwise None.

    The last component may be a symlink.
    """
    if type(path) is not str or not path or "\0" in path:
        return None
    namespace = invocation.namespace
    full = path if path.startswith("/") else f"{namespace.working_directory()}/{path}"
    return full if "/." not in full and namespace.knows(full, known) and is_encodable(full) else None


def known_file(invocation: Invocation, path: object) -> str | None:
    """:func:`known_path` if the last component is not a symlink, which makes it the real path."""
    known = invocation.guard.mounts.fresh()
    full = known_path(invocation, path, known)
    if full is None or full in known.paths:
        return full
    try:
        if modes.S_ISLNK(originals.lstat(full).st_mode):
            return None
    except OSError:
        return full  # the original raises the error
    known.add_path(full)
    return full


# --- by a walk -----------------------------------------------------------------------------------------


def resolve(
    invocation: Invocation,
    given: Given,
    *,
    follow: bool = True,
    operation: str = "",
    making: bool = False,
    creating: bool = False,
) -> Place:
    """Resolve a path argument.

    A path that is not in the bundle raises OSError(ENOENT) and is recorded for ``operation`` (C5.2). With
    ``making``, the last component may be missing. ``creating`` is as in :meth:`Namespace.resolve`.
    """
    base = None if given.dir_fd is None else base_of(invocation, given.dir_fd, given.text)
    try:
        where = invocation.namespace.resolve(given.text, follow=follow, base=base, creating=creating)
    except NotInBundle as exc:
        why, there = exc.why, exc.there or making
    else:
        if where.why and not making:
            invocation.absent(operation, given.name, where.why)
        return where
    invocation.absent(operation, given.name, why, there=there)
    raise os_error(ENOENT)


def resolve_entry(invocation: Invocation, given: Given, operation: str = "") -> Place:
    """Resolve a path argument to a directory entry, for calls that create or remove one."""
    base = None if given.dir_fd is None else base_of(invocation, given.dir_fd, given.text)
    try:
        return invocation.namespace.resolve_entry(given.text, base=base)
    except NotInBundle as exc:
        why = exc.why
    invocation.absent(operation, given.name, why)
    raise os_error(ENOENT)


def readable(invocation: Invocation, given: Given, *, operation: str, follow: bool = True) -> str:
    """The real path to read from: absolute, and without symlinks in its directories."""
    if given.dir_fd is None:
        real = quick_real(invocation, given.text) or known_file(invocation, given.text)
        if real is not None:
            return real
    return resolve(invocation, given, follow=follow, operation=operation).real


# --- descriptors ---------------------------------------------------------------------------------------


def truth_as_descriptor(truth: bool) -> int:
    """A bool as a descriptor number. Since 3.13 with a warning, attributed to the line outside tmpguard."""
    if sys.version_info >= (3, 13):
        text = "bool is used as a file descriptor"
        warnings.warn(text, RuntimeWarning, skip_file_prefixes=(SOURCE_PREFIX,))
    return int(truth)


def base_of(invocation: Invocation, dir_fd: int, name: str = ".") -> str | None:
    """The canonical path of the open directory ``dir_fd``, for a relative ``name`` (C1.2).

    None for any other ``name``. Raises OSError(EBADF) if the descriptor is not open, and OSError(ENOTDIR) if
    it is not a directory.
    """
    if type(dir_fd) is bool:
        dir_fd = truth_as_descriptor(dir_fd)
    elif type(dir_fd) is not int:
        originals.stat("/", dir_fd=dir_fd)  # raises the right error if it is not a descriptor
        dir_fd = operator.index(dir_fd)
    if not name or name.startswith("/"):
        originals.stat("/", dir_fd=dir_fd)  # still raises for a descriptor number that is too large
        return None
    if not modes.S_ISDIR(originals.fstat(dir_fd).st_mode):
        raise os_error(ENOTDIR)
    real = descriptor_path(dir_fd)
    if not real.startswith("/"):
        raise os_error(ENAMETOOLONG)  # too deep for the kernel to report its path
    return invocation.namespace.path_of(dir_fd, real)


def hold(invocation: Invocation, real: str) -> None:
    """The caller is about to open ``real``. If it is /tmp itself, the directory must not be reused later."""
    root = invocation.namespace.root
    if root is not None and real.rstrip("/.") == root:
        invocation.reusable = False


# --- on disk -------------------------------------------------------------------------------------------


def exists(real: StrOrBytes) -> bool:
    """Whether there is a directory entry at ``real``. Raises OSError for anything but ENOENT."""
    try:
        originals.lstat(real)
    except FileNotFoundError:
        return False
    return True
