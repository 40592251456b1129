"""A violation fails its test, whatever the application makes of the error; what is expected can be
allowed."""

from __future__ import annotations

import json
import re

import pytest

from tests.support import Run

pytest_plugins = ["pytester"]


def test_the_failure_shows_what_was_refused_where_and_what_to_do(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        test_it="""
        import pathlib
        from app import wsgi

        def through(environ, start_response):
            try:
                pathlib.Path("written.txt").write_text("text")
            except OSError:
                pass
            return wsgi(environ, start_response)

        def test_swallowed(tmpguard):
            client = tmpguard.client(wsgi)
            assert client.get("/swallow?name=one.txt&name=two.txt&name=one.txt").text == "swallowed"

        def test_by_a_library(tmpguard):
            assert tmpguard.client(through).get("/hello").text == "hello"
        """
    )
    result = run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "tmpguard: EROFS open 'one.txt' at app.py:12 in act (and 2 more)",
            "",
            "open 'one.txt': ?Errno 30? EROFS: Read-only file system (3 times)",
            "  also:    'two.txt'",
            "  in:      GET /swallow",
            "  by:      app.py:12 in act",
            '         10 | for name in query.get("name", ?"new.txt"?):',
            "         11 |     try:",
            '    >    12 |         with open(name, "w") as file:  # the line',
            '         13 |             file.write("text")',
            "         14 |     except OSError:",
            "  remedy:  only /tmp is writable; write to /tmp/one.txt",
            "",
            "To allow expected violations: @pytest.mark.tmpguard(allow=*",
            "tmpguard: EROFS open 'written.txt' at test_it.py:6 in through",
            "open 'written.txt': *",
            "  by:      test_it.py:6 in through",
            "  through: pathlib*.py:* in Path.*",
            "FAILED test_it.py::test_swallowed - Failed: tmpguard: EROFS open 'one.txt' at*",
        ]
    )


def test_expected_violations_are_allowed_by_path_or_errno(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import errno
        import os
        import pathlib
        import pytest
        from app import wsgi

        HERE = os.getcwd()

        @pytest.fixture
        def request_by(tmpguard):
            def request(*names):
                tmpguard.client(wsgi).get("/swallow", params={"name": names})
                assert tmpguard.violations
            return request

        @pytest.mark.parametrize("rule", [
            "EROFS", errno.EROFS, "30", "*.txt", "sub/o?e.txt", f"{HERE}/sub/*", "*/sub/*",
            pathlib.Path(HERE, "sub", "one.txt"),
        ])
        def test_allowed(tmpguard, request_by, rule):
            tmpguard.allow("ENOSPC", rule)
            request_by("sub/../sub/one.txt" if "/" in str(rule) and "?" not in str(rule) else "sub/one.txt")

        @pytest.mark.parametrize("rule", ["ENOSPC", errno.EACCES, "one.txt", "*.pdf", "sub", "sub/"])
        def test_not_allowed(tmpguard, request_by, rule):
            tmpguard.allow(rule)
            request_by("sub/one.txt")

        @pytest.mark.tmpguard(allow=["*/one.txt"])
        class TestMarkers:
            def test_of_the_class(self, request_by):
                request_by("sub/one.txt")

            @pytest.mark.tmpguard(allow=["*/two.txt"])
            def test_of_both(self, request_by):
                request_by("sub/one.txt", "sub/two.txt")

            def test_of_the_class_only(self, request_by):
                request_by("sub/one.txt", "sub/two.txt")
        """
    )
    (pytester.path / "sub").mkdir()
    result = run()
    result.assert_outcomes(passed=8 + 2, failed=6 + 1)
    result.stdout.fnmatch_lines(["tmpguard: EROFS open 'sub/two.txt' at app.py:12 in act"])


def test_outcomes_are_pytest_s_own(pytester: pytest.Pytester, app: None, run: Run) -> None:
    """An expected failure, a skip, a failure by itself, and requests in set-up and teardown."""
    pytester.makepyfile(
        """
        import pytest
        from app import wsgi

        @pytest.fixture
        def swallow(tmpguard):
            return lambda: tmpguard.client(wsgi).get("/swallow")

        @pytest.mark.xfail(strict=True)
        def test_expected_failure(swallow):
            swallow()

        def test_skipped(swallow):
            swallow()
            pytest.skip("later")

        def test_failed_by_itself(swallow):
            swallow()
            assert 1 == 2

        @pytest.fixture
        def in_setup(swallow):
            swallow()

        def test_error_in_setup(in_setup):
            pass

        @pytest.fixture
        def in_teardown(swallow):
            yield
            swallow()

        def test_error_in_teardown(in_teardown):
            pass
        """
    )
    result = run()
    result.assert_outcomes(passed=1, xfailed=1, skipped=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_error_in_setup*",
            "tmpguard: EROFS open 'new.txt' at app.py:12 in act",
            "*ERROR at teardown of test_error_in_teardown*",
            "tmpguard: EROFS open 'new.txt' at app.py:12 in act",
            "* test_failed_by_itself *",
            "*assert 1 == 2",
            "*- Captured tmpguard call -*",
            "open 'new.txt': ?Errno 30? EROFS: Read-only file system",
        ]
    )


def test_a_full_tmp_is_a_violation_and_enforce_false_reports_too(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import os
        from app import asgi

        def test_full(tmpguard):
            client = tmpguard.client(asgi, storage_size=1, raise_app_exceptions=False)
            assert client.get("/store?bytes=2000000").status_code == 500

        def test_watched(tmpguard):
            tmpguard.client(asgi, enforce=False).get("/swallow")
            assert os.path.exists("new.txt")
        """
    )
    result = run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["tmpguard: ENOSPC write '/tmp/stored.bin' at app.py:*", "tmpguard: EROFS open 'new.txt' at app.py:*"]
    )


