"""Pages and inodes charged to one invocation (C3).

The quota is kept by credit: a number of bytes that surely still fit. A write only subtracts the most that
it can cost. When the credit does not suffice, the growth of that write is worked out exactly; then the
unlinked files that were closed meanwhile are given back; then the scratch directory is measured; and only
then is anything refused. So there is never a wrong refusal and never an overrun, and the usual write pays
one subtraction. All sizes are in bytes, all charges in whole 4 KiB pages as tmpfs charges them.
"""

from __future__ import annotations

import os
import stat as modes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, ENOSPC
from typing import Any, Final

from tmpguard.core import originals

from .native_writers import Exposed
from .openfiles import appends, data_of, file_bytes, open_unlinked, position
from .pages import PAGE, Usage, allocated, pages

#: Unlinked files that are remembered before those that are closed by now are looked for.
_LIMBO_LIMIT: Final = 1024


class Full(OSError):
    """The ENOSPC of the quota, told apart from one of the real disk; the caller makes a refusal of it."""

    def __init__(self) -> None:
        super().__init__(ENOSPC, os.strerror(ENOSPC))


def most(size: int) -> int:
    """The most that writing ``size`` bytes at an unknown offset can cost: it may straddle one page more."""
    return ((size + PAGE - 2) // PAGE + 1) * PAGE if size else 0


class Quota:
    """What one invocation may still allocate. Thread-safe; ``lock`` is held across each charged write."""

    __slots__ = (
        "_exposed",
        "_files_credit",
        "_limbo",
        "_limbo_bytes",
        "_measure",
        "_on_overrun",
        "_peak",
        "_veiled",
        "_withheld",
        "credit",
        "cuts",
        "limit",
        "lock",
        "max_files",
        "on_shrunk",
        "overrun",
    )

    def __init__(self, limit: int, max_files: int | None, measure: Callable[[], Usage]) -> None:
        self.limit = limit
        self.max_files = max_files
        self.credit = limit
        # Re-entrant: a garbage collection within may flush a forgotten file of the same invocation.
        self.lock = threading.RLock()
        self._measure = measure
        self._files_credit = max_files or 0
        self._peak = 0
        # Unlinked files by inode: given back to the credit once nothing has them open.
        self._limbo: dict[int, int] = {}
        self._limbo_bytes = 0
        # While a file is exposed the credit is withheld, so that whatever is charged asks the disk before.
        self._exposed: dict[int, Exposed] = {}
        self._on_overrun: Callable[[str], None] = _unheard
        self._withheld = 0
        self._veiled = False
        #: How often a file became shorter, or may have been for a while: where pages were may be none now.
        self.cuts = 0
        #: Told the inode of a file that is shorter now, or perhaps emptied: SQLite may have it open.
        self.on_shrunk: Callable[[int], None] = _unheard
        #: Did a native writer take more than there is? Until space is freed nothing more fits.
        self.overrun = False

    # --- what is used ----------------------------------------------------------------------------------

    def measured(self) -> Usage:
        """What is used right now, from the disk; the credit is set anew from it."""
        with self.lock:
            if self._veiled:
                with self._shown():
                    return self.measured()
            while True:
                before = self.credit
                usage = self._measure()
                if self.credit == before:  # else a write came in between, by a finalizer in this thread
                    break
            self.credit = self.limit - usage.bytes
            self.cuts += 1  # by child processes, say: nobody has seen them
            if self.credit >= 0:
                self.overrun = False
            self._files_credit = (self.max_files or 0) - usage.files
            self._limbo.clear()
            self._limbo_bytes = 0
            self._peak = max(self._peak, usage.bytes)
            return usage

    @property
    def peak(self) -> int:
        """The most that was used at one time, in bytes: never too low, and a page too high for each write
        that straddled pages at an offset unknown to tmpguard."""
        with self.lock:
            self._note_peak()
            return self._peak

    def restart_peak(self) -> int:
        """The peak so far; from here on it is that of what is used now and later."""
        with self.lock:
            peak = self.peak
            self._peak = 0
            self._note_peak()
            return peak

    def _note_peak(self) -> None:
        used = self.limit - self.balance - self._limbo_bytes
        self._peak = max(self._peak, min(used, self.limit))

    # --- charging --------------------------------------------------------------------------------------

    def charge(self, descriptor: int, size: int, offset: int | None = None) -> int:
        """Charge a write of ``size`` bytes at ``offset`` (None: where the descriptor stands); hold the lock.

        Returns how many of them fit. Raises Full when none does (C3.4).
        """
        cost = most(size)
        if cost <= self.credit and not self._exposed:
            self.credit -= cost
            return size
        if self._veiled:
            with self._shown():
                return self._charge(descriptor, size, offset)
        return self._charge(descriptor, size, offset)

    def _charge(self, descriptor: int, size: int, offset: int | None) -> int:
        if offset is None or appends(descriptor):
            offset = position(descriptor)
        growth = self._growth(descriptor, offset, size)
        if self._afford(growth, descriptor):
            return size
        fits = self._fitting(descriptor, offset, size)
        if not fits:
            raise Full
        self._take(self._growth(descriptor, offset, fits), descriptor)
        return fits

    def charge_whole(self, descriptor: int, size: int, offset: int) -> None:
        """Charge ``size`` bytes at ``offset`` all or nothing, as fallocate does; hold the lock."""
        if not self._afford(self._growth(descriptor, offset, size), descriptor):
            raise Full

    def charging(self, size: int, make: Callable[[], Any]) -> Any:
        """Run ``make``, which allocates ``size`` bytes in whole pages. Raises Full."""
        with self.lock:
            if not self._afford(pages(size)):
                raise Full
            try:
                return make()
            except BaseException:
                self.freed(pages(size))
                raise

    def take(self, growth: int, inode: int = 0) -> bool:
        """Charge ``growth`` bytes in whole pages, of the file of that ``inode`` if it is given, all or
        nothing; hold the lock. Did they fit?"""
        fits = self._afford(growth)
        if fits:
            self._resized(inode, growth)
        return fits

    def _afford(self, growth: int, descriptor: int = -1) -> bool:
        """Take ``growth`` from the credit; look for space that was freed unseen if it does not fit."""
        if self._veiled:
            with self._shown():
                return self._afford(growth, descriptor)
        for find_space in (_nothing, self._settle, self.measured):
            if growth > self.credit:
                find_space()
            if growth <= self.credit:
                self.overrun = False
                self._take(growth, descriptor)
                return True
        return False

    def _take(self, growth: int, descriptor: int) -> None:
        self.credit -= growth
        if descriptor >= 0 and growth and (self._exposed or self._limbo):
            status = originals.fstat(descriptor)
            self._resized(status.st_ino, growth, nameless=not status.st_nlink)

    def _resized(self, inode: int, growth: int, *, nameless: bool = False) -> None:
        """The charge for the file of that ``inode`` is another one by ``growth`` bytes."""
        if inode in self._exposed:
            self._exposed[inode].known += growth
        # One that has a name, as far as is known, is another file than the one that had the number before.
        if inode in self._limbo and (nameless or growth < 0):
            self._set_limbo(inode, max(0, self._limbo[inode] + growth))

    def _set_limbo(self, inode: int, size: int) -> None:
        self._limbo_bytes += size - self._limbo.get(inode, 0)
        self._limbo[inode] = size

    def _growth(self, descriptor: int, offset: int, size: int) -> int:
        """The bytes that a write of ``size`` at ``offset`` newly allocates."""
        start, end = offset // PAGE * PAGE, pages(offset + size)
        status = originals.fstat(descriptor)
        if status.st_blocks * 512 >= pages(status.st_size):
            return max(0, end - max(start, pages(status.st_size)))
        return end - start - sum(stop - begin for begin, stop in data_of(descriptor, start, end))

    def _fitting(self, descriptor: int, offset: int, size: int) -> int:
        """How many of ``size`` bytes at ``offset`` fit: up to the first page that does not."""
        low, high = 0, size
        while low < high:
            middle = (low + high + 1) // 2
            if self._growth(descriptor, offset, middle) <= self.credit:
                low = middle
            else:
                high = middle - 1
        return low

    def making(self, real: str, make: Callable[[], Any], *, nameless: bool = False) -> Any:
        """Run ``make``, which may make the directory entry ``real``, or a ``nameless`` file in the directory
        ``real``, within ``max_files``.

        Raises Full past it (C3.6), but not for an entry that is there already.
        """
        if self.max_files is None:
            return make()
        with self.lock:
            if not nameless and _needs_no_inode(real.rstrip("/")):
                return make()
            for find_room in (self._settle, self.measured):
                if self._files_credit <= 0:
                    find_room()
            if self._files_credit <= 0:
                _check_making(f"{real}/." if nameless else real)
                raise Full
            result = make()
            self._files_credit -= 1
            return result

    # --- giving back -----------------------------------------------------------------------------------

    def changing(self, descriptor: int, change: Callable[[], Any]) -> Any:
        """Run ``change`` (a truncation) and settle what it did to the file's pages, up or down."""
        with self.lock:
            if self._veiled:
                with self._shown():
                    return self.changing(descriptor, change)
            self._note_peak()
            before = file_bytes(descriptor)
            try:
                return change()
            finally:
                growth = file_bytes(descriptor) - before
                self._take(growth, descriptor)
                if growth < 0:
                    self._shrunk(originals.fstat(descriptor).st_ino)

    def freed(self, size: int, inode: int = 0, *, known: bool = False) -> None:
        """``size`` bytes, of the file of that ``inode`` if it is given, are surely free again.

        ``known`` says that who keeps account of its pages knows it."""
        with self.lock:
            self._note_peak()
            self._give(size)
            self._resized(inode, -size)
            if known:
                self.cuts += 1
            elif inode:
                self._shrunk(inode)

    def _shrunk(self, inode: int) -> None:
        self.cuts += 1
        self.on_shrunk(inode)

    def _give(self, size: int) -> None:
        if self._veiled:
            self._withheld += size
        else:
            self.credit += size

    def unlinked(self, status: os.stat_result, size: int) -> None:
        """A name of the file of ``status`` is gone; its ``size`` bytes are free once its last descriptor is
        closed, if it was the last name (C3.2)."""
        with self.lock:
            last = status.st_nlink <= 1 or modes.S_ISDIR(status.st_mode)
            if self.max_files is not None and not last:
                self._files_credit += 1
            exposed = self._exposed.get(status.st_ino) if last else None
            if exposed is not None and exposed.is_of(status):
                size = exposed.known  # what was charged for it
                exposed.nameless = exposed.unlinked = True
            if not last or not (size or self.max_files is not None):
                return
            self._note_peak()
            if status.st_nlink:
                self._release(status.st_ino)  # of a file that had the number before
            # Else it is told again, of another of its descriptors.
            self._set_limbo(status.st_ino, size)
            if len(self._limbo) > _LIMBO_LIMIT:
                self._settle()

    def reused(self, inode: int) -> None:
        """A file that was made later has the number ``inode``: what had it before is closed by now."""
        with self.lock:
            self._exposed.pop(inode, None)
            self._release(inode)

    def named(self, inode: int) -> None:
        """The nameless file of that ``inode`` has a name now, and stays when it is closed."""
        with self.lock:
            self._limbo_bytes -= self._limbo.pop(inode, 0)
            if inode in self._exposed:
                self._exposed[inode].unlinked = False

    def _release(self, inode: int) -> None:
        """Nothing has the unlinked file of that ``inode`` open any more, if there was one."""
        size = self._limbo.pop(inode, None)
        if size is None:
            return
        self._give(size)
        self._limbo_bytes -= size
        self._files_credit += 1

    # --- native writers --------------------------------------------------------------------------------

    @property
    def balance(self) -> int:
        """The credit, withheld or not."""
        return self.credit + self._withheld

    def expose(
        self, descriptor: int, status: os.stat_result, path: str, on_overrun: Callable[[str], None]
    ) -> None:
        """Native code may write to ``descriptor``, of the file of ``status`` at ``path``, from now on.

        ``on_overrun`` is called with the path when it took more than there is.
        """
        with self.lock:
            exposed = self._exposed.get(status.st_ino)
            if exposed is None or not exposed.is_of(status):
                self._on_overrun = on_overrun
                exposed = self._exposed[status.st_ino] = Exposed(status, path)
                exposed.known = allocated(status, f"/proc/self/fd/{descriptor}", follow=0)
            exposed.add(descriptor)
            if not self._veiled:
                if self.overrun:
                    self.measured()  # it may be over by now: the next one is another one
                self._veil()

    def conceal(self, descriptor: int) -> bool:
        """``descriptor`` is about to be closed. Has it turned out by that that there is an overrun?"""
        with self.lock:
            if not self._exposed:
                return False
            before = self.overrun
            for exposed in self._exposed.values():
                exposed.drop(descriptor)
            self.check()
            return self.overrun and not before

    def share(self) -> None:
        """A child process has what is exposed now; it may go on when it is closed here."""
        if not self._exposed:
            return  # without the lock, for which a fork would wait
        with self.lock:
            for exposed in self._exposed.values():
                exposed.shared = True

    def check(self) -> bool:
        """Look whether native code has written; is anything exposed still?"""
        with self.lock:
            if self._veiled:
                self._unveil()
                self._veil()
            return bool(self._exposed)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """For one step, the credit as it is, with what native code has written meanwhile charged."""
        self._unveil()
        try:
            yield
        finally:
            self._veil()

    def _unveil(self) -> None:
        self.credit, self._withheld, self._veiled = self.balance, 0, False
        self._look_at_exposed()

    def _veil(self) -> None:
        if self._exposed:
            # Less than nothing, so that a write that costs nothing looks as well.
            self.credit, self._withheld, self._veiled = -1, self.balance + 1, True

    def _look_at_exposed(self) -> None:
        largest, path = 0, ""
        for inode, exposed in list(self._exposed.items()):
            now, still = exposed.look()
            if now is not None:
                growth = now - exposed.known
                self.credit -= growth
                self._resized(inode, growth, nameless=exposed.nameless)
                if growth < 0:
                    self._shrunk(inode)
                if growth > largest:
                    largest, path = growth, exposed.path
            if not still:
                del self._exposed[inode]
                self.cuts += 1
        self._note_peak()
        if self.credit < 0:
            self._settle()
        if self.credit < 0 and not self.overrun:
            self.measured()
            if self.credit < 0:
                self.overrun = True
                self._on_overrun(path)
        elif self.credit >= 0:
            self.overrun = False

    def _settle(self) -> None:
        """Give back the unlinked files that nothing has open any more."""
        if not self._limbo:
            return
        still_open = {status.st_ino for _, status in open_unlinked()}
        for inode in [inode for inode in self._limbo if inode not in still_open]:
            self._release(inode)


def _needs_no_inode(real: str) -> bool:
    """Will making ``real`` take no inode, since it is there or cannot be?"""
    try:
        originals.lstat(real)
    except OSError:
        return False
    except ValueError:
        pass  # no path at all, which the call itself will say
    return True


def _check_making(real: str) -> None:
    """Raises what the kernel has against the new entry ``real`` before it asks for an inode."""
    directory = os.path.dirname(real.rstrip("/")) or "/"
    originals.stat(directory)
    with suppress(FileNotFoundError):
        originals.lstat(real)
    if not originals.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise OSError(EACCES, os.strerror(EACCES))


def _nothing() -> None:
    pass


def _unheard(what: object) -> None:
    pass
