"""The background thread that hands reports to ``on_report``.

It is not the wiper's thread: a callback may take its time, and no ``/tmp`` waits for it to be wiped. What
waits for a slow callback is bounded: past :data:`WAITING` reports the new ones are dropped, counted in
``Guard.dropped_reports``, and the number is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Final

from tmpguard.core import hooks
from tmpguard.core.background import Background
from tmpguard.core.policy import Policy
from tmpguard.core.storage.scratch import tidy_all
from tmpguard.core.storage.wiper import wiper

from .report import Report

#: Reports that may wait for their callbacks at one time.
WAITING: Final = 1000

#: Seconds that what is left to do may take at the interpreter's exit.
_PATIENCE: Final = 30

logger = logging.getLogger("tmpguard")

Job = Callable[[], None]


class Reporter(Background[Job]):
    """Calls back with one report after the other."""

    def _start(self) -> None:
        super()._start()
        self._dropped = 0

    def put(self, guard: Policy, report: Report) -> None:
        """Queue ``report`` for the callback of ``guard``, or drop it where too many wait already."""
        if self._jobs.qsize() >= WAITING:
            self._drop(guard)
            return
        self._jobs.put(partial(self._call, guard, report))
        self._wake()

    def _drop(self, guard: Policy) -> None:
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

    def _marker(self, done: Job) -> Job:
        return done

    def _run(self) -> None:
        while True:
            self._do(self._jobs.get())

    def _do(self, job: Job) -> None:
        job()

    def _call(self, guard: Policy, report: Report) -> None:
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

    def finish(self) -> None:
        """At the interpreter's exit: hand out what waits."""
        if not self.stop(_PATIENCE):
            logger.warning("%d reports were left at the exit: on_report was too slow", self._jobs.qsize())
            self.forget()


reporter: Final = Reporter("tmpguard-reporter")


def drain(timeout: float | None = None) -> bool:
    """Wait until every wipe and every ``on_report`` callback queued so far is done.

    Then nothing is left on disk but what living invocations have there.
    ``timeout`` is in seconds (None: as long as it takes); returns False when it ran out.
    """
    end = None if timeout is None else time.monotonic() + timeout
    done = wiper.drain(timeout)
    tidy_all()
    return reporter.drain(None if end is None else max(0.0, end - time.monotonic())) and done


def _hand_out() -> None:
    """At the interpreter's exit: wipe what was to be wiped, and hand out what waits."""
    wiper.stop(_PATIENCE)
    Context().run(reporter.finish)  # the code that ends may still be bound to an invocation


hooks.register(hooks.Step.HAND_OUT_REPORTS, _hand_out)
