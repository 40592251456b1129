"""200 requests at once that all write /tmp/same.txt see only their own; nothing is left (C4.1, C4.2)."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import fastapi
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import tmpguard
from tests.support import eventually, listed
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

REQUESTS = 200


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def seen_on_disk(scratch: Path) -> Iterator[list[int]]:
    """How many scratch directories there were while all requests held their file; afterwards none is."""
    seen: list[int] = []
    yield seen
    assert seen == [REQUESTS]
    assert tmpguard.drain(60)
    assert eventually(lambda: not os.listdir(scratch))
    assert not os.path.lexists("/tmp/same.txt")


def count(scratch: Path) -> int:
    """How many scratch directories there are. A request cannot see them, so this asks from outside of any."""

    def look() -> int:
        [process] = scratch.iterdir()
        return len(list(process.iterdir()))

    return contextvars.Context().run(look)


def append(text: str) -> None:
    with open("/tmp/same.txt", "a") as file:
        file.write(text)


def read() -> str:
    return f"{listed()} {Path('/tmp/same.txt').read_text()}"


def expected() -> list[str]:
    return [f"['same.txt'] {number} and {number}" for number in range(REQUESTS)]


@pytest.mark.anyio
async def test_tasks(guard: tmpguard.Guard, scratch: Path, seen_on_disk: list[int]) -> None:
    written: list[str] = []
    everybody_wrote = anyio.Event()

    async def handler(request: Request) -> Response:
        append(request.url.query)
        written.append(request.url.query)
        if len(written) == REQUESTS:
            seen_on_disk.append(count(scratch))
            everybody_wrote.set()
        await everybody_wrote.wait()
        append(f" and {request.url.query}")
        return PlainTextResponse(await anyio.to_thread.run_sync(read))

    answers: dict[int, str] = {}
    app = TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:

        async def get(number: int) -> None:
            answers[number] = (await http.get(f"/?{number}", timeout=None)).text

        async with anyio.create_task_group() as tasks:
            for number in range(REQUESTS):
                tasks.start_soon(get, number)
    assert [answers[number] for number in range(REQUESTS)] == expected()


def run_in_threads(get: Callable[[int], str]) -> list[str]:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(get, range(REQUESTS)))


def test_threads_of_a_wsgi_server(guard: tmpguard.Guard, scratch: Path, seen_on_disk: list[int]) -> None:
    everybody_wrote = threading.Barrier(REQUESTS, lambda: seen_on_disk.append(count(scratch)))
    app = flask.Flask(__name__)

    @app.get("/")
    def view() -> flask.Response:
        number = flask.request.args["number"]
        append(number)

        def body() -> Iterator[str]:
            everybody_wrote.wait()
            append(f" and {number}")
            yield read()

        return flask.Response(body())

    app.wsgi_app = WsgiMiddleware(app.wsgi_app, guard=guard)  # type: ignore[method-assign]

    def get(number: int) -> str:
        with app.test_client().get(f"/?number={number}") as response:
            return response.text

    assert run_in_threads(get) == expected()


def test_threads_and_tasks_of_fastapi(
    options: dict[str, Any], scratch: Path, seen_on_disk: list[int]
) -> None:
    """Half of the endpoints run in worker threads, half on the event loop."""
    app = fastapi.FastAPI()
    app.add_middleware(TmpGuardMiddleware, **options)
    lock = threading.Lock()
    written: list[int] = []
    everybody_wrote = threading.Event()

    def wrote(number: int) -> None:
        append(str(number))
        with lock:
            written.append(number)
            if len(written) == REQUESTS:
                seen_on_disk.append(count(scratch))
                everybody_wrote.set()

    @app.get("/thread/{number}")
    def in_thread(number: int) -> str:
        wrote(number)
        everybody_wrote.wait()
        append(f" and {number}")
        return read()

    @app.get("/task/{number}")
    async def in_task(number: int) -> str:
        wrote(number)
        await asyncio.get_running_loop().run_in_executor(waiting, everybody_wrote.wait)
        append(f" and {number}")
        return read()

    async def get_all() -> list[str]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = REQUESTS
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            kinds = ("thread", "task")
            calls = (http.get(f"/{kinds[n % 2]}/{n}", timeout=None) for n in range(REQUESTS))
            return [answer.json() for answer in await asyncio.gather(*calls)]

    with ThreadPoolExecutor(REQUESTS) as waiting:
        assert asyncio.run(get_all()) == expected()
