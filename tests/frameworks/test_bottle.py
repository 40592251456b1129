"""Bottle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

bottle: Any = pytest.importorskip("bottle", reason="bottle is not installed")

import tmpguard  # noqa: E402
from tmpguard.wsgi import TmpGuardMiddleware  # noqa: E402

from . import checks  # noqa: E402


@pytest.fixture
def app(guard: tmpguard.Guard) -> Iterator[Any]:
    app = bottle.Bottle()

    @app.get("/write/<name>")
    def write(name: str) -> str:
        return checks.write(name)

    @app.get("/thread")
    def thread() -> str:
        return checks.write_in_thread()

    @app.get("/outside")
    def outside() -> str:
        return checks.outside()

    @app.post("/upload")
    def upload() -> str:
        uploaded = bottle.request.files.get("file")
        uploaded.save("/tmp/upload.txt")
        uploaded.file.seek(0)
        return str(len(uploaded.file.read()))

    @app.get("/stream")
    def stream() -> Iterator[str]:
        checks.write_lines()
        yield from checks.lines()

    @app.get("/file")
    def file() -> Any:
        checks.write_lines()
        return bottle.static_file("body.txt", root="/tmp")

    yield TmpGuardMiddleware(app, guard=guard)
    bottle.request.bind({})  # it keeps the last request's uploads


def test_each_request_is_an_invocation(app: Any, ended: checks.Ended) -> None:
    with checks.wsgi_client(app) as client:
        checks.check(client, ended)


def test_a_large_upload(app: Any, ended: checks.Ended) -> None:
    with checks.wsgi_client(app) as client:
        checks.check_large_upload(client, ended)
