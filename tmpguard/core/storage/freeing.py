"""Giving back what is freed: by cutting a file, by emptying it, by removing its last name (C3.3)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from typing import Any, Final, TypeVar

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes

from .charging import Charging
from .credit import step
from .openfiles import file_bytes
from .pages import allocated
from .unlinked import LIMIT

T = TypeVar("T")

_IS_FIFO: Final = object()


class Freeing(Charging):
    """The part of a quota that gives back."""

    __slots__ = ("_is_written",)

    #: Does an open file of the application write to that inode, as far as is known?
    _is_written: Callable[[int], bool]

    # --- cutting ---------------------------------------------------------------------------------------

    @step
    def changing(self, descriptor: int, change: Callable[[], T]) -> T:
        """Run ``change``, a truncation, and account for its effect on the file's pages, up or down."""
        self._note_peak()
        self.cuts += 1  # whatever runs in the meantime asks the disk
        stamp = self.stamp
        before = file_bytes(descriptor)
        try:
            return change()
        finally:
            growth = file_bytes(descriptor) - before
            if not self._take(growth, descriptor, stamp):
                self.doubt()
            if growth < 0:
                self._shrunk(originals.fstat(descriptor).st_ino)

    def emptying(self, real: StrOrBytes, call: Callable[[], T]) -> T:
        """Run ``call``, which opens ``real`` and cuts it to nothing, if it is a regular file."""
        result = self._emptying(real, call)
        # Without the lock: opening a FIFO waits for its other end.
        return call() if result is _IS_FIFO else result

    @step
    def _emptying(self, real: StrOrBytes, call: Callable[[], T]) -> T | Any:
        if self.limit - self.credit - self._limbo.unheld_bytes > self._peak:
            self._note_peak()
        self.cuts += 1  # whatever runs in the meantime asks the disk
        stamp = self.stamp
        try:
            status = originals.stat(real)
        except (OSError, ValueError):
            status = None
        if status is None:
            return call()  # not above: its error would have one with the real path as its context
        if modes.S_ISFIFO(status.st_mode):
            return _IS_FIFO
        size = allocated(status, real)
        result = call()
        self.credit += size if self.stamp == stamp else 0
        if self.stamp != stamp:
            self.doubt()
        elif size:
            if self._exposed or self._limbo.sizes:
                self._resized(status.st_ino, -size, nameless=not status.st_nlink)
            self.on_shrunk(status.st_ino)
        return result

    @step
    def freed(self, size: int, inode: int = 0, known: bool = False) -> None:
        """``size`` bytes, of the file of that ``inode`` if it is given, are known to be free again.

        ``known`` means that the owner of its pages has already accounted for that.
        """
        self._note_peak()
        if inode in self._exposed:
            self._look_at_exposed()  # the look before this step may have found it already
        else:
            self.credit += size
            self._resized(inode, -size)
        if known:
            self.cuts += 1
        elif inode:
            self._shrunk(inode)

    # --- removing --------------------------------------------------------------------------------------

    @step
    def removing(self, path: str, call: Callable[[], T]) -> T:
        """Run ``call``, which removes or replaces the entry ``path``. Raises OSError if there is none."""
        stamp = self.stamp
        status = originals.lstat(path.rstrip("/"))
        size = allocated(status, path)
        result = call()
        self._unlinked(status, size)
        if self.stamp != stamp:
            self.doubt()
        return result

    @step
    def unlinked(self, status: os.stat_result, size: int) -> None:
        """A name of the file of ``status`` is gone. If it was the last one, its ``size`` bytes are free once
        its last descriptor is closed (C3.2)."""
        self._unlinked(status, size)

    def _unlinked(self, status: os.stat_result, size: int) -> None:
        inode = status.st_ino
        last = status.st_nlink <= 1 or modes.S_ISDIR(status.st_mode)
        if self.max_files is not None and not last:
            self._files_credit += 1
        exposed = self._exposed.get(inode) if last else None
        if exposed is not None and exposed.is_of(status):
            size = exposed.known  # what was charged for it
            exposed.nameless = exposed.unlinked = True
        if not last or not (size or self.max_files is not None):
            return
        if self.limit - self.credit - self._limbo.unheld_bytes > self._peak:
            self._note_peak()
        held = exposed is not None or self._is_written(inode)
        if status.st_nlink and inode in self._limbo.sizes:
            self._release(inode)  # of a file that had the same inode
        # Otherwise it is reported again, for another of its descriptors.
        self._limbo.add(inode, size, held=held)
        self.cuts += 1  # it may be written to, which is charged to what was unlinked
        if len(self._limbo.sizes) > LIMIT:
            self._settle()

    @step
    def reused(self, inode: int) -> None:
        """A file that was made later has that ``inode``: the one that had it before is closed by now."""
        self._exposed.pop(inode, None)
        self._release(inode)

    @step
    def named(self, inode: int) -> None:
        """The nameless file of that ``inode`` now has a name, and stays when it is closed."""
        self._limbo.discard(inode)
        exposed = self._exposed.get(inode)
        if exposed is not None:
            exposed.unlinked = False
