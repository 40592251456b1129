"""Files whose descriptors native code may have: what it writes is found on the disk (C3.5).

Pillow's JPEG encoder, ``ndarray.tofile``, ``sendfile`` in a C library, a child process whose output goes to a
file: they all need a descriptor. So a charged file is *exposed*, until it is closed, if its ``fileno()`` was
called or if it was opened by ``os.open`` or ``os.dup``. For other files, this costs nothing.
"""

from __future__ import annotations

import os

from tmpguard.core import originals

from .pages import allocated


class Exposed:
    """One exposed file: the descriptors by which it is open, or its path if a child process may have it."""

    __slots__ = ("_descriptors", "_key", "known", "nameless", "path", "shared", "unlinked")

    def __init__(self, status: os.stat_result, path: str) -> None:
        self._key = status.st_dev, status.st_ino
        self._descriptors: set[int] = set()
        self.path = path
        #: What is charged for it, in bytes.
        self.known = 0
        #: Does it have no name any more?
        self.nameless = not status.st_nlink
        #: Was its last name removed? It cannot get another: a file with a name and its inode is another file.
        self.unlinked = False
        #: Was a child process started that may still write to it when it is closed here?
        self.shared = False

    def add(self, descriptor: int) -> None:
        """It is also open by ``descriptor``."""
        self._descriptors.add(descriptor)

    def drop(self, descriptor: int) -> None:
        """``descriptor`` is about to be closed."""
        self._descriptors.discard(descriptor)

    def look(self) -> tuple[int | None, bool]:
        """Its size in pages now, in bytes (None if it is gone), and whether it is still exposed."""
        for descriptor in list(self._descriptors):
            status = self._same(descriptor)
            if status is not None:
                self.nameless = not status.st_nlink
                return allocated(status, f"/proc/self/fd/{descriptor}", follow=0), True
            self._descriptors.discard(descriptor)  # closed, and perhaps used again for something else
        status = self._same(self.path)
        if status is None:
            return None, False
        return allocated(status, self.path), self.shared

    def _same(self, place: int | str) -> os.stat_result | None:
        try:
            status = originals.fstat(place) if isinstance(place, int) else originals.lstat(place)
        except OSError:
            return None
        return status if self.is_of(status) else None

    @property
    def key(self) -> tuple[int, int]:
        """Its device and inode."""
        return self._key

    def is_open(self) -> bool:
        """Is any of its known descriptors still open?"""
        return any(self._same(descriptor) for descriptor in self._descriptors.copy())

    def is_of(self, status: os.stat_result) -> bool:
        """Does ``status`` belong to this file, and not to another that got its inode number?"""
        if self.unlinked and status.st_nlink:
            return False
        return (status.st_dev, status.st_ino) == self._key
