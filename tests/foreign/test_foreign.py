"""The command that runs foreign suites works, finds what differs, and is held to its list."""

from __future__ import annotations

import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign import __main__ as command
from tests.foreign import known, prepare, runs
from tests.foreign.prepare import NotAvailable, Prepared
from tests.foreign.suites import EACH, INSTALLED, PLAIN, REQUESTS, SUITES, WHOLE, Suite
from tests.support import PROJECT

PASSED = runs.Outcome("passed", "")
FAILED = runs.Outcome("failed", "AssertionError: 1 != 2")

TINY = """
    import os, pathlib, sys, tempfile
    import pytest

    @pytest.fixture(scope="module")
    def shared(tmp_path_factory):
        (tmp_path_factory.mktemp("shared") / "file.txt").touch()
        return tempfile.mkdtemp()

    def test_passes(shared, tmp_path):
        for place in (tmp_path, pathlib.Path(shared), pathlib.Path(__file__).parent):
            (place / "file.txt").write_text("text")

    @pytest.mark.parametrize("path", [os.getcwd()])
    def test_path_of_the_run(path):
        assert "tmpguard" not in sys.modules

    @pytest.mark.parametrize("number", [1, 2])
    def test_brackets(shared, tmp_path, number):
        assert os.path.exists(shared + "/file.txt") and not os.path.exists(tmp_path / "file.txt")

    def test_fails_plainly():
        assert "tmpguard" in sys.modules

    def test_without_the_layer():
        assert "tmpguard" not in sys.modules

    def test_outside():
        (pathlib.Path(__file__).parents[1] / "outside.txt").touch()

    def test_temporary_directory():
        assert tempfile.gettempdir() != "/tmp"

    @pytest.mark.skip
    def test_skipped():
        pass

    @pytest.mark.xfail(strict=True)
    def test_expected_failure():
        assert False

    def test_teardown_fails(failing):
        pass

    @pytest.fixture
    def failing():
        yield
        assert False
"""

WEB = """
    import os
    from werkzeug.test import Client
    from werkzeug.wrappers import Request, Response

    @Request.application
    def application(request):
        with open("/tmp/file.txt", "x") as file:
            return Response(str(len(os.listdir("/tmp"))))

    def test_requests(tmp_path):
        client = Client(application)
        assert client.get("/").text == client.get("/").text == "1"
        assert not os.path.exists("/tmp/file.txt")
"""


TINY_SUITE = Suite("tiny", "tiny==1.0", (), ("test_tiny.py",), (INSTALLED,))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not below /tmp: what stays readable there (C1.5) is in no listing, so a pytest whose whole run is an
    invocation would give its directory the number of this one's."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="foreign-test-") as name:
        yield Path(name)


def prepared(tmp_path: Path, source: str, name: str = "tiny") -> Prepared:
    """A suite of one file, for the environment of this test."""
    directory = tmp_path / "suite"
    directory.mkdir()
    (directory / "test_tiny.py").write_text(textwrap.dedent(source))
    suite = TINY_SUITE._replace(name=name)
    return Prepared(suite, directory, Path(sys.executable), prepare.importable(tmp_path))


def test_the_extension_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPGUARD_SCRATCH_ROOT", "/nowhere")
    monkeypatch.setenv("TMPGUARD_NO_EXTENSION", "1")
    given = runs._environment(prepared(tmp_path, ""), {}, tmp_path)
    found = {name: value for name, value in given.items() if name.startswith("TMPGUARD")}
    assert found == {"TMPGUARD_NO_EXTENSION": "1"}


def test_what_passes_plainly_has_to_pass_with_the_layer(tmp_path: Path) -> None:
    suite = prepared(tmp_path, TINY)
    plain = runs.run(suite, PLAIN)
    assert (plain.end, plain.left) == ("", []), plain.output
    outcomes = {test.partition("::")[2]: told.outcome for test, told in plain.tests.items()}
    assert outcomes == {
        "test_passes": "passed",
        "test_brackets[1]": "passed",
        "test_brackets[2]": "passed",
        "test_path_of_the_run[PLACE/tiny]": "passed",
        "test_fails_plainly": "failed",
        "test_without_the_layer": "passed",
        "test_outside": "passed",
        "test_temporary_directory": "passed",
        "test_skipped": "skipped",
        "test_expected_failure": "passed",
        "test_teardown_fails": "failed",
    }
    for way, expected in (
        (INSTALLED, ["path_of_the_run[PLACE/tiny]", "without_the_layer"]),
        (EACH, ["outside", "path_of_the_run[PLACE/tiny]", "temporary_directory", "without_the_layer"]),
        (WHOLE, ["outside", "path_of_the_run[PLACE/tiny]", "temporary_directory", "without_the_layer"]),
    ):
        result = runs.compare(suite, plain, way)
        found = {one.test.partition("::test_")[2]: one.message for one in result.differences}
        assert list(found) == expected, (way, found)
        assert {one.outcome for one in result.differences} == {"failed"}
        assert (result.layered.end, result.layered.left, result.unsteady) == ("", [], [])
    assert "Read-only file system" in result.differences[0].message


def test_each_request_of_the_test_client_is_an_invocation(tmp_path: Path) -> None:
    suite = prepared(tmp_path, WEB, "werkzeug")
    assert {told.outcome for told in runs.run(suite, INSTALLED).tests.values()} == {"failed"}
    Path("/tmp/file.txt").unlink()
    result = runs.run(suite, REQUESTS)
    assert {told.outcome for told in result.tests.values()} == {"passed"}, result.output


