"""Whether the instance's processes are at rest."""

from __future__ import annotations

import time

from .family import Family, stat_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Seconds without any activity after which an application that listens is ready, and those after which it is
#: ready anyway.
_REST: Final = 0.15
_LONGEST: Final = 5.0


class Readiness:
    """Waits for an application that listens to come to rest."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._began: float | None = None
        self._resting_since = 0.0
        self._last: object = None

    def is_reached(self, calls: int) -> bool:
        """Ask again and again. ``calls`` is the number of calls seen so far."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        running, ticks = self._work()
        state = (calls, ticks)
        if running or state != self._last:
            self._last, self._resting_since = state, now
        return now - self._resting_since >= _REST or now - self._began >= _LONGEST

    def _work(self) -> tuple[bool, int]:
        """Whether any process runs or waits for a disk, and the processor time of all, in ticks."""
        found = [fields for process in self._family.processes() if (fields := stat_of(process))]
        running = any(fields[0] in (b"R", b"D") for fields in found)
        return running, sum(int(fields[11]) + int(fields[12]) for fields in found)
