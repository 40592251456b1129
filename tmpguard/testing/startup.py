"""What runs before the first request, as invocations: imports and an ASGI application's start-up.

Only with ``--tmpguard-import``; see ``tmpguard.cold_start``.
"""

from __future__ import annotations

from collections.abc import Callable

from tmpguard.asgi import ASGIApp, Message, Receive, Scope, Send
from tmpguard.core.context import activate
from tmpguard.core.invocation import Invocation
from tmpguard.guard import Guard, cold_start

from .records import START_UP, TestRecord

#: Makes the invocation that a start-up is to run for, or gives None where it keeps the real file system.
Start = Callable[[], Invocation | None]


def start_of(test: TestRecord, guard: Guard, route: str = START_UP) -> Invocation:
    """A start that ``test`` makes, on its record."""
    invocation = cold_start(guard=guard)
    test.begin("start", route).add(invocation)
    return invocation


class StartingASGI:
    """An ASGI application whose start-up runs for the invocation that ``start`` makes."""

    def __init__(self, app: ASGIApp, start: Start) -> None:
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
    """``receive``, which the application calls in its own task, and so where the start-up begins and ends."""

    def __init__(self, receive: Receive, start: Start) -> None:
        self._receive = receive
        self._start: Start | None = start
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
        """The start-up is over: the application waits for the shutdown, or has ended."""
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            activate(None)
            invocation.end()
