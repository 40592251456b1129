"""The kernel's errors for a change on a read-only mount, in the kernel's order (C2.2).

Each function returns the errno of one kind of system call for a place outside the writable mounts, or 0 if
the call succeeds. The rules were determined on a read-only root; the parity tests compare them with it.
"""

from __future__ import annotations

import os
import stat as modes
from errno import EBUSY, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EROFS, EXDEV
from typing import Final

from tmpguard.core import originals
from tmpguard.core.mounts.table import Place

from .modes import opens_to_write

#: 0 if the platform does not have the flag.
O_PATH: Final = getattr(os, "O_PATH", 0)
O_TMPFILE: Final = getattr(os, "O_TMPFILE", 0)


def _mode(real: str) -> int | None:
    """The mode of the directory entry ``real``, None if it does not exist. Other errors are raised."""
    try:
        return originals.lstat(real).st_mode
    except FileNotFoundError:
        return None


def holder_of(where: Place) -> str:
    """The real directory that contains the entry of ``where``. What is mounted at it may lie elsewhere."""
    path = where.real if where.mount is where.parent else where.virtual
    return os.path.dirname(path.rstrip("/")) or "/"


def check_search(where: Place) -> None:
    """Raise OSError(EACCES), which precedes other errors, if the entry's directory may not be searched."""
    try:
        originals.lstat(holder_of(where) + "/.")
    except PermissionError:
        raise
    except OSError:
        pass  # it was removed while it was a working directory


def open_error(where: Place, flags: int) -> int:
    """For open(2)."""
    if flags & O_PATH:
        return 0
    creating = flags & os.O_CREAT
    if where.slash and creating and not where.last:
        return EISDIR
    mode = _mode(where.real)
    if mode is None:
        return EROFS if creating and not where.last and not _in_proc(where) else ENOENT
    if O_TMPFILE and flags & O_TMPFILE == O_TMPFILE:
        return EROFS if modes.S_ISDIR(mode) else ENOTDIR
    if creating and flags & os.O_EXCL:
        return EEXIST
    if modes.S_ISLNK(mode):
        if flags & os.O_NOFOLLOW:
            return ELOOP
        mode = originals.stat(where.real).st_mode  # a magic link in /proc, which only the kernel can follow
    # Access mode 3 permits neither reading nor writing: the descriptor is only for ioctl.
    writing = opens_to_write(flags) or flags & os.O_TRUNC
    if modes.S_ISDIR(mode):
        return EISDIR if writing or creating else 0
    if flags & os.O_DIRECTORY or where.slash:
        return ENOTDIR
    # A write to a device, a FIFO or a socket does not change the mount (C1.3).
    return EROFS if writing and modes.S_ISREG(mode) else 0


def making_error(where: Place, *, directory: bool) -> int:
    """For mkdir, mknod, mkfifo, symlink and the new name of link. EEXIST comes first."""
    if _mode(where.real.rstrip("/") or "/") is not None:
        return EEXIST
    if where.last:
        return ENOENT
    if _in_proc(where) or (where.slash and not directory):
        return ENOENT
    return EROFS


def _in_proc(where: Place) -> bool:
    """True for a path in /proc. Creating an entry gives ENOENT there, whether or not it could exist."""
    return where.virtual.startswith("/proc/")


def unlink_error(where: Place) -> int:
    """For unlink: the kernel refuses it before it checks whether the file exists."""
    return EISDIR if where.last else EROFS


def rmdir_error(where: Place) -> int:
    """For rmdir."""
    return {"..": ENOTEMPTY, ".": EINVAL, "/": EBUSY}.get(where.last, EROFS)


def rename_error(source: Place, target: Place) -> int:
    """For rename. The kernel checks first for different mounts, then the kind of name, then for read-only.

    Each name is on the mount of its directory. 0 if both are on the same writable mount.
    """
    if source.parent is not target.parent or not (source.parent.writable or _on_one_device(source, target)):
        return EXDEV
    if source.last or target.last:
        return EBUSY
    return 0 if source.parent.writable else EROFS


def _on_one_device(source: Place, target: Place) -> bool:
    """True if the directories of both entries are on the same real device."""
    devices = {
        originals.stat(holder_of(where)).st_dev
        for where in (source, target)
        if not where.why  # a file that is not in the bundle is on no device
    }
    return len(devices) <= 1


def mount_point_error(source: Place, target: Place) -> int:
    """For rename from or to a mount point. The types of both entries are checked before EBUSY."""
    kinds = [_mode(where.real.rstrip("/")) for where in (source, target)]
    if kinds[0] is None:
        return ENOENT
    if (source.slash or target.slash) and not modes.S_ISDIR(kinds[0]):
        return ENOTDIR
    if kinds[1] is not None and modes.S_ISDIR(kinds[0]) != modes.S_ISDIR(kinds[1]):
        return ENOTDIR if modes.S_ISDIR(kinds[0]) else EISDIR
    return EBUSY


def change_error(where: Place) -> int:
    """For chmod, chown, utime and the extended attributes: the file must exist."""
    return ENOENT if _mode(where.real) is None else EROFS


def truncate_error(where: Place, length: int) -> int:
    """For truncate."""
    if length < 0:
        return EINVAL
    mode = _mode(where.real)
    if mode is None:
        return ENOENT
    if modes.S_ISDIR(mode):
        return EISDIR
    return EROFS if modes.S_ISREG(mode) else EINVAL
