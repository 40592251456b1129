"""The background thread that wipes and reports, off the client's path (C4.4)."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Final

from .interpose import originals
from .scratch import ScratchRoot, abandon_all, trim_all

#: Seconds without work after which the process's empty scratch directory is removed, too.
_IDLE: Final = 0.5

logger = logging.getLogger("tmpguard")


class Wiper:
    """One daemon thread per process, started by the first job."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], ScratchRoot | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # a garbage collection within may queue a job, too
        self._roots: set[ScratchRoot] = set()

    def watch(self, root: ScratchRoot) -> None:
        """``root`` may be empty now: have its directory removed when nothing uses it for a while."""
        if root not in self._roots:
            self.put(_nothing, root)

    def put(self, job: Callable[[], None], root: ScratchRoot) -> None:
        """Queue ``job``, after which ``root`` may be empty. Never raises, never waits."""
        self._jobs.put((job, root))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    # An empty context and not the patched start: the thread belongs to no invocation.
                    thread = threading.Thread(
                        target=Context().run, args=(self._run,), name="tmpguard-wiper", daemon=True
                    )
                    self._thread = thread
                    originals.thread_start(thread)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was queued so far is done; False when ``timeout`` seconds were too few."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        done = threading.Event()
        self._jobs.put((done.set, None))
        return done.wait(timeout)

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            try:
                job, root = jobs.get(timeout=_IDLE) if self._roots else jobs.get()
            except queue.Empty:
                self._release()
                continue
            try:
                job()
            except Exception:
                logger.exception("tmpguard's background thread")
            if root is not None:
                self._roots.add(root)

    def _release(self) -> None:
        while self._roots:
            self._roots.pop().release()

    def finish(self) -> None:
        """At the interpreter's exit: do what is left, and leave no directory behind."""
        self.drain(timeout=30)
        # An empty context: the code that ends may still be bound to an invocation.
        Context().run(abandon_all)

    def restart(self) -> None:
        """In a forked child: the thread and its jobs are the parent's."""
        self._start()


def _nothing() -> None:
    pass


wiper: Final = Wiper()
atexit.register(wiper.finish)
os.register_at_fork(after_in_child=wiper.restart)


def drain(timeout: float | None = None) -> bool:
    """Wait until every wipe and every ``on_report`` callback queued so far is done.

    Then nothing is left on disk but what living invocations have there.
    ``timeout`` is in seconds (None: as long as it takes); returns False when it ran out.
    """
    done = wiper.drain(timeout)
    trim_all()
    return done
