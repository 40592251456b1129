"""What a run shows, to people and to machines."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.emulator.support import VIOLATION
from tmpguard.core.callers import Location
from tmpguard.emulator import terminal as terminal_module
from tmpguard.emulator.http.turns import Done
from tmpguard.emulator.ledger import Ledger
from tmpguard.emulator.protocols import Span, StartFailed
from tmpguard.emulator.terminal import JsonLines, Lines, Status, Terminal

MB = 1_048_576
FOUND = VIOLATION._replace(location=Location("/srv/app.py", 7, "export"))


def done(target: str = "/a", status: int = 200, **changes: Any) -> Done:
    span = changes.pop("span", Span(0, 0, 0, (), ()))
    one = Done("GET", target, status, 0.012, 0.0, 0, 5, 0, span, "", False)
    return one._replace(**changes)


def shown_by(show: Callable[[Terminal], None]) -> str:
    file = io.StringIO()
    terminal = Lines("/srv", file)
    show(terminal)
    terminal.close()
    return file.getvalue()


def test_a_line_for_a_request() -> None:
    span = Span(MB // 2, MB // 2, 2, (FOUND,), ())
    text = shown_by(lambda one: one.request("", "GET /a", done(span=span), MB, 0.0))
    first, finding, remedy = text.splitlines()
    assert "GET    /a " in first
    assert "200    12 ms ████····   512 KB  1 finding  2 files left" in first
    assert finding == "         open '/srv/out.txt' EROFS  app.py:7 in export"
    assert remedy == "           only /tmp is writable"


def test_a_remedy_is_shown_once() -> None:
    def show(one: Terminal) -> None:
        for _ in range(3):
            one.request("web", "GET /a", done(span=Span(0, 0, 0, (FOUND,), ())), MB, 0.0)

    text = shown_by(show)
    assert text.count("EROFS  app.py:7 in export") == 3
    assert text.count("only /tmp is writable") == 1
    assert " web GET " in text


def test_what_went_wrong_is_said() -> None:
    text = shown_by(
        lambda one: one.request(
            "", "GET /a", done(status=503, trouble="no instance was free", waited=30.0), MB, 0.0
        )
    )
    assert "503" in text
    assert "waited 30.0 s  no instance was free" in text


def test_nothing_that_comes_from_outside_is_obeyed() -> None:
    hostile = "\x1b[2J\x9b1m\u202e\r"

    def show(one: Terminal) -> None:
        one.request("", "GET /a", done(hostile, trouble=hostile), MB, 0.0)
        one.output("", 0, "stderr", hostile)
        one.late_writes("", 0, (FOUND._replace(path=hostile, remedy=hostile, operation=hostile),))
        one.start_failed("", StartFailed("exec", hostile, hostile, hostile), last=True)
        one.listening("", "http://127.0.0.1:1", hostile, "")
        one.ended("", 0, hostile, crashed=True)
        one.say(hostile)

    assert not {"\x1b", "\x9b", "\u202e", "\r"} & set(shown_by(show))


def test_the_application_s_output_is_marked() -> None:
    text = shown_by(lambda one: one.output("", 1, "stdout", "started\t[red]ok[/red] :smile:"))
    assert text == "1 | started    [red]ok[/red] :smile:\n"


def test_very_many_requests_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_module, "AT_ONCE", 5)
    file = io.StringIO()

    async def main() -> None:
        terminal = Lines("/srv", file)
        for number in range(100):
            span = Span(0, 0, 0, (FOUND,), ()) if number == 50 else Span(0, 0, 0, (), ())
            terminal.request("", "GET /a", done(f"/{number}", span=span), MB, 0.0)
        assert file.getvalue() == ""  # a request does not wait for the terminal
        while not file.getvalue():
            await asyncio.sleep(0.01)
        terminal.close()

    asyncio.run(main())
    lines = [line.strip() for line in file.getvalue().splitlines()]
    assert len(lines) == 5 + 1 + 3 + 1
    assert lines[5] == "and 45 more requests"
    assert "/50" in lines[6]
    assert lines[-1] == "and 49 more requests"


def test_a_reader_that_has_gone_does_not_end_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    for terminal in (Lines("/srv", Gone()), JsonLines(Gone())):
        for _ in range(2):
            terminal.request("", "GET /a", done(), MB, 0.0)
            terminal.close()


def test_a_terminal_has_a_line_of_status() -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Tty()

    async def main() -> None:
        terminal = Lines("/srv", file)
        terminal.open(lambda: Status(1, 4, 2, 3, 0, 17, 1))
        terminal.request("", "GET /a", done(), MB, 0.0)
        terminal.flush()
        terminal.close()

    asyncio.run(main())
    text = file.getvalue()
    assert "1 of 4 instances" in text
    assert "2 busy  3 waiting  0 restarts" in text
    assert "17 requests" in text
    assert "1 finding" in text


def test_machines_get_one_object_a_line() -> None:
    file = io.StringIO()
    one = JsonLines(file)
    ledger = Ledger(MB, "/srv", "app")
    ledger.add_request("GET /a", Span(0, 0, 0, (FOUND,), ()))
    one.listening("", "http://127.0.0.1:8000", "uvicorn", "")
    one.started("", 0, Span(4096, 4096, 1, (), ()), 1.5)
    one.request("", "GET /a", done("/a\n\ud800", span=Span(4096, 0, 0, (FOUND,), ())), MB, 0.0)
    one.output("", 0, "stdout", "x\ny")
    one.late_writes("", 0, (FOUND,))
    one.ended("", 0, "idle", crashed=False)
    one.start_failed("", StartFailed("exec", "no", "do", "out"), last=True)
    one.say("hello")
    one.summary(ledger.data(), ["a.json"])
    one.close()
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        "listening",
        "started",
        "request",
        "output",
        "late writes",
        "ended",
        "start failed",
        "message",
        "summary",
    ]
    request = events[2]
    assert (request["status"], request["peak_bytes"], request["quota_bytes"]) == (200, 4096, MB)
    assert request["violations"][0]["location"] == {"file": "/srv/app.py", "line": 7, "function": "export"}
    assert events[-1]["report"]["totals"]["violations"] == 1
