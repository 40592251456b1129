"""The disk decides: what is really there, and what native code has written to exposed files (C3.5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from .credit import TRIES, step
from .in_use import InUse
from .pages import Usage


class Measured(InUse):
    """Credit that can be worked out again from the disk."""

    __slots__ = ("_measure", "_on_overrun", "overrun")

    def __init__(
        self, limit: int, max_files: int | None, measure: Callable[[], tuple[Usage, dict[int, int]]]
    ) -> None:
        """``measure`` returns what is used, and how many bytes of that belong to open unlinked files, by
        inode. It raises OSError."""
        super().__init__(limit, max_files)
        self._measure = measure
        self._on_overrun: Callable[[str], None] = _ignore
        #: Did a native writer exceed the quota? Then nothing else fits until space is freed.
        self.overrun = False

    @step
    def measured(self) -> Usage:
        """What is used right now, from the disk; the credit is set to match. Raises OSError."""
        return self._measured()

    def _measured(self) -> Usage:
        self._note_peak()  # what was there before a child process, for example, removed it
        tries = TRIES
        while True:
            before, stamp = self.credit, self.stamp
            usage, unlinked = self._measure()
            self._doubtful = self.credit != before or self.stamp != stamp
            tries -= 1
            if not self._doubtful or not tries:
                break  # otherwise a finalizer in this thread has written something
        # Nothing is withheld: a signal handler may measure before the step that it interrupts has begun.
        self.credit, self._withheld, self._veiled = self.limit - usage.bytes, 0, False
        self._files_credit = (self.max_files or 0) - usage.files
        self._limbo.replace(dict(unlinked))
        self.cuts += 1  # by child processes, for example, which nobody has seen
        self._look_at_exposed(charging=False)
        if self.credit >= 0:
            self.overrun = False
        self._peak = max(self._peak, usage.bytes)
        return usage

    def check(self) -> bool:
        """Look whether native code has written something. Is any file still exposed?"""
        self._do_nothing()
        return bool(self._exposed)

    @step
    def _do_nothing(self) -> None:
        """What precedes and follows every step."""

    def _catch_up(self) -> None:
        if self._doubtful:
            with suppress(OSError):  # no descriptor is free, for example: then it stays in doubt
                self._measured()
        self._judge(self._look_at_exposed())

    def _look_at_exposed(self, *, charging: bool = True) -> str:
        """Charge what native code has written; or only note it, if everything has just been measured.

        Returns the path of the file that has grown most.
        """
        largest, path, stamp = 0, "", self.stamp
        for inode, exposed in self._exposed.copy().items():
            now, still = exposed.look()
            if now is not None:
                growth = now - exposed.known
                if charging:
                    self.credit -= growth
                    self._resized(inode, growth, nameless=exposed.nameless or None)
                else:
                    exposed.known = now
                if growth < 0:
                    self._shrunk(inode)
                if growth > largest:
                    largest, path = growth, exposed.path
            if not still:
                self._exposed.pop(inode, None)
                self.cuts += 1
        if self.stamp != stamp:
            self._doubtful = True
        return path

    def _judge(self, path: str) -> None:
        """Has a native writer, of the file at ``path``, exceeded the quota?"""
        self._note_peak()
        if self.credit < 0:
            self._settle()
        if self.credit < 0 and not self.overrun:
            try:
                self._measured()
            except OSError:
                self._doubtful = True  # no descriptor is free, for example: the next step measures
                return
            if self.credit < 0:
                self.overrun = True
                self._on_overrun(path)
        elif self.credit >= 0:
            self.overrun = False


def _ignore(path: str) -> None:
    pass
