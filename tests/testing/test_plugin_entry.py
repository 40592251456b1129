"""What a run of pytest pays that does not use the plugin, and how it gets on with other plugins."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from tests.support import Run, run_python

pytest_plugins = ["pytester"]

WITH_ASYNCIO = ("-p", "no:randomly", "-p", "no:hypothesispytest", "-p", "no:anyio", "-W", "error")
ALONE = (*WITH_ASYNCIO, "-p", "no:asyncio")
"""For a run in a process of its own."""

DOOR = ["tmpguard", "tmpguard.core", "tmpguard.core.version", "tmpguard.pytest_plugin"]
HEAVY = {"httpx", "httpx2", "starlette", "flask", "werkzeug", "django", "anyio", "yaml", "sqlite3"}


def test_the_entry_point_is_the_small_module_beside_the_package() -> None:
    (entry,) = importlib.metadata.entry_points(group="pytest11", name="tmpguard")
    assert entry.value == "tmpguard.pytest_plugin"


def test_the_door_imports_four_small_modules_and_nothing_else() -> None:
    """Half a millisecond; each further module would cost every run of pytest its share."""
    code = """
import pytest
before = set(sys.modules)
import tmpguard.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""
    assert run_python(code).split() == DOOR


def test_a_run_that_does_not_use_it_imports_nothing_of_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins import what they like
    pytester.makepyfile(
        f"""
        import sys

        DOOR = {DOOR}
        HEAVY = {HEAVY}

        def test_imported():
            assert "tmpguard.pytest_plugin" in sys.modules
            loaded = [name for name in sys.modules if name.partition(".")[0] == "tmpguard"]
            assert sorted(loaded) == DOOR
            assert not HEAVY & set(sys.modules)

        def test_patched():
            import os
            assert type(os.stat).__name__ == "builtin_function_or_method"
        """
    )
    result = pytester.runpytest_subprocess("-p", "tmpguard.pytest_plugin", "-W", "error")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*= tmpguard =*")


def test_the_options_are_in_the_help(pytester: pytest.Pytester, run: Run) -> None:
    result = run("--help")
    result.stdout.fnmatch_lines(["  --tmpguard *", "  --tmpguard-import *", "  --tmpguard-report=FILE*"])
    result.stdout.fnmatch_lines(["  tmpguard_storage_size (string):*"])
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.tmpguard(allow=*"])


def test_workers_of_xdist_report_to_the_controller_and_coverage_is_measured(
    pytester: pytest.Pytester, app: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.delenv("COVERAGE_FILE", raising=False)  # of the run that this test is part of
    pytester.makepyfile(
        """
        import os
        import pytest
        from app import wsgi

        try:
            os.mkdir("models")  # at the import, in both workers
        except OSError:
            pass

        @pytest.mark.parametrize("number", range(4))
        def test_requests(tmpguard, number):
            tmpguard.client(wsgi).get("/swallow" if number == 2 else f"/store?bytes={4096 * (number + 1)}")
        """
    )
    importing = ("--tmpguard-import", "-o", "tmpguard_allow=models")
    result = pytester.runpytest_subprocess(*ALONE, "-n2", "--tmpguard-report=report", "--cov=app", *importing)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.re_match_lines([r"app\.py +\d+ +\d+ +\d+%"])
    result.stdout.fnmatch_lines(
        ["4 requests to 2 routes by 4 tests, 1 import: 1 violation (and 1 allowed), 0 late writes, *"]
    )
    report = json.loads((pytester.path / "report.json").read_text())
    assert report["totals"]["requests"] == 4
    peaks = sorted(row["peak_bytes"] for row in report["tests"] if row["kind"] == "request")
    assert peaks == [0, 4096, 8192, 16384]


def test_workers_of_xdist_report_paths_of_any_bytes(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        r"""
        import os

        def app(environ, start_response):
            try:
                os.mkdir(b"\xff")
            except OSError:
                pass
            start_response("200 OK", [])
            return [b""]

        def test_allowed(tmpguard):
            tmpguard.allow("EROFS")
            tmpguard.client(app).get("/")

        def test_refused(tmpguard):
            tmpguard.client(app).get("/")
        """
    )
    result = pytester.runpytest_subprocess(*ALONE, "-n1", "--tmpguard-report=report")
    result.assert_outcomes(passed=1, failed=1)
    assert "DumpError" not in result.stdout.str()
    report = json.loads((pytester.path / "report.json").read_text())
    assert [group["paths"] for group in report["violations"]] == [["\udcff"], ["\udcff"]]


def test_asyncio_s_plugin_runs_guarded_tests(pytester: pytest.Pytester, app: None) -> None:
    pytest.importorskip("pytest_asyncio")
    pytester.makepyfile(
        """
        import os
        import pytest
        import tmpguard as module
        from app import asgi

        @pytest.fixture
        async def client(tmpguard):
            async with tmpguard.async_client(asgi) as client:
                yield client

        @pytest.mark.asyncio
        @pytest.mark.tmpguard(storage_size=1)
        async def test_both(tmpguard, client):
            assert module.current().guard.storage_size == 1
            open("/tmp/in-the-body", "w").close()
            assert (await client.get("/store?bytes=1")).text == "stored"
            assert (await client.get("/state")).text == "{'from': 'start-up'}"

        @pytest.mark.asyncio
        @pytest.mark.tmpguard
        async def test_violation():
            try:
                open("new.txt", "w")
            except OSError:
                pass
        """
    )
    result = pytester.runpytest_subprocess(
        *WITH_ASYNCIO, "--asyncio-mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["tmpguard: EROFS open 'new.txt' at *"])


def test_the_runs_of_a_plugin_s_tests_are_apart(pytester: pytest.Pytester, app: None, run: Run) -> None:
    """A test that runs pytest in its own process, in a run that is guarded itself."""
    pytester.makepyfile(
        """
        import pytest
        from app import wsgi

        pytest_plugins = ["pytester"]

        def test_outer(tmpguard, pytester):
            client = tmpguard.client(wsgi)
            client.get("/store?bytes=4096")
            pytester.makepyfile(
                '''
                def app(environ, start_response):
                    open("/tmp/file", "w").close()
                    start_response("200 OK", [])
                    return [b""]

                def test_inner(tmpguard):
                    for _ in range(3):
                        tmpguard.client(app).get("/inner")
                    assert len(tmpguard.reports) == 3
                '''
            )
            without = ("-p", "no:hypothesispytest", "-p", "no:randomly", "-p", "no:asyncio")
            inner = pytester.runpytest_inprocess(*without)
            inner.assert_outcomes(passed=1)
            inner.stdout.fnmatch_lines(["3 requests to 1 route by 1 test: *"])
            client.get("/store?bytes=8192")
            assert [report.peak_bytes for report in tmpguard.reports] == [4096, 8192]
        """
    )
    result = run("--tmpguard")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["2 requests to 1 route by 1 test: *"])
