"""The application's route that a request went to: ``GET /items/{item_id}`` if it can be determined."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, ParamSpec, Protocol

from tmpguard.core.callers import Location
from tmpguard.core.reports.report import Report

Found = ParamSpec("Found")

#: Shown in place of a route for what is not a request.
START_UP: Final = "(start-up)"
IMPORT: Final = "(import)"

#: Parts of a path that name one thing among many: numbers, UUIDs and long hexadecimal or mixed tokens.
_NAMES: Final = (
    ("{number}", re.compile(r"\d+")),
    ("{uuid}", re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")),
    ("{token}", re.compile(r"[0-9a-fA-F]{16,}|(?=[^.]*\d)(?=[^.]*[A-Za-z])[\w-]{20,}")),
)


class DjangoRequest(Protocol):
    """What is used of Django's HttpRequest."""

    @property
    def method(self) -> str | None: ...

    @property
    def path(self) -> str: ...


def without_names(path: str) -> str:
    """``path`` with a placeholder for each part that names one thing among many: ``/items/{number}``."""
    return "/".join(map(_part, path.split("/")))


def _part(part: str) -> str:
    return next((name for name, pattern in _NAMES if pattern.fullmatch(part)), part)


def note(report: Report, find: Callable[Found, str], *request: Found.args, **more: Found.kwargs) -> None:
    """Put the route of a request on its ``report``, for ``on_report``.

    ``find`` is one of the functions below. Never raises, whatever the framework's objects do.
    """
    with suppress(Exception):
        method, _, path = find(*request, **more).partition(" ")
        report.route = f"{method} {without_names(path)}"


def of_asgi(app: object, scope: Mapping[str, Any]) -> str:
    """The route of an ASGI request. Known once the application, which writes to ``scope``, has responded."""
    method = scope.get("method", "WS") if scope["type"] == "http" else "WS"
    known = _starlette_path(scope) or scope.get("path_template")  # Litestar's
    path = known or _django_path(app, scope.get("path", "")) or scope.get("path", "")
    return f"{method} {path or '/'}"


def of_wsgi(app: object, environ: Mapping[str, Any]) -> str:
    """The route of a WSGI request. Known once the application has been called."""
    path = environ.get("PATH_INFO", "")
    with suppress(UnicodeError):
        path = path.encode("latin-1").decode()  # PEP 3333
    known = _flask_path(app, environ) or _bottle_path(environ) or _django_path(app, path)
    return f"{environ.get('REQUEST_METHOD', '?')} {known or path or '/'}"


def of_django(request: DjangoRequest) -> str:
    """The route of a Django request. Known once a view has been found for it."""
    match = getattr(request, "resolver_match", None)
    path = f"/{match.route.lstrip('^')}" if match is not None and match.route is not None else request.path
    return f"{request.method} {path}"


def view_of_asgi(scope: Mapping[str, Any]) -> Location | None:
    """The first line of the view that Starlette or FastAPI called; None if it is not known."""
    return _begin_of(scope.get("endpoint"))


def view_of_wsgi(app: object, environ: Mapping[str, Any]) -> Location | None:
    """The first line of the view that Flask called; None if it is not known."""
    flask = getattr(app, "__self__", app)
    functions = getattr(flask, "view_functions", None)
    url_map = getattr(flask, "url_map", None)
    if not isinstance(functions, Mapping) or url_map is None:
        return None
    with suppress(Exception):  # as in _flask_path
        rule, _ = url_map.bind_to_environ(environ).match(return_rule=True)
        return _begin_of(functions.get(rule.endpoint))
    return None


def view_of_django(request: DjangoRequest) -> Location | None:
    """The first line of the view that Django called; None if it is not known."""
    return _begin_of(getattr(getattr(request, "resolver_match", None), "func", None))


def _begin_of(view: object) -> Location | None:
    view = getattr(view, "view_class", None) or getattr(view, "cls", None) or view  # a class-based view
    import inspect  # slow to import, and production asks for no view

    with suppress(Exception):
        view = inspect.unwrap(view)  # type: ignore[arg-type]
        if inspect.isclass(view):
            file, line = inspect.getsourcefile(view), inspect.getsourcelines(view)[1]
            return Location(file or "", line, view.__qualname__)
        code = view.__code__  # type: ignore[attr-defined]
        return Location(code.co_filename, code.co_firstlineno, code.co_qualname)
    return None


def _starlette_path(scope: Mapping[str, Any]) -> str | None:
    """The path of the route that Starlette or FastAPI chose, including the prefix of a mount."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str) and getattr(route, "endpoint", None) is endpoint:
        return str(scope.get("root_path", "")).removeprefix(scope.get("app_root_path", "")) + path
    return _path_of(endpoint, getattr(scope.get("router"), "routes", ()))


def _path_of(endpoint: object, routes: Iterable[object]) -> str | None:
    for route in routes:
        path = getattr(route, "path", None)
        if not isinstance(path, str):
            continue
        if getattr(route, "endpoint", None) is endpoint:
            return path
        if not hasattr(route, "endpoint") and getattr(route, "app", None) is endpoint:
            return f"{path}/*"  # a mounted application without routes, such as static files
        below = _path_of(endpoint, getattr(route, "routes", None) or ())
        if below is not None:
            return path + below
    return None


def _flask_path(app: object, environ: Mapping[str, Any]) -> str | None:
    """The rule that Flask matches. It is matched again here: Flask removes its request from ``environ``."""
    url_map = getattr(getattr(app, "__self__", app), "url_map", None)  # a middleware wraps app.wsgi_app
    if url_map is None:
        return None
    with suppress(Exception):  # no such rule, no rule for this method, or a redirect
        rule, _ = url_map.bind_to_environ(environ).match(return_rule=True)
        return f"{environ.get('SCRIPT_NAME', '')}{rule.rule}"
    return None


def _bottle_path(environ: Mapping[str, Any]) -> str | None:
    """The rule that Bottle has chosen, including the prefix of a mount."""
    rule = getattr(environ.get("bottle.route"), "rule", None)
    return f"{environ.get('SCRIPT_NAME', '').rstrip('/')}{rule}" if isinstance(rule, str) else None


def _django_path(app: object, path: str) -> str | None:
    """The route that Django's WSGI or ASGI handler chose. It is resolved again: they do not expose it."""
    while type(app).__module__.startswith("tmpguard."):
        app = getattr(app, "app", None)
    if not any(kind.__module__.startswith("django.core.handlers.") for kind in type(app).__mro__):
        return None
    urls = sys.modules["django.urls"]
    with suppress(Exception):  # Resolver404, or whatever a project's URLs raise
        return f"/{urls.resolve(path).route.lstrip('^')}"
    return None
