"""Which route a request went to, told by what the frameworks leave behind."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import flask
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path, re_path
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.support import set_up_django
from tmpguard.reporting import routes

set_up_django()


def answer(request: Any) -> PlainTextResponse:
    return PlainTextResponse("text")


async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("text")(scope, receive, send)


APPLICATION = Starlette(
    routes=[
        Route("/items/{number:int}", answer),
        Mount("/outer", routes=[Mount("/inner", routes=[Route("/{name}", lambda request: answer(request))])]),
        Mount("/static", app=mounted),
    ]
)


def called(path_asked: str) -> dict[str, Any]:
    """The scope of a request as the application leaves it."""
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path_asked, "headers": []}
    scope |= {"query_string": b"", "root_path": ""}

    async def send(message: Any) -> None: ...

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(APPLICATION(scope, receive, send))
    return scope


@pytest.mark.parametrize("release", ["which names the route in the scope", "which does not"])
@pytest.mark.parametrize(
    ("asked", "route"),
    [
        ("/items/7", "GET /items/{number:int}"),
        ("/outer/inner/x", "GET /outer/inner/{name}"),
        ("/static/style.css", "GET /static/*"),
        ("/nowhere", "GET /nowhere"),
    ],
)
def test_of_starlette_in_any_release(release: str, asked: str, route: str) -> None:
    scope = called(asked)
    if release == "which does not":
        scope.pop("route", None)
    assert routes.of_asgi(APPLICATION, scope) == route


def test_of_a_websocket_and_of_what_has_no_path() -> None:
    assert routes.of_asgi(mounted, {"type": "websocket", "path": "/socket"}) == "WS /socket"
    assert routes.of_asgi(mounted, {"type": "http", "method": "PUT"}) == "PUT /"
    assert routes.of_wsgi(mounted, {}) == "? /"


def test_of_django_s_handlers() -> None:
    def view(request: Any, number: int = 0) -> HttpResponse:
        return HttpResponse("text")

    class Urls:
        urlpatterns = (path("items/<int:number>", view), re_path(r"^old/$", view))

    with override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=[]):
        wsgi, asgi = get_wsgi_application(), get_asgi_application()
        for asked, route in (
            ("/items/7", "/items/<int:number>"),
            ("/old/", "/old/$"),
            ("/nowhere", "/nowhere"),
        ):
            assert routes.of_wsgi(wsgi, {"REQUEST_METHOD": "GET", "PATH_INFO": asked}) == f"GET {route}"
            assert routes.of_asgi(asgi, {"type": "http", "method": "GET", "path": asked}) == f"GET {route}"


def test_of_flask_and_its_middlewares() -> None:
    app = flask.Flask(__name__)
    app.route("/items/<int:number>")(lambda number: "text")
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/items/7",
        "SCRIPT_NAME": "/shop",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    for called_as in (app, app.wsgi_app):
        assert routes.of_wsgi(called_as, environ) == "GET /shop/items/<int:number>"
        assert routes.of_wsgi(called_as, environ | {"PATH_INFO": "/nowhere"}) == "GET /nowhere"
        assert routes.of_wsgi(called_as, environ | {"REQUEST_METHOD": "POST"}) == "POST /items/7"


def test_of_a_path_in_utf_8() -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/größe".encode().decode("latin-1")}
    assert routes.of_wsgi(types.SimpleNamespace(), environ) == "GET /größe"
