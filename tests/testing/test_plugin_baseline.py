"""``--tmpguard-baseline``: known findings do not fail their tests, new ones do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import Run
from tests.testing.conftest import ARGUMENTS

pytest_plugins = ["pytester"]

TWO_TESTS = """
    from app import wsgi

    def test_old(tmpguard):
        tmpguard.client(wsgi).get("/swallow?name=old.txt")

    def test_fine(tmpguard):
        tmpguard.client(wsgi).get("/store?bytes=1")
"""

OLD = {"file": "app.py", "function": "act", "operation": "open", "path": "old.txt", "errno": "EROFS"}


def findings(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    assert data["format"] == 1
    found: list[dict[str, Any]] = data["findings"]
    return found


def as_text(*known: Any) -> str:
    return json.dumps({"format": 1, "findings": known})


def write(path: Path, *known: dict[str, Any]) -> None:
    path.write_text(as_text(*known))


@pytest.fixture
def baseline(pytester: pytest.Pytester, app: None) -> Path:
    pytester.makepyfile(TWO_TESTS)
    return pytester.path / "known.json"


def test_what_is_written_does_not_fail_the_next_run_and_new_findings_do(
    pytester: pytest.Pytester, run: Run, baseline: Path
) -> None:
    run().assert_outcomes(passed=1, failed=1)
    result = run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*= tmpguard baseline =*", "*known.json: written with 1 known finding"])
    assert findings(baseline) == [OLD]
    assert len(baseline.read_text().splitlines()) == 6  # a finding has a line of its own

    result = run("--tmpguard-baseline=known.json")
    result.assert_outcomes(passed=2)
    assert "2 requests to 2 routes by 2 tests: 0 violations (and 1 allowed)" in result.stdout.str()
    result.stdout.no_fnmatch_line("*tmpguard baseline*")

    pytester.makepyfile(test_new=TWO_TESTS.replace("old.txt", "new.txt"))
    result = run("--tmpguard-baseline=known.json")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["tmpguard: EROFS open 'new.txt' at app.py:* in act"])


def test_another_line_of_the_function_is_the_same_finding(
    pytester: pytest.Pytester, run: Run, baseline: Path
) -> None:
    write(baseline, OLD)
    application = pytester.path / "app.py"
    application.write_text("# A line more.\n" + application.read_text())
    run("--tmpguard-baseline=known.json").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "other", [{"function": "work"}, {"file": "views.py"}, {"operation": "os.mkdir"}, {"errno": "ENOSPC"}]
)
def test_what_differs_in_any_key_is_another_finding(run: Run, baseline: Path, other: dict[str, str]) -> None:
    write(baseline, {**OLD, **other})
    run("--tmpguard-baseline=known.json").assert_outcomes(passed=1, failed=1)


def test_stale_findings_are_listed(run: Run, baseline: Path) -> None:
    write(baseline, OLD, {**OLD, "path": "gone.txt"}, {**OLD, "function": "removed", "path": "x*"})
    result = run("--tmpguard-baseline=known.json")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*known.json: 2 known findings did not occur. If all tests ran, remove them from the file, or "
            "write it anew with --tmpguard-baseline-write:",
            "  app.py in act: open EROFS 'gone.txt'",
            "  app.py in removed: open EROFS 'x[*]'",
        ]
    )


def test_a_run_of_some_tests_lists_nothing_as_stale_and_keeps_the_rest(run: Run, baseline: Path) -> None:
    write(baseline, OLD)
    result = run("--tmpguard-baseline=known.json", "-k", "fine")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.no_fnmatch_line("*known.json*")
    result = run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write", "-k", "fine")
    result.stdout.fnmatch_lines(
        ["*known.json: written with 1 known finding; those of tests that did not run are kept"]
    )
    assert findings(baseline) == [OLD]


def test_a_run_of_all_tests_writes_what_it_found(run: Run, baseline: Path) -> None:
    write(baseline, {**OLD, "path": "gone.txt"})
    run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write").assert_outcomes(passed=2)
    assert findings(baseline) == [OLD]


def test_paths_are_without_what_depends_on_the_run_or_the_machine(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    pytester.makepyfile(
        """
        import os, tempfile, uuid

        def attempt(path):
            try:
                os.rmdir(path)
            except OSError:
                pass

        def app(environ, start_response):
            attempt(os.getcwd() + "/uploads")
            attempt(environ["PATH_INFO"])
            attempt(f"/usr/{uuid.uuid4()}/x")
            start_response("200 OK", [])
            return [b""]

        def test_request(tmpguard, tmp_path):
            (tmp_path / "d").mkdir()
            os.makedirs("uploads", exist_ok=True)
            tmpguard.client(app).get(f"{tmp_path}/d")
        """
    )
    run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write").assert_outcomes(passed=1)
    paths = {one["path"] for one in findings(pytester.path / "known.json")}
    assert {"uploads", "*/test_request0/d"} <= paths
    assert paths <= {"uploads", "*/test_request0/d", "/usr/*/x"}
    run("--tmpguard-baseline=known.json").assert_outcomes(passed=1)


def test_a_library_without_a_line_of_the_application_is_known_by_its_package(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import functools, os, shutil

        remove = functools.partial(shutil.rmtree, ignore_errors=True)

        def app(environ, start_response):
            start_response("200 OK", [])
            return filter(remove, ["uploads"])

        def test_request(tmpguard):
            os.makedirs("uploads", exist_ok=True)
            tmpguard.client(app).get("/")
        """
    )
    run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write").assert_outcomes(passed=1)
    (one, *_) = findings(pytester.path / "known.json")
    assert one["library"] == "shutil"
    assert set(one) == {"library", "operation", "path", "errno"}
    run("--tmpguard-baseline=known.json").assert_outcomes(passed=1)


