"""A daemon thread that does what is queued, off the client's path: the wiper is one, the reporter another."""

from __future__ import annotations

import queue
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

from . import hooks, originals

Job = TypeVar("Job")

_all: Final[weakref.WeakSet[Background[Any]]] = weakref.WeakSet()


class Background(Generic[Job]):
    """One thread per process, started by the first job. To queue one never raises and never waits.

    Jobs may come from a finalizer, a signal handler and the interpreter's exit. So nobody waits for the
    thread to start: where none can run any more, whoever brings a job does it there and then.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._started = False
        # Whoever takes it out is the thread that does the jobs: an interrupted start is made again.
        self._token = [None]
        self._thread: int | None = None
        self._lock = threading.RLock()  # a garbage collection within may queue a job, too
        #: Is the interpreter exiting? Then the thread may stop at any point.
        self._exiting = False

    def _wake(self) -> None:
        """Have a thread see to the jobs."""
        if not self._started and not self._exiting:
            with self._lock:
                if not self._started:
                    try:
                        # Not by threading.Thread, whose start() waits for the thread.
                        originals.start_new_thread(self._serve, ())
                        self._started = True
                    except RuntimeError:  # there are too many, or the interpreter exits (from 3.12 on)
                        self._do_here()
        if self._exiting:
            self._do_here()

    def _serve(self) -> None:
        try:
            self._token.pop()
        except IndexError:
            return
        self._thread = threading.get_ident()
        threading.current_thread().name = self.name
        Context().run(self._run)  # the thread belongs to no invocation

    def _do_here(self) -> None:
        with suppress(queue.Empty):
            while True:
                Context().run(self._do, self._jobs.get_nowait())

    def _run(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def _do(self, job: Job) -> None:
        """Do one job. Never raises."""
        raise NotImplementedError

    def _marker(self, done: Callable[[], None]) -> Job:
        """The job that calls ``done``."""
        raise NotImplementedError

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was queued so far is done; False when ``timeout`` seconds were too few."""
        if self._thread == threading.get_ident():
            return True
        if sys.is_finalizing() or (self._token and not self._started):
            self._do_here()
            return True
        done = threading.Event()
        self._jobs.put(self._marker(done.set))
        return done.wait(timeout)

    def stop(self, timeout: float) -> bool:
        """At the interpreter's exit: do what is queued, and have what comes later done where it comes from.

        False when ``timeout`` seconds were too few.
        """
        self._exiting = True
        return self.drain(timeout)

    def forget(self) -> None:
        """What is queued is done by nobody any more."""
        self._jobs = queue.SimpleQueue()

    def restart(self) -> None:
        """In a forked child: the thread and its jobs are the parent's."""
        self._start()


def _restart_all() -> None:
    for background in list(_all):
        background.restart()


hooks.register(hooks.Step.RESTART_THREADS, _restart_all)
