"""The start-up and the shutdown of an ASGI application, as a server runs them.

The package asgi-lifespan (2.1.0) is no substitute: it waits until its timeout if the application sends
``lifespan.startup.failed`` or returns, and on trio it raises exception groups.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import anyio

from tmpguard.asgi import ASGIApp, Message, Receive, Scope, Send
from tmpguard.core.context import activate


class LifespanFailure(RuntimeError):
    """The application reported that its start-up or its shutdown failed."""


class _Lifespan:
    """One call of the application with the scope ``lifespan``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._asked = 0
        self._shutdown = anyio.Event()
        self._events = {"startup": anyio.Event(), "shutdown": anyio.Event()}
        self._failures: dict[str, BaseException] = {}

    async def run(self) -> None:
        """Call the application. Runs in its own task, since the call lasts from start-up to shutdown."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:
            if self._asked:  # otherwise it does not support lifespan, and rejects the scope by raising
                phase = "shutdown" if self._events["startup"].is_set() else "startup"
                self._failures[phase] = exc  # more informative than the message about it
        finally:
            for event in self._events.values():
                event.set()

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        self._events["startup"].set()
        await self._shutdown.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind, _, outcome = message["type"].removeprefix("lifespan.").partition(".")
        if outcome == "failed":
            text = message.get("message") or "no message"
            # The application may still raise the exception itself.
            self._failures[kind] = LifespanFailure(f"the application's {kind} failed: {text}")
        else:
            self._events[kind].set()

    async def start(self) -> None:
        _spawn(self.run)
        await self._finished("startup")

    async def stop(self) -> None:
        self._shutdown.set()
        await self._finished("shutdown")

    async def _finished(self, phase: str) -> None:
        await self._events[phase].wait()
        failure = self._failures.get(phase)
        if failure is not None:
            raise failure


#: The event loop holds only weak references to its tasks.
_tasks: set[asyncio.Task[None]] = set()


def _spawn(run: Callable[[], Awaitable[None]]) -> None:
    """Start a task that outlives its caller: a fixture's set-up and teardown may run in different tasks."""
    context = copy_context()
    context.run(activate, None)  # the task belongs to no invocation, even if the test's body is in one
    if _is_trio():
        import trio

        trio.lowlevel.spawn_system_task(run, context=context)
        return

    async def task() -> None:
        await run()

    started = asyncio.get_running_loop().create_task(task(), context=context)
    _tasks.add(started)
    started.add_done_callback(_tasks.discard)


def _is_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    try:
        trio.lowlevel.current_trio_token()  # older than in_trio_run()
    except RuntimeError:
        return False
    return True


class WithState:
    """The application, with the state that its start-up set added to the scope of each request."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self.app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Changes the scope itself and not a copy: the application's route is read from it afterwards.
        # uvicorn, which does not know of the lifespan, has put an empty state there.
        scope["state"] = {**self._state, **scope.get("state", {})}
        await self.app(scope, receive, send)


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[ASGIApp]:
    """``app`` between its start-up and its shutdown.

    An application without lifespan support is served as well. Raises what its start-up or shutdown raised.
    """
    lifespan = _Lifespan(app)
    await lifespan.start()
    try:
        yield WithState(app, lifespan.state)
    finally:
        await lifespan.stop()
