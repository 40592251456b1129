"""What a run finds besides violations: files of other requests (C7.4), and children that are not guarded."""

from __future__ import annotations

import json

import pytest

from tests.support import Run

pytest_plugins = ["pytester"]

APP = """
import os
import subprocess


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/put":
        with open("/tmp/uploaded.txt", "w") as file:
            file.write("text")
    if path == "/get":
        open("/tmp/uploaded.txt").close()
    if path == "/look":
        os.path.exists("/tmp/uploaded.txt")
    if path == "/make":
        os.makedirs("/tmp/uploaded.txt", exist_ok=True)
    if path == "/child":
        subprocess.run(["sh", "-c", "echo x > leaked.txt"])
    start_response("200 OK", [])
    return [b""]
"""


@pytest.fixture(autouse=True)
def application(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(app=APP)


def test_a_file_of_another_request_is_in_the_report_of_the_test_that_fails_for_it(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        from app import app

        def test_download(tmpguard):
            client = tmpguard.client(app)
            client.get("/put")
            client.get("/get")
        """
    )
    result = run("--tmpguard-report=report")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*FileNotFoundError: *'/tmp/uploaded.txt'",
            "E*tmpguard: /tmp/uploaded.txt was made by another request, and each request has a /tmp *",
            "tmpguard: ENOENT open '/tmp/uploaded.txt' at app.py:11 in app",
            "Files that another request or the start-up had made:",
            "open '/tmp/uploaded.txt': ?Errno 2? ENOENT: No such file or directory",
            "  in:      GET /get",
            "  by:      app.py:11 in app",
            "  remedy:  /tmp/uploaded.txt was made by another request*",
            "*0 violations, 0 late writes, 1 missing file, at most*",
            "missing files that another request or the start-up had made, by line",
            "  app.py:11 in app: open ENOENT (1x)",
        ]
    )
    result.stdout.no_fnmatch_line("To allow expected violations*")
    data = json.loads((pytester.path / "report.json").read_text())
    (group,) = data["missing_files"]
    assert (group["error"], group["paths"], group["routes"]) == (
        "ENOENT",
        ["/tmp/uploaded.txt"],
        ["GET /get"],
    )
    assert data["totals"]["missing_files"] == 1
    assert "Missing files" in (pytester.path / "report.html").read_text()


def test_a_look_for_one_fails_no_test_and_is_a_finding_of_its_own(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        from app import app

        def test_looks(tmpguard):
            client = tmpguard.client(app)
            for path in ("/look", "/put", "/look", "/look"):
                client.get(path)
        """
    )
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*2 missing files*", "  app.py:13 in app: os.stat ENOENT (2x)"])


def test_nobody_s_file_and_one_that_the_request_makes_are_no_finding(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        from app import app

        def test_looks(tmpguard):
            client = tmpguard.client(app)
            for path in ("/look", "/make", "/make"):
                client.get(path)
        """
    )
    result = run()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*missing file*")


def test_a_child_that_is_not_guarded_is_in_the_summary_of_a_green_run(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        from app import app

        def test_child(tmpguard):
            tmpguard.client(app).get("/child")
        """
    )
    result = run("--tmpguard-report=report")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*0 violations, 0 late writes, 1 unguarded child, at most*",
            "child processes that were not guarded, by line",
            "  app.py:17 in app: subprocess.Popen (1x)",
            "    'sh'",
            "    a child process sees the real file system: set tmpguard_children = contain *",
        ]
    )
    data = json.loads((pytester.path / "report.json").read_text())
    (group,) = data["children"]
    assert (group["operation"], group["errno"], group["paths"]) == ("subprocess.Popen", None, ["sh"])
    assert "Child processes" in (pytester.path / "report.html").read_text()


def test_a_child_that_is_refused_is_a_violation_and_not_in_that_list(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeini("[pytest]\ntmpguard_children = refuse\n")
    pytester.makepyfile(
        """
        from app import app

        def test_child(tmpguard):
            tmpguard.client(app, raise_app_exceptions=False).get("/child")
        """
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 violation, 0 late writes, at most*"])
