"""The application's route that a request went to: ``GET /items/{item_id}`` if it can be determined."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest


def of_asgi(app: object, scope: Mapping[str, Any]) -> str:
    """The route of an ASGI request. Known once the application, which writes to ``scope``, has responded."""
    method = scope.get("method", "WS") if scope["type"] == "http" else "WS"
    path = _starlette_path(scope) or _django_path(app, scope.get("path", "")) or scope.get("path", "")
    return f"{method} {path or '/'}"


def of_wsgi(app: object, environ: Mapping[str, Any]) -> str:
    """The route of a WSGI request. Known once the application has been called."""
    path = environ.get("PATH_INFO", "")
    with suppress(UnicodeError):
        path = path.encode("latin-1").decode()  # PEP 3333
    known = _flask_path(app, environ) or _django_path(app, path)
    return f"{environ.get('REQUEST_METHOD', '?')} {known or path or '/'}"


def of_django(request: HttpRequest) -> str:
    """The route of a Django request. Known once a view has been found for it."""
    match = getattr(request, "resolver_match", None)
    path = f"/{match.route.lstrip('^')}" if match is not None and match.route is not None else request.path
    return f"{request.method} {path}"


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


def _django_path(app: object, path: str) -> str | None:
    """The route that Django's WSGI or ASGI handler chose. It is resolved again: they do not expose it."""
    if not type(app).__module__.startswith("django.core.handlers."):
        return None
    urls = sys.modules["django.urls"]
    with suppress(Exception):  # Resolver404, or whatever a project's URLs raise
        return f"/{urls.resolve(path).route.lstrip('^')}"
    return None
