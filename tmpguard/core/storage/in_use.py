"""What is in use: the most that was at any one time, and what unlinked files still take up."""

from __future__ import annotations

from collections.abc import Callable

from .credit import Credit, step
from .unlinked import UnlinkedFiles


class InUse(Credit):
    """Credit that knows which files were resized, cut or unlinked."""

    __slots__ = ("_files_credit", "_limbo", "_peak", "max_files", "on_shrunk")

    def __init__(self, limit: int, max_files: int | None) -> None:
        super().__init__(limit)
        self.max_files = max_files
        self._files_credit = max_files or 0
        self._peak = 0
        #: Unlinked files. Once nothing has them open, they are given back to the credit.
        self._limbo = UnlinkedFiles()
        #: Called with the inode of a file that was cut, or may have been emptied: SQLite may have it open.
        self.on_shrunk: Callable[[int], None] = _ignore

    # --- the peak --------------------------------------------------------------------------------------

    @property
    def peak(self) -> int:
        """The most that was used at one time, in bytes: the largest sum of the charges at any point.

        It is exact for everything that Python code writes. What native code and child processes write is
        seen before each of the request's own charges, when a child has ended, and at the end. An unlinked
        file counts while a file object that writes to it is open.
        """
        if self._veiled or self._limbo.held:
            return self._noted_peak()
        with self.lock:
            self._note_peak()
            return self._peak

    @step
    def _noted_peak(self) -> int:
        self._note_peak()
        return self._peak

    @step
    def restart_peak(self) -> int:
        """Return the peak so far; from now on, it is the peak of current and later use."""
        self._note_peak()
        peak, self._peak = self._peak, 0
        self._note_peak()
        return peak

    def _note_peak(self) -> None:
        """Before space is freed, and when the peak is asked for: is more in use than ever before?"""
        used = self.limit - self.credit - self._withheld - self._limbo.unheld_bytes
        if used > self._peak and not self._doubtful:
            if self._limbo.held:
                self._settle()  # those that were closed meanwhile are not in use
                used = self.limit - self.balance - self._limbo.unheld_bytes
            self._peak = max(self._peak, min(used, self.limit))

    # --- the files -------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Give back the unlinked files that nothing has open any more; none if that cannot be told now."""
        stamp = self.stamp
        try:
            closed = self._limbo.closed()
        except OSError:
            return  # no descriptor is free, for example
        for inode in closed:
            if self.stamp != stamp:
                return  # it may be another file by now
            self._release(inode)

    def _release(self, inode: int) -> None:
        """Nothing has the unlinked file of that ``inode`` open any more, if there was one."""
        size = self._limbo.discard(inode)
        if size is not None:
            self.credit, self._files_credit = self.credit + size, self._files_credit + 1

    def _resized(self, inode: int, growth: int, *, nameless: bool | None = None) -> None:
        """The charge for the file of that ``inode`` has changed by ``growth`` bytes.

        If the file has a name (``nameless`` is False), an unlinked file that had the same inode is closed.
        """
        exposed = self._exposed.get(inode)
        if exposed is not None:
            exposed.known += growth
        size = self._limbo.sizes.get(inode)
        if size is not None and nameless is False:
            self._release(inode)
        elif size is not None and (nameless or growth < 0):
            self._limbo.add(inode, max(0, size + growth), held=growth > 0 or inode in self._limbo.held)
            if growth > 0:
                self._note_peak()  # it is open now, and may be closed unseen

    def _shrunk(self, inode: int) -> None:
        self.cuts += 1
        self.on_shrunk(inode)


def _ignore(inode: int) -> None:
    pass
