"""Quart, and its test client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import pytest

pytest.importorskip("quart", reason="quart is not installed")

from quart import Quart, request, send_file
from quart.datastructures import FileStorage
from starlette.testclient import TestClient

import tmpguard
from tests.support import eventually
from tmpguard.asgi import TmpGuardMiddleware

from . import checks


@pytest.fixture
def app(guard: tmpguard.Guard) -> Any:
    app = Quart(__name__)
    app.asgi_app = TmpGuardMiddleware(app.asgi_app, guard=guard)  # type: ignore[method-assign]

    @app.get("/write/<name>")
    def write(name: str) -> str:  # Quart calls it in a thread
        return checks.write(name)

    @app.get("/thread")
    async def thread() -> str:
        return await asyncio.to_thread(checks.write_in_thread)

    @app.get("/outside")
    async def outside() -> str:
        return checks.outside()

    @app.post("/upload")
    async def upload() -> str:
        file = (await request.files)["file"]
        await file.save("/tmp/upload.txt")
        file.seek(0)
        return str(len(file.read()))

    @app.get("/stream")
    async def stream() -> Iterator[str]:
        checks.write_lines()
        return checks.lines()

    @app.get("/file")
    async def file() -> Any:
        return await send_file(checks.write_lines())

    @app.get("/background")
    async def background() -> str:
        async def work() -> None:
            while not invocation.ended:
                await asyncio.sleep(0.001)
            checks.write("background")

        invocation = tmpguard.current()
        assert invocation is not None

        app.add_background_task(work)
        return "started"

    @app.get("/slowly")
    async def slowly() -> AsyncIterator[str]:
        async def parts() -> AsyncIterator[str]:
            yield checks.write("slowly")
            await asyncio.sleep(0)
            yield checks.write("still there")

        return parts()

    return app


def test_each_request_is_an_invocation(app: Any, ended: checks.Ended) -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        checks.check(client, ended)


def test_a_large_upload(app: Any, ended: checks.Ended) -> None:
    app.config["MAX_CONTENT_LENGTH"] = None
    with TestClient(app, raise_server_exceptions=False) as client:
        checks.check_large_upload(client, ended)


def test_its_own_client(app: Any, ended: checks.Ended) -> None:
    async def main() -> None:
        client = app.test_client()
        assert await (await client.get("/write/one")).get_data(as_text=True) == "one in same.txt"
        text = await (await client.get("/slowly")).get_data(as_text=True)
        assert text == "slowly in same.txtstill there in same.txt"
        files = {"file": FileStorage(BytesIO(bytes(5000)), "a.bin")}
        response = await client.post("/upload", files=files)
        assert await response.get_data(as_text=True) == "5000"

    asyncio.run(main())
    assert [report.peak_bytes for report in ended()] == [4096, 4096, 8192]


def test_a_background_task_outlives_its_request(app: Any, ended: checks.Ended) -> None:
    """Quart does not wait for it before the request is over, and on a platform nothing does."""
    with TestClient(app) as client:
        assert client.get("/background").text == "started"
        (report,) = ended()
        assert eventually(lambda: report.late_writes)
