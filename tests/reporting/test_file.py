"""``tmpguard.ReportFile``: what processes in production append to a file."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path as route
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask

import tmpguard
from tests.support import eventually, python, run_python, set_up_django
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.reporting import tally
from tmpguard.wsgi import TmpGuardMiddleware as WSGIMiddleware

set_up_django()

Data = dict[str, Any]


def lines(file: Path) -> list[Data]:
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def count(reports: list[Data], which: str = "violations") -> int:
    return sum(group["count"] for report in reports for group in report[which])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "findings.jsonl"


@pytest.fixture
def watch(file: Path, scratch_root: Path) -> Callable[..., tmpguard.Guard]:
    """Makes a guard that reports to the file."""

    def watch(**options: Any) -> tmpguard.Guard:
        findings = tmpguard.ReportFile(file, **options)
        return tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=findings, children="allow")

    return watch


def attempt(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)


def test_requests_are_added_up_by_line_and_a_new_line_is_reported_at_once(
    file: Path, watch: Callable[..., tmpguard.Guard]
) -> None:
    guard = watch()
    for _ in range(3):
        with guard.invocation():
            attempt("/usr/new")
        assert eventually(lambda: len(lines(file)) == 1)
    with guard.invocation(), contextlib.suppress(OSError):
        os.rmdir("/usr/other")
    assert eventually(lambda: len(lines(file)) == 2)
    with guard.invocation():
        Path("/tmp/a").write_bytes(bytes(5000))
        subprocess.run(["true"], check=True)
        os.unlink("/tmp/a")
    tmpguard.drain()
    first, second, third = lines(file)
    assert [report["totals"]["requests"] for report in (first, second, third)] == [1, 3, 1]
    group, other = second["violations"]
    assert group["location"]["function"] == "attempt"
    assert group["source"][3]["text"].strip() == "os.rmdir(path)"
    assert other["paths"] == ["/usr/other"]
    assert group["first"] <= group["last"] <= second["created"]
    assert count([first, second, third]) == 4
    assert third["routes"][0]["peak_bytes"] == 8192
    assert third["children"][0]["paths"] == ["true"]
    assert first["process"] == {"host": os.uname().nodename, "pid": os.getpid()}
    assert first["since"] <= first["created"] <= second["created"]
    assert first["tests"] == []


def test_what_is_known_waits_for_the_interval_and_is_written_by_drain(
    file: Path, watch: Callable[..., tmpguard.Guard]
) -> None:
    guard = watch(interval=3600)
    for _ in range(5):
        with guard.invocation():
            attempt("/usr/new")
    tmpguard.drain()
    assert len(lines(file)) == 2
    assert count(lines(file)) == 5
    tmpguard.drain()
    assert len(lines(file)) == 2


def test_the_route_is_the_application_s(file: Path, scratch_root: Path) -> None:
    options: Any = {
        "scratch_root": scratch_root,
        "bundle": None,
        "on_report": tmpguard.ReportFile(file, interval=0),
    }
    api, shop = FastAPI(), Flask("shop")

    @api.get("/items/{item}")
    def item(item: int) -> None:
        attempt("/usr/item")

    @shop.get("/pages/<name>")
    def page(name: str) -> str:
        attempt("/usr/page")
        return name

    class Urls:
        urlpatterns = (route("orders/<int:number>", lambda request, number: HttpResponse(str(number))),)

    api.add_middleware(TmpGuardMiddleware, **options)
    shop.wsgi_app = WSGIMiddleware(shop.wsgi_app, **options)  # type: ignore[method-assign]
    with TestClient(api) as client:
        client.get("/items/17")
        client.get("/nowhere/17")
    with shop.test_client() as flask:
        flask.get("/pages/contact").close()
    settings = {"MIDDLEWARE": ["tmpguard.django.TmpGuardMiddleware"], "TMPGUARD": options}
    with override_settings(ROOT_URLCONF=Urls, **settings):
        Client().get("/orders/3")
    with tmpguard.Guard(**options).invocation():
        pass
    with tmpguard.cold_start(**options):
        pass
    tmpguard.drain()
    found = {row["route"]: row["kind"] for report in lines(file) for row in report["routes"]}
    assert found == {
        "GET /items/{item}": "request",
        "GET /nowhere/{number}": "request",
        "GET /pages/<name>": "request",
        "GET /orders/<int:number>": "request",
        "(invocation)": "request",
        "(start-up)": "start",
    }


def test_an_application_that_fails_has_its_route(scratch_root: Path) -> None:
    reports: list[tmpguard.Report] = []
    options: Any = {"scratch_root": scratch_root, "bundle": None, "on_report": reports.append}
    api, shop = FastAPI(), Flask("shop")
    shop.testing = True

    @api.get("/{one}")
    def broken(one: str) -> None:
        raise LookupError

    @shop.get("/<one>")
    def failing(one: str) -> str:
        raise LookupError

    api.add_middleware(TmpGuardMiddleware, **options)
    shop.wsgi_app = WSGIMiddleware(shop.wsgi_app, **options)  # type: ignore[method-assign]
    with pytest.raises(LookupError):
        TestClient(api).get("/x")
    with pytest.raises(LookupError):
        shop.test_client().get("/x")
    tmpguard.drain()
    assert [report.route for report in reports] == ["GET /{one}", "GET /<one>"]


APPENDING = """
import logging, os, sys, tmpguard
logging.disable()
findings = tmpguard.ReportFile(sys.argv[1], interval=0)
guard = tmpguard.Guard(bundle=None, on_report=findings)
def requests():
    for number in range(20):
        with guard.invocation():
            try:
                os.rmdir("/usr/" + "x" * 200 + str(number))
            except OSError:
                pass
