"""Whole requests, through the frameworks' own stacks and without a network."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import flask
import httpx
import starlette.applications
import starlette.requests
import starlette.responses
import starlette.routing

from .measure import Batch, Row

DATA = b"x" * 4096


def _drain(guarded: bool) -> None:
    """Wait for the wipes that the batch has left to the background: they belong to its cost."""
    if guarded:
        import tmpguard

        tmpguard.drain()


def _by_hand() -> int:
    with tempfile.TemporaryDirectory() as directory:
        return _write_and_read(directory + "/data.bin")


def _in_tmp() -> int:
    return _write_and_read("/tmp/data.bin")


def _write_and_read(path: str) -> int:
    with open(path, "wb") as file:
        file.write(DATA)
    with open(path, "rb") as file:
        return len(file.read())


def _starlette(guarded: bool, directory: str) -> starlette.applications.Starlette:
    work = _in_tmp if guarded else _by_hand

    async def hello(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.JSONResponse({"hello": "world"})

    async def file(request: starlette.requests.Request) -> starlette.responses.Response:
        return starlette.responses.JSONResponse({"size": work()})

    routes = [starlette.routing.Route("/hello", hello), starlette.routing.Route("/file", file)]
    app = starlette.applications.Starlette(routes=routes)
    if guarded:
        from tmpguard.asgi import TmpGuardMiddleware

        app.add_middleware(TmpGuardMiddleware, scratch_root=directory, bundle=None)
    else:
        tempfile.tempdir = directory
    return app


def _flask(guarded: bool, directory: str) -> flask.Flask:
    work = _in_tmp if guarded else _by_hand
    app = flask.Flask("benchmark")

    @app.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/file")
    def file() -> dict[str, int]:
        return {"size": work()}

    if guarded:
        from tmpguard.wsgi import TmpGuardMiddleware

        app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, scratch_root=directory, bundle=None)  # type: ignore
    else:
        tempfile.tempdir = directory
    return app


def _asgi(path: str) -> Callable[[bool, str], Iterator[Batch]]:
    """The application called as a server calls it."""

    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        app = _starlette(guarded, directory)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost:8000"), (b"accept", b"*/*")],
            "client": ("127.0.0.1", 40000),
            "server": ("127.0.0.1", 8000),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            assert message.get("status", 200) == 200

        async def requests(count: int) -> None:
            for _ in range(count):
                await app(dict(scope), receive, send)  # type: ignore[arg-type]

        yield from _on_a_loop(requests, guarded)

    return prepare


def _asgi_client(path: str) -> Callable[[bool, str], Iterator[Batch]]:
    """The application behind httpx."""

    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        transport = httpx.ASGITransport(_starlette(guarded, directory))  # type: ignore[arg-type]
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")

        async def requests(count: int) -> None:
            for _ in range(count):
                response = await client.get(path)
                assert response.status_code == 200

        yield from _on_a_loop(requests, guarded)

    return prepare


def _on_a_loop(requests: Callable[[int], Awaitable[None]], guarded: bool) -> Iterator[Batch]:
    with asyncio.Runner() as runner:

        def batch(count: int) -> None:
            runner.run(requests(count))  # type: ignore[arg-type]
            _drain(guarded)

        yield batch


def _wsgi(path: str) -> Callable[[bool, str], Iterator[Batch]]:
    """The application called as a server calls it."""

    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        app = _flask(guarded, directory)
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost:8000",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": None,
            "wsgi.errors": None,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
            assert status == "200 OK"

        def batch(count: int) -> None:
            for _ in range(count):
                body: Any = app(dict(environ), start_response)  # type: ignore[arg-type]
                for _ in body:
                    pass
                body.close()
            _drain(guarded)

        yield batch

    return prepare


def _wsgi_client(path: str) -> Callable[[bool, str], Iterator[Batch]]:
    """The application behind its test client."""

    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        client = _flask(guarded, directory).test_client()

        def batch(count: int) -> None:
            for _ in range(count):
                with client.get(path) as response:
                    assert response.status_code == 200
            _drain(guarded)

        yield batch

    return prepare


# A bare call of the application has no bound: it takes so little that a middleware which does nothing at all
# would come near it. What is bounded are requests as clients make them, with many of them in a round: the one
# process finds the caches of the core as the other one has left them, and some thousand functions to fill in.
ROWS = (
    Row("request without files: Starlette, called as ASGI", None, _asgi("/hello")),
    Row(
        "request without files: Starlette, through httpx",
        1.05,
        _asgi_client("/hello"),
        seconds=0.04,
        rounds=40,
    ),
    Row("request without files: Flask, called as WSGI", None, _wsgi("/hello")),
    Row(
        "request without files: Flask, through its test client",
        1.06,
        _wsgi_client("/hello"),
        seconds=0.04,
        rounds=40,
    ),
    Row(
        "request with 4 KiB written and read, against `TemporaryDirectory` by hand: Starlette",
        1.0,
        _asgi("/file"),
    ),
    Row(
        "request with 4 KiB written and read, against `TemporaryDirectory` by hand: Flask",
        1.0,
        _wsgi("/file"),
    ),
)
