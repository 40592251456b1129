"""Starts the child processes that run CPython's tests, and tells where the two of a module differ."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tests.parity.mounting import NOT_PERMITTED

PROJECT = Path(__file__).parent.parent.parent

#: How long one module may take, in seconds.
PATIENCE = 900


class NotPermitted(Exception):
    """The machine permits no mount namespace."""


class Outcome(NamedTuple):
    """What became of one test: ``passed``, ``failed`` or ``skipped``, and why."""

    outcome: str
    message: str


class Run(NamedTuple):
    """One module in one place.

    The outcomes by the tests' ids; what is wrong with how it ended, ``""`` if nothing is; what is left in the
    ``/tmp`` outside of the invocation; all that it printed.
    """

    tests: dict[str, Outcome]
    end: str
    left: list[str]
    output: str

    @property
    def passed(self) -> set[str]:
        return {test for test, told in self.tests.items() if told.outcome == "passed"}


class Difference(NamedTuple):
    """A test that passes natively and not inside."""

    test: str
    outcome: str
    message: str


class Comparison(NamedTuple):
    """One module in both places, and what became of the tests that pass natively and did not inside.

    ``refused`` do not pass on the kernel's read-only root either; ``unsteady`` passed when tried again.
    """

    module: str
    natively: Run
    inside: Run
    differences: list[Difference]
    refused: list[str]
    unsteady: list[str]


def has_tests() -> bool:
    """Has this interpreter CPython's tests? Distributions leave them out, or out of their main package."""
    try:
        return importlib.util.find_spec("test.test_os") is not None  # a few others come with the interpreter
    except ImportError:
        return False


def has_module(module: str) -> bool:
    """Has this version of CPython the tests ``module``?"""
    try:
        return importlib.util.find_spec(f"test.{module}") is not None
    except ModuleNotFoundError:  # of a package that is not there either
        return False


def run(module: str, place: str, wanted: Collection[str] = ()) -> Run:
    """Run the tests of ``module`` in ``place``, only those ``wanted`` if there are any.

    Raises NotPermitted.
    """
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as output:
        descriptor = told.fileno()
        job = {
            "module": module,
            "place": place,
            "wanted": sorted(wanted),
            "descriptor": descriptor,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cpython.place", json.dumps(job)],
            cwd=PROJECT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[descriptor],
            start_new_session=True,
        )
        try:
            end = _end(process)
        finally:
            _kill(process)
        for file in (told, output):
            file.seek(0)
        text = output.read().decode(errors="replace")
        if process.returncode == NOT_PERMITTED:
            raise NotPermitted(text.strip())
        return _read(told.read().decode(), end, text)


def _environment() -> dict[str, str]:
    """Nothing in it that the tests or tmpguard go by."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TMPGUARD", "PYTEST", "COV", "TMP", "TEMP"))
    }
    return {**kept, "TMPDIR": "/tmp"}


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return f"killed after {PATIENCE} seconds"
    return "" if code == 0 else f"ended with {code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it with all the children that it left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(lines: str, end: str, output: str) -> Run:
    tests: dict[str, Outcome] = {}
    left: list[str] = []
    is_through = False
    for line in lines.splitlines():
        told = json.loads(line)
        if "left" in told:
            is_through, left = True, told["left"]
            continue
        known = tests.get(told["id"])
        if told["outcome"] == "started":
            tests.setdefault(told["id"], Outcome("did not end", ""))  # there may be several of one name
        elif known is None or known.outcome != "failed":  # a test may tell of several failures
            tests[told["id"]] = Outcome(told["outcome"], told["message"])
    if not is_through and not end:
        end = "ended before all tests were run"
    return Run(tests, end, left, output)


def compare(module: str) -> Comparison:
    """Run ``module`` in both places. Raises NotPermitted."""
    natively, inside = run(module, "natively"), run(module, "inside")
    found = differences(natively, inside)
    refused: list[str] = []
    unsteady: list[str] = []
    if found:
        kernel = run(module, "read-only", [difference.test for difference in found])
        refused = [difference.test for difference in found if difference.test not in kernel.passed]
        found = [difference for difference in found if difference.test in kernel.passed]
    if found:
        again = run(module, "inside", [difference.test for difference in found])
        unsteady = [difference.test for difference in found if difference.test in again.passed]
        found = [difference for difference in found if difference.test not in again.passed]
    return Comparison(module, natively, inside, found, refused, unsteady)


def differences(natively: Run, inside: Run) -> list[Difference]:
    """The tests that pass natively and not inside."""
    # What kept them from it, a class's own preparation for one, is told as a test that is not there natively.
    failed = (told.message for test, told in inside.tests.items() if test not in natively.tests)
    missing = Outcome("did not run", inside.end or next(failed, ""))
    return [
        Difference(test, *inside.tests.get(test, missing)) for test in sorted(natively.passed - inside.passed)
    ]
