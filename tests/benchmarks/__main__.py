"""The command: measures all rows and prints them as a table in Markdown.

``python -m tests.benchmarks servers`` measures whole requests on real servers instead, ``python -m
tests.benchmarks instructions`` counts what they execute, ``python -m tests.benchmarks plot`` draws what a
request costs by the number of its files.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile

from . import cold
from .measure import Measured, Row, Samples, alternate, calibrate
from .rows import ROWS
from .workers import Worker

INVOCATIONS = 1_000
MANY_INVOCATIONS = 20_000
FLAT_BYTES = 64 * 1024
"""What the second half of the many invocations may add: far below ten bytes for each of them."""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["servers"]:
        from . import servers

        return servers.main(arguments[1:])
    if arguments[:1] == ["instructions"]:
        from . import instructions

        return instructions.main(arguments[1:])
    if arguments[:1] == ["plot"]:
        from . import plot

        return plot.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a row is beyond its bound")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that everything runs")
    parser.add_argument("--only", metavar="TEXT", default="", help="only the rows whose name contains TEXT")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of processes: 7, or 1 with --quick")
    options = parser.parse_args(arguments)
    pairs = options.pairs or (1 if options.quick else 7)
    rows = [row for row in ROWS if options.only in row.name]

    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        passed = not rows or _ratios(rows, pairs, options.quick, directory)
        if options.only in "leaks":
            passed = _leaks(options.quick, directory) and passed
    if options.only in cold.NAME:
        passed = _cold_start(3 if options.quick else 15) and passed
    return 0 if passed or not options.check else 1


def _ratios(rows: list[Row], pairs: int, quick: bool, directory: str) -> bool:
    samples = {row.name: Samples([], [], []) for row in rows}
    counts: dict[str, int] = {}
    for number in range(pairs):
        for both_guarded in (False, True):
            chosen = [row for row in rows if row.both_guarded is both_guarded]
            if chosen:
                place = os.path.join(directory, f"{number}-{both_guarded}")
                _pair(chosen, samples, counts, quick, both_guarded, place)
        print(f"pair {number + 1} of {pairs} done", file=sys.stderr)

    cores = os.cpu_count()
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {cores} cores\n")
    print("| measured | plain | guarded | ratio (middle half) | bound | |")
    print("|---|---:|---:|---:|---:|---|")
    results = [samples[row.name].summary(row) for row in rows]
    for result in results:
        print(_line(result))
    return all(result.passed for result in results)


def _pair(
    rows: list[Row], samples: dict[str, Samples], counts: dict[str, int], quick: bool, both: bool, place: str
) -> None:
    """Measure the rows once on a fresh pair of processes."""
    sides = [os.path.join(place, name) for name in ("plain", "guarded")]
    for side in sides:
        os.makedirs(side)
    plain = Worker(guarded=False, may_import=both, directory=sides[0])
    guarded = Worker(guarded=True, may_import=True, directory=sides[1])
    for row in rows:
        plain.prepare(row)
        guarded.prepare(row)
        if row.name not in counts:
            counts[row.name] = calibrate(plain, row.seconds)
        count = counts[row.name]
        for side in (plain, guarded):
            side.time(count)  # the caches and the interpreter's inlining are warm in what is counted
        alternate(plain, guarded, count, 4 if quick else row.rounds, samples[row.name])
        plain.finish()
        guarded.finish()
    plain.close()
    guarded.close()


def _line(result: Measured) -> str:
    spread = f"{result.ratio:.3f} ({result.low:.2f} to {result.high:.2f})"
    times = f"{_time(result.plain)} | {_time(result.guarded)}"
    return f"| {result.row.name} | {times} | {spread} | {bound_of(result.row)} | {result.verdict} |"


def bound_of(row: Row) -> str:
    """The bound as the table has it."""
    return "none" if row.bound is None else f"{row.bound:.2f}"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e6:.2f} µs"


def _cold_start(rounds: int) -> bool:
    row, passed = cold.line(cold.starts(rounds))
    print("\n| measured | FastAPI | tmpguard | ratio (middle half) | bound | |")
    print("|---|---:|---:|---:|---:|---|")
    print(row)
    return passed


def _leaks(quick: bool, directory: str) -> bool:
    import tmpguard

    from . import leaks

    root = os.path.join(directory, "leaks")
    os.mkdir(root)
    guard = tmpguard.Guard(scratch_root=root, bundle=None)
    invocations, many = (50, 200) if quick else (INVOCATIONS, MANY_INVOCATIONS)
    left = leaks.left_by(invocations, guard, root)
    growth = leaks.growth_over(many, guard)
    flat = growth <= FLAT_BYTES
    print("\n| measured | result | bound | |")
    print("|---|---:|---:|---|")
    print(
        f"| {invocations:,} invocations leave | {left.descriptors} descriptors, {left.threads} threads, "
        f"{left.directories} directories | none | {'ok' if left.nothing else '**beyond**'} |"
    )
    print(
        f"| memory added by the second half of {many:,} invocations | {growth / 1024:.1f} KiB "
        f"| {FLAT_BYTES // 1024} KiB | {'ok' if flat else '**beyond**'} |"
    )
    return left.nothing and flat


if __name__ == "__main__":
    raise SystemExit(main())
