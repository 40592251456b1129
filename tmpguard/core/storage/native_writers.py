"""Files whose descriptors native code may have: what it writes is found by asking the disk (C3.5).

Pillow's JPEG encoder, ``ndarray.tofile``, ``sendfile`` by a C library, a child process whose output goes to
a file: each of them needs a descriptor. So a charged file of which ``fileno()`` was asked for, and one opened
by ``os.open`` or ``os.dup``, is *exposed* until it is closed; the others cost nothing more.
"""

from __future__ import annotations

import os

from tmpguard.core import originals

from .pages import allocated


class Exposed:
    """One exposed file, by the descriptors that it is open by, or by its path once a child has it."""

    __slots__ = ("_descriptors", "_key", "known", "nameless", "path", "shared", "unlinked")

    def __init__(self, status: os.stat_result, path: str) -> None:
        self._key = status.st_dev, status.st_ino
        self._descriptors: set[int] = set()
        self.path = path
        #: What is charged for it, in bytes.
        self.known = 0
        #: Has it no name any more?
        self.nameless = not status.st_nlink
        #: Was its last name removed? It gets no other one: what has its number and a name is another file.
        self.unlinked = False
        #: Was a child process started meanwhile, which may write when all is closed here?
        self.shared = False

    def add(self, descriptor: int) -> None:
        """It is open by ``descriptor``, too."""
        self._descriptors.add(descriptor)

    def drop(self, descriptor: int) -> None:
        """``descriptor`` is about to be closed."""
        self._descriptors.discard(descriptor)

    def look(self) -> tuple[int | None, bool]:
        """What it has now, in bytes (None where it is gone), and whether it is still exposed."""
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

    def is_of(self, status: os.stat_result) -> bool:
        """Is ``status`` one of this file, and not of another that got its number?"""
        if self.unlinked and status.st_nlink:
            return False
        return (status.st_dev, status.st_ino) == self._key
