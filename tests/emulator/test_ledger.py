"""What a run keeps of its requests, in a size that does not grow with them."""

from __future__ import annotations

import pytest

from tests.emulator.support import VIOLATION
from tmpguard.core.callers import Location
from tmpguard.core.reports.report import Violation
from tmpguard.emulator.ledger import Ledger, route_of
from tmpguard.emulator.protocols import Span
from tmpguard.reporting import summary, tally
from tmpguard.reporting.page import page

MB = 1_048_576


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/", "GET /"),
        ("/items/17?full=1", "GET /items/{number}"),
        ("/items/17/parts/3", "GET /items/{number}/parts/{number}"),
        ("/u/123e4567-e89b-12d3-a456-426614174000/x", "GET /u/{uuid}/x"),
        ("/files/0123456789abcdef0123", "GET /files/{token}"),
        ("/t/eyJhbGciOiJIUzI1NiJ9xyz", "GET /t/{token}"),
        ("/static/application-2024.min.js", "GET /static/application-2024.min.js"),
        ("/v2/health", "GET /v2/health"),
        ("/a-rather-long-name-of-a-page", "GET /a-rather-long-name-of-a-page"),
        ("*", "GET *"),
    ],
)
def test_the_routes_of_things_with_a_number_are_one(target: str, route: str) -> None:
    assert route_of("GET", target) == route


def span(peak: int = 0, *violations: Violation, files: int = 0, late: tuple[Violation, ...] = ()) -> Span:
    return Span(peak, peak if files else 0, files, violations, late)


def test_the_report_adds_up_by_route_and_by_line() -> None:
    one = Ledger(MB, "/srv", "uvicorn app:app")
    one.add_start(span(4096))
    second = VIOLATION._replace(path="other.txt")
    elsewhere = VIOLATION._replace(location=Location("/srv/app.py", 7, "export"))
    for _ in range(10):
        one.add_request("GET /a", span(MB // 2, VIOLATION, second, files=1))
    one.add_request("GET /b", span(MB, elsewhere), shared=True)
    one.add_request("GET /b", span(0), shared=True)
    one.add_late_writes("GET /b", (VIOLATION,))
    data = one.data()
    assert (data["format"], data["run"]) == (
        summary.FORMAT,
        {"name": "uvicorn app:app", "started": 1, "restarts": 0, "shared": 1},
    )
    totals = data["totals"]
    assert (totals["requests"], totals["routes"], totals["violations"]) == (12, 2, 21)
    assert (totals["late_writes"], totals["files_left"], totals["bytes_left"]) == (1, 10, 5 * MB)
    rows = {row["route"]: row for row in data["routes"]}
    assert (rows["GET /b"]["requests"], rows["GET /b"]["peak_bytes"]) == (2, MB)
    assert rows["GET /a"]["violations"] == 20
    [group, other] = data["violations"]
    assert (group["count"], sorted(group["paths"]), group["routes"]) == (
        20,
        ["/srv/out.txt", "other.txt"],
        ["GET /a"],
    )
    assert other["location"]["file"] == "app.py"
    assert data["tests"] == []


def test_the_page_and_the_summary_speak_of_the_run() -> None:
    one = Ledger(MB, "/srv", "uvicorn app:app")
    one.add_start(span())
    one.add_request("GET /a", span(MB // 2, VIOLATION))
    text = page(one.data())
    assert "uvicorn app:app" in text
    assert "pytest" not in text
    assert "0 tests" not in text
    lines = list(summary.lines(one.data(), verbosity=0))
    assert lines[0].startswith("1 request to 1 route of uvicorn app:app: 1 violation, 0 late writes")
    assert not [line for line in lines if "tests by use" in line]


def test_it_does_not_grow_with_the_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "ROUTES", 5)
    monkeypatch.setattr(tally, "FINDINGS", 3)
    one = Ledger(MB, "/srv", "app")
    for number in range(50):
        one.add_request(f"GET /{chr(97 + number % 26)}", span(0, VIOLATION._replace(path=f"{number}")))
    data = one.data()
    assert {row["route"] for row in data["routes"]} == {
        "GET /a",
        "GET /b",
        "GET /c",
        "GET /d",
        "GET /e",
        "(other routes)",
    }
    assert data["totals"]["requests"] == 50
    assert data["totals"]["violations"] == 50
    assert sum(group["count"] for group in data["violations"]) < 20
