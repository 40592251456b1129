"""Patches the frameworks' test clients to make guarded requests, and tmpguard's middlewares to record theirs.

A module that is already imported is patched at once; any other is patched right after its import. Nothing is
imported just to patch it. :func:`uninstall` restores everything.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from inspect import iscoroutinefunction
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from tmpguard.interpose.late import Finder

from .applications import GuardedASGI, GuardedWSGI, NotingASGI, NotingDjango, NotingWSGI, guard_of_test
from .records import current_test, in_progress
from .startup import StartingASGI, begin_start

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from django.http import HttpRequest

#: A function, or a method of a client or a transport; and a function that makes its replacement.
Method = Callable[..., Any]
Replacing = Callable[[Method], Method]

#: A class or module, a name in it, and the function that makes the replacement.
Patch = tuple[type | ModuleType, str, Replacing]


def _transport(guarded: type[GuardedASGI] | type[GuardedWSGI]) -> Replacing:
    """Replaces the method of an httpx transport that calls ``self.app``."""

    def replacement(original: Method) -> Method:
        def handle(self: Any, request: object) -> object:
            test = current_test()
            if test is not None and test.every_request and not isinstance(self.app, guarded):
                # A copy, since the transport and its app belong to the test.
                self = copy.copy(self)
                self.app = guarded(self.app, guard_of_test)
            return original(self, request)

        return handle

    return replacement


def _lifespan(original: Method) -> Method:
    """Replaces the method of Starlette's test client that starts the application up and shuts it down."""

    async def lifespan(self: Any) -> object:
        test = current_test()
        settings = None if test is None else test.settings
        if test is not None and settings is not None and settings.starts:
            self = copy.copy(self)
            self.app = StartingASGI(self.app, lambda: begin_start(test, settings.guard()))
        return await original(self)

    return lifespan


def _run_wsgi_app(original: Method) -> Method:
    """Replaces werkzeug's function through which all its clients, Flask's included, call the application."""

    def run_wsgi_app(app: WSGIApplication, *args: object, **kwargs: object) -> object:
        test = current_test()
        if test is not None and test.every_request and not isinstance(app, GuardedWSGI):
            is_request = in_progress.get() is None or not _is_response(app)
            app = GuardedWSGI(app, guard_of_test) if is_request else app
        return original(app, *args, **kwargs)

    return run_wsgi_app


def _is_response(app: object) -> bool:
    """Whether ``app`` is a response, or an exception used as one. werkzeug calls these within a request."""
    kinds = (
        getattr(sys.modules.get("werkzeug.exceptions"), "HTTPException", None),
        getattr(sys.modules.get("werkzeug.wrappers"), "Response", None),
    )
    return isinstance(app, tuple(kind for kind in kinds if isinstance(kind, type)))


def _get_response(original: Method) -> Method:
    """Replaces the method with which Django's test client passes the request to the middlewares."""

    def get_response(self: Any, request: HttpRequest) -> object:
        test = current_test()
        guard = None if test is None else guard_of_test(test)
        if test is None or guard is None:
            return original(self, request)
        from tmpguard.django import TmpGuardMiddleware

        noting = NotingDjango(original.__get__(self), test, ours=True)
        return TmpGuardMiddleware(noting, guard=guard)(request)

    return get_response


def _get_response_async(original: Method) -> Method:
    async def get_response_async(self: Any, request: HttpRequest) -> object:
        test = current_test()
        guard = None if test is None else guard_of_test(test)
        if test is None or guard is None:
            return await original(self, request)
        from tmpguard.django import TmpGuardMiddleware

        noting = NotingDjango(original.__get__(self), test, ours=True)
        return await TmpGuardMiddleware(noting.asynchronous, guard=guard)(request)

    return get_response_async


def _live_server(original: Method) -> Method:
    """Replaces the method with which Django makes the server of its ``LiveServerTestCase``.

    pytest-django's fixture ``live_server`` uses the same. One server may serve several tests.
    """

    def create_server(self: Any, *args: object, **kwargs: object) -> object:
        server: Any = original(self, *args, **kwargs)
        set_app = server.set_app
        server.set_app = lambda app: set_app(GuardedWSGI(app, guard_of_test))
        return server

    return create_server


# --- clients of further frameworks ---------------------------------------------------------------------


def _guarded(app: Any, guarded: type[GuardedASGI] | type[GuardedWSGI]) -> Any:
    """``app`` with its requests guarded, if those of the running test are."""
    test = current_test()
    if test is None or not test.every_request or isinstance(app, (GuardedASGI, GuardedWSGI)):
        return app
    return guarded(app, guard_of_test)


def _argument(guarded: type[GuardedASGI] | type[GuardedWSGI], position: int) -> Replacing:
    """Replaces a function or method whose argument at ``position`` is the application."""

    def replacement(original: Method) -> Method:
        def call(*args: Any, **kwargs: object) -> object:
            if len(args) > position:
                args = (*args[:position], _guarded(args[position], guarded), *args[position + 1 :])
            return original(*args, **kwargs)

        return call

    return replacement


def _at_once(original: Method) -> Method:
    """Replaces a method that calls ``self.app``, an ASGI application, before it is suspended for the first
    time."""

    def call(self: Any, *args: object, **kwargs: object) -> Any:
        app, self.app = self.app, _guarded(self.app, GuardedASGI)
        try:
            return original(self, *args, **kwargs)
        finally:
            self.app = app

    async def enter(self: Any) -> Any:
        app, self.app = self.app, _guarded(self.app, GuardedASGI)
        try:
            return await original(self)
        finally:
            self.app = app

    return enter if iscoroutinefunction(original) else call