def test_a_suite_that_does_not_begin_or_end_says_why(tmp_path: Path) -> None:
    source = """
    import os, pytest

    def test_passes():
        pass

    def test_ends_the_process():
        os._exit(3)
    """
    suite = prepared(tmp_path, source)
    result = runs.run(suite, PLAIN)
    assert result.end == "ended with 3"
    assert [told.outcome for told in result.tests.values()] == ["passed", "did not end"]

    (suite.directory / "test_tiny.py").write_text("import no_such_module")
    broken = runs.run(suite, PLAIN)
    assert broken.end == "ended with 2"
    [(test, told)] = broken.tests.items()
    assert (test, told.outcome) == ("collecting test_tiny.py", "failed")
    [difference] = runs.differences(result, broken)
    assert difference.outcome == "did not run"


def a_run(**tests: runs.Outcome) -> runs.Run:
    return runs.Run({f"test_some.py::{name}": told for name, told in tests.items()}, "", [], "")


def test_what_differs_is_tried_once_more_in_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcomes = {
        (INSTALLED, False): a_run(a=PASSED, b=FAILED, c=FAILED, d=FAILED),
        (INSTALLED, True): a_run(b=FAILED, c=PASSED, d=FAILED),
        (PLAIN, True): a_run(b=PASSED, c=PASSED, d=FAILED),
    }
    monkeypatch.setattr(runs, "run", lambda _, way, wanted=(): outcomes[way, bool(wanted)])
    plain = a_run(a=PASSED, b=PASSED, c=PASSED, d=PASSED)
    result = runs.compare(prepared(tmp_path, TINY), plain, INSTALLED)
    assert [one.test for one in result.differences] == ["test_some.py::b"]
    assert result.unsteady == ["test_some.py::c", "test_some.py::d"]


@pytest.mark.parametrize(
    ("listed", "left", "status"),
    [
        (("test_some.py::a[1]",), [], 0),
        (("test_some.py::a*",), [], 0),
        ((), [], 1),
        (("test_some.py::a*", "test_some.py::b"), [], 1),  # b does not differ
        (("test_some.py::a*",), ["tmpguard-1"], 1),
    ],
    ids=["listed", "a pattern", "not listed", "stale", "a directory that is left"],
)
def test_the_list_is_held_to_the_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    listed: tuple[str, ...],
    left: list[str],
    status: int,
) -> None:
    name = SUITES[0].name
    runs_of = {
        PLAIN: a_run(**{"a[1]": PASSED, "b": PASSED}),
        INSTALLED: a_run(**{"a[1]": FAILED, "b": PASSED})._replace(left=left),
    }
    monkeypatch.setattr(runs, "run", lambda _, way, wanted=(): runs_of[way])
    monkeypatch.setattr(prepare, "prepare", lambda suite, cache: prepared(tmp_path, TINY, suite.name))
    table = (
        known.Known("a reason", name, (INSTALLED,), listed),
        known.Known("another way", name, (EACH,), ("test_some.py::*",)),
        known.Known("not always", name, (INSTALLED,), ("test_some.py::c",), sometimes=True),
    )
    monkeypatch.setattr(known, "KNOWN", table)
    assert command.main([name, "--ways", INSTALLED]) == status, capsys.readouterr().out
    assert ("AssertionError: 1 != 2" in capsys.readouterr().out) is (not listed)


def test_a_suite_that_cannot_be_downloaded_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(python: str, *arguments: str) -> None:
        raise NotAvailable(f"pip {arguments[0]}: no network")

    monkeypatch.setattr(prepare, "_pip", fail)
    assert command.main([SUITES[0].name, "--cache", str(tmp_path)]) == command.UNAVAILABLE
    assert "pip download: no network" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["no-such-suite"])


def test_a_suite_is_downloaded_and_installed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def pip(python: str, *arguments: str) -> None:
        asked.append(arguments[0])
        if arguments[0] == "download":
            source = tmp_path / "tiny-1.0"
            source.mkdir()
            (source / "test_tiny.py").write_text("")
            with tarfile.open(f"{arguments[arguments.index('-d') + 1]}/tiny-1.0.tar.gz", "w:gz") as archive:
                archive.add(source, "tiny-1.0")

    monkeypatch.setattr(prepare, "_pip", pip)
    monkeypatch.setattr(prepare.venv, "create", lambda place, **_: Path(place).mkdir(parents=True))
    for _ in range(2):
        found = prepare.prepare(TINY_SUITE, tmp_path / "cache")
        assert (found.directory / "test_tiny.py").exists()
        assert asked == ["download", "install"]
    assert (found.imports / "tmpguard" / "__init__.py").samefile(PROJECT / "tmpguard" / "__init__.py")
    assert {path.name for path in found.imports.iterdir()} == {
        "tmpguard",
        "foreign_layer.py",
        "foreign_pytest.py",
        "foreign_django.py",
    }


def test_every_listed_difference_names_a_suite_and_its_ways() -> None:
    ways = {suite.name: suite.ways for suite in SUITES}
    for one in known.KNOWN:
        assert set(one.ways) <= set(ways[one.suite]), one
        assert one.reason
