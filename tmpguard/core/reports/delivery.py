"""The background thread that hands reports to ``on_report``.

It is separate from the wiper's thread: a slow callback must not delay the wipe of a ``/tmp``. The queue for a
slow callback is bounded. Once :data:`WAITING` reports are waiting, new ones are dropped and counted in
``Guard.dropped_reports``, and their number is logged.
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

#: The most reports that may be waiting for their callbacks.
WAITING: Final = 1000

#: Seconds that the remaining work may take at the interpreter's exit.
_PATIENCE: Final = 30

logger = logging.getLogger("tmpguard")

Job = Callable[[], None]


class Reporter(Background[Job]):
    """Calls the callbacks with one report after the other."""

    def _start(self) -> None:
        super()._start()
        self._dropped = 0

    def put(self, guard: Policy, report: Report) -> None:
        """Queue ``report`` for the callback of ``guard``, or drop it if too many are already waiting."""
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
                "on_report=%r is too slow: %d reports are waiting, new ones are dropped until it catches up",
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
        except BaseException:  # even a SystemExit must not stop the reports that follow
            logger.exception("the on_report callback of tmpguard raised")
        if self._dropped and self._jobs.qsize() <= WAITING // 2:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            logger.warning("%d reports were dropped while on_report=%r was too slow", dropped, callback)

    def finish(self) -> None:
        """At the interpreter's exit: deliver the waiting reports."""
        if not self.stop(_PATIENCE):
            logger.warning("%d reports were undelivered at exit: on_report was too slow", self._jobs.qsize())
            self.forget()


reporter: Final = Reporter("tmpguard-reporter")


def drain(timeout: float | None = None) -> bool:
    """Wait until every wipe and every ``on_report`` callback queued so far is done.

    After that, only the files of running invocations are left on disk. ``timeout`` is in seconds (None for no
    limit). Returns False if it ran out.
    """
    end = None if timeout is None else time.monotonic() + timeout
    done = wiper.drain(timeout)
    tidy_all()
    return reporter.drain(None if end is None else max(0.0, end - time.monotonic())) and done


def _hand_out() -> None:
    """At the interpreter's exit: finish the queued wipes and deliver the waiting reports."""
    wiper.stop(_PATIENCE)
    Context().run(reporter.finish)  # the exiting code may still be bound to an invocation


hooks.register(hooks.Step.HAND_OUT_REPORTS, _hand_out)