def _litestar_request(original: Method) -> Method:
    """Replaces the method of Litestar's transport that calls ``self.client.app``."""

    def handle_request(self: Any, request: object) -> object:
        app = self.client.app
        guarded = _guarded(app, GuardedASGI)
        if guarded is not app:
            self = copy.copy(self)
            self.client = copy.copy(self.client)
            self.client.app = guarded
        return original(self, request)

    return handle_request


def _falcon_request(module: ModuleType) -> Replacing:
    """Replaces the function that makes a request to an application of either kind."""

    def replacement(original: Method) -> Method:
        def simulate_request(app: Any, *args: object, **kwargs: object) -> object:
            guarded = GuardedASGI if module._is_asgi_app(app) else GuardedWSGI
            return original(_guarded(app, guarded), *args, **kwargs)

        return simulate_request

    return replacement


def _falcon(module: ModuleType) -> list[Patch]:
    return [
        (module, "simulate_request", _falcon_request(module)),
        (module, "_simulate_request_asgi", _argument(GuardedASGI, 0)),
        (module.ASGIConductor, "simulate_ws", _at_once),
    ]


# --- an application's own guard ------------------------------------------------------------------------


def _own(noting: type[NotingASGI] | type[NotingWSGI], attribute: str) -> Replacing:
    """Replaces the ``__call__`` of a tmpguard middleware that the application itself uses."""

    def replacement(original: Method) -> Method:
        def call(self: Any, *args: object) -> object:
            test = current_test()
            inner = getattr(self, attribute)
            if test is not None and test.wanted and not isinstance(inner, noting):
                self = copy.copy(self)
                setattr(self, attribute, noting(inner, test, ours=False))
            return original(self, *args)

        return call

    return replacement


def _own_django(original: Method) -> Method:
    def call(self: Any, request: HttpRequest) -> object:
        test = current_test()
        inner = getattr(self.get_response, "__self__", self.get_response)
        if test is not None and test.wanted and not isinstance(inner, NotingDjango):
            self = copy.copy(self)
            noting = NotingDjango(self.get_response, test, ours=False)
            self.get_response = noting.asynchronous if self._is_async else noting
        return original(self, request)

    return call


# --- the patches of each module ------------------------------------------------------------------------


def _httpx(module: ModuleType) -> list[Patch]:
    return [
        (module.ASGITransport, "handle_async_request", _transport(GuardedASGI)),
        (module.WSGITransport, "handle_request", _transport(GuardedWSGI)),
    ]


def _django(module: ModuleType) -> list[Patch]:
    return [
        (module.ClientHandler, "get_response", _get_response),
        (module.AsyncClientHandler, "get_response_async", _get_response_async),
    ]


_MODULES: Final[dict[str, Callable[[ModuleType], list[Patch]]]] = {
    "starlette.testclient": lambda module: [
        (module._TestClientTransport, "handle_request", _transport(GuardedASGI)),
        (module.TestClient, "lifespan", _lifespan),
    ],
    "werkzeug.test": lambda module: [(module, "run_wsgi_app", _run_wsgi_app)],
    "django.test.client": _django,
    "django.test.testcases": lambda module: [(module.LiveServerThread, "_create_server", _live_server)],
    "litestar.testing.transport": lambda module: [
        (module.TestClientTransport, "handle_request", _litestar_request)
    ],
    "quart.testing.connections": lambda module: [
        (module.TestHTTPConnection, "__aenter__", _at_once),
        (module.TestWebsocketConnection, "__aenter__", _at_once),
    ],
    "falcon.testing.client": _falcon,
    "falcon.testing": lambda module: [(module, "simulate_request", _falcon_request(module.client))],
    "webtest.app": lambda module: [
        (module.TestRequest, "call_application", _argument(GuardedWSGI, 1)),
    ],
    "asgiref.testing": lambda module: [
        (module.ApplicationCommunicator, "__init__", _argument(GuardedASGI, 1)),
    ],
    "mangum.protocols.http": lambda module: [(module.HTTPCycle, "__call__", _argument(GuardedASGI, 1))],
    "httpx": _httpx,
    "httpx2": _httpx,
    "tmpguard.asgi": lambda module: [(module.TmpGuardMiddleware, "__call__", _own(NotingASGI, "app"))],
    "tmpguard.wsgi": lambda module: [(module.TmpGuardMiddleware, "__call__", _own(NotingWSGI, "app"))],
    "tmpguard.django": lambda module: [(module.TmpGuardMiddleware, "__call__", _own_django)],
}

_MISSING: Final = object()
_changes: list[tuple[type | ModuleType, str, object, object]] = []


def install() -> None:
    """Patch the modules that are imported, and arrange for the others to be patched on import."""
    _finder.start()
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is not None:
            _patch(name, module)


def uninstall() -> None:
    """Restore everything except what other code has replaced in the meantime."""
    _finder.stop()
    while _changes:
        owner, name, before, after = _changes.pop()
        if vars(owner).get(name) is after:
            if before is _MISSING:
                delattr(owner, name)  # it was inherited
            else:
                setattr(owner, name, before)


def _patch(name: str, module: ModuleType) -> None:
    for owner, attribute, replacement in _MODULES[name](module):
        before = vars(owner).get(attribute, _MISSING)
        original = getattr(owner, attribute)
        if any(after is original for _, _, _, after in _changes):  # copied from the module that has it
            _changes.append((owner, attribute, original.__wrapped__, original))
            continue
        after = replacement(original)
        after.__name__ = attribute
        after.__wrapped__ = original  # type: ignore[attr-defined]
        _changes.append((owner, attribute, before, after))
        setattr(owner, attribute, after)


def _patch_imported(module: ModuleType) -> None:
    if _finder in sys.meta_path:
        _patch(module.__name__, module)


_finder: Final = Finder(_MODULES, _patch_imported)