LATE = """
    import threading
    import time
    import pytest

    go = threading.Event()
    threads = []

    def work():
        go.wait(10)
        try:
            open("/tmp/late.txt", "w").close()
        except OSError:
            pass

    def app(environ, start_response):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        start_response("200 OK", [])
        return [b"body"]

    def finish():
        go.set()
        for thread in threads:
            thread.join()
        threads.clear()
        go.clear()
"""


def test_late_writes_are_reported_with_the_test_of_their_request(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(late=LATE)
    pytester.makepyfile(
        """
        from late import app, finish

        def test_first(tmpguard):
            tmpguard.client(app).get("/first")

        def other(environ, start_response):
            start_response("200 OK", [])
            return [b""]

        def test_second(tmpguard):
            tmpguard.client(other).get("/second")
            finish()
        """
    )
    run("--tmpguard-report=report").assert_outcomes(passed=2)
    report = json.loads((pytester.path / "report.json").read_text())
    (late,) = report["late_writes"]
    assert [test.rpartition("::")[2] for test in late["tests"]] == ["test_first"]
    assert (late["routes"], late["paths"], late["error"]) == (["GET /first"], ["/tmp/late.txt"], "ESTALE")
    assert {row["test"].rpartition("::")[2]: row["late_writes"] for row in report["tests"]} == {
        "test_first": 1,
        "test_second": 0,
    }


def test_late_writes_fail_their_test_where_they_are_asked_to(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(late=LATE)
    pytester.makepyfile(
        """
        import pytest
        from late import app, finish

        def test_late(tmpguard):
            tmpguard.client(app).get("/")
            finish()

        @pytest.mark.tmpguard(allow=["ESTALE"])
        def test_allowed(tmpguard):
            tmpguard.client(app).get("/")
            finish()
        """
    )
    result = run("-o", "tmpguard_late_writes=fail")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "tmpguard: ESTALE open '/tmp/late.txt' at late.py:*",
            "After the end of the request:",
            "open '/tmp/late.txt': *",
        ]
    )
    run("-o", "tmpguard_late_writes=report").assert_outcomes(passed=2)


