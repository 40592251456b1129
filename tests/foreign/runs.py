"""Runs a foreign suite in one way, and tells where two of its runs differ."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tests.foreign import prepare
from tests.foreign.prepare import Prepared
from tests.foreign.suites import PLAIN
from tests.outcomes import Difference, Outcome, Run, add, differences, kill

#: How long one run may take, in seconds.
PATIENCE = 1800


class Comparison(NamedTuple):
    """A suite that was run in one way, beside the plain one. ``unsteady`` passed when tried again, or did not
    pass plainly when tried again."""

    plain: Run
    layered: Run
    differences: list[Difference]
    unsteady: list[str]


def run(prepared: Prepared, way: str, wanted: Collection[str] = ()) -> Run:
    """Run the suite in a copy of its own, only the tests ``wanted`` if there are any."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="foreign-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        directory = prepare.copy_of(prepared, place)
        temporary, scratch, record = place / "temporary", place / "scratch", place / "record"
        for made in (temporary, scratch):
            made.mkdir()
        record.touch()
        job = {
            "way": way,
            "place": name,
            "wanted": sorted(wanted),
            "framework": prepared.suite.name,
            "record": str(record),
            "scratch": str(scratch),
            "writable": [str(directory), str(temporary)],
        }
        end, output = _supervised(prepared, directory, job, temporary, place / "output")
        left = sorted(path.name for path in scratch.iterdir())
        return Run(_read(record.read_text()), end, left, output)


def _supervised(
    prepared: Prepared, directory: Path, job: dict[str, object], temporary: Path, output: Path
) -> tuple[str, str]:
    with open(output, "wb") as file:
        process = subprocess.Popen(
            _command(prepared),
            cwd=directory / prepared.suite.place,
            env=_environment(prepared, job, temporary),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            end = _end(process)
        finally:
            kill(process)
    return end, output.read_text(errors="replace")


def _command(prepared: Prepared) -> list[str]:
    arguments = prepared.suite.arguments
    if prepared.suite.runner == "django":
        options = ("--settings=foreign_django", "--parallel=1", "--noinput")
        return [str(prepared.python), "runtests.py", *options, *arguments]
    options = ("-p", "foreign_pytest", "-p", "no:cacheprovider", "-p", "no:tmpguard", "-p", "no:randomly")
    return [str(prepared.python), "-m", "pytest", "-q", "--tb=short", *options, *arguments]


def _environment(prepared: Prepared, job: dict[str, object], temporary: Path) -> dict[str, str]:
    """Nothing in it that the tests or tmpguard go by, but for what they need."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "TMPGUARD_NO_EXTENSION"
        or not name.startswith(("PYTHON", "TMPGUARD", "PYTEST", "COV", "TMP", "TEMP", "DJANGO", "FLASK"))
    }
    return {
        **kept,
        **dict(prepared.suite.environment),
        "PYTHONPATH": str(prepared.imports),
        "TMPDIR": str(temporary),
        "FOREIGN_JOB": json.dumps(job),
    }


def _end(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return f"killed after {PATIENCE} seconds"
    return "" if code in (0, 1) else f"ended with {code}"  # 1: some tests failed


def _read(lines: str) -> dict[str, Outcome]:
    tests: dict[str, Outcome] = {}
    for line in lines.splitlines():
        add(tests, json.loads(line))
    return tests


def compare(prepared: Prepared, plain: Run, way: str) -> Comparison:
    """Run the suite in ``way``, and what differs once more in both."""
    layered = run(prepared, way)
    found = differences(plain, layered, layered.output[-2000:])
    unsteady: list[str] = []
    if found:
        wanted = [one.test for one in found]
        plainly, again = run(prepared, PLAIN, wanted), run(prepared, way, wanted)
        unsteady = [test for test in wanted if test in again.passed or test not in plainly.passed]
        found = [one for one in found if one.test not in unsteady]
    return Comparison(plain, layered, found, unsteady)
