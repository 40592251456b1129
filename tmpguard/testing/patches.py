"""Patches the frameworks' test clients to make guarded requests, and tmpguard's middlewares to record theirs.

A module that is already imported is patched at once; any other is patched right after its import. Nothing is
imported just to patch it. :func:`uninstall` restores everything.
"""

from __future__ import annotations

import copy
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from .applications import GuardedASGI, GuardedWSGI, NotingASGI, NotingDjango, NotingWSGI, guard_of_test
from .records import current_test
from .startup import StartingASGI, start_of

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
            self.app = StartingASGI(self.app, lambda: start_of(test, settings.guard()))
        return await original(self)

    return lifespan


def _run_wsgi_app(original: Method) -> Method:
    """Replaces werkzeug's function through which all its clients, Flask's included, call the application."""

    def run_wsgi_app(app: WSGIApplication, *args: object, **kwargs: object) -> object:
        test = current_test()
        if test is not None and test.every_request and not isinstance(app, GuardedWSGI):
            app = GuardedWSGI(app, guard_of_test)
        return original(app, *args, **kwargs)

    return run_wsgi_app


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
    sys.meta_path.insert(0, _finder)
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is not None:
            _patch(name, module)


def uninstall() -> None:
    """Restore everything except what other code has replaced in the meantime."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
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
        after = replacement(original)
        after.__name__ = attribute
        after.__wrapped__ = original  # type: ignore[attr-defined]
        _changes.append((owner, attribute, before, after))
        setattr(owner, attribute, after)


class _Finder(MetaPathFinder):
    """Patches the modules above right after their import. The other finders do the finding."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    """The loader of such a module, plus one step. Only this one import goes through it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._step_aside(module)
        self._loader.exec_module(module)
        _patch_imported(module)

    # A module's warnings name the line that imports it: they skip frames of importlib, by this file name.
    exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap>")

    def _step_aside(self, module: ModuleType) -> None:
        loader: Any = self._loader  # from 3.15 on typed as a protocol of another shape
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        module.__loader__ = loader


def _patch_imported(module: ModuleType) -> None:
    if _finder in sys.meta_path:
        _patch(module.__name__, module)


_finder: Final = _Finder()
