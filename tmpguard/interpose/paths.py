"""From the path that the application gave to the path that the original function is called with."""

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
from tmpguard.core.layout import SOURCE_ROOT
from tmpguard.core.mounts.table import NotInBundle, Place
from tmpguard.core.spelling import descriptor_path

from .given import Given

# --- by the text alone ---------------------------------------------------------------------------------


def quick_real(invocation: Invocation, path: object) -> str | None:
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


def quick_real_of(invocation: Invocation, given: Given) -> str | None:
    """The same for what was given, of whatever type, in a call that looks at it more closely."""
    return None if given.odd or given.dir_fd is not None else quick_real(invocation, given.text)


def known_path(invocation: Invocation, path: object) -> str | None:
    """The absolute path of an entry of a directory of the read-only file system that was walked before.

    Its last component may be a link. None where nothing is known about the directory.
    """
    if type(path) is not str or not path or "\0" in path:
        return None
    namespace = invocation.namespace
    full = path if path.startswith("/") else f"{namespace.working_directory()}/{path}"
    return None if "/." in full or not namespace.knows(full) else full


def known_file(invocation: Invocation, path: object) -> str | None:
    """The same for what is no link: its real path."""
    known = known_path(invocation, path)
    return None if known is None or _is_link(known) else known


def _is_link(real: str) -> bool:
    try:
        return modes.S_ISLNK(originals.lstat(real).st_mode)
    except OSError:
        return False  # the call itself will say so


# --- by a walk -----------------------------------------------------------------------------------------


def resolve(
    invocation: Invocation,
    given: Given,
    *,
    follow: bool = True,
    operation: str = "",
    making: bool = False,
) -> Place:
    """Where a look-up of the path leads.

    Raises what is not in the bundle as absent, and records it for ``operation`` (C5.2). Where ``making``, the
    last component need not be there.
    """
    base = None if given.dir_fd is None else base_of(invocation, given.dir_fd, given.text)
    try:
        where = invocation.namespace.resolve(given.text, follow=follow, base=base)
    except NotInBundle as exc:
        why, there = exc.why, exc.there or making
    else:
        if not where.why or making:
            return where
        why, there = where.why, True
    invocation.absent(operation, given.name, why, there=there)
    return where  # the guard only watches


def resolve_entry(invocation: Invocation, given: Given, operation: str = "") -> Place:
    """The directory entry that the path names, for the calls that make or remove one."""
    base = None if given.dir_fd is None else base_of(invocation, given.dir_fd, given.text)
    try:
        return invocation.namespace.resolve_entry(given.text, base=base)
    except NotInBundle as exc:
        why = exc.why
    invocation.absent(operation, given.name, why)
    raise os_error(ENOENT)


def readable(invocation: Invocation, given: Given, *, operation: str, follow: bool = True) -> str:
    """The real path to read from: absolute, free of links that lead elsewhere."""
    if given.dir_fd is None:
        real = quick_real(invocation, given.text) or known_file(invocation, given.text)
        if real is not None:
            return real
    return resolve(invocation, given, follow=follow, operation=operation).real


# --- descriptors ---------------------------------------------------------------------------------------


def truth_as_descriptor(truth: bool) -> int:
    """The descriptor number of a truth value; since 3.13 with a warning, for the line outside of tmpguard."""
    if sys.version_info >= (3, 13):
        warnings.warn("bool is used as a file descriptor", RuntimeWarning, skip_file_prefixes=(SOURCE_ROOT,))
    return int(truth)


def base_of(invocation: Invocation, dir_fd: int, name: str = ".") -> str | None:
    """The canonical path of the directory that ``dir_fd`` has open, for a relative ``name`` (C1.2).

    Raises OSError(EBADF) for one that is not open, OSError(ENOTDIR) for one that is no directory.
    """
    if type(dir_fd) is bool:
        dir_fd = truth_as_descriptor(dir_fd)
    elif type(dir_fd) is not int:
        originals.stat("/", dir_fd=dir_fd)  # raises the right error for what is no descriptor
        dir_fd = operator.index(dir_fd)
    if not name or name.startswith("/"):
        originals.stat("/", dir_fd=dir_fd)  # a descriptor number that is too large is reported all the same
        return None
    if not modes.S_ISDIR(originals.fstat(dir_fd).st_mode):
        raise os_error(ENOTDIR)
    real = descriptor_path(dir_fd)
    if not real.startswith("/"):
        raise os_error(ENAMETOOLONG)  # too deep for the kernel to tell where it is
    return invocation.namespace.path_of(dir_fd, real)


def hold(invocation: Invocation, real: str) -> None:
    """The caller is about to get a descriptor of ``real``. If that is /tmp, it is nobody else's later."""
    root = invocation.namespace.root
    if root is not None and real.rstrip("/.") == root:
        invocation.reusable = False


# --- what is on the disk -------------------------------------------------------------------------------


def exists(real: StrOrBytes) -> bool:
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
