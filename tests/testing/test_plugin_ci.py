"""Findings where a CI reads them: annotations of GitHub Actions, and properties in JUnit's XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.reporting.sample_report import report
from tests.support import Run
from tmpguard.testing import ci

pytest_plugins = ["pytester"]

FINDINGS = """
    from app import wsgi

    def test_swallowed(tmpguard):
        tmpguard.client(wsgi).get("/swallow?name=a,b:c%25%0Ad.txt&name=e.txt")

    def test_allowed(tmpguard):
        tmpguard.allow("EROFS")
        tmpguard.client(wsgi).get("/swallow")

    def test_fine(tmpguard):
        tmpguard.client(wsgi).get("/store?bytes=1")
"""


def commands(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("::")]


def test_unexpected_findings_are_annotations_where_github_runs_the_tests(
    pytester: pytest.Pytester, app: None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(FINDINGS)
    assert commands(run()) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    (command,) = commands(run())
    assert command == (
        f"::error file={pytester.path.name}/app.py,line=12,title=tmpguard%3A EROFS open::"
        "open 'a,b:c%25\\nd.txt' and 1 more path: Read-only file system (in GET /swallow, 2 times)%0A"
        "only /tmp is writable; write to /tmp/a,b:c%25%0Ad.txt"
    )


def test_what_ends_a_command_or_a_property_is_escaped() -> None:
    data = report()
    group = {**data["violations"][0], "paths": ["a"], "remedy": "50%\r\n::error::x", "count": 1}
    group["location"] = {"file": "a,b:c%\n.py", "line": 3, "function": "f"}
    data.update(violations=[group], late_writes=[], root="/srv")
    (command,) = ci.github(data, {}, late_writes_fail=False)
    assert command == (
        "::error file=/srv/a%2Cb%3Ac%25%0A.py,line=3,title=tmpguard%3A EROFS open::open 'a': Read-only file "
        "system (in POST /upload)%0A50%25%0D%0A::error::x"
    )


def test_late_writes_are_warnings_unless_they_fail_a_test() -> None:
    data = report()
    data["violations"] = []
    kinds = [next(ci.github(data, {}, late_writes_fail=fail)).partition(" ")[0] for fail in (False, True)]
    assert kinds == ["::warning", "::error"]


def test_github_shows_ten_of_a_step_so_no_more_are_printed() -> None:
    data = report()
    groups = data["violations"] * 10
    unexpected = [one for one in groups if not one["allowed"]]
    data.update(violations=groups, late_writes=[])
    found = list(ci.github(data, {}, late_writes_fail=False))
    assert len(found) == ci.SHOWN < len(unexpected)


def test_without_a_line_of_the_application_there_is_no_file() -> None:
    data = report()
    data["violations"][0].update(location=None, paths=["\udcff"])
    command = next(ci.github(data, {}, late_writes_fail=False))
    assert command.startswith("::error title=tmpguard%3A EROFS open::open '\\udcff': Read-only")


def properties(file: Path) -> dict[str, list[tuple[str | None, str | None]]]:
    return {
        str(case.get("name")): [(one.get("name"), one.get("value")) for one in case.iter("property")]
        for case in ElementTree.parse(file).iter("testcase")
    }


def test_junit_s_xml_has_a_property_for_each_finding_of_a_test(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(FINDINGS)
    run("--junit-xml=junit.xml")
    assert properties(pytester.path / "junit.xml") == {
        "test_swallowed": [
            ("tmpguard_violation", "EROFS open 'a,b:c%\\nd.txt' at app.py:12 in act (2 times)"),
        ],
        "test_allowed": [("tmpguard_violation", "EROFS open 'new.txt' at app.py:12 in act, allowed")],
        "test_fine": [],
    }


def test_a_late_write_is_a_property_too(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import threading

        def test_request(tmpguard):
            over = threading.Event()
            threads = []
            def work():
                over.wait()
                try:
                    open("/tmp/late.txt", "w")
                except OSError:
                    pass
            def app(environ, start_response):
                threads.append(threading.Thread(target=work))
                threads[0].start()
                start_response("200 OK", [])
                return [b""]
            tmpguard.client(app).get("/")
            over.set()
            threads[0].join()
        """
    )
    run("--junit-xml=junit.xml").assert_outcomes(passed=1)
    ((name, value),) = properties(pytester.path / "junit.xml")["test_request"]
    assert (name, str(value).partition(" at ")[0]) == ("tmpguard_late_write", "ESTALE open '/tmp/late.txt'")
