"""Outcomes of tests that are run twice, in two ways, and where they differ."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of one test: ``passed``, ``failed``, ``skipped`` or ``did not end``, and why."""

    outcome: str
    message: str


class Run(NamedTuple):
    """One run of some tests in one way: the outcomes by the tests' ids, and all that it printed.

    ``end`` says what is wrong with how it ended, ``""`` if nothing is. ``left`` are the files that it left
    where none should be.
    """

    tests: dict[str, Outcome]
    end: str
    left: list[str]
    output: str

    @property
    def passed(self) -> set[str]:
        return {test for test, told in self.tests.items() if told.outcome == "passed"}


class Difference(NamedTuple):
    """A test that passes in the first way and not in the second, and its outcome there."""

    test: str
    outcome: str
    message: str


def differences(first: Run, second: Run, otherwise: str = "") -> list[Difference]:
    """The tests that pass in ``first`` and not in ``second``; ``otherwise`` is why, where nothing says it."""
    # If they did not run, the reason (such as an error in setUpClass) is reported under an id that is new.
    failed = (told.message for test, told in second.tests.items() if test not in first.tests)
    missing = Outcome("did not run", second.end or next(failed, otherwise))
    return [
        Difference(test, *second.tests.get(test, missing)) for test in sorted(first.passed - second.passed)
    ]


def add(tests: dict[str, Outcome], told: dict[str, str]) -> None:
    """Add to ``tests`` what a run has reported of one of them."""
    known = tests.get(told["id"])
    if told["outcome"] == "started":
        tests.setdefault(told["id"], Outcome("did not end", ""))  # several tests may have the same name
    elif known is None or known.outcome != "failed":  # a test may report several failures
        tests[told["id"]] = Outcome(told["outcome"], told["message"])


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill ``process``, which leads a session of its own, and the children that it left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
