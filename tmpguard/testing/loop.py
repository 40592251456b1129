"""An event loop in a thread of its own, for tests that are not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Any, Generic, TypeVar

from tmpguard.core import originals

Entered = TypeVar("Entered")
Result = TypeVar("Result")


class LoopThread(Generic[Entered]):
    """Enters an async context manager in a task of a new loop, and leaves it in the same task at the end.

    Raises from the constructor what entering raised, and from :meth:`close` what leaving raised.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Entered]]) -> None:
        self._make = make
        self._entered: Future[Entered] = Future()
        self._left: Future[None] = Future()
        # An empty context and not the patched start: it belongs to no invocation, though a test's body may be
        # one.
        thread = threading.Thread(
            target=Context().run, args=(self._run,), name="tmpguard-client", daemon=True
        )
        originals.thread_start(thread)
        self._thread = thread
        try:
            self.value = self._entered.result()
        except BaseException:
            thread.join()
            raise

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as exc:
            waiting = self._left if self._entered.done() else self._entered
            waiting.set_exception(exc)
        else:
            self._left.set_result(None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        async with self._make() as value:
            self._entered.set_result(value)
            await self._over.wait()

    def run(self, job: Awaitable[Result]) -> Result:
        """Run ``job`` in the loop, in the caller's context, and wait for what it returns or raises."""

        async def task() -> Result:
            return await job

        running: Coroutine[Any, Any, Result] = task()
        return asyncio.run_coroutine_threadsafe(running, self._loop).result()

    def close(self) -> None:
        """Leave the context manager and end the loop. Does nothing the second time."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
            self._left.result()
