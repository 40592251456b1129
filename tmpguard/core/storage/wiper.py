"""The background thread that wipes, so that clients need not wait (C4.4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from tmpguard.core import real
from tmpguard.core.background import Background

from .scratch import ScratchRoot

#: Seconds without work after which the process's empty scratch directory is removed, too.
_IDLE: Final = 0.5

logger = logging.getLogger("tmpguard")


#: What to do, and the scratch root that may be empty afterwards.
WipeJob = tuple[Callable[[], None], ScratchRoot | None]


class Wiper(Background[WipeJob]):
    """Does the jobs in order, removes the directories that are empty afterwards, and repeats wipes that
    failed."""

    def _start(self) -> None:
        super()._start()
        self._roots: set[ScratchRoot] = set()

    def watch(self, root: ScratchRoot) -> None:
        """Tidy up ``root`` once it has been unused for a while: it may be empty, or hold what could not be
        wiped."""
        if root not in self._roots:
            self.put(_nothing, root)

    def release(self, root: ScratchRoot) -> None:
        """Remove the directory of ``root`` at once if it is empty."""
        root.release()
        if root.has_more_to_do():
            self.watch(root)

    def put(self, job: Callable[[], None], root: ScratchRoot | None) -> None:
        """Queue ``job``, after which ``root`` may be empty, if it uses one. Never raises, never waits."""
        self._jobs.put((job, root))
        self._wake()

    def _marker(self, done: Callable[[], None]) -> WipeJob:
        return done, None

    def _run(self) -> None:
        jobs, wait = self._jobs, _IDLE
        while True:
            try:
                job = jobs.get(timeout=wait) if self._roots else jobs.get()
            except real.Empty:
                wait = self._tidy() or _IDLE
            else:
                self._do(job)
                wait = _IDLE

    def _do(self, job: WipeJob) -> None:
        step, root = job
        try:
            step()
        except Exception:
            logger.exception("tmpguard: a step of the wipe failed; the next wipe continues with it")
        if root is not None:
            self._roots.add(root)
        if self._exiting:
            self._tidy()  # there is no later

    def _tidy(self) -> float | None:
        """Tidy up each root. Returns the seconds until there is more to do; None if there is nothing."""
        waits = []
        for root in self._roots.copy():
            self._roots.discard(root)
            wait = root.tidy()
            root.release()
            if wait is not None:
                self._roots.add(root)
                waits.append(wait)
        return min(waits, default=None)


def _nothing() -> None:
    pass


wiper: Final = Wiper("tmpguard-wiper")
