"""What a descriptor tells about its file: the flags, the data, whether it is unlinked (C3.2)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import F_GETFL
from typing import Final

from tmpguard.core import originals

from .pages import PAGE, allocated, data_ranges, pages

_ZEROS: Final = 1 << 20


def appends(descriptor: int) -> bool:
    """Was it opened with O_APPEND? Then even a write at an offset goes to the end."""
    return bool(originals.fcntl(descriptor, F_GETFL) & os.O_APPEND)


def may_write(descriptor: int) -> bool:
    """Was it opened for writing? An opener may return a descriptor of another kind.

    With both flags set, a descriptor is good for neither reading nor writing.
    """
    return originals.fcntl(descriptor, F_GETFL) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


@contextmanager
def _own_description(descriptor: int, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A separate open file description of the same file, with an offset and flags of its own."""
    path = f"/proc/self/fd/{descriptor}"
    try:
        own = originals.os_open(path, flags | os.O_CLOEXEC)
    except PermissionError:
        # Its mode was changed after it was opened.
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
    """Write zeros into the holes within ``size`` bytes from ``offset``.

    Blocks that a file system has only reserved look like a hole when they are measured; tmpfs charges them.
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
    """The unlinked files and directories that this process has open: their former paths, and their status.

    It finds none if /proc is not mounted.
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
