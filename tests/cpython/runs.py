"""Starts the child processes that run CPython's tests, and compares their outcomes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tests.outcomes import Difference, Outcome, Run, add, differences, kill
from tests.parity.mounting import NOT_PERMITTED

PROJECT = Path(__file__).parent.parent.parent

#: The time limit of one module in seconds.
PATIENCE = 900


class NotPermitted(Exception):
    """The machine does not permit mount namespaces."""


class Comparison(NamedTuple):
    """One module in both places, and the tests that pass natively but did not pass inside.

    ``refused`` do not pass on the kernel's read-only root either. ``unsteady`` passed at the second try.
    """

    module: str
    natively: Run
    inside: Run
    differences: list[Difference]
    refused: list[str]
    unsteady: list[str]


def has_tests() -> bool:
    """True if this interpreter comes with CPython's tests. Many distributions package them separately."""
    try:
        return (
            importlib.util.find_spec("test.test_os") is not None
        )  # a few others always come with the interpreter
    except ImportError:
        return False


def has_module(module: str) -> bool:
    """True if this version of CPython has the test module ``module``."""
    try:
        return importlib.util.find_spec(f"test.{module}") is not None
    except ModuleNotFoundError:  # its package does not exist either
        return False


def run(module: str, place: str, wanted: Collection[str] = ()) -> Run:
    """Run the tests of ``module`` in ``place``; only the tests ``wanted``, if any are given.

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
            kill(process)
        for file in (told, output):
            file.seek(0)
        text = output.read().decode(errors="replace")
        if process.returncode == NOT_PERMITTED:
            raise NotPermitted(text.strip())
        return _read(told.read().decode(), end, text)


def _environment() -> dict[str, str]:
    """The environment without variables that affect the tests or tmpguard."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "TMPGUARD_NO_EXTENSION"
        or not name.startswith(("PYTHON", "TMPGUARD", "PYTEST", "COV", "TMP", "TEMP"))
    }
    return {**kept, "TMPDIR": "/tmp"}


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return f"killed after {PATIENCE} seconds"
    return "" if code == 0 else f"ended with {code}"


def _read(lines: str, end: str, output: str) -> Run:
    tests: dict[str, Outcome] = {}
    left: list[str] = []
    is_through = False
    for line in lines.splitlines():
        told = json.loads(line)
        if "left" in told:
            is_through, left = True, told["left"]
            continue
        add(tests, told)
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
