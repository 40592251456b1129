"""Applications that keep one /tmp between requests: each request adds a file and tells what is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import tmpguard
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

GUARD = tmpguard.Guard(storage_size=1, lifetime="instance", bundle=None)


def add() -> str:
    here = os.listdir("/tmp")
    Path(f"/tmp/{len(here)}.txt").write_text("kept")
    return json.dumps([os.getpid(), len(here)])


def answer(request: Request) -> Response:
    return PlainTextResponse(add())


asgi = TmpGuardMiddleware(Starlette(routes=[Route("/", answer)]), guard=GUARD)

wsgi = flask.Flask(__name__)
wsgi.wsgi_app = WsgiMiddleware(wsgi.wsgi_app, guard=GUARD)  # type: ignore[method-assign]
wsgi.add_url_rule("/", view_func=add)
