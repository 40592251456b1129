"""a2wsgi: an ASGI application for a WSGI server, and a WSGI application for an ASGI server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, UploadFile
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

a2wsgi: Any = pytest.importorskip("a2wsgi", reason="a2wsgi is not installed")

import tmpguard  # noqa: E402
from tmpguard import asgi, wsgi  # noqa: E402

from . import checks  # noqa: E402
from .flask_app import flask_app  # noqa: E402


def asynchronous() -> FastAPI:
    app = FastAPI(default_response_class=PlainTextResponse)
    app.get("/write/{name}")(lambda name: checks.write(name))
    app.get("/thread")(checks.write_in_thread)
    app.get("/outside")(checks.outside)
    app.get("/file")(lambda: FileResponse(checks.write_lines()))

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        checks.write_lines()
        return StreamingResponse(checks.lines())

    @app.post("/upload")
    async def upload(file: UploadFile) -> str:
        with open("/tmp/upload.txt", "wb") as stored:
            return str(stored.write(await file.read()))

    return app


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.parametrize("guarded", ["within", "without"])
@pytest.mark.parametrize("check", [checks.check, checks.check_large_upload])
def test_an_asgi_application_on_a_wsgi_server(
    guard: tmpguard.Guard, ended: checks.Ended, loop: Any, guarded: str, check: Any
) -> None:
    """Guarded by either middleware: the application runs in the loop of another thread."""
    if guarded == "within":
        app = a2wsgi.ASGIMiddleware(asgi.TmpGuardMiddleware(asynchronous(), guard=guard), loop=loop)
    else:
        app = wsgi.TmpGuardMiddleware(a2wsgi.ASGIMiddleware(asynchronous(), loop=loop), guard=guard)
    with checks.wsgi_client(app) as client:
        check(client, ended)


@pytest.mark.parametrize("guarded", ["within", "without"])
@pytest.mark.parametrize("check", [checks.check, checks.check_large_upload])
def test_a_wsgi_application_on_an_asgi_server(
    guard: tmpguard.Guard, ended: checks.Ended, guarded: str, check: Any
) -> None:
    if guarded == "within":
        app = a2wsgi.WSGIMiddleware(wsgi.TmpGuardMiddleware(flask_app(), guard=guard))
        adapter = app
    else:
        adapter = a2wsgi.WSGIMiddleware(flask_app())
        app = asgi.TmpGuardMiddleware(adapter, guard=guard)
    with TestClient(app, raise_server_exceptions=False) as client:
        check(client, ended)
    adapter.executor.shutdown()
