"""The ASGI half of :mod:`tmpguard.testing.client`: runs applications in an event loop. Needs anyio."""

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
from .startup import MakeStart, StartingASGI


class LoopTransport(httpx.BaseTransport):
    """Sends requests to an ASGI application that runs in an event loop in its own thread.

    The constructor raises what the start-up raises, and :meth:`close` raises what the shutdown raises.
    """

    def __init__(
        self, app: ASGIApp, guard: Guard, start: MakeStart, *, raise_app_exceptions: bool = True
    ) -> None:
        self._raise_app_exceptions = raise_app_exceptions
        self._guard = guard
        # An empty context: the loop and the lifespan belong to no invocation, even if the test's body is one.
        Context().run(self._open, StartingASGI(app, start))

    def _open(self, app: ASGIApp) -> None:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            self._app = stack.enter_context(self._portal.wrap_async_context_manager(running(app)))
            self._opened = stack.pop_all()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()  # an iterator body is read here, in the caller's thread
        outcome = self._portal.start_task_soon(self._outcome, request)
        try:
            return outcome.result().result()
        finally:
            outcome.cancel()  # after Ctrl-C or a timeout: otherwise close() would wait for the request

    async def _outcome(self, request: httpx.Request) -> Future[httpx.Response]:
        """The application's response or exception. SystemExit and pytest.skip() would end the portal."""
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
        """Shut the application down and stop its event loop. Idempotent."""
        self._opened.close()


@asynccontextmanager
async def running_transport(
    app: ASGIApp, guard: Guard, start: MakeStart, *, raise_app_exceptions: bool = True
) -> AsyncIterator[httpx.ASGITransport]:
    """A transport to an application in the running event loop, between its start-up and its shutdown."""
    async with running(StartingASGI(app, start)) as served:
        yield httpx.ASGITransport(_guarded(served, guard), raise_app_exceptions=raise_app_exceptions)


def _guarded(app: ASGIApp, guard: Guard) -> GuardedASGI:
    return GuardedASGI(app, lambda test: guard)
