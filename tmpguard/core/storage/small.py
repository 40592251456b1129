"""The wipe of a directory that holds a few files and nothing else: what most requests leave.

:func:`survey` looks at it, :func:`empty` empties it, and :func:`last_change` tells whether it still is empty
when it is used again. The extension makes their system calls one after the other where it can
(``tmpguard/core/_speedups.c``); what it leaves, Python code does.
"""

from __future__ import annotations

import os
import stat as modes
from errno import ENOTSUP
from typing import Final, NamedTuple

from tmpguard.core import originals, real, speedups

from .dirfd import DIRECTORY, listed
from .pages import PAGE, allocated

#: The mode of a directory behind ``/tmp``.
TMP_MODE: Final = 0o1777
#: The most files that are a few.
FEW: Final = 8


class Survey(NamedTuple):
    """What a directory holds that has a few files only."""

    #: The directory, opened. Whoever asked for the survey closes it.
    descriptor: int
    #: What the files take up, in bytes (C3.2).
    bytes: int
    #: Their names.
    files: list[str]
    #: Whether the directory itself is as it was made: its mode, owner and size, without extended attributes.
    unchanged: bool


def survey(parent: int, name: str) -> Survey | None:
    """What the directory ``name`` in the open ``parent`` holds, if it is a few files with a single name each.

    Otherwise None. Raises OSError.
    """
    if speedups.extension is not None:
        # None, too, if it cannot tell without reading a file, and wherever something failed.
        found = speedups.extension.survey(parent, name, FEW)
        if found is not None:
            return Survey(*found)
    descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    found = None
    try:
        found = _survey(descriptor)
    finally:
        if found is None:
            originals.close(descriptor)
    return found


def _survey(directory: int) -> Survey | None:
    names = listed(directory)
    if len(names) > FEW:
        return None
    total = 0
    for name in names:
        status = originals.stat(name, dir_fd=directory, follow_symlinks=False)
        if not modes.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return None
        total += allocated(status, name, directory)
    return Survey(directory, total, names, _is_as_made(directory))


def _is_as_made(directory: int) -> bool:
    status = originals.fstat(directory)
    if status.st_mode & 0o7777 != TMP_MODE or status.st_uid != os.geteuid() or status.st_size > PAGE:
        return False
    try:
        return not originals.listxattr(directory)
    except OSError as exc:
        if exc.errno != ENOTSUP:
            raise
        return True  # such a file system has none


def empty(parent: int, name: str, spare: str, found: Survey) -> int | None:
    """Rename the directory ``name`` in the open ``parent`` to ``spare``, and remove the ``found`` files.

    Returns None if they could not all be removed, or if there is something else in it by now. Otherwise it is
    empty, and the time of its last change, which is returned, is set to the present one, in nanoseconds. The
    kernel, which counts in ticks, gives it another one as soon as a file is made in it.

    The files are moved to ``parent`` before they are unlinked. Otherwise the path of one that is still open
    would say that it belongs to the next invocation with that directory.

    Raises OSError if the directory cannot be renamed: EBUSY for a mount point.
    """
    trash = trash_of(spare)
    if speedups.extension is not None:
        opened, files = found.descriptor, found.files
        changed: int | None = speedups.extension.empty(parent, name, spare, trash, opened, files)
        return changed
    originals.rename(name, spare, src_dir_fd=parent, dst_dir_fd=parent)
    try:
        return _clear(parent, found.descriptor, found.files, trash)
    except OSError:
        return None


def _clear(parent: int, directory: int, files: list[str], trash: str) -> int | None:
    for file in files:
        originals.rename(file, trash, src_dir_fd=directory, dst_dir_fd=parent)
        originals.unlink(trash, dir_fd=parent)
    now = real.time_ns()
    originals.utime(directory, ns=(now, now))  # before the look: what comes after it changes the time
    return None if listed(directory) else now


def trash_of(spare: str) -> str:
    """Where :func:`empty` moves the files of the directory ``spare``."""
    return f"{spare}.gone"


def last_change(directory: str) -> int:
    """When the directory was last changed, in nanoseconds. Raises OSError."""
    if speedups.extension is not None:
        changed: int = speedups.extension.last_change(directory)
        return changed
    return originals.stat(directory, follow_symlinks=False).st_mtime_ns
