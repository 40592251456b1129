"""What a request costs by the number of files that it writes: ``python -m tests.benchmarks plot``.

A request writes so many files of 4 KiB and reads each of them. It has a ``/tmp`` of its own from tmpguard, a
``TemporaryDirectory`` made by hand, or the fake file system of pyfakefs, which patches the same functions.
Each of these runs in a process of its own, and is measured by the processor time of all its threads: the
wipes that tmpguard leaves to its own thread are waited for. The command prints the table, and draws it as an
SVG, docs/images/files.svg if no other name is given.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support import PROJECT

COUNTS: Final = (0, 1, 2, 5, 20, 100)
DATA: Final = bytes(4096)
PICTURE: Final = PROJECT / "docs" / "images" / "files.svg"

#: How often each way is measured, in turns, and for how many seconds.
_TURNS: Final = 5
_SECONDS: Final = 3.0

Request = Callable[[int], None]


def _work(directory: str, count: int) -> None:
    for number in range(count):
        path = f"{directory}/{number}"
        with open(path, "wb") as file:
            file.write(DATA)
        with open(path, "rb") as file:
            assert len(file.read()) == len(DATA)


@contextmanager
def _by_tmpguard(place: str) -> Iterator[Request]:
    import tmpguard

    guard = tmpguard.Guard(bundle=None, scratch_root=place)

    def request(count: int) -> None:
        invocation = guard.invocation()
        with invocation.bound():
            _work("/tmp", count)
        invocation.end()
        tmpguard.drain()

    yield request


@contextmanager
def _by_hand(place: str) -> Iterator[Request]:
    def request(count: int) -> None:
        with tempfile.TemporaryDirectory(dir=place) as directory:
            _work(directory, count)

    yield request


@contextmanager
def _by_pyfakefs(place: str) -> Iterator[Request]:
    from pyfakefs.fake_filesystem_unittest import Patcher

    def request(count: int) -> None:
        with Patcher():
            _work("/tmp", count)

    yield request


#: The contenders, with the colours of their lines.
WAYS: Final = {
    "tmpguard": (_by_tmpguard, "#2a6fdb"),
    "TemporaryDirectory by hand": (_by_hand, "#3a9d5d"),
    "pyfakefs": (_by_pyfakefs, "#c2571a"),
}


def measured(way: str, seconds: float) -> list[float]:
    """The processor seconds of a request for each of the COUNTS: medians, in this process."""
    times: list[list[float]] = [[] for _ in COUNTS]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, WAYS[way][0](place) as request:
        for count in COUNTS:
            request(count)  # the caches are warm in what is counted
        end = time.perf_counter() + seconds
        while len(times[0]) < 3 or time.perf_counter() < end:
            for kept, count in zip(times, COUNTS, strict=True):
                begin = time.process_time()
                request(count)
                kept.append(time.process_time() - begin)
    return [statistics.median(kept) for kept in times]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks plot", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_SECONDS, metavar="N", help="for each turn: 3")
    parser.add_argument("--way", choices=WAYS, help="measure this one alone, and print its points as JSON")
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    if options.way:
        print(json.dumps(measured(options.way, options.seconds)))
        return 0
    turns = [{way: _elsewhere(way, options.seconds) for way in WAYS} for _ in range(_TURNS)]
    points = {
        way: [statistics.median(turn[way][number] for turn in turns) for number in range(len(COUNTS))]
        for way in WAYS
    }
    print(f"| files | {' | '.join(points)} |\n|---:|{'---:|' * len(points)}")
    for number, count in enumerate(COUNTS):
        print(f"| {count} | {' | '.join(spelled(found[number]) for found in points.values())} |")
    options.picture.write_text(drawn(points))
    return 0


def _elsewhere(way: str, seconds: float) -> list[float]:
    command = [sys.executable, "-m", "tests.benchmarks", "plot", "--way", way, "--seconds", str(seconds)]
    printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return [float(value) for value in json.loads(printed)]


def spelled(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


# --- the picture ---------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _ROOM = 640, 360, 70, 30, 170


def drawn(points: dict[str, list[float]]) -> str:
    """The SVG: one line for each of ``points``, with the time on a logarithmic axis."""
    every = [value for found in points.values() for value in found]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))

    def across(number: int) -> float:
        return _LEFT + number * (_WIDTH - _LEFT - _ROOM) / (len(COUNTS) - 1)

    def down(seconds: float) -> float:
        return _TOP + (high - math.log10(seconds)) / (high - low) * (_HEIGHT - _TOP - 50)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#555">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for power in range(low, high + 1):
        y = down(10.0**power)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _ROOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{spelled(10.0**power)}</text>')
    for number, count in enumerate(COUNTS):
        parts.append(f'<text x="{across(number):.1f}" y="{_HEIGHT - 30}" text-anchor="middle">{count}</text>')
    middle = (_LEFT + _WIDTH - _ROOM) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">files of a request</text>')
    parts.append(f'<text x="{_LEFT}" y="16">processor time of a request</text>')
    for way, found in points.items():
        line = " ".join(f"{across(number):.1f},{down(value):.1f}" for number, value in enumerate(found))
        colour = WAYS[way][1]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        end = down(found[-1]) + 4
        parts.append(f'<text x="{_WIDTH - _ROOM + 8}" y="{end:.1f}" fill="{colour}">{way}</text>')
    return "\n".join([*parts, "</svg>", ""])
