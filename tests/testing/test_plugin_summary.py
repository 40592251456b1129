"""The report of a run: as data, on the terminal, and as files."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tmpguard
from tests.support import Run
from tmpguard.core.reports import log
from tmpguard.reporting import summary

pytest_plugins = ["pytester"]

MB = 1 << 20


def violation(**changes: Any) -> dict[str, Any]:
    return {
        "operation": "open",
        "path": "new.txt",
        "errno": 30,
        "location": {"file": __file__, "line": 1, "function": "work"},
        "library": None,
        "remedy": "write to /tmp/new.txt",
        "allowed": False,
        **changes,
    }


def entry(test: str, route: str, **changes: Any) -> dict[str, Any]:
    given = {
        "test": test,
        "kind": "request",
        "route": route,
        "quota_bytes": 128 * MB,
        "peak_bytes": 0,
        "bytes_left": 0,
        "files_left": 0,
        "violations": [],
        "late_writes": [],
        "missing_files": [],
        "children": [],
        **changes,
    }
    return {"violation_count": len(given["violations"]), **given}


def test_the_figures_are_of_each_route_and_each_test_the_fullest_first() -> None:
    data = summary.build(
        [
            entry("test_a", "GET /", peak_bytes=3 * MB, files_left=1, bytes_left=MB),
            entry(
                "test_a",
                "GET /",
                peak_bytes=1 * MB,
                quota_bytes=1 * MB,
                files_left=2,
                violations=[violation()],
            ),
            entry("test_b", "POST /", peak_bytes=4 * MB, late_writes=[violation(errno=116)]),
            entry("test_c", "GET /", violations=[violation(allowed=True)]),
            entry("test_c", "(body of the test)", kind="body", peak_bytes=1),
        ],
        "/project",
    )
    assert (data["format"], data["tmpguard"], data["root"]) == (1, tmpguard.__version__, "/project")
    assert data["totals"] == {
        "requests": 4,
        "routes": 2,
        "tests": 3,
        "imports": 0,
        "peak_bytes": MB,
        "quota_bytes": MB,
        "peak_share": 1.0,
        "bytes_left": MB,
        "files_left": 3,
        "violations": 1,
        "allowed": 1,
        "late_writes": 1,
        "missing_files": 0,
        "children": 0,
    }
    assert [row["route"] for row in data["routes"]] == ["GET /", "POST /", "(body of the test)"]
    assert data["routes"][0] | {"requests": 3, "tests": 2, "violations": 1, "allowed": 1} == data["routes"][0]
    assert [(row["test"], row["peak_share"], row["late_writes"]) for row in data["tests"]] == [
        ("test_a", 1.0, 0),
        ("test_b", 0.03125, 1),
        ("test_c", 0.0, 0),
    ]
    assert json.loads(json.dumps(data)) == data


def test_violations_are_grouped_by_the_line_that_made_them() -> None:
    other = violation(location={"file": "/project/app.py", "line": 3, "function": "other"}, path="other.txt")
    data = summary.build(
        [
            entry("test_a", "GET /", violations=[violation(), violation(path="two.txt")]),
            entry("test_b", "GET /b", violations=[other, violation(), violation(allowed=True)]),
            entry("test_c", "GET /c", violations=[violation(errno=28, operation="write", location=None)]),
        ],
        "/project",
    )
    first, *others = data["violations"]
    assert (first["count"], first["error"], first["message"]) == (3, "EROFS", "Read-only file system")
    assert (first["paths"], first["routes"]) == (["new.txt", "two.txt"], ["GET /", "GET /b"])
    assert first["tests"] == ["test_a", "test_b"]
    assert [line["line"] for line in first["source"]] == [1, 2, 3, 4]
    assert first["source"][0]["text"].startswith('"""The report of a run')
    assert [
        (one["error"], one["allowed"], one["location"] and one["location"]["file"]) for one in others
    ] == [
        ("ENOSPC", False, None),
        ("EROFS", False, "app.py"),
        ("EROFS", True, __file__),
    ]
    assert others[1]["source"] == []


