"""ASGI and WSGI applications are told apart by what they are called with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import fastapi
import flask
import pytest
import starlette.applications
from asgiref.wsgi import WsgiToAsgi
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from werkzeug.middleware.proxy_fix import ProxyFix

import tmpguard
from tests.support import set_up_django
from tmpguard.asgi import TmpGuardMiddleware as ASGIMiddleware
from tmpguard.config.interface import interface_of
from tmpguard.wsgi import TmpGuardMiddleware as WSGIMiddleware

set_up_django()


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def renamed(one: Any, two: Any) -> Any: ...


def handing_on(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any, more: int = 0) -> Any: ...

    def wsgi_app(self, environ: Any, start_response: Any) -> Any: ...


class AnyArguments:
    """A middleware that passes all of its arguments on."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.app(*args, **kwargs)


def decorated(app: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(app)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return app(*args, **kwargs)

    return wrapper


def with_server(server: str, environ: Any, start_response: Any) -> Any: ...


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: asgi, "asgi"),
        (lambda: wsgi, "wsgi"),
        (lambda: renamed, "wsgi"),
        (lambda: handing_on, "asgi"),
        (Asgi, "asgi"),
        (Wsgi, "wsgi"),
        (lambda: Wsgi().wsgi_app, "wsgi"),
        (lambda: AnyArguments(asgi), "asgi"),
        (lambda: AnyArguments(AnyArguments(wsgi)), "wsgi"),
        (lambda: decorated(asgi), "asgi"),
        (lambda: decorated(wsgi), "wsgi"),
        (lambda: functools.partial(with_server, "name"), "wsgi"),
        (starlette.applications.Starlette, "asgi"),
        (fastapi.FastAPI, "asgi"),
        (lambda: flask.Flask(__name__), "wsgi"),
        (lambda: ProxyFix(flask.Flask(__name__).wsgi_app), "wsgi"),
        (lambda: WsgiToAsgi(wsgi), "asgi"),
        (get_asgi_application, "asgi"),
        (get_wsgi_application, "wsgi"),
        (lambda: ASGIMiddleware(asgi, bundle=None), "asgi"),
        (lambda: WSGIMiddleware(wsgi, bundle=None), "wsgi"),
    ],
)
def test_the_interface_is_detected(make: Callable[[], Any], expected: str) -> None:
    assert interface_of(make()) == expected


def asgi2(scope: Any) -> Any: ...


def neither(*args: Any) -> Any: ...


def without() -> Any: ...


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (asgi2, "ASGI 2 application.*guarantee_single_callable"),
        (neither, "may be an ASGI or a WSGI application: give interface="),
        (without, "may be an ASGI or a WSGI application"),
        (AnyArguments(neither), "give interface="),
        (Wsgi, "is not an application"),
        ("app:app", "'app:app' is not an application"),
    ],
)
def test_what_is_neither_is_refused_with_the_reason(app: Any, message: str) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=message):
        interface_of(app)