def test_late_writes_are_known_where_they_fail_a_test(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import threading

        def work(over):
            over.wait()
            try:
                open("/tmp/late.txt", "w")
            except OSError:
                pass

        def test_request(tmpguard):
            over = threading.Event()
            threads = []
            def app(environ, start_response):
                threads.append(threading.Thread(target=work, args=[over]))
                threads[0].start()
                start_response("200 OK", [])
                return [b""]
            tmpguard.client(app).get("/")
            over.set()
            threads[0].join()
        """
    )
    arguments = ("--tmpguard-baseline=known.json", "--tmpguard-baseline-write")
    run(*arguments).assert_outcomes(passed=1)
    assert findings(pytester.path / "known.json") == []
    pytester.makeini("[pytest]\ntmpguard_late_writes = fail\n")
    run(*arguments).assert_outcomes(passed=1)
    (one,) = findings(pytester.path / "known.json")
    assert (one["function"], one["errno"]) == ("work", "ESTALE")
    run("--tmpguard-baseline=known.json").assert_outcomes(passed=1)


def test_findings_at_import_are_known_too(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(loading="open('at-import.txt', 'w')")
    pytester.makeconftest("try:\n    open('conftest.txt', 'w')\nexcept OSError:\n    pass\n")
    pytester.makepyfile("try:\n    import loading\nexcept OSError:\n    pass\n\ndef test(): pass\n")
    pytester.makeini("[pytest]\ntmpguard_import = true\ntmpguard_baseline = known.json\n")
    result = run("--tmpguard-baseline-write")
    result.assert_outcomes(passed=1)
    paths = [one["path"] for one in findings(pytester.path / "known.json")]
    assert sorted(paths) == ["at-import.txt", "conftest.txt"]
    run().assert_outcomes(passed=1)
    write(pytester.path / "known.json")
    assert run().ret == pytest.ExitCode.USAGE_ERROR


def test_the_ini_key_is_relative_to_the_ini_file(
    pytester: pytest.Pytester, run: Run, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(baseline, OLD)
    pytester.makeini("[pytest]\ntmpguard_baseline = known.json\npythonpath = .\n")
    elsewhere = pytester.mkdir("elsewhere")
    monkeypatch.chdir(elsewhere)
    run("..").assert_outcomes(passed=2)


def test_it_works_with_xdist(pytester: pytest.Pytester, baseline: Path) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(test_other=TWO_TESTS.replace("old.txt", "other.txt"))

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", *ARGUMENTS, "-n2", "--tmpguard-baseline=known.json", *more]
        return subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)

    done = run("--tmpguard-baseline-write")
    assert done.returncode == 0, done.stdout
    assert "known.json: written with 2 known findings" in done.stdout
    assert [one["path"] for one in findings(baseline)] == ["old.txt", "other.txt"]
    done = run()
    assert done.returncode == 0, done.stdout
    assert "tmpguard baseline" not in done.stdout
    write(baseline, OLD, {**OLD, "path": "gone.txt"})
    done = run()
    assert done.returncode == 1
    assert "2 failed" not in done.stdout
    assert "EROFS open 'other.txt'" in done.stdout
    assert "known.json: 1 known finding did not occur." in done.stdout
    assert "  app.py in act: open EROFS 'gone.txt'" in done.stdout


def test_a_run_that_loses_a_worker_writes_nothing(pytester: pytest.Pytester, baseline: Path) -> None:
    pytest.importorskip("xdist")
    write(baseline, OLD)
    pytester.makepyfile(test_crash="import os\ndef test_crash(): os._exit(1)")
    arguments = [*ARGUMENTS, "-n2", "--tmpguard-baseline=known.json", "--tmpguard-baseline-write"]
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert "known.json: not written, because the run did not finish" in done.stdout, done.stdout
    assert findings(baseline) == [OLD]


def test_an_interrupted_run_writes_nothing(pytester: pytest.Pytester, run: Run, baseline: Path) -> None:
    pytester.makepyfile(test_broken="import no_such_module")
    result = run("--tmpguard-baseline=known.json", "--tmpguard-baseline-write")
    result.stdout.fnmatch_lines(["*known.json: not written, because the run did not finish"])
    assert not baseline.exists()


def test_a_file_that_cannot_be_written_is_said(pytester: pytest.Pytester, run: Run, baseline: Path) -> None:
    result = run("--tmpguard-baseline=no/such/known.json", "--tmpguard-baseline-write")
    result.stdout.fnmatch_lines(
        ["*no/such/known.json: not written: No such file or directory; give a file that can be written"]
    )
    assert sorted(path.name for path in pytester.path.glob("*.json*")) == []


ANEW = "mend it, or write it anew with --tmpguard-baseline-write"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{\n oh", f"known.json:2: not JSON (Expecting property name enclosed in double quotes); {ANEW}"),
        ("[]", f'known.json: no object with "format" and a list "findings"; {ANEW}'),
        ('{"format": 2, "findings": []}', "known.json: format 2, but this tmpguard reads format 1"),
        (as_text(3), "findings[0] is no object of strings with either a"),
        (as_text({**OLD, "library": "x"}), "with either a"),
        (as_text({"file": "x"}), "findings[0] has no 'errno'"),
        (
            as_text({**OLD, "line": "3"}),
            "findings[0] has an unknown key 'line'",
        ),
        (
            as_text({**OLD, "errno": "E"}),
            "findings[0]: there is no errno 'E'",
        ),
    ],
)
def test_an_invalid_file_is_named_with_what_is_wrong(run: Run, baseline: Path, text: str, said: str) -> None:
    baseline.write_text(text)
    result = run("--tmpguard-baseline=known.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


def test_what_is_missing_says_how_to_write_it(run: Run, baseline: Path) -> None:
    result = run("--tmpguard-baseline=known.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "known.json': No such file or directory; --tmpguard-baseline-write writes it" in result.stderr.str()
    )
    result = run("--tmpguard-baseline-write")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--tmpguard-baseline-write names no file: add --tmpguard-baseline FILE" in result.stderr.str()
