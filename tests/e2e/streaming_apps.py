"""Applications whose answers go on for as long as the client stays: to stop a server in mid-request.

"/hold" writes a file, tells the number of its process in the first line of the body, and then goes on sending
empty lines until the client is gone. "/" answers at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import tmpguard
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

GUARD = tmpguard.Guard(storage_size=1, bundle=None)
PAUSE = 0.05  # seconds


def write() -> bytes:
    os.makedirs("/tmp/held/deep", mode=0o700)
    Path("/tmp/held/deep/file.txt").write_text("held")
    os.symlink("/etc", "/tmp/held/link")
    return f"{os.getpid()}\n".encode()


async def hold(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield write()
        while True:
            await asyncio.sleep(PAUSE)
            yield b"\n"

    return StreamingResponse(body())


async def index(request: Request) -> Response:
    return PlainTextResponse(f"{os.getpid()} {os.path.exists('/tmp/held')}")


asgi = TmpGuardMiddleware(Starlette(routes=[Route("/hold", hold), Route("/", index)]), guard=GUARD)

wsgi = flask.Flask(__name__)
wsgi.wsgi_app = WsgiMiddleware(wsgi.wsgi_app, guard=GUARD)  # type: ignore[method-assign]


@wsgi.get("/hold")
def wsgi_hold() -> flask.Response:
    def body() -> Iterator[bytes]:
        yield write()
        while True:
            time.sleep(PAUSE)
            yield b"\n"

    return flask.Response(body())


@wsgi.get("/")
def wsgi_index() -> str:
    return f"{os.getpid()} {os.path.exists('/tmp/held')}"
