"""A daemon thread that does what is queued, off the client's path: the wiper is one, the reporter another."""

from __future__ import annotations

import queue
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
    """One thread per process, started by the first job. To queue one never raises and never waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # a garbage collection within may queue a job, too

    def _wake(self) -> None:
        """Have a thread see to the jobs."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    # An empty context and not the patched start: the thread belongs to no invocation.
                    thread = threading.Thread(
                        target=Context().run, args=(self._run,), name=self.name, daemon=True
                    )
                    self._thread = thread
                    try:
                        originals.thread_start(thread)
                    except RuntimeError:  # none can be started while the interpreter exits (from 3.12 on)
                        self._thread = None
                        self._do_here()

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
        if self._thread is None or self._thread is threading.current_thread():
            return True
        done = threading.Event()
        self._jobs.put(self._marker(done.set))
        return done.wait(timeout)

    def restart(self) -> None:
        """In a forked child: the thread and its jobs are the parent's."""
        self._start()


def _restart_all() -> None:
    for background in list(_all):
        background.restart()


hooks.register(hooks.Step.RESTART_THREADS, _restart_all)
