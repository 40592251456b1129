"""The command that runs CPython's own tests works, finds differences, and compares them with its list."""

from __future__ import annotations

import re

import pytest

from tests.cpython import __main__ as command
from tests.cpython import known, runs
from tests.cpython.modules import LEFT_OUT, MODULES, STAND_INS, is_of
from tests.docs import cpython_tests as cpython_doc

needs_tests = pytest.mark.skipif(
    not runs.has_tests(), reason="this interpreter comes without CPython's tests"
)

PASSED = runs.Outcome("passed", "")
FAILED = runs.Outcome("failed", "AssertionError: 1 != 2")


def run(**tests: runs.Outcome) -> runs.Run:
    return runs.Run({f"test.test_some.Case.{name}": told for name, told in tests.items()}, "", [], "")


@needs_tests
def test_a_module_of_cpython_passes_inside(capsys: pytest.CaptureFixture[str]) -> None:
    status = command.main(["--modules", "test_stat,test_no_such_module", "--jobs", "1"])
    told = capsys.readouterr().out
    if status == runs.NOT_PERMITTED:
        pytest.skip(told)
    counts = re.search(r"^test_stat: (\d+) natively, (\d+) inside$", told, re.MULTILINE)
    assert counts, told
    assert int(counts[1]) == int(counts[2]) > 10
    assert status == 0, told
    assert told.endswith(" 0 are neither\n")


@needs_tests
def test_a_test_that_does_not_pass_says_why() -> None:
    try:
        wanted = ["test.test_stat.TestFilemodePyStat.test_mode"]
        result = runs.run("test_stat", "natively", wanted)
    except runs.NotPermitted as exc:
        pytest.skip(str(exc))
    assert result.passed == set(wanted)
    assert (result.end, result.left) == ("", ["placeæ"])
    ((test, told),) = runs.run("test_no_such_module", "natively").tests.items()
    assert (test, told.outcome) == ("unittest.loader._FailedTest.test_no_such_module", "failed")
    assert "No module named 'test.test_no_such_module'" in told.message


def test_the_extension_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPGUARD_SCRATCH_ROOT", "/nowhere")
    monkeypatch.setenv("TMPGUARD_NO_EXTENSION", "1")
    found = {name: value for name, value in runs._environment().items() if name.startswith("TMPGUARD")}
    assert found == {"TMPGUARD_NO_EXTENSION": "1"}


def test_what_passes_natively_has_to_pass_inside() -> None:
    natively = run(a=PASSED, b=PASSED, c=PASSED, d=PASSED, e=FAILED, f=runs.Outcome("skipped", "no disk"))
    inside = run(a=PASSED, b=FAILED, c=runs.Outcome("skipped", "no disk"), e=FAILED, f=FAILED)
    found = [(one.test.rpartition(".")[2], one.outcome) for one in runs.differences(natively, inside)]
    assert found == [("b", "failed"), ("c", "skipped"), ("d", "did not run")]
    inside = runs.Run({"setUpClass (test_some.Case)": FAILED}, "", [], "")
    assert {(one.outcome, one.message) for one in runs.differences(natively, inside)} == {
        ("did not run", FAILED.message)
    }


def compare(outcomes: dict[str, runs.Run], monkeypatch: pytest.MonkeyPatch) -> runs.Comparison:
    monkeypatch.setattr(
        runs, "run", lambda module, place, wanted=(): outcomes[place + "again" * bool(wanted)]
    )
    return runs.compare("test_some")


def test_what_differs_is_tried_on_a_read_only_root_and_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {
        "natively": run(a=PASSED, b=PASSED, c=PASSED, d=PASSED),
        "inside": run(a=PASSED, b=FAILED, c=FAILED, d=FAILED),
        "read-onlyagain": run(b=FAILED, c=PASSED, d=PASSED),
        "insideagain": run(c=PASSED, d=FAILED),
    }
    result = compare(outcomes, monkeypatch)
    assert result.refused == ["test.test_some.Case.b"]
    assert result.unsteady == ["test.test_some.Case.c"]
    assert result.differences == [runs.Difference("test.test_some.Case.d", *FAILED)]


@pytest.mark.parametrize(
    ("tests", "left", "status"),
    [
        (("test_some.Case.a",), [], 0),
        ((), [], 1),
        (("test_some.Case.a", "test_some.Case.b"), [], 1),  # b does not differ
        (("test_some.Case.a", "test_other.*"), [], 0),  # the other was not run
        (("test_some.*",), ["file"], 0),
    ],
    ids=["listed", "not listed", "stale", "not run", "a file that got out"],
)
def test_the_list_is_held_to_the_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tests: tuple[str, ...],
    left: list[str],
    status: int,
) -> None:
    inside = run(a=FAILED, b=PASSED)._replace(left=left)
    found = runs.Comparison("test_some", run(a=PASSED, b=PASSED), inside, [], [], [])
    found = found._replace(differences=runs.differences(found.natively, inside))
    for name, value in {"compare": lambda _: found, "has_tests": lambda: True, "has_module": bool}.items():
        monkeypatch.setattr(runs, name, value)
    table = (known.Known("a reason", tests), known.Known("of another version", ("test_some.*",), ("2.7",)))
    monkeypatch.setattr(known, "KNOWN", table)
    assert command.main(["--modules", "test_some"]) == status, capsys.readouterr().out
    assert ("AssertionError: 1 != 2" in capsys.readouterr().out) is (not tests)


def test_a_file_that_got_out_of_the_invocation_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = runs.Comparison("test_some", run(a=PASSED), run(a=PASSED)._replace(left=["file"]), [], [], [])
    for name, value in {"compare": lambda _: result, "has_tests": lambda: True, "has_module": bool}.items():
        monkeypatch.setattr(runs, name, value)
    assert command.main(["--modules", "test_some"]) == 1
    assert "got out of the invocation: file" in capsys.readouterr().out


def test_an_interpreter_without_the_tests_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "has_tests", lambda: False)
    assert command.main([]) == command.UNAVAILABLE
    assert "comes without CPython's tests" in capsys.readouterr().out


def test_the_modules_are_named_once_and_in_order() -> None:
    assert sorted(set(MODULES)) == MODULES
    assert set(STAND_INS) <= set(MODULES)
    assert all(pattern.split(".")[1] in MODULES for pattern in LEFT_OUT)


def test_a_part_of_a_package_is_run_by_itself_where_it_gets_another_module() -> None:
    assert not is_of("test_os", "test.test_os.test_posix.PosixTester.test_access")
    assert is_of("test_os.test_posix", "test.test_os.test_posix.PosixTester.test_access")
    assert is_of("test_os", "test.test_os.test_os.FileTests.test_access")


def test_each_reason_says_something_about_modules_that_are_run() -> None:
    for one in known.KNOWN:
        assert one.reason, one
        for pattern in one.tests:
            assert any(pattern.startswith(f"{module}.") for module in MODULES), pattern
        assert set(one.versions) <= set(known.ALL), one


def test_the_page_has_the_table() -> None:
    assert cpython_doc.PAGE.read_text() == cpython_doc.page(), "run python -m tests.docs.cpython_tests"