def test_a_flood_of_violations_is_counted_and_its_lists_are_bounded() -> None:
    flood = [violation(path=f"{number}.txt") for number in range(summary.LISTED + 50)]
    data = summary.build([entry("test_a", "GET /", violations=flood, violation_count=5000)], "/")
    assert data["totals"]["violations"] == 5000
    (group,) = data["violations"]
    assert (group["count"], len(group["paths"])) == (summary.LISTED + 50, summary.LISTED)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (4096, "4 KB"),
        (MB, "1 MB"),
        (MB * 3 // 2, "1.5 MB"),
        (128 * MB, "128 MB"),
        (2304 * MB, "2.2 GB"),
    ],
)
def test_sizes_are_in_the_units_of_the_option(count: int, text: str) -> None:
    assert summary.size(count) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (0.0001, "<1%"), (0.5, "50%"), (0.999, ">99%"), (1, "100%")]
)
def test_a_small_share_is_not_nothing_and_a_large_one_not_all(share: float, text: str) -> None:
    assert summary.percent(share) == text


def test_the_terminal_shows_the_fullest_and_whatever_is_wrong() -> None:
    entries = [entry(f"test_{n:02}", f"GET /{n:02}", peak_bytes=n * MB) for n in range(1, 31)]
    entries.append(entry("test_zero", "GET /zero", violations=[violation()]))
    data = summary.build(entries, "/")
    shown = list(summary.lines(data, verbosity=0))
    assert (
        shown[0]
        == "31 requests to 31 routes by 31 tests: 1 violation, 0 late writes, at most 30 MB of 128 MB used"
    )
    assert [line.split()[1] for line in shown if line.startswith("GET")] == [
        *(f"/{n}" for n in range(30, 20, -1)),
        "/zero",
    ]
    assert "and 20 more (-v shows them)" in shown
    bar = next(line for line in shown if line.startswith("GET /30"))
    assert "██········  23% of 128 MB" in bar
    assert len([line for line in summary.lines(data, verbosity=1) if line.startswith("GET")]) == 31
    assert not [line for line in summary.lines(data, verbosity=-1) if line.startswith("GET")]
    assert "    write to /tmp/new.txt" in summary.lines(data, verbosity=-1)


def test_the_report_is_written_as_json_and_html_by_either_name(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        from app import wsgi

        def test_request(tmpguard):
            tmpguard.client(wsgi).get("/store?bytes=5000")
        """
    )
    for number, name in enumerate(("report", "out/report.json", "report.v2", "out/page.html")):
        run(f"--tmpguard-report={name}").assert_outcomes(passed=1)
        stem = pytester.path / ("report", "out/report", "report.v2", "out/page")[number]
        data = json.loads(stem.with_name(stem.name + ".json").read_text())
        assert data["totals"]["peak_bytes"] == 8192
        assert stem.with_name(stem.name + ".html").read_text().startswith("<!doctype html>")
    pytester.makeini("[pytest]\ntmpguard_report = of-the-ini-file\n")
    result = run()
    result.stdout.fnmatch_lines(["written: *of-the-ini-file.json, *of-the-ini-file.html"])
    assert (pytester.path / "of-the-ini-file.json").exists()


def test_a_run_without_requests_writes_an_empty_report(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile("def test(): pass")
    result = run("--tmpguard-report=report")
    assert json.loads((pytester.path / "report.json").read_text())["totals"]["requests"] == 0
    result.stdout.no_fnmatch_line("*= tmpguard =*")
    assert "No request was guarded" in (pytester.path / "report.html").read_text()


def test_names_of_any_bytes_can_be_reported(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        r"""
        import os

        def app(environ, start_response):
            for name in (b"\xff.txt", "\u202e<b>&amp;.txt", "line\nbreak"):
                try:
                    open(name, "w")
                except OSError:
                    pass
            start_response("200 OK", [])
            return [b""]

        def test_request(tmpguard):
            tmpguard.allow("EROFS")
            tmpguard.client(app).get("/%0a%1b[31m<i>")
        """
    )
    run("--tmpguard-report=report").assert_outcomes(passed=1)
    page = (pytester.path / "report.html").read_text()
    assert "<b>&amp;.txt" not in page
    assert "\\u202e&lt;b&gt;&amp;amp;.txt" in page
    assert "\\n\\x1b[31m&lt;i&gt;" in page
    assert "\x1b" not in page
    (group,) = json.loads((pytester.path / "report.json").read_text())["violations"]
    assert group["count"] == 3


def test_nothing_is_logged_after_the_summary(pytester: pytest.Pytester, app: None, run: Run) -> None:
    """What the log only counted would be summed up when the process ends."""
    pytester.makepyfile(
        """
        from app import wsgi

        def test_three_times(tmpguard):
            tmpguard.client(wsgi).get("/swallow?name=one&name=two&name=three")
        """
    )
    result = run()
    result.stdout.fnmatch_lines(["*app.py:12 in act: open EROFS (3x)"])
    assert not [line for kept in list(log._journals) for line in kept._lines.values() if line.count]
