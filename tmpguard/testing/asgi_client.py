"""The ASGI half of :mod:`tmpguard.testing.client`: applications in an event loop. Needs anyio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from contextvars import Context

from anyio.from_thread import start_blocking_portal

from tmpguard.asgi import ASGIApp
from tmpguard.guard import Guard

from .applications import GuardedASGI
from .http import httpx
from .lifespan import running
from .startup import Start, StartingASGI


class LoopTransport(httpx.BaseTransport):
    """Sends requests to an ASGI application that lives in an event loop in a thread of its own.

    Raises from the constructor what the start-up raises, and from :meth:`close` what the shutdown raises.
    """

    def __init__(
        self, app: ASGIApp, guard: Guard, start: Start, *, raise_app_exceptions: bool = True
    ) -> None:
        self._raise_app_exceptions = raise_app_exceptions
        self._guard = guard
        # In an empty context: the loop and the lifespan belong to no invocation, though a test's body may be
        # one.
        Context().run(self._open, StartingASGI(app, start))

    def _open(self, app: ASGIApp) -> None:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            self._app = stack.enter_context(self._portal.wrap_async_context_manager(running(app)))
            self._opened = stack.pop_all()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()  # a body that comes from an iterator is read here, in its own thread
        outcome = self._portal.start_task_soon(self._outcome, request)
        try:
            return outcome.result().result()
        finally:
            outcome.cancel()  # if Ctrl-C or a timeout interrupted the wait: closing waits for what still runs

    async def _outcome(self, request: httpx.Request) -> Future[httpx.Response]:
        """What the application answered or raised: SystemExit and pytest.skip() would end the portal."""
        outcome: Future[httpx.Response] = Future()
        try:
            outcome.set_result(await self._send(request))
        except BaseException as exc:
            outcome.set_exception(exc)
        return outcome

    async def _send(self, request: httpx.Request) -> httpx.Response:
        transport = httpx.ASGITransport(
            _guarded(self._app, self._guard), raise_app_exceptions=self._raise_app_exceptions
        )
        response = await transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in response.stream])
        return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(body))

    def close(self) -> None:
        """Shut the application down and end its loop. Does nothing the second time."""
        self._opened.close()


@asynccontextmanager
async def running_transport(
    app: ASGIApp, guard: Guard, start: Start, *, raise_app_exceptions: bool = True
) -> AsyncIterator[httpx.ASGITransport]:
    """The same for an application in the running event loop."""
    async with running(StartingASGI(app, start)) as served:
        yield httpx.ASGITransport(_guarded(served, guard), raise_app_exceptions=raise_app_exceptions)


def _guarded(app: ASGIApp, guard: Guard) -> GuardedASGI:
    return GuardedASGI(app, lambda test: guard)