"""


def test_the_lines_of_many_processes_stay_whole(file: Path) -> None:
    """Each also forks: what a child has inherited is its parent's, and is not reported twice."""
    code = f"""{APPENDING}
requests()
child = os.fork()
requests()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    running = [subprocess.Popen(python(code, file)) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    reports = lines(file)
    assert count(reports) == 3 * 3 * 20
    assert len({report["process"]["pid"] for report in reports}) == 6


def test_what_is_left_is_written_at_the_exit(file: Path) -> None:
    run_python(f"{APPENDING}\nfindings.interval = 3600\nrequests()", file)
    assert count(lines(file)) == 20


def test_a_server_that_is_stopped_by_a_signal_has_written_everything(file: Path) -> None:
    """uvicorn kills itself by the signal after the lifespan, and exit handlers do not run."""
    code = """
import asyncio, os, signal, sys
import httpx, uvicorn, tmpguard
from tmpguard.asgi import TmpGuardMiddleware

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    try:
        os.rmdir("/usr/new")
    except OSError:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

findings = tmpguard.ReportFile(sys.argv[1], interval=3600)
guarded = TmpGuardMiddleware(app, bundle=None, on_report=findings)
server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="critical"))

async def main():
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as client:
        for _ in range(3):
            await client.get(f"http://127.0.0.1:{port}/orders/1")
    os.kill(os.getpid(), signal.SIGTERM)
    await serving

asyncio.run(main())
"""
    done = subprocess.run(python(code, file), capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGTERM), done.stderr
    assert count(lines(file)) == 3
    assert lines(file)[0]["routes"][0]["route"] == "GET /orders/{number}"


def test_a_file_that_is_moved_away_is_made_anew(file: Path, watch: Callable[..., tmpguard.Guard]) -> None:
    guard = watch(interval=0)
    for number in range(2):
        with guard.invocation():
            attempt("/usr/new")
        tmpguard.drain()
        file.rename(file.with_suffix(f".{number}"))
    assert [count(lines(file.with_suffix(f".{number}"))) for number in range(2)] == [1, 1]


def test_a_line_that_cannot_be_written_is_logged_and_tried_again(
    file: Path, watch: Callable[..., tmpguard.Guard], caplog: pytest.LogCaptureFixture
) -> None:
    guard = watch(interval=0)
    file.unlink()
    file.mkdir()
    with caplog.at_level(logging.WARNING, "tmpguard"):
        with guard.invocation():
            attempt("/usr/new")
        tmpguard.drain()
    (said,) = {one.getMessage() for one in caplog.records if "append" in one.getMessage()}
    assert said == (
        f"tmpguard: cannot append a report to {str(file)!r}: Is a directory; make room, or let this process "
        "write there; it is tried again with the first request after 0 seconds"
    )
    file.rmdir()
    with guard.invocation():
        attempt("/usr/new")
    tmpguard.drain()
    assert count(lines(file)) == 2


def test_a_process_that_is_killed_while_it_writes_spoils_no_other_line(file: Path) -> None:
    file.write_text('{"format":1,"created":"2026-11-0')
    run_python(f"{APPENDING}\nrequests()", file)
    cut, *whole = [line for line in file.read_text().splitlines() if line]
    assert cut == '{"format":1,"created":"2026-11-0'
    assert sum(count([json.loads(line)]) for line in whole) == 20


def test_a_disk_that_becomes_full_in_the_middle_of_a_line_spoils_no_other_line(file: Path) -> None:
    code = f"""
import resource, signal
{APPENDING}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3500, resource.RLIM_INFINITY))
requests()
tmpguard.drain()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    run_python(code, file)
    whole = []
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    assert count(whole) == 20


def test_it_does_not_grow_with_the_number_of_requests(
    file: Path, watch: Callable[..., tmpguard.Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "FINDINGS", 3)
    guard = watch(interval=3600)
    for number in range(20):
        with guard.invocation():
            attempt(f"/usr/{number}")
    tmpguard.drain()
    first, second = lines(file)
    assert count([first, second]) == 4
    assert first["totals"]["violations"] + second["totals"]["violations"] == 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "/nowhere/findings.jsonl"}, "No such file or directory: give a file that this process may"),
        ({"path": "/usr"}, "ReportFile('/usr'): Is a directory: give a file"),
        ({"path": 3}, "ReportFile(path=3): give a path, a str or a Path"),
        ({"path": ""}, "ReportFile(path=''): give a path, a str or a Path"),
        (
            {"path": "findings.jsonl", "interval": -1},
            "interval=-1 is not a duration: give seconds",
        ),
    ],
)
def test_wrong_options_say_what_is_allowed(arguments: Any, said: str) -> None:
    with pytest.raises(tmpguard.ConfigurationError) as caught:
        tmpguard.ReportFile(**arguments)
    assert said in str(caught.value)
    assert not os.path.exists("findings.jsonl")
