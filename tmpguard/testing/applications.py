"""Runs and records requests to an ASGI, WSGI or Django application.

``Guarded*`` wrap an application so that its requests are invocations of the running test's guard.
``Noting*`` sit directly inside a tmpguard middleware, ours or the application's own, and add its invocation
to the test's record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tmpguard.asgi import ASGIApp, Receive, Scope, Send
from tmpguard.asgi import TmpGuardMiddleware as ASGIMiddleware
from tmpguard.core.invocation import current
from tmpguard.guard import Guard
from tmpguard.reporting import routes
from tmpguard.reporting.routes import START_UP
from tmpguard.wsgi import TmpGuardMiddleware as WSGIMiddleware

from .records import TestEntry, TestRecord, current_test, in_progress

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from django.http import HttpRequest, HttpResponseBase


def _entry_of(test: TestRecord, *, ours: bool, route: str) -> TestEntry:
    """The entry of the request that begins. An application's own guard within ours uses the entry of ours."""
    entry = None if ours else in_progress.get()
    if entry is None:
        entry = test.begin("request", route)
    invocation = current()
    assert invocation is not None
    entry.add(invocation)
    return entry


class NotingASGI:
    """Sits directly inside an ASGI middleware."""

    def __init__(self, app: ASGIApp, test: TestRecord, *, ours: bool) -> None:
        self.app = app
        self._test = test
        self._ours = ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            invocation = current()
            if (
                invocation is not None and invocation.cold_start and not self._ours
            ):  # the middleware has lifespan=True
                self._test.begin("start", START_UP).add(invocation)
            await self.app(scope, receive, send)
            return
        entry = _entry_of(self._test, ours=self._ours, route=routes.of_asgi(self.app, scope))
        token = in_progress.set(entry)
        try:
            await self.app(scope, receive, send)
        finally:
            if in_progress.get() is entry:  # otherwise an abandoned coroutine is closed elsewhere
                in_progress.reset(token)
            entry.route = routes.of_asgi(self.app, scope)
            entry.view = routes.view_of_asgi(scope)


class GuardedASGI:
    """An ASGI application whose requests are invocations of ``guard``, or of the running test's guard."""

    def __init__(self, app: ASGIApp, guard: Callable[[TestRecord], Guard | None]) -> None:
        self.app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        test = current_test()
        guard = None if test is None or scope["type"] == "lifespan" else self._guard(test)
        if test is None or guard is None:
            await self.app(scope, receive, send)
            return
        noting = NotingASGI(self.app, test, ours=True)
        await ASGIMiddleware(noting, guard=guard)(scope, receive, send)


class NotingWSGI:
    """Sits directly inside a WSGI middleware."""

    def __init__(self, app: WSGIApplication, test: TestRecord, *, ours: bool) -> None:
        self.app = app
        self._test = test
        self._ours = ours

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entry = _entry_of(self._test, ours=self._ours, route=routes.of_wsgi(self.app, environ))
        token = in_progress.set(entry)
        try:
            return self.app(environ, start_response)
        finally:
            in_progress.reset(token)
            entry.route = routes.of_wsgi(self.app, environ)
            entry.view = routes.view_of_wsgi(self.app, environ)


class GuardedWSGI:
    """A WSGI application whose requests are invocations of ``guard``, or of the running test's guard."""

    def __init__(self, app: WSGIApplication, guard: Callable[[TestRecord], Guard | None]) -> None:
        self.app = app
        self._guard = guard

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        test = current_test()
        guard = None if test is None else self._guard(test)
        if test is None or guard is None:
            return self.app(environ, start_response)
        return WSGIMiddleware(NotingWSGI(self.app, test, ours=True), guard=guard)(environ, start_response)


class NotingDjango:
    """Sits directly inside the Django middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], Any], test: TestRecord, *, ours: bool) -> None:
        self._get_response = get_response
        self._test = test
        self._ours = ours

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        entry = _entry_of(self._test, ours=self._ours, route=routes.of_django(request))
        token = in_progress.set(entry)
        try:
            return self._get_response(request)
        finally:
            in_progress.reset(token)
            entry.route = routes.of_django(request)
            entry.view = routes.view_of_django(request)

    async def asynchronous(self, request: HttpRequest) -> HttpResponseBase:
        """``__call__`` for an async stack."""
        entry = _entry_of(self._test, ours=self._ours, route=routes.of_django(request))
        token = in_progress.set(entry)
        try:
            return await self._get_response(request)
        finally:
            if in_progress.get() is entry:
                in_progress.reset(token)
            entry.route = routes.of_django(request)
            entry.view = routes.view_of_django(request)


def guard_of_test(test: TestRecord) -> Guard | None:
    """The guard of a test's requests. None if the test's requests are not guarded."""
    if not test.every_request or test.settings is None:
        return None
    return test.settings.guard()
