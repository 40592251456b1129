"""Litestar."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("litestar", reason="litestar is not installed")

from litestar import Litestar, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import UploadFile
from litestar.middleware import DefineMiddleware
from litestar.params import FromPath, MultipartBody
from litestar.response import File, Response, Stream
from litestar.testing import TestClient

import tmpguard
from tmpguard.asgi import TmpGuardMiddleware

from . import checks


@get("/write/{name:str}", media_type="text/plain", sync_to_thread=True)
def write(name: FromPath[str]) -> str:
    return checks.write(name)


@get("/thread", media_type="text/plain")
async def thread() -> str:
    return checks.write_in_thread()


@get("/outside", media_type="text/plain", sync_to_thread=False)
def outside() -> str:
    return checks.outside()


@post("/upload", media_type="text/plain", status_code=200)
async def upload(data: MultipartBody[UploadFile]) -> str:
    with open("/tmp/upload.txt", "wb") as file:
        size = file.write(await data.read())
    return str(size)


@get("/stream", media_type="text/plain")
async def stream() -> Stream:
    checks.write_lines()
    return Stream(checks.lines())


@get("/file")
async def file() -> File:
    return File(checks.write_lines(), filename="body.txt")


@get("/background", media_type="text/plain")
async def background() -> Response[str]:
    return Response("started", background=BackgroundTask(checks.write, "background"))


HANDLERS = [write, thread, outside, upload, stream, file, background]


def around(guard: tmpguard.Guard) -> Any:
    return TmpGuardMiddleware(Litestar(HANDLERS, debug=False), guard=guard)


def as_middleware(guard: tmpguard.Guard) -> Any:
    return Litestar(HANDLERS, middleware=[DefineMiddleware(TmpGuardMiddleware, guard=guard)])


@pytest.mark.parametrize("make", [around, as_middleware])
def test_each_request_is_an_invocation(make: Any, guard: tmpguard.Guard, ended: checks.Ended) -> None:
    with TestClient(make(guard), raise_server_exceptions=False) as client:
        checks.check(client, ended)


@pytest.mark.parametrize("make", [around, as_middleware])
def test_a_large_upload(make: Any, guard: tmpguard.Guard, ended: checks.Ended) -> None:
    with TestClient(make(guard), raise_server_exceptions=False) as client:
        checks.check_large_upload(client, ended)


def test_a_background_task_belongs_to_its_request(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    with TestClient(around(guard)) as client:
        assert client.get("/background").text == "started"
        (report,) = ended()
        assert (report.peak_bytes, report.late_writes) == (4096, ())
