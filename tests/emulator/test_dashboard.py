"""The page at /__tmpguard__/, by its messages and in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.support import VIOLATION, Peer, Stage, hello, run, stage, until
from tests.reporting.test_page import CHROMIUM, in_a_browser
from tmpguard.core.callers import Location
from tmpguard.core.reports.report import Violation
from tmpguard.emulator import dashboard as dashboard_module
from tmpguard.emulator.dashboard import About, Dashboard
from tmpguard.emulator.http.local import Local
from tmpguard.emulator.ledger import Ledger, route_of
from tmpguard.emulator.protocols import Span

MB = 1_048_576
FOUND = VIOLATION._replace(location=Location(__file__, 20, "export"), remedy="write to /tmp/out.txt")


@asynccontextmanager
async def shown() -> AsyncIterator[tuple[Stage, Dashboard]]:
    """A page about the requests of a stage."""
    ledger = Ledger(MB, "/srv", "uvicorn app:app")
    status: dict[str, Any] = {"requests": 0, "findings": 0, "waiting": 0, "restarts": 0, "instances": []}
    page = Dashboard(About("uvicorn app:app", 1, 4, 2), ledger, lambda: dict(status))

    async with stage(hello, local=page.handle) as one:

        def note(done: Any) -> None:
            status["requests"] += 1
            ledger.add_request(route_of(done.method, done.target), done.span)
            page.add_request(done, 1_800_000_000.0)
            one.done.append(done)

        one.proxy.on_done = note  # type: ignore[method-assign]
        yield one, page
        page.close()


async def listening(one: Stage) -> Peer:
    peer = await one.connect(1 << 24)
    peer.send(b"GET /__tmpguard__/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await peer.reader.readuntil(b"\r\n\r\n")
    assert b"Content-Type: text/event-stream" in head
    return peer


async def message(peer: Peer) -> dict[str, Any]:
    while not (line := await peer.reader.readuntil(b"\n\n")).startswith(b"data: "):
        pass
    data: dict[str, Any] = json.loads(line[6:])
    return data


def test_a_page_is_told_what_was_and_what_is_new() -> None:
    async def main() -> None:
        async with shown() as (one, _):
            [instance] = one.made
            instance.span = Span(MB, 0, 0, (FOUND,), ())
            await one.get("/first")
            peer = await listening(one)
            first = await message(peer)
            assert first["about"]["name"] == "uvicorn app:app"
            assert first["status"]["requests"] == 1
            [request] = first["requests"]
            assert (request["target"], request["peak"], request["findings"]) == ("/first", MB, 1)
            [group] = first["findings"]
            assert (group["error"], group["remedy"]) == ("EROFS", "write to /tmp/out.txt")
            assert group["source"]
            await one.get("/second")
            while not (fresh := await message(peer))["requests"]:
                pass
            assert [request["target"] for request in fresh["requests"]] == ["/second"]
            peer.close()

    run(main())


def test_it_keeps_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with shown() as (one, _):
            peer = await one.connect()
            for number in range(dashboard_module.REQUESTS + 50):
                peer.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                await peer.answer()
            page = await listening(one)
            first = await message(page)
            page.close()
            assert len(first["requests"]) == dashboard_module.REQUESTS
            assert first["requests"][-1]["target"] == f"/{dashboard_module.REQUESTS + 49}"
            peer.close()

    run(main())


def test_a_page_that_does_not_keep_up_costs_no_memory() -> None:
    async def main() -> None:
        async with shown() as (one, page):
            peer = await listening(one)
            [local] = page._listeners
            local.pause_response()
            for _ in range(30):
                await one.get("/x" * 100)
            await asyncio.sleep(3 * dashboard_module.PAUSE)
            local.resume_response()
            await message(peer)
            fresh = await message(peer)
            assert len(fresh["requests"]) == 30
            peer.close()
            await until(lambda: not page._listeners)

    run(main())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("app.localhost", 200),
        ("192.168.1.7:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(host: str, status: int) -> None:
    async def main() -> None:
        async with shown() as (one, _):
            for path in ("", "events"):
                peer = await one.connect()
                peer.send(f"GET /__tmpguard__/{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert (await peer.head()).status == status
                peer.close()

    run(main())


def test_the_files_of_the_page() -> None:
    async def main() -> None:
        async with shown() as (one, _):
            peer = await one.connect()
            for method, path, status, kind in (
                ("GET", "", 200, "text/html"),
                ("HEAD", "", 200, "text/html"),
                ("GET", "dashboard.js?1", 200, "text/javascript"),
                ("GET", "dashboard.css", 200, "text/css"),
                ("GET", "../../etc/passwd", 404, "text/plain"),
                ("POST", "", 405, "text/plain"),
            ):
                peer.send(f"{method} /__tmpguard__/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answer = await peer.answer(method)
                assert answer.status == status
                assert answer.headers["Content-Type"].startswith(kind)
                assert bool(answer.body) is (method != "HEAD")
                if status == 200:
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            peer.close()

    run(main())


#: What the browser says of the page, as its title: how wide it is, and what is wider than the window.
MEASURE = """
const wide = [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.tagName + "." + one.className);
document.title = JSON.stringify([innerWidth, document.documentElement.scrollWidth, wide]);
"""


@in_a_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_in_a_browser(tmp_path: Path, width: int) -> None:
    """What the page consists of, after the requests; markup in names is text, and nothing is too wide."""
    long = "x" * 300
    hostile = "<img src=x onerror=alert(1)>"
    finding = Violation(long, hostile, 30, Location("/srv/" + long, 1, long), None, long)

    async def main() -> None:
        async with shown() as (one, page):
            one.made[0].span = Span(MB, 0, 0, (finding,), ())
            await one.get("/" + long)
            await one.get("/second")
            one.proxy._local = lambda local: with_measure(page, local)
            dom = await asyncio.to_thread(dumped, tmp_path, one.port, width)
            for part in ("uvicorn app:app", "/second", "EROFS", "1 finding", 'class="full"'):
                assert part in dom, part
            assert "<img" not in dom
            assert "&lt;img src=x" in dom
            assert 'id="link" role="status" class="live"' in dom
            told = re.search(r"<title>\[(\d+),(\d+),(\[.*?\])\]</title>", dom)
            assert told is not None
            assert told.groups() == (str(width), str(width), "[]")

    run(main())


def with_measure(page: Dashboard, local: Local) -> None:
    """The page, which is complete for the browser only when it has had time to show its first message."""
    name = local.head.target.rpartition(b"/")[2]
    if name == b"measure.js":

        async def later() -> None:
            await until(lambda: page._listeners)
            await asyncio.sleep(1.5)
            local.respond(200, "text/javascript", MEASURE)

        page.measuring = asyncio.ensure_future(later())  # type: ignore[attr-defined]
    elif not name:
        text = dashboard_module._file("dashboard.html")
        local.respond(
            200, "text/html", text.replace("</head>", '<script src="measure.js" async></script></head>')
        )
    else:
        page.handle(local)


def dumped(tmp_path: Path, port: int, width: int) -> str:
    """The page as the browser has it once it is complete."""
    assert CHROMIUM is not None
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *quiet),
            *("--disable-component-update", f"--user-data-dir={tmp_path}/profile"),
            *("--dump-dom", f"--window-size={width},900", f"http://127.0.0.1:{port}/__tmpguard__/"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
