"""Falcon, both kinds, and its test client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("falcon", reason="falcon is not installed")

import falcon.asgi
import falcon.testing
from starlette.testclient import TestClient

import tmpguard
from tmpguard import asgi, wsgi

from . import checks


class Write:
    def on_get(self, req: Any, resp: Any, name: str) -> None:
        resp.text = checks.write(name)


class Thread:
    def on_get(self, req: Any, resp: Any) -> None:
        resp.text = checks.write_in_thread()


class Outside:
    def on_get(self, req: Any, resp: Any) -> None:
        resp.text = checks.outside()


class Upload:
    def on_post(self, req: Any, resp: Any) -> None:
        for part in req.get_media():
            with open("/tmp/upload.txt", "wb") as file:
                part.stream.pipe(file)
        resp.text = str(Path("/tmp/upload.txt").stat().st_size)


class Stream:
    def on_get(self, req: Any, resp: Any) -> None:
        checks.write_lines()
        resp.stream = (line.encode() for line in checks.lines())


class File:
    def on_get(self, req: Any, resp: Any) -> None:
        resp.stream = open(checks.write_lines(), "rb")


def synchronous() -> Any:
    app = falcon.App()
    routes = {"/write/{name}": Write, "/thread": Thread, "/outside": Outside}
    for path, resource in {**routes, "/upload": Upload, "/stream": Stream, "/file": File}.items():
        app.add_route(path, resource())
    return app


class AsyncWrite:
    async def on_get(self, req: Any, resp: Any, name: str) -> None:
        resp.text = checks.write(name)


class AsyncThread:
    async def on_get(self, req: Any, resp: Any) -> None:
        resp.text = await falcon.sync_to_async(checks.write_in_thread)


class AsyncOutside:
    async def on_get(self, req: Any, resp: Any) -> None:
        resp.text = checks.outside()


class AsyncUpload:
    async def on_post(self, req: Any, resp: Any) -> None:
        async for part in await req.get_media():
            with open("/tmp/upload.txt", "wb", buffering=0) as file:
                await part.stream.pipe(Asynchronous(file))
        resp.text = str(Path("/tmp/upload.txt").stat().st_size)


class Asynchronous:
    def __init__(self, file: Any) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]

    async def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        return data

    async def close(self) -> None:
        self._file.close()


class AsyncStream:
    async def on_get(self, req: Any, resp: Any) -> None:
        async def lines() -> AsyncIterator[bytes]:
            for line in checks.lines():
                yield line.encode()

        checks.write_lines()
        resp.stream = lines()


class AsyncFile:
    async def on_get(self, req: Any, resp: Any) -> None:
        resp.stream = Asynchronous(open(checks.write_lines(), "rb"))


class Background:
    async def on_get(self, req: Any, resp: Any) -> None:
        invocation = tmpguard.current()
        assert invocation is not None

        async def work() -> None:
            while not invocation.ended:
                await asyncio.sleep(0.001)
            checks.write("background")

        resp.schedule(work)
        resp.text = "started"


def asynchronous() -> Any:
    app = falcon.asgi.App()
    routes: dict[str, Any] = {"/write/{name}": AsyncWrite, "/thread": AsyncThread, "/outside": AsyncOutside}
    routes |= {"/upload": AsyncUpload, "/stream": AsyncStream, "/file": AsyncFile, "/background": Background}
    for path, resource in routes.items():
        app.add_route(path, resource())
    return app


def test_each_request_is_an_invocation(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    with checks.wsgi_client(wsgi.TmpGuardMiddleware(synchronous(), guard=guard)) as client:
        checks.check(client, ended)


def test_a_large_upload(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    with checks.wsgi_client(wsgi.TmpGuardMiddleware(synchronous(), guard=guard)) as client:
        checks.check_large_upload(client, ended)


def test_each_request_of_the_asgi_kind_is_an_invocation(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    client = TestClient(
        asgi.TmpGuardMiddleware(asynchronous(), guard=guard)
    )  # no lifespan: Falcon rejects its scope
    checks.check(client, ended)


def test_a_large_upload_to_the_asgi_kind(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    app = asgi.TmpGuardMiddleware(asynchronous(), guard=guard)
    checks.check_large_upload(TestClient(app, raise_server_exceptions=False), ended)


def test_the_client_of_falcon(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    for app in (
        wsgi.TmpGuardMiddleware(synchronous(), guard=guard),
        asgi.TmpGuardMiddleware(asynchronous(), guard=guard),
    ):
        client = falcon.testing.TestClient(app)
        assert client.simulate_get("/write/one").text == "one in same.txt"
        assert client.simulate_get("/file").text == checks.LINES
    assert [report.peak_bytes > 0 for report in ended()] == [True] * 4


def test_what_is_scheduled_outlives_the_request(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    """Falcon makes tasks of it, for which it does not wait."""

    errors: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        app = asgi.TmpGuardMiddleware(asynchronous(), guard=guard)
        async with falcon.testing.ASGIConductor(app) as conductor:
            assert (await conductor.simulate_get("/background")).text == "started"

    asyncio.run(main())
    (report,) = ended()
    assert report.late_writes
    assert report.violation_count == 0
