"""Runs imports and an ASGI application's start-up, which precede the first request, as invocations.

Used only with ``--tmpguard-import``; see ``tmpguard.cold_start``.
"""

from __future__ import annotations

from collections.abc import Callable

from tmpguard.asgi import ASGIApp, Message, Receive, Scope, Send
from tmpguard.core.context import activate
from tmpguard.core.invocation import Invocation
from tmpguard.guard import Guard, cold_start
from tmpguard.reporting.routes import START_UP

from .records import TestRecord

#: Makes the invocation for a start-up. Returns None if the start-up uses the real file system.
MakeStart = Callable[[], Invocation | None]


def begin_start(test: TestRecord, guard: Guard, route: str = START_UP) -> Invocation:
    """Make the invocation for a start-up, and add it to the record of ``test``."""
    invocation = cold_start(guard=guard)
    test.begin("start", route).add(invocation)
    return invocation


class StartingASGI:
    """An ASGI application whose start-up runs within the invocation that ``start`` makes."""

    def __init__(self, app: ASGIApp, start: MakeStart) -> None:
        self.app = app
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        messages = _Messages(receive, self._start)
        try:
            await self.app(scope, messages.receive, send)
        finally:
            messages.leave()


class _Messages:
    """Wraps ``receive``. The application calls it in its own task, where the start-up begins and ends."""

    def __init__(self, receive: Receive, start: MakeStart) -> None:
        self._receive = receive
        self._start: MakeStart | None = start
        self._invocation: Invocation | None = None

    async def receive(self) -> Message:
        self.leave()
        message = await self._receive()
        start, self._start = self._start, None
        if start is not None:
            self._invocation = start()
            if self._invocation is not None:
                activate(self._invocation)
        return message

    def leave(self) -> None:
        """End the start-up: the application waits for the shutdown, or has returned."""
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            activate(None)
            invocation.end()
