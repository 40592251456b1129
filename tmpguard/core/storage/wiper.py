"""The background thread that wipes, off the client's path (C4.4)."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import Final

from tmpguard.core.background import Background

from .scratch import ScratchRoot

#: Seconds without work after which the process's empty scratch directory is removed, too.
_IDLE: Final = 0.5

logger = logging.getLogger("tmpguard")


#: What to do, and the root that may be empty afterwards.
Job = tuple[Callable[[], None], ScratchRoot | None]


class Wiper(Background[Job]):
    """Does one job after the other, removes the directories that are empty then, and tries again to wipe what
    could not be wiped."""

    def _start(self) -> None:
        super()._start()
        self._roots: set[ScratchRoot] = set()

    def watch(self, root: ScratchRoot) -> None:
        """There is something to do about ``root`` when nothing uses it for a while: it may be empty now, or
        hold what could not be wiped."""
        if root not in self._roots:
            self.put(_nothing, root)

    def release(self, root: ScratchRoot) -> None:
        """Remove the directory of ``root`` at once, where nothing is in it."""
        root.release()
        if root.has_more_to_do():
            self.watch(root)

    def put(self, job: Callable[[], None], root: ScratchRoot) -> None:
        """Queue ``job``, after which ``root`` may be empty. Never raises, never waits."""
        self._jobs.put((job, root))
        self._wake()

    def _marker(self, done: Callable[[], None]) -> Job:
        return done, None

    def _run(self) -> None:
        jobs, wait = self._jobs, _IDLE
        while True:
            try:
                item = jobs.get(timeout=wait) if self._roots else jobs.get()
            except queue.Empty:
                wait = self._tidy() or _IDLE
            else:
                self._do(item)
                wait = _IDLE

    def _do(self, item: Job) -> None:
        job, root = item
        try:
            job()
        except Exception:
            logger.exception("tmpguard's background thread")
        if root is not None:
            self._roots.add(root)
        if self._exiting:
            self._tidy()  # nobody will do it later

    def _tidy(self) -> float | None:
        """Tidy up each root; in how many seconds is there more to do? None for never."""
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
