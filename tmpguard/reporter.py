"""The background thread that hands reports to ``on_report``, and says later what was not said at once.

It is not the wiper's thread: a callback may take its time, and no ``/tmp`` waits for it to be wiped. What
waits for a slow callback is bounded: past :data:`WAITING` reports the new ones are dropped, counted in
``Guard.dropped_reports``, and the number is logged.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import queue
import time
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from .background import Background
from .scratch import abandon_all, trim_all
from .wiper import wiper

if TYPE_CHECKING:
    from .guard import Guard
    from .report import Report

#: Reports that may wait for their callbacks at one time.
WAITING: Final = 1000

#: Seconds that what is left to do may take at the interpreter's exit.
_PATIENCE: Final = 30

logger = logging.getLogger("tmpguard")

Job = Callable[[], None]


class Reporter(Background):
    """Calls back with one report after the other, and does other jobs when they are due."""

    def _start(self) -> None:
        super()._start()
        self._due: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._dropped = 0

    def put(self, guard: Guard, report: Report) -> None:
        """Queue ``report`` for the callback of ``guard``, or drop it where too many wait already."""
        if self._jobs.qsize() >= WAITING:
            self._drop(guard)
            return
        self._jobs.put((guard, report))
        self._wake()

    def _drop(self, guard: Guard) -> None:
        with self._lock:
            guard.dropped_reports += 1
            self._dropped += 1
            first = self._dropped == 1
        if first:
            logger.warning(
                "on_report=%r is too slow: %d reports wait for it, new ones are dropped until it catches up",
                guard.on_report,
                WAITING,
            )

    def later(self, seconds: float, job: Job) -> None:
        """Have ``job`` done in so many seconds, if the process lives as long."""
        with self._lock:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), job))
        self._jobs.put(None)  # it may be the next one to wait for
        self._wake()

    def _marker(self, done: Job) -> Any:
        return None, done

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            try:
                item = jobs.get(timeout=self._until_due())
            except queue.Empty:
                item = None
            self._do(item)
            self._do_due(time.monotonic())

    def _do(self, item: Any) -> None:
        if item is not None:
            guard, what = item
            _attempt(what) if guard is None else self._call(guard, what)

    def _call(self, guard: Guard, report: Report) -> None:
        callback = guard.on_report
        assert callback is not None
        try:
            callback(report)
        except BaseException:  # a SystemExit, too, must not stop those that come after
            logger.exception("the on_report callback of tmpguard raised")
        if self._dropped and self._jobs.qsize() <= WAITING // 2:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            logger.warning("%d reports were dropped while on_report=%r was too slow", dropped, callback)

    def _until_due(self) -> float | None:
        with self._lock:
            return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _do_due(self, now: float) -> None:
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > now:
                    return
                _, _, job = heapq.heappop(self._due)
            _attempt(job)

    def finish(self) -> None:
        """At the interpreter's exit: hand out what waits."""
        if not self.drain(_PATIENCE):
            logger.warning("%d reports were left at the exit: on_report was too slow", self._jobs.qsize())


def _attempt(job: Job) -> None:
    try:
        job()
    except Exception:
        logger.exception("tmpguard's background thread")


reporter: Final = Reporter("tmpguard-reporter")


def drain(timeout: float | None = None) -> bool:
    """Wait until every wipe and every ``on_report`` callback queued so far is done.

    Then nothing is left on disk but what living invocations have there.
    ``timeout`` is in seconds (None: as long as it takes); returns False when it ran out.
    """
    end = None if timeout is None else time.monotonic() + timeout
    done = wiper.drain(timeout)
    trim_all()
    return reporter.drain(None if end is None else max(0.0, end - time.monotonic())) and done


def _finish() -> None:
    """At the interpreter's exit: do what is left, and leave no directory behind."""
    wiper.drain(_PATIENCE)
    # An empty context: the code that ends may still be bound to an invocation.
    Context().run(reporter.finish)
    Context().run(abandon_all)


atexit.register(_finish)
