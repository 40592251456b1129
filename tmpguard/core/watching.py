"""``enforce=False``: an invocation that only watches (C2.5).

The application sees the real file system, ``/tmp`` included. Each intercepted call is the original's own, and
``interpose/watching`` judges it afterwards. Nothing is made, written, wiped or deleted. The report has what
would have been refused, what would not have fitted, and what would have been missing.
"""

from __future__ import annotations

import os
import time
from typing import Final

from tmpguard.core.mounts.lookup import Namespace, live_namespace
from tmpguard.core.reports.report import MOST_KEPT, Leftover, Report
from tmpguard.core.storage.forgotten import Maker
from tmpguard.core.storage.ledger import Key, Leaving, Ledger, key_of, status_of
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.volume import Volume
from tmpguard.core.storage.wiper import wiper

from .invocation import Invocation, is_first_to_end
from .layout import TMP
from .policy import Policy

#: The clock of the times that the kernel gives to files, which Linux has. :mod:`time` does not name it.
_CLOCK_REALTIME_COARSE: Final = 5


class Watching(Invocation):
    """One request that is only watched. Made by :meth:`tmpguard.Guard.invocation` with ``enforce=False``."""

    watches = True
    _ledger: Ledger | None = None
    _leftovers: tuple[Leftover, ...] = ()
    #: Whether what it wrote exceeds the quota, or has ever done so, and whether it made too many files.
    full = False
    exceeded_once = False
    _expected: frozenset[Key] = frozenset()
    crowded = False

    def __init__(self, guard: Policy) -> None:
        super().__init__(guard)
        self._began = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def _another(self) -> Watching:
        another = type(self)(self.guard)
        another.cold_start = self.cold_start
        return another

    # --- the file system -------------------------------------------------------------------------------

    def _make_namespace(self) -> Namespace:
        return live_namespace(self.guard.mounts)

    def _mount(self) -> Volume:
        raise AssertionError("an invocation that only watches has no /tmp of its own")

    @property
    def ledger(self) -> Ledger:
        """What the invocation made and wrote in the real ``/tmp``."""
        ledger = self._ledger
        if ledger is None:
            ledger = vars(self).setdefault("_ledger", Ledger(self.guard.quota_bytes))
        return ledger

    @property
    def uses_tmp(self) -> bool:
        """Whether the invocation has made or written files in the real ``/tmp``."""
        return self._ledger is not None

    @property
    def is_late(self) -> bool:
        """Whether the invocation is over, and what it changes in ``/tmp`` is a late write (C4.5)."""
        return self.ended and self.guard.lifetime != "instance"

    def made(self, path: str, status: os.stat_result, base: int | None = None) -> None:
        """The invocation made a file in ``/tmp``, or changes it; see :meth:`.Ledger.add`."""
        self.ledger.add(path, status, base)
        self.guard.makers.add(key_of(status), self._maker)

    @property
    def _maker(self) -> Maker:
        return Maker.START if self.cold_start else Maker.REQUEST

    def owns_file(self, key: Key) -> bool:
        """Whether the invocation made the file with the device and inode ``key``, as far as is known."""
        return key in self._expected or (self._ledger is not None and self._ledger.owns(key))

    def expect(self, key: Key) -> None:
        """In production, the invocation would have made this directory: it was going to, or looked for it."""
        self._expected |= {key}

    def maker_of(self, status: os.stat_result) -> Maker | None:
        """Who made the file of ``status`` in ``/tmp``, if production would not have it; otherwise None.

        A file that is as new as the invocation, and of no other invocation, may be that of a child process or
        of native code.
        """
        key = key_of(status)
        if self.owns_file(key):
            return None
        maker = self.guard.makers.maker_of(key)
        if maker is not None:
            return None if self.guard.lifetime == "instance" else maker
        if status.st_ctime_ns >= self._began:
            return None
        return Maker.UNGUARDED if self.guard.forgotten.is_own(status) else Maker.OTHER

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the invocation. Idempotent; never raises. ``/tmp`` stays as it is."""
        if self._finish():
            self._close_report(*self._final, 0.0)
            self._announce()

    def _announce(self) -> None:
        if self.guard.on_report is not None:
            wiper.put(self._hand_out, None)  # no scratch root was used

    def _finish(self) -> bool:
        self.ended = True
        if not is_first_to_end(self):
            return False
        ledger = self._ledger
        if ledger is not None:
            self._final = ledger.measured(), ledger.peak
            if not self.exceeded_once and ledger.peak > self.guard.quota_bytes:
                self._exceeded(max(ledger.left(), key=lambda left: left.bytes, default=Leaving(TMP, 0)).path)
            if self.guard.lifetime == "instance":
                self._leftovers = _leftovers(ledger)
            for key in ledger.keys:
                self.guard.makers.add(key, self._maker)
        if self._report is not None:
            self.settle(self._report)
        for observer in self._observers:
            observer.over()
        return True

    def _wipe_here(self) -> None:
        self._close_report(*self._final, 0.0)

    # --- the report ------------------------------------------------------------------------------------

    def settle(self, report: Report) -> None:
        """What the invocation has made itself since is no finding."""
        if report.elsewhere:
            report.settle(self._has_made)

    def _has_made(self, name: str) -> bool:
        status = status_of(TMP + name)
        return status is not None and self._ledger is not None and self._ledger.made(key_of(status))

    def _new_report(self) -> Report:
        report = super()._new_report()
        if self.guard.lifetime == "instance":
            report.find_leftovers = self._find_leftovers
        return report

    def _find_leftovers(self) -> tuple[Leftover, ...]:
        ledger = self._ledger
        if self.ended or ledger is None:
            return self._leftovers
        ledger.measured()
        return _leftovers(ledger)

    def _usage(self) -> tuple[Usage, int]:
        ledger = self._ledger
        if self.ended or ledger is None:
            return self._final
        return ledger.measured(), ledger.peak


def _leftovers(ledger: Ledger) -> tuple[Leftover, ...]:
    found = [Leftover(path, size) for path, size in ledger.left() if status_of(path) is not None]
    return tuple(sorted(found, key=lambda leftover: (-leftover.bytes, leftover.path))[:MOST_KEPT])
