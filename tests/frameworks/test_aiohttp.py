"""aiohttp, which is neither ASGI nor WSGI: the middleware of docs/frameworks.md."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer

import tmpguard
from tests.docs.blocks import block
from tests.support import MB

from . import checks


async def write(request: Any) -> Any:
    return web.Response(text=checks.write(request.match_info["name"]))


async def thread(request: Any) -> Any:
    return web.Response(text=await asyncio.to_thread(checks.write_in_thread))


async def outside(request: Any) -> Any:
    return web.Response(text=checks.outside())


async def upload(request: Any) -> Any:
    uploaded = (await request.post())["file"].file
    with open("/tmp/upload.txt", "wb") as file:
        return web.Response(text=str(file.write(uploaded.read())))


async def stream(request: Any) -> Any:
    checks.write_lines()
    response = web.StreamResponse()
    await response.prepare(request)
    for line in checks.lines():
        await response.write(line.encode())
    return response


async def file(request: Any) -> Any:
    """aiohttp opens the file when it sends the response, and sends it by sendfile()."""
    return web.FileResponse(checks.write_lines())


async def socket(request: Any) -> Any:
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str(checks.write(await response.receive_str()))
    return response


def application(guard: tmpguard.Guard) -> Any:
    """An application with the middleware of the page."""
    names: dict[str, Any] = {}
    exec(block("frameworks", "aiohttp"), names)
    names["guarded"].__globals__["guard"] = guard
    app = web.Application(middlewares=[names["guarded"]], client_max_size=8 * MB)
    for path, handler in {"/thread": thread, "/outside": outside, "/stream": stream, "/file": file}.items():
        app.router.add_get(path, handler)
    app.router.add_get("/write/{name}", write)
    app.router.add_get("/socket", socket)
    app.router.add_post("/upload", upload)
    app.router.add_static("/static", checks.__file__.rpartition("/")[0])
    return app


def run(guard: tmpguard.Guard, work: Any) -> None:
    async def main() -> None:
        async with TestClient(TestServer(application(guard))) as client:
            await work(client)

    asyncio.run(main())


def test_each_request_is_an_invocation(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    """All of ``checks.check``, by an asynchronous client."""
    answers: list[str] = []

    async def work(client: Any) -> None:
        for path in ("/write/one", "/thread", "/outside", "/stream", "/file"):
            answers.append(await (await client.get(path)).text())
        form = FormData()
        form.add_field("file", BytesIO(bytes(5000)), filename="a.bin")
        answers.append(await (await client.post("/upload", data=form)).text())
        answers.append(str(len(await (await client.get("/file", headers={"Range": "bytes=0-9"})).read())))
        answers.append(str((await client.head("/file")).content_length))

    run(guard, work)
    refused = "[Errno 30] Read-only file system: 'outside.txt'"
    assert answers[:5] == ["one in same.txt", "thread", refused, checks.LINES, checks.LINES]
    assert answers[5:] == ["5000", "10", str(len(checks.LINES))]
    pages = (len(checks.LINES) + 4095) // 4096 * 4096
    assert [report.peak_bytes for report in ended()] == [4096, 4096, 0, pages, pages, 8192, pages, pages]
    assert [report.violation_count for report in ended()] == [0, 0, 1, 0, 0, 0, 0, 0]


def test_a_large_upload(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    async def work(client: Any) -> None:
        for size, status in ((2 * MB, 500), (300_000, 200)):
            form = FormData()
            form.add_field("file", BytesIO(bytes(size)), filename="a.bin")
            assert (await client.post("/upload", data=form)).status == status

    run(guard, work)
    large, small = ended()
    assert large.peak_bytes == MB
    assert small.peak_bytes >= 300_000


def test_static_files_and_websockets(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    async def work(client: Any) -> None:
        with open(checks.__file__) as source:
            assert await (await client.get("/static/checks.py")).text() == source.read()
        assert (await client.get("/static/nowhere.py")).status == 404
        async with client.ws_connect("/socket") as connection:
            await connection.send_str("socket")
            assert await connection.receive_str() == "socket in same.txt"

    run(guard, work)
    assert [report.peak_bytes for report in ended()] == [0, 0, 4096]


def test_requests_at_once_are_apart(guard: tmpguard.Guard, ended: checks.Ended) -> None:
    async def work(client: Any) -> None:
        async def ask(number: int) -> None:
            assert await (await client.get(f"/write/{number}")).text() == f"{number} in same.txt"

        await asyncio.gather(*map(ask, range(20)))

    run(guard, work)
    assert [report.peak_bytes for report in ended()] == [4096] * 20
