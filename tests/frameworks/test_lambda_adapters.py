"""Mangum and serverless-wsgi, which call the application in a handler of AWS Lambda; there is no server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, UploadFile
from starlette.responses import StreamingResponse

import tmpguard
from tmpguard import asgi, wsgi

from . import checks
from .flask_app import flask_app


def event(path: str, method: str = "GET", body: str = "", content_type: str = "text/plain") -> dict[str, Any]:
    """An event of an HTTP API, as API Gateway sends it."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "testserver", "content-type": content_type, "accept": "*/*"},
        "requestContext": {"http": http, "stage": "$default"},
        "body": body,
        "isBase64Encoded": False,
    }


UPLOAD = (
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    + "y" * 5000
    + "\r\n--x--\r\n"
)
FORM = "multipart/form-data; boundary=x"


def asynchronous() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/write/{name}")
    def write(name: str) -> str:
        return checks.write(name)

    @app.get("/outside")
    async def outside() -> str:
        return checks.outside()

    @app.get("/stream")
    def stream() -> StreamingResponse:
        checks.write_lines()
        return StreamingResponse(checks.lines(), media_type="text/plain")

    @app.post("/upload")
    async def upload(file: UploadFile, later: BackgroundTasks) -> int:
        data = await file.read()
        later.add_task(Path("/tmp/upload.txt").write_bytes, data)
        return len(data)

    @app.get("/kept")
    def kept() -> list[str]:
        with open("/tmp/same.txt", "a") as file:
            file.write("x")
        return [Path("/tmp/same.txt").read_text()]

    return app


@pytest.fixture
def loop() -> Iterator[None]:
    """Mangum runs the event loop of the thread."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


def mangum(app: Any) -> Any:
    module: Any = pytest.importorskip("mangum", reason="mangum is not installed")
    return module.Mangum(app)


def check(handler: Any, ended: checks.Ended, text: Any = json.loads) -> None:
    assert text(handler(event("/write/one"), None)["body"]) == "one in same.txt"
    refused = "[Errno 30] Read-only file system: 'outside.txt'"
    assert text(handler(event("/outside"), None)["body"]) == refused
    assert handler(event("/stream"), None)["body"] == checks.LINES
    assert handler(event("/upload", "POST", UPLOAD, FORM), None)["body"] == "5000"

    written, outside, streamed, uploaded = ended()
    assert written.peak_bytes == 4096
    assert [violation.path for violation in outside.violations] == ["outside.txt"]
    assert streamed.peak_bytes == (len(checks.LINES) + 4095) // 4096 * 4096
    assert uploaded.peak_bytes >= 8192
    assert [report.late_writes for report in ended()] == [()] * 4


def test_mangum_around_the_middleware(guard: tmpguard.Guard, ended: checks.Ended, loop: None) -> None:
    check(mangum(asgi.TmpGuardMiddleware(asynchronous(), guard=guard)), ended)


def test_mangum_as_a_guarded_handler(guard: tmpguard.Guard, ended: checks.Ended, loop: None) -> None:
    """The lifespan, which Mangum runs in each call, belongs to the invocation, as on the platform."""
    check(guard(mangum(asynchronous())), ended)


@pytest.mark.parametrize("outside", [False, True])
def test_an_instance_outlives_the_calls_of_mangum(scratch: Path, loop: None, outside: bool) -> None:
    """Though Mangum shuts the application down after each of them."""
    guard = tmpguard.Guard(lifetime="instance", platform="aws-lambda", scratch_root=scratch, bundle=None)
    app = asynchronous()
    handler = guard(mangum(app)) if outside else mangum(asgi.TmpGuardMiddleware(app, guard=guard))
    assert json.loads(handler(event("/kept"), None)["body"]) == ["x"]
    assert json.loads(handler(event("/kept"), None)["body"]) == ["xx"]
    guard.end_instance()
    assert json.loads(handler(event("/kept"), None)["body"]) == ["x"]
    guard.end_instance()


def test_serverless_wsgi(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    module: Any = pytest.importorskip("serverless_wsgi", reason="serverless-wsgi is not installed")
    app = wsgi.TmpGuardMiddleware(flask_app(), guard=guard)
    check(lambda event, context: module.handle_request(app, event, context), ended, str)


def test_serverless_wsgi_as_a_guarded_handler(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    module: Any = pytest.importorskip("serverless_wsgi", reason="serverless-wsgi is not installed")
    app = flask_app()

    @guard
    def handler(event: Any, context: Any) -> Any:
        return module.handle_request(app, event, context)

    check(handler, ended, str)
