"""The space that files take up, in the pages that tmpfs would charge (C3.2). Sizes are in bytes."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from typing import Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes

from .dirfd import MountPoint, mount_of, readable_directory

PAGE: Final = 4096
#: A shorter symlink target is stored in the inode and costs nothing.
SHORT_SYMLINK: Final = 128
_LONG: Final = 1000
#: A file of so many bytes has no blocks but those of its data: ext4 keeps four extents in the inode.
_UNFRAGMENTED: Final = 4 * PAGE
#: The most names that a measurement collects.
_NAMES: Final = 1000


class Usage(NamedTuple):
    """What a scratch directory holds: bytes in whole pages as tmpfs charges them, and directory entries."""

    bytes: int
    files: int


def pages(size: int) -> int:
    """``size`` bytes rounded up to whole pages, in bytes."""
    return -(-size // PAGE) * PAGE


def allocated(
    status: os.stat_result, path: StrOrBytes, dir_fd: int | None = None, follow: int = os.O_NOFOLLOW
) -> int:
    """The bytes that tmpfs would charge for the file of ``status``: its whole pages of data (C3.2).

    Holes cost nothing. Unless the blocks that the disk has allocated show that there are none, the file is
    searched for its data: file systems count extents, delayed allocations and compressed blocks differently.
    """
    kind, size = modes.S_IFMT(status.st_mode), status.st_size
    if kind != modes.S_IFREG:
        return pages(size) if kind == modes.S_IFLNK and size >= SHORT_SYMLINK else 0
    on_disk = status.st_blocks * 512
    length = (size + 4095) & -4096  # pages(), for each file that is opened or removed
    if is_surely_whole(status):
        return length
    try:
        descriptor = originals.os_open(path, os.O_RDONLY | os.O_CLOEXEC | follow, dir_fd=dir_fd)
    except OSError:
        return min(length, pages(on_disk))
    try:
        ranges = list(data_ranges(descriptor, 0, status.st_size))
    finally:
        originals.close(descriptor)
    data = sum(end - start for start, end in ranges)
    overhead = PAGE * (1 + len(ranges) // 256)  # blocks for the extent tree of a fragmented file
    return data if data >= on_disk - overhead else min(length, pages(on_disk))


def is_surely_whole(status: os.stat_result) -> bool:
    """Whether the blocks of a regular file show that it has no holes.

    The blocks of a larger file may include one for its extents, which hides a hole of a page.
    """
    length = (status.st_size + 4095) & -4096
    return status.st_blocks * 512 >= length <= _UNFRAGMENTED


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of ``start`` to ``end`` that are not holes, in whole pages. Moves the descriptor's offset."""
    start = start // PAGE * PAGE
    while start < end:
        try:
            first = originals.lseek(descriptor, start, os.SEEK_DATA) // PAGE * PAGE
            if first >= end:
                return
            last = pages(originals.lseek(descriptor, first, os.SEEK_HOLE))
        except OSError:
            return  # ENXIO: no data up to the end of the file
        yield first, min(last, pages(end))
        start = last


def measure(parent: int, name: str, names: list[str] | None = None) -> Usage:
    """What the directory ``name`` in ``parent`` holds; hard links are counted once (C3.2).

    Mounts in it are left out. The relative paths of the first thousand entries (``/a/b``) are appended to
    ``names``, if that is given.
    """
    return _measure_below(parent, name, mount_of(parent), set(), names)


def _measure_below(
    parent: int, name: str, mount: str, linked: set[int], names: list[str] | None = None
) -> Usage:
    total = files = 0
    pending = [name]
    while pending:
        path = pending.pop()
        try:
            with (
                readable_directory(parent, path, mount) as (directory, locked),
                originals.scandir(directory) as entries,
            ):
                for entry in entries:
                    files += 1
                    if names is not None and len(names) < _NAMES:
                        names.append(f"{path[len(name) :]}/{entry.name}")
                    if entry.is_dir(follow_symlinks=False):
                        if len(path) < _LONG and not locked:
                            pending.append(f"{path}/{entry.name}")
                            continue
                        # Its path is too long, or the path is not searchable: continue from this descriptor.
                        below = _measure_below(directory, entry.name, mount, linked)
                        total, files = total + below.bytes, files + below.files
                    else:
                        total += _entry_bytes(entry, directory, linked)
        except (FileNotFoundError, MountPoint):
            continue  # removed by another thread meanwhile
    return Usage(total, files)


class Entry(NamedTuple):
    """One directory entry: the bytes of its file in whole pages, and whether that has several names."""

    bytes: int
    inode: int
    linked: bool


def inventory(parent: int, name: str) -> dict[str, Entry]:
    """The entries below the directory ``name`` in ``parent``, by their relative paths (``/a/b``)."""
    found: dict[str, Entry] = {}
    _take_inventory(parent, name, mount_of(parent), "", found)
    return found


def _take_inventory(parent: int, name: str, mount: str, shown: str, found: dict[str, Entry]) -> None:
    pending = [(name, shown)]
    while pending:
        path, shown = pending.pop()
        try:
            with (
                readable_directory(parent, path, mount) as (directory, locked),
                originals.scandir(directory) as entries,
            ):
                for entry in entries:
                    inner = f"{shown}/{entry.name}"
                    if not entry.is_dir(follow_symlinks=False):
                        found[inner] = _entry_of(entry, directory)
                        continue
                    found[inner] = Entry(0, entry.inode(), False)
                    if len(path) < _LONG and not locked:
                        pending.append((f"{path}/{entry.name}", inner))
                    else:
                        _take_inventory(directory, entry.name, mount, inner, found)
        except (FileNotFoundError, MountPoint):
            continue  # removed by another thread meanwhile


def _entry_of(entry: os.DirEntry[str], directory: int) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Entry(0, entry.inode(), False)
    return Entry(allocated(status, entry.name, directory), status.st_ino, status.st_nlink > 1)


def _entry_bytes(entry: os.DirEntry[str], directory: int, linked: set[int]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if status.st_nlink > 1:
        if status.st_ino in linked:
            return 0
        linked.add(status.st_ino)
    return allocated(status, entry.name, directory)
