"""The walk for the application's line ends where the request began: a client's line is none (C2.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.asgi import TmpGuardMiddleware as AsgiMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

#: An application that is nothing but a library's.
LIBRARY = """
import asyncio

def write():
    try:
        open("library.txt", "w")
    except OSError:
        pass

async def asgi(scope, receive, send):
    write()

async def in_a_task(scope, receive, send):
    async def task():
        write()
    await asyncio.gather(task())

def wsgi(environ, start_response):
    write()
    return []

def streaming(environ, start_response):
    yield b"a"
    write()

class closing(list):
    def __init__(self, environ, start_response):
        pass
    def close(self):
        write()

async def call(function):
    function()

class Dropped:
    def __del__(self):
        write()
"""


@pytest.fixture
def library() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "shop.serving"}
    exec(compile(LIBRARY, "/srv/site-packages/shop/serving.py", "exec"), names)
    return names


@pytest.fixture
def reports() -> list[tmpguard.Report]:
    return []


@pytest.fixture
def guard(tmp_path: Path, scratch_root: Path, reports: list[tmpguard.Report]) -> tmpguard.Guard:
    project = tmp_path / "project"
    project.mkdir()
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root, on_report=reports.append)


def the_finding(reports: list[tmpguard.Report]) -> tmpguard.Violation:
    assert tmpguard.drain(10)
    (report,) = reports
    (violation,) = report.violations
    return violation


def get(app: Any) -> None:
    async def message(*args: object) -> Any: ...

    asyncio.run(app({"type": "http"}, message, message))


@pytest.mark.parametrize("name", ["asgi", "in_a_task"])
def test_an_asgi_client_s_line_is_not_the_application_s(
    name: str, guard: tmpguard.Guard, library: dict[str, Any], reports: list[tmpguard.Report]
) -> None:
    get(AsgiMiddleware(library[name], guard=guard))
    finding = the_finding(reports)
    assert finding.location is None
    assert finding.library is not None
    assert finding.library.function == "write"


@pytest.mark.parametrize("name", ["wsgi", "streaming", "closing"])
def test_a_wsgi_client_s_line_is_not_the_application_s(
    name: str, guard: tmpguard.Guard, library: dict[str, Any], reports: list[tmpguard.Report]
) -> None:
    app: Callable[..., Iterable[bytes]] = WsgiMiddleware(library[name], guard=guard)
    body = app({}, lambda *args: lambda data: None)
    list(body)
    body.close()  # type: ignore[attr-defined]
    finding = the_finding(reports)
    assert finding.location is None
    assert finding.library is not None
    assert finding.library.function == "write"


def test_a_view_s_own_line_is_found(
    guard: tmpguard.Guard, library: dict[str, Any], reports: list[tmpguard.Report]
) -> None:
    """Whether it calls the library itself, or by an event loop of its own."""

    def direct(environ: object, start_response: object) -> list[bytes]:
        library["write"]()
        return []

    def by_a_loop(environ: object, start_response: object) -> list[bytes]:
        asyncio.run(library["call"](library["write"]))
        return []

    for view in (direct, by_a_loop):
        reports.clear()
        WsgiMiddleware(view, guard=guard)({}, lambda *args: lambda data: None).close()  # type: ignore[attr-defined, arg-type]
        location = the_finding(reports).location
        assert location is not None
        assert location.function == view.__qualname__


def test_in_a_block_the_line_that_runs_the_loop_is_found(
    guard: tmpguard.Guard, library: dict[str, Any]
) -> None:
    with guard.invocation() as invocation:
        asyncio.run(library["call"](library["write"]))
    (finding,) = invocation.report.violations
    assert finding.location is not None
    assert finding.location.file == __file__


def test_a_library_s_finalizer_is_not_called_by_the_line_that_runs_then(
    guard: tmpguard.Guard, library: dict[str, Any]
) -> None:
    with guard.invocation() as invocation:
        dropped = library["Dropped"]()
        del dropped
    (finding,) = invocation.report.violations
    assert finding.location is None
    assert finding.library is not None
