"""The background thread that hands reports to ``on_report``.

It is separate from the wiper's thread: a slow callback must not delay the wipe of a ``/tmp``. The queue for a
slow callback is bounded. Once :data:`WAITING` reports are waiting, new ones are dropped and counted in
``Guard.dropped_reports``, and their number is logged.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Final, Protocol

from tmpguard.core import hooks, real
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

ReportJob = Callable[[], None]


class Reporter(Background[ReportJob]):
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
                "tmpguard: on_report=%r is too slow: %d reports are waiting, new ones are dropped until it "
                "catches up; let it hand slow work, such as a network request, to a queue of its own",
                guard.on_report,
                WAITING,
            )

    def _marker(self, done: ReportJob) -> ReportJob:
        return done

    def _run(self) -> None:
        while True:
            self._do(self._jobs.get())

    def _do(self, job: ReportJob) -> None:
        job()

    def _call(self, guard: Policy, report: Report) -> None:
        callback = guard.on_report
        try:
            if callback is not None:  # otherwise it was taken away since
                callback(report)
        except BaseException:  # even a SystemExit must not stop the reports that follow
            logger.exception(
                "tmpguard: on_report=%r raised an exception; its other reports are delivered", callback
            )
        if self._dropped and self._jobs.qsize() <= WAITING // 2:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            logger.warning(
                "tmpguard: %d reports were dropped while on_report=%r was too slow", dropped, callback
            )

    def finish(self) -> None:
        """At the interpreter's exit: deliver the waiting reports."""
        if not self.stop(_PATIENCE):
            logger.warning(
                "tmpguard: %d reports were undelivered at exit after %d seconds: on_report was too slow",
                self._jobs.qsize(),
                _PATIENCE,
            )
            self.forget()


class Holding(Protocol):
    """A callback that keeps reports for a while before it writes them."""

    def write(self) -> None:
        """Write what is kept."""
        ...


#: The callbacks of this kind.
holding: Final[weakref.WeakSet[Holding]] = weakref.WeakSet()


def _write_held() -> None:
    for callback in list(holding):
        callback.write()


reporter: Final = Reporter("tmpguard-reporter")


def drain(timeout: float | None = None) -> bool:
    """Wait until every wipe and every ``on_report`` callback queued so far is done.

    After that, only the files of running invocations are left on disk, and
    each :class:`~tmpguard.ReportFile` is written. ``timeout`` is in seconds (None for no
    limit). Returns False if it ran out.
    """
    end = None if timeout is None else real.monotonic() + timeout
    done = wiper.drain(timeout)
    tidy_all()
    done = reporter.drain(None if end is None else max(0.0, end - real.monotonic())) and done
    _write_held()
    return done


def _hand_out() -> None:
    """At the interpreter's exit: finish the queued wipes and deliver the waiting reports."""
    wiper.stop(_PATIENCE)
    outside = Context()  # the exiting code may still be bound to an invocation
    outside.run(reporter.finish)
    outside.run(_write_held)


hooks.register(hooks.Step.HAND_OUT_REPORTS, _hand_out)
