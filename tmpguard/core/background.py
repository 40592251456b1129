"""A background thread with a queue of jobs: the base class of the wiper and the reporter."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

from . import hooks, real

Job = TypeVar("Job")

_all: Final[weakref.WeakSet[Background[Any]]] = weakref.WeakSet()


class Background(Generic[Job]):
    """One daemon thread per process, started by the first job. Queueing a job never raises or blocks.

    Jobs may come from finalizers, signal handlers and exit handlers, so no caller waits for the thread to
    start. If no thread can be started any more, the caller runs its job itself.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._jobs: real.SimpleQueue[Job] = real.SimpleQueue()
        self._started = False
        # The thread that pops the token runs the jobs. An interrupted start may leave a second thread behind.
        self._token = [None]
        self._thread: int | None = None
        self._lock = real.RLock()  # reentrant: a garbage collection while it is held may queue a job
        #: True once the interpreter is exiting: the thread may be stopped at any point.
        self._exiting = False

    def _wake(self) -> None:
        """Make sure that the queued jobs run."""
        if not self._started and not self._exiting:
            with self._lock:
                if not self._started:
                    try:
                        # Not threading.Thread: its start() waits for the thread.
                        real.start_new_thread(self._serve, ())
                        self._started = True
                    except RuntimeError:  # too many threads, or the interpreter is exiting (3.12 and later)
                        self._do_here()
        if self._exiting:
            self._do_here()

    def _serve(self) -> None:
        try:
            self._token.pop()
        except IndexError:
            return
        self._thread = real.get_ident()
        threading.current_thread().name = self.name
        Context().run(self._run)  # the thread belongs to no invocation

    def _do_here(self) -> None:
        with suppress(real.Empty):
            while True:
                Context().run(self._do, self._jobs.get_nowait())

    def _run(self) -> None:
        """The loop of the thread."""
        raise NotImplementedError

    def _do(self, job: Job) -> None:
        """Run one job. Never raises."""
        raise NotImplementedError

    def _marker(self, done: Callable[[], None]) -> Job:
        """A job that calls ``done``."""
        raise NotImplementedError

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until everything queued so far is done. Returns False if ``timeout`` (seconds) ran out."""
        if self._thread == real.get_ident():
            return True
        if sys.is_finalizing() or (self._token and not self._started):
            self._do_here()
            return True
        done = real.Lock()
        done.acquire()
        self._jobs.put(self._marker(done.release))
        return done.acquire(timeout=-1 if timeout is None else timeout)

    def stop(self, timeout: float) -> bool:
        """At interpreter exit: run the queued jobs. Later jobs are run by the caller that queues them.

        Returns False if ``timeout`` (seconds) ran out.
        """
        self._exiting = True
        return self.drain(timeout)

    def forget(self) -> None:
        """Discard the queued jobs."""
        self._jobs = real.SimpleQueue()

    def restart(self) -> None:
        """Start afresh in a forked child: the thread and the queued jobs belong to the parent."""
        self._start()


def _restart_all() -> None:
    for background in list(_all):
        background.restart()


hooks.register(hooks.Step.RESTART_THREADS, _restart_all)