def test_a_unittest_that_raises_the_error_has_the_section(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import unittest
        import pytest

        @pytest.mark.tmpguard
        class Case(unittest.TestCase):
            def test_raised(self):
                open("raised.txt", "w")

            def test_swallowed(self):
                try:
                    open("swallowed.txt", "w")
                except OSError:
                    pass
        """
    )
    result = run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E  *OSError: ?Errno 30? Read-only file system: 'raised.txt'",
            "*- Captured tmpguard call -*",
            "tmpguard: EROFS open 'raised.txt' at *",
            "tmpguard: EROFS open 'swallowed.txt' at *",
        ]
    )


def test_a_traceback_ends_where_the_application_asked_for_the_file(
    pytester: pytest.Pytester, run: Run
) -> None:
    """Most of tmpguard's own frames are not in it. The others are shown with ``--full-trace``, and in its own
    errors."""
    pytester.makepyfile(
        """
        import pathlib
        import sqlite3
        import pytest
        import tmpguard as module

        @pytest.mark.tmpguard(storage_size=1)
        class TestBody:
            def test_written(self):
                open("written.txt", "w")  # the end of it

            def test_made(self):
                pathlib.Path("made").mkdir()

            def test_full(self):
                pathlib.Path("/tmp/full").write_bytes(bytes(2_000_000))

            def test_database(self):
                sqlite3.connect("new.db")

        def test_wrong_application(tmpguard):
            tmpguard.client(object())

        def test_own_error(monkeypatch):
            monkeypatch.setattr(module.Guard, "invocation", lambda self: 1 / 0)
            module.invocation()
        """
    )
    result = run("-p", "no:logging", "--tmpguard")
    result.assert_outcomes(failed=6)
    result.stdout.fnmatch_lines(
        [
            '>       open("written.txt", "w")  # the end of it',
            "E       OSError: ?Errno 30? Read-only file system: 'written.txt'",
        ]
    )
    shown = re.findall(r"tmpguard/[\w/]+\.py:\d+", "\n".join(result.outlines))
    assert [frame.partition(":")[0] for frame in shown] == ["tmpguard/guard.py"]
    full = "\n".join(run("--tmpguard", "--full-trace", "-k", "full").outlines)
    assert "tmpguard/interpose/files/charge.py" in full


def test_what_no_line_of_the_application_asks_for_is_one_group_and_names_the_view(
    pytester: pytest.Pytester, run: Run
) -> None:
    """A handler that each line of a library's log opens, for one."""
    packages = pytester.mkdir("site-packages")
    (packages / "noisy.py").write_text(
        "def _open():\n    try:\n        open('noisy.log', 'a')\n    except OSError:\n        pass\n\n"
        "def begin():\n    _open()\n\ndef check():\n    _open()\n    _open()\n"
    )
    pytester.makepyfile(
        app="""
        import flask
        import sys

        sys.path.insert(0, "site-packages")
        import noisy

        app = flask.Flask("app")
        sys.path.remove("site-packages")
        app.before_request(noisy.begin)
        app.before_request(noisy.check)

        @app.get("/")
        def index():
            return "done"
        """,
        test_it="""
        from app import app

        def test_it():
            assert app.test_client().get("/").text == "done"
        """,
    )
    result = run("--tmpguard")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "open 'noisy.log': ?Errno 30? EROFS: Read-only file system (3 times)",
            "  in:      GET /",
            "  by:      no line of the application is known; the view is app.py:* in index",
            "  through: *noisy.py:3 in _open",
            "  no line of the application: open EROFS (3x)",
        ]
    )


def test_a_response_that_werkzeug_makes_within_a_request_is_no_other_request(
    pytester: pytest.Pytester, run: Run
) -> None:
    """It calls the exception as an application, with the function through which its clients make requests."""
    pytester.makepyfile(
        """
        import flask

        app = flask.Flask("app")

        @app.get("/")
        def index():
            flask.abort(404)

        @app.get("/raise")
        def fail():
            1 / 0

        def test_it(tmpguard):
            client = app.test_client()
            assert client.get("/").status_code == 404
            assert client.get("/raise").status_code == 500
            assert len(tmpguard.reports) == 2
        """
    )
    result = run("--tmpguard")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["2 requests to 2 routes by 1 test: *"])
