"""``python -m tests.foreign``: runs the tests of other projects, plainly and with the layer installed.

It uses the interpreter that runs it, in environments that it makes in a cache directory. Every test that
passes plainly has to pass with the layer, except those in the table of tests/foreign/known.py. Ends with 1 if
one does not or the table is stale, and with 69 if a suite cannot be downloaded or installed.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.foreign import known, prepare, runs
from tests.foreign.prepare import NotAvailable, Prepared
from tests.foreign.suites import PLAIN, SUITES, suite

UNAVAILABLE = 69


class Totals:
    """Counts the tests of all suites and remembers what is wrong."""

    def __init__(self, verbose: bool) -> None:
        self.plain = self.listed = self.wrong = 0
        self._verbose = verbose

    def run(self, prepared: Prepared, ways: Iterable[str]) -> None:
        """Run one suite plainly and in all the ``ways``."""
        plain = runs.run(prepared, PLAIN)
        self.plain += len(plain.passed)
        print(f"{prepared.suite.sdist}: {len(plain.passed)} of {len(plain.tests)} tests pass", flush=True)
        if plain.end or not plain.passed:
            self.wrong += 1
            print(f"    plainly it {plain.end or 'passes none'}: {plain.output[-2000:].strip()}")
            return
        for way in ways:
            self._add(prepared.suite.name, way, runs.compare(prepared, plain, way))

    def _add(self, name: str, way: str, result: runs.Comparison) -> None:
        unlisted = [one for one in result.differences if not known.reason_of(name, way, one.test)]
        listed = len(result.differences) - len(unlisted)
        stale = known.stale(name, way, [*(one.test for one in result.differences), *result.unsteady])
        self.listed += listed
        self.wrong += len(unlisted) + len(stale)
        counts = (
            (listed, "listed"),
            (len(unlisted), "not listed"),
            (len(result.unsteady), "unsteady"),
        )
        told = ", ".join(f"{count} {what}" for count, what in counts if count)
        print(f"    {way}: {told or 'no difference'}", flush=True)
        if result.layered.end or result.layered.left:
            self.wrong += 1
            ended = result.layered.end or f"left {result.layered.left}"
            print(f"    {way}: it {ended}: {result.layered.output[-500:].strip()}")
        for test in result.unsteady:
            print(f"        unsteady: {test}")
        for one in result.differences if self._verbose else unlisted:
            print(f"        {one.outcome}: {one.test}\n{_indented(one.message)}", flush=True)
        for pattern in stale:
            print(f"        listed in tests/foreign/known.py, but there is no such difference: {pattern}")

    def __str__(self) -> str:
        return (
            f"Python {platform.python_version()}: {self.plain} foreign tests pass plainly; with the layer "
            f"{self.listed} differences are listed, {self.wrong} are not"
        )


def _indented(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip(" ^~")]
    return "\n".join(f"            {line}" for line in lines[-12:])


def main(arguments: Iterable[str] | None = None) -> int:
    names = [one.name for one in SUITES]
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(names)}")
    parser.add_argument("--ways", help="only these ways to run them, with commas between them")
    parser.add_argument(
        "--cache", type=Path, default=prepare.default_cache(), help="where downloads are kept"
    )
    parser.add_argument("--verbose", action="store_true", help="tell of the listed differences, too")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    totals = Totals(options.verbose)
    try:
        for name in options.names or names:
            chosen = suite(name)
            ways = options.ways.split(",") if options.ways else chosen.ways
            totals.run(prepare.prepare(chosen, options.cache), [way for way in chosen.ways if way in ways])
    except NotAvailable as exc:
        print(exc)
        return UNAVAILABLE
    print(totals)
    return 1 if totals.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
