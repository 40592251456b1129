"""The fixture ``tmpguard``: guarded clients, and the reports of their requests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import tmpguard as package
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports.report import Report, Violation
from tmpguard.guard import Guard

from .allow import matchers_of
from .records import TestRecord
from .settings import directory_of

if TYPE_CHECKING:
    import httpx

    from .client import Clients
    from .live import LiveServer


class TmpGuard:
    """The value of the fixture ``tmpguard``. See docs/pytest.md."""

    def __init__(
        self, test: TestRecord, stack: ExitStack, start: Callable[[Guard], Invocation | None]
    ) -> None:
        assert test.settings is not None
        self._test = test
        self._settings = test.settings
        self._stack = stack
        self._start = start

    @functools.cached_property
    def _clients(self) -> Clients:
        """Created with the first client, so that the rest of the fixture works without httpx."""
        from .client import Clients

        return Clients(self._settings.guard, self._start)

    def client(self, app: object, **options: object) -> httpx.Client:
        """An ``httpx.Client`` for an ASGI or WSGI application. Each of its requests is an invocation.

        The client is synchronous for both. An ASGI application runs in its own event loop: it starts up
        before this method returns, and shuts down when the client is closed or the test ends. ``options`` are
        those of :class:`tmpguard.Guard`, which override the marker and the ini file; those of
        ``httpx.Client`` (``base_url``, ``headers``, ...); ``raise_app_exceptions=False`` for a 500 instead of
        the application's exception; and ``interface="asgi"`` or ``"wsgi"`` if it cannot be detected.

        Raises ConfigurationError for an invalid option, and whatever the application's start-up raises.
        """
        client = self._clients.sync_client(app, options)
        self._stack.callback(client.close)
        return client

    def async_client(self, app: object, **options: object) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """An ``httpx.AsyncClient`` for async tests: ``async with tmpguard.async_client(app) as client:``.

        ASGI only. The application runs in the test's own event loop (asyncio or trio). The options are those
        of :meth:`client`.
        """
        return _AsyncClient(self._clients.async_client(app, options))

    def live(self, app: object, **options: object) -> LiveServer:
        """Serve an ASGI or WSGI application on a free port of the loopback interface, at ``.url``.

        For browsers and other clients outside of the test. uvicorn or werkzeug serves it in threads of this
        process, and each request is an invocation. The server is running when this method returns, and stops
        when it is closed (``with tmpguard.live(app) as server:``) or the test ends. ``options`` are those of
        :class:`tmpguard.Guard`, which override the marker and the ini file, and ``interface="asgi"`` or
        ``"wsgi"`` if it cannot be detected.

        Raises ConfigurationError for an invalid option or a missing package, and whatever the application's
        start-up raises.
        """
        from .live import LiveServers

        server = LiveServers(self._settings.guard, self._start).serve(app, options)
        self._stack.callback(server.close)
        return server

    @property
    def reports(self) -> list[Report]:
        """The reports of this test's requests so far, and of its body if that is guarded."""
        return [entry.report for entry in self._test.entries if entry.report is not None]

    @property
    def last(self) -> Report:
        """The report of the last request. Raises LookupError before the first one."""
        reports = self.reports
        if not reports:
            raise LookupError(
                "this test has made no guarded request yet: make one with tmpguard.client(app), or run "
                "pytest with --tmpguard to guard the requests of the frameworks' own clients"
            )
        return reports[-1]

    @property
    def violations(self) -> list[Violation]:
        """The violations of all requests of this test so far, including allowed ones."""
        return [violation for entry in self._test.entries for violation in entry.violations]

    def allow(self, *expected: object) -> None:
        """Expect these violations from now on, as ``@pytest.mark.tmpguard(allow=[...])`` does."""
        self._test.allowed += matchers_of(expected, directory_of(self._settings.options))

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in package.__all__:
                text += ": in this test, tmpguard is the fixture and hides the module; import tmpguard as ..."
            raise AttributeError(text, name=name, obj=self)


class _AsyncClient(AbstractAsyncContextManager["httpx.AsyncClient"]):
    """An async client that is not entered yet."""

    def __init__(self, opening: AbstractAsyncContextManager[httpx.AsyncClient]) -> None:
        self._opening = opening

    async def __aenter__(self) -> httpx.AsyncClient:
        return await self._opening.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._opening.__aexit__(kind, value, traceback)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            text = f"the client has no {name!r} yet: async with tmpguard.async_client(app) as client: ..."
            raise AttributeError(text, name=name, obj=self)


@contextmanager
def opened(test: TestRecord, start: Callable[[Guard], Invocation | None]) -> Iterator[TmpGuard]:
    """The fixture of ``test``. Its clients are closed on exit."""
    with ExitStack() as stack:
        yield TmpGuard(test, stack, start)
