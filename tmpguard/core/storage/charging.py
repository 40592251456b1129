"""Charging what is allocated: pages that are written, and inodes that are made (C3)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EACCES, ENOSPC
from typing import TypeVar

from tmpguard.core import originals

from .credit import TRIES, step
from .measuring import Measured
from .openfiles import appends, data_of
from .pages import PAGE, is_surely_whole, pages

T = TypeVar("T")


class Full(OSError):
    """The ENOSPC of the quota, which the caller turns into a refusal; one of the real disk is an OSError."""

    def __init__(self) -> None:
        super().__init__(ENOSPC, os.strerror(ENOSPC))


class Charging(Measured):
    """The part of a quota that charges.

    When the credit is not enough, the unlinked files that were closed meanwhile are given back; then the disk
    is measured; only then is anything refused.
    """

    __slots__ = ()

    # --- pages -----------------------------------------------------------------------------------------

    @step
    def charge(self, descriptor: int, size: int, offset: int | None = None) -> int:
        """Charge a write of ``size`` bytes at ``offset`` (None: the descriptor's). Hold the lock.

        Returns how many of them fit. Raises Full if none do (C3.4). If ``stamp`` is not the same after the
        write as after this call, the caller has to :meth:`doubt`.
        """
        for _ in range(TRIES):
            stamp = self.stamp
            status = originals.fstat(descriptor)
            if appends(descriptor):
                offset = status.st_size
            elif offset is None:
                offset = originals.lseek(descriptor, 0, os.SEEK_CUR)
            growth = _growth(descriptor, offset, size, status)
            if self._afford(growth, descriptor, stamp):
                return size
            if self.stamp != stamp:
                continue  # a signal handler ran
            fits = self._fitting(descriptor, offset, size)
            if not fits:
                raise Full
            if self._afford(_growth(descriptor, offset, fits), descriptor, stamp):
                return fits
        # Signals arrive faster than the disk can be asked: charge what seems right, and measure next time.
        assert offset is not None
        growth = _growth(descriptor, offset, size)
        if growth > self.credit:
            raise Full
        self.credit -= growth
        self._doubtful = True
        return size

    @step
    def charge_whole(self, descriptor: int, size: int, offset: int) -> None:
        """Charge ``size`` bytes at ``offset`` or nothing, as fallocate does. Hold the lock. Raises Full."""
        fits, stamp = False, None
        while stamp != self.stamp:
            stamp = self.stamp
            fits = self._afford(_growth(descriptor, offset, size), descriptor, stamp)
        if not fits:
            raise Full

    @step
    def charging(self, size: int, make: Callable[[], T]) -> T:
        """Run ``make``, which allocates the pages of ``size`` bytes. Raises Full."""
        cost = pages(size)
        if not self._afford(cost):
            raise Full
        stamp = self.stamp
        try:
            return make()
        except OSError:
            self.credit += cost
            raise
        finally:
            if self.stamp != stamp:
                self.doubt()

    @step
    def take(self, growth: int, inode: int = 0) -> bool:
        """Charge ``growth`` bytes in whole pages, to the file of that ``inode`` if it is given, or nothing.
        Hold the lock. Did they fit?"""
        fits = self._afford(growth)
        if fits:
            self._resized(inode, growth)
        return fits

    def _afford(self, growth: int, descriptor: int = -1, stamp: int | None = None) -> bool:
        """Take ``growth`` from the credit. If it does not fit, look for space that was freed unseen.

        If ``growth`` was worked out at a different ``stamp``, nothing is taken: it is out of date.
        """
        stamp = self.stamp if stamp is None else stamp
        for find_space in (None, self._settle, self._measured):
            if growth > self.credit and find_space is not None:
                with suppress(OSError):  # no descriptor is free, for example
                    find_space()
            if growth <= self.credit and self._take(growth, descriptor, stamp):
                self.overrun = False
                return True
        return False

    def _take(self, growth: int, descriptor: int, stamp: int) -> bool:
        taken = self.stamp == stamp
        self.credit -= growth if self.stamp == stamp else 0
        if taken and descriptor >= 0 and growth and (self._exposed or self._limbo.sizes):
            status = originals.fstat(descriptor)
            self._resized(status.st_ino, growth, nameless=not status.st_nlink)
        return taken

    def _fitting(self, descriptor: int, offset: int, size: int) -> int:
        """How many of ``size`` bytes at ``offset`` fit: up to the first page that does not."""
        low, high = 0, size
        while low < high:
            middle = (low + high + 1) // 2
            if _growth(descriptor, offset, middle) <= self.credit:
                low = middle
            else:
                high = middle - 1
        return low

    # --- inodes ----------------------------------------------------------------------------------------

    def making(self, real: str, make: Callable[[], T], *, nameless: bool = False) -> T:
        """Run ``make``, which may make the directory entry ``real``, or a ``nameless`` file in the directory
        ``real``, within ``max_files``.

        Raises Full past the limit (C3.6), but not for an entry that exists.
        """
        return make() if self.max_files is None else self._making(real, make, nameless)

    @step
    def _making(self, real: str, make: Callable[[], T], nameless: bool) -> T:
        if not nameless and _needs_no_inode(real.rstrip("/")):
            return make()
        for find_room in (self._settle, self._measured):
            if self._files_credit <= 0:
                find_room()
        if self._files_credit <= 0:
            _check_making(f"{real}/." if nameless else real)
            raise Full
        self._files_credit -= 1
        stamp = self.stamp
        try:
            return make()
        except OSError:
            self._files_credit += 1
            raise
        finally:
            if self.stamp != stamp:
                self.doubt()


def _growth(descriptor: int, offset: int, size: int, status: os.stat_result | None = None) -> int:
    """The bytes that a write of ``size`` bytes at ``offset`` newly allocates."""
    start, end = offset // PAGE * PAGE, pages(offset + size)
    status = status or originals.fstat(descriptor)
    length = pages(status.st_size)
    if start >= length or is_surely_whole(status):
        return max(0, end - max(start, length))
    return end - start - sum(stop - begin for begin, stop in data_of(descriptor, start, end))


def _needs_no_inode(real: str) -> bool:
    """Will making ``real`` need no inode, because it exists or cannot be made?"""
    try:
        originals.lstat(real)
    except OSError:
        return False
    except ValueError:
        pass  # not a path: the call itself will report that
    return True


def _check_making(real: str) -> None:
    """Raise what the kernel reports about the new entry ``real`` before it asks for an inode."""
    directory = os.path.dirname(real.rstrip("/")) or "/"
    originals.stat(directory)
    with suppress(FileNotFoundError):
        originals.lstat(real)
    if not originals.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise OSError(EACCES, os.strerror(EACCES))
