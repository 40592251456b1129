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
    """Does one job after the other, and removes the directories that are empty then."""

    def _start(self) -> None:
        super()._start()
        self._roots: set[ScratchRoot] = set()

    def watch(self, root: ScratchRoot) -> None:
        """``root`` may be empty now: have its directory removed when nothing uses it for a while."""
        if root not in self._roots:
            self.put(_nothing, root)

    def put(self, job: Callable[[], None], root: ScratchRoot) -> None:
        """Queue ``job``, after which ``root`` may be empty. Never raises, never waits."""
        self._jobs.put((job, root))
        self._wake()

    def _marker(self, done: Callable[[], None]) -> Job:
        return done, None

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            try:
                item = jobs.get(timeout=_IDLE) if self._roots else jobs.get()
            except queue.Empty:
                self._release()
            else:
                self._do(item)

    def _do(self, item: Job) -> None:
        job, root = item
        try:
            job()
        except Exception:
            logger.exception("tmpguard's background thread")
        if root is not None:
            self._roots.add(root)

    def _release(self) -> None:
        while self._roots:
            self._roots.pop().release()


def _nothing() -> None:
    pass


wiper: Final = Wiper("tmpguard-wiper")
