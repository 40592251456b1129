"""Tracks which pages of a file that SQLite writes are allocated."""

from __future__ import annotations

import os

from tmpguard.core import originals
from tmpguard.core.storage.pages import PAGE, data_ranges, is_surely_whole, pages


class Pages:
    """The allocated pages of one file, so that only its growth is charged (C3.2).

    SQLite writes its files almost sequentially. ``end`` (in bytes, whole pages) is the end of the contiguous
    part from the start, and ``_islands`` holds the numbers of pages written beyond a hole.
    """

    __slots__ = ("_islands", "end", "key", "nameless", "users")

    def __init__(self, key: tuple[int, int] = (0, 0), *, nameless: bool = False) -> None:
        self.end = 0
        #: The file's device and inode; zeros if they are not needed.
        self.key = key
        #: The addresses of the open files that share these pages.
        self.users: set[int] = set()
        #: True if the file was unlinked when it was opened, so that only SQLite can have it open.
        self.nameless = nameless
        self._islands: set[int] = set()

    def look(self, real: str, status: os.stat_result) -> None:
        """Find out which pages of the file at ``real`` are allocated."""
        if is_surely_whole(status):
            self.end = pages(status.st_size)
            return
        descriptor = originals.os_open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for start, stop in data_ranges(descriptor, 0, status.st_size):
                self.add(start, stop - start)
        finally:
            originals.close(descriptor)

    def forget(self) -> None:
        """Other code has truncated the file: its pages are charged again when they are written again."""
        self.end = 0
        self._islands = set()

    @property
    def inode(self) -> int:
        """The file's inode; 0 if it is not needed."""
        return self.key[1]

    @property
    def bytes(self) -> int:
        """The size of the allocated pages in bytes."""
        return self.end + len(self._islands) * PAGE

    def new(self, offset: int, size: int) -> list[int]:
        """The numbers of the pages that a write of ``size`` bytes at ``offset`` allocates."""
        first, stop = max(offset, self.end) // PAGE, pages(offset + size) // PAGE
        return [page for page in range(first, stop) if page not in self._islands]

    def add(self, offset: int, size: int) -> None:
        """``size`` bytes were written at ``offset``."""
        first, stop = offset // PAGE, pages(offset + size) // PAGE
        if first * PAGE > self.end:
            self._islands.update(range(first, stop))
            return
        self.end = max(self.end, stop * PAGE)
        if self._islands:
            while self.end // PAGE in self._islands:
                self.end += PAGE
            self._islands = {page for page in self._islands if page * PAGE >= self.end}

    def cut(self, size: int) -> int:
        """The file was truncated to ``size`` bytes. Returns the number of bytes that this freed."""
        before = self.bytes
        self.end = min(self.end, pages(size))
        self._islands = {page for page in self._islands if page * PAGE < pages(size)}
        return before - self.bytes
