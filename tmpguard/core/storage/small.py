"""The wipe of a directory that holds a few files and nothing else: what most requests leave.

:func:`survey` looks at it, :func:`clear` empties it. Both are a number of system calls, which the extension
makes one after the other where it can (``tmpguard/core/_speedups.c``); what it leaves, Python code does.
"""

from __future__ import annotations

import os
import stat as modes
from errno import ENOTSUP
from typing import Final, NamedTuple

from tmpguard.core import originals, real, speedups

from .dirfd import listed
from .pages import PAGE, allocated

#: The mode of a directory behind ``/tmp``.
TMP_MODE: Final = 0o1777
#: The most files that are a few.
FEW: Final = 8


class Survey(NamedTuple):
    """What a directory holds that has a few files only."""

    #: What the files take up, in bytes (C3.2).
    bytes: int
    #: Their names.
    files: list[str]
    #: Whether the directory itself is as it was made: its mode, owner and size, without extended attributes.
    unchanged: bool


def survey(directory: int) -> Survey | None:
    """What the open ``directory`` holds if it is a few files with a single name each; otherwise None.

    Raises OSError.
    """
    if speedups.extension is not None:
        # None, too, if it cannot tell without reading a file, and wherever something failed.
        found = speedups.extension.survey(directory, FEW)
        if found is not None:
            return Survey(*found)
    return _survey(directory)


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
    return Survey(total, names, _is_as_made(directory))


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


def clear(parent: int, directory: int, files: list[str], trash: str) -> int | None:
    """Remove the ``files`` of the open ``directory``.

    Returns None if there is something else in it by now. Otherwise it is empty, and the time of its last
    change, which is returned, is set to the present one, in nanoseconds. The kernel, which counts in ticks,
    gives it another one as soon as a file is made in it.

    The files are moved to ``parent``, under the name ``trash``, before they are unlinked. Otherwise the path
    of one that is still open would say that it belongs to the next invocation with that directory.

    Raises OSError.
    """
    if speedups.extension is not None:
        changed: int | None = speedups.extension.clear(parent, directory, files, trash)
        return changed
    for file in files:
        originals.rename(file, trash, src_dir_fd=directory, dst_dir_fd=parent)
        originals.unlink(trash, dir_fd=parent)
    now = real.time_ns()
    originals.utime(directory, ns=(now, now))  # before the look: what comes after it changes the time
    return None if listed(directory) else now
