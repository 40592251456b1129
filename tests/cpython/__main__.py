"""``python -m tests.cpython`` runs CPython's own tests, natively and inside an invocation.

It uses the interpreter that runs it. Every test that passes natively has to pass inside, unless it also fails
on the kernel's own read-only root, or tests/cpython/known.py lists it. The exit code is 1 if a test fails or
the list is out of date, 69 if this interpreter comes without CPython's tests, and 77 if mount namespaces are
not permitted.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.cpython import known, runs
from tests.cpython.modules import MODULES

UNAVAILABLE = 69


class Totals:
    """Counts the tests of all modules, and collects what differs."""

    def __init__(self, verbose: bool) -> None:
        self.natively = self.inside = self.refused = self.listed = self.wrong = 0
        self.differing: list[str] = []
        self._verbose = verbose

    def add(self, result: runs.Comparison) -> None:
        unlisted = [one for one in result.differences if not known.reason_of(one.test)]
        listed = len(result.differences) - len(unlisted)
        natively, again = result.natively.passed, len(result.unsteady)
        self.natively += len(natively)
        self.inside += (inside := len(natively & result.inside.passed) + again)
        self.refused += len(result.refused)
        self.listed += listed
        self.wrong += len(unlisted)
        self.differing += [one.test for one in result.differences] + result.unsteady
        counts = (
            (inside, "inside"),
            (len(result.refused), "refused by a read-only root"),
            (listed, "listed"),
            (len(unlisted), "not listed"),
            (again, "at the second try"),
        )
        told = ", ".join(f"{count} {what}" for count, what in counts if count)
        print(f"{result.module}: {len(natively)} natively, {told or 'none inside'}", flush=True)
        for run, place in ((result.natively, "natively"), (result.inside, "inside")):
            if run.end:
                print(f"    {place} it {run.end}: {run.output[-500:].strip()}")
        for test in result.unsteady:
            print(f"    unsteady: {test}")
        for one in result.differences if self._verbose else unlisted:
            print(f"    {one.outcome}: {one.test}\n{_indented(one.message)}", flush=True)
        if result.inside.left and not listed:
            self.wrong += 1
            print(f"    got out of the invocation: {', '.join(result.inside.left)}")

    def __str__(self) -> str:
        return (
            f"Python {platform.python_version()}: {self.natively} tests pass natively, {self.inside} of them "
            f"inside; {self.refused} are refused by a read-only root, {self.listed} are listed, "
            f"{self.wrong} are neither"
        )


def _indented(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip(" ^~")]
    return "\n".join(f"        {line}" for line in lines[-8:])


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=__doc__)
    parser.add_argument(
        "--modules", default=",".join(MODULES), help="only these modules, separated by commas"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="the number of modules to run at the same time"
    )
    parser.add_argument("--verbose", action="store_true", help="report the listed differences, too")
    options = parser.parse_args(arguments)
    if not runs.has_tests():
        print(
            f"{sys.executable} comes without CPython's tests: use an interpreter that has the package `test`"
        )
        return UNAVAILABLE
    modules = [module for module in options.modules.split(",") if runs.has_module(module)]
    totals = Totals(options.verbose)
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for result in pool.map(runs.compare, modules):
                totals.add(result)
        except runs.NotPermitted as exc:
            print(f"this machine does not permit mount namespaces: {exc}")
            pool.shutdown(cancel_futures=True)
            return runs.NOT_PERMITTED
    stale = known.stale(totals.differing, modules)
    for pattern in stale:
        print(f"listed in tests/cpython/known.py, but no test differs: {pattern}")
    print(totals)
    return 1 if totals.wrong or stale else 0


if __name__ == "__main__":
    sys.exit(main())
