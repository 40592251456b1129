"""What can be asked of a file by the descriptor that it is open by: where it stands, what it holds (C3.2)."""

from __future__ import annotations

import fcntl
import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tmpguard.core import originals

from .pages import PAGE, allocated, data_ranges, pages

_ZEROS: Final = 1 << 20


def appends(descriptor: int) -> bool:
    """Is it opened for appending? Then even a write at an offset goes to the end."""
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def may_write(descriptor: int) -> bool:
    """Was it opened for writing? An opener may have given another one than was asked for."""
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR))


def position(descriptor: int) -> int:
    """Where the next write of ``descriptor`` goes: its offset, or the end of a file opened for appending."""
    if appends(descriptor):
        return originals.fstat(descriptor).st_size
    return originals.lseek(descriptor, 0, os.SEEK_CUR)


@contextmanager
def _own_description(descriptor: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A second open file of the same file: the caller's has an offset, and flags, that must not matter."""
    path = f"/proc/self/fd/{descriptor}"
    try:
        own = originals.os_open(path, flags | os.O_CLOEXEC)
    except PermissionError:
        # It was opened before its mode became what it is.
        mode = modes.S_IMODE(originals.fstat(descriptor).st_mode)
        originals.fchmod(descriptor, mode | modes.S_IRUSR | modes.S_IWUSR)
        try:
            own = originals.os_open(path, flags | os.O_CLOEXEC)
        finally:
            originals.fchmod(descriptor, mode)
    try:
        yield own
    finally:
        originals.close(own)


def data_of(descriptor: int, start: int, end: int) -> list[tuple[int, int]]:
    with _own_description(descriptor) as own:
        return list(data_ranges(own, start, end))


def fill_holes(descriptor: int, offset: int, size: int) -> None:
    """Make the holes within ``size`` bytes from ``offset`` zeros that the disk has as data.

    What a file system has only reserved looks like a hole when it is measured; tmpfs charges it.
    """
    start, end = offset // PAGE * PAGE, min(pages(offset + size), originals.fstat(descriptor).st_size)
    with _own_description(descriptor, os.O_RDWR) as own:
        for begin, stop in [*data_ranges(own, start, end), (end, end)]:
            while start < begin:
                start += originals.pwrite(own, bytes(min(begin - start, _ZEROS)), start)
            start = max(start, stop)


def file_bytes(descriptor: int) -> int:
    """The bytes charged for the open file ``descriptor``."""
    return allocated(originals.fstat(descriptor), f"/proc/self/fd/{descriptor}", follow=0)


def open_unlinked() -> list[tuple[str, os.stat_result]]:
    """The unlinked files and directories that this process has open: the path they had, and their status.

    Linux only (through /proc/self/fd): elsewhere it finds none.
    """
    found: dict[tuple[int, int], tuple[str, os.stat_result]] = {}
    with suppress(FileNotFoundError):
        for name in originals.listdir("/proc/self/fd"):
            with suppress(OSError):
                status = originals.fstat(int(name))
                if not status.st_nlink:
                    path = originals.readlink(f"/proc/self/fd/{name}")
                    found[status.st_dev, status.st_ino] = (path, status)
    return list(found.values())
