"""Whole requests on real servers, guarded and plain: ``python -m tests.benchmarks servers``.

All servers are up at once, on one core; the client is on another one. A round asks the plain and the guarded
server for one row, one after the other. Its cost is plain requests a second over guarded ones; the table has
the median over the rounds and the middle half.

Then the round asks both at once. The last column is the processor time that a request took in the guarded
server's process over that in the plain one's. Other work on the machine meets both alike then, so it is the
surer of the two for a small cost; but it has no time in it that a server waits for the disk. The servers are
started anew several times: a process has its own luck with the places of what it keeps in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.support import PROJECT, free_port

from . import load
from .served import PATHS, set_up

#: How each server is started, by its name in the table; ``PORT`` stands for the port.
SERVERS: Final = {
    "uvicorn, Starlette": (
        *("-m", "uvicorn", "--factory", "--host", "127.0.0.1", "--port", "PORT"),
        *("--log-level", "warning", "tests.benchmarks.served:asgi"),
    ),
    "gunicorn gthread, Flask": (
        *("-m", "gunicorn", "--worker-class", "gthread", "--threads", "4", "--bind", "127.0.0.1:PORT"),
        *("--log-level", "warning", "tests.benchmarks.served:wsgi()"),
    ),
}

#: The largest cost that is allowed, by server and row.
BOUNDS: Final = {
    "uvicorn, Starlette": (1.03, 0.75, 1.05, 1.05, 1.05),
    "gunicorn gthread, Flask": (1.03, 0.90, 1.05, 1.05, 1.05),
}

#: Seconds until a server has to answer.
_PATIENCE: Final = 30


class Server:
    """One running server."""

    def __init__(self, command: tuple[str, ...], *, guarded: bool, place: str, core: int | None) -> None:
        self.port = int(free_port())
        os.mkdir(place)
        set_up(place)
        environment = {**os.environ, "BENCHMARK_GUARDED": str(int(guarded)), "BENCHMARK_PLACE": place}
        arguments = [argument.replace("PORT", str(self.port)) for argument in command]
        self._process = subprocess.Popen([sys.executable, *arguments], cwd=PROJECT, env=environment)
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})
        self._clock = _processor_clock(self._find_process())

    def _find_process(self) -> int:
        """The number of the process that answers. Raises OSError if none does in time."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/process") as answer:
                    return int(json.load(answer)["answer"])
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def put(self, path: str, seconds: int, core: int | None) -> Rate:
        """Put requests for ``path`` to it."""
        before = time.clock_gettime(self._clock)
        rate = load.put(self.port, path, seconds, core)
        used = time.clock_gettime(self._clock) - before
        return Rate(rate, used / (rate * seconds))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_PATIENCE)


@dataclass(frozen=True)
class Rate:
    """What a server did: requests a second, and processor seconds for one request."""

    requests: float
    processor: float


@dataclass
class Pair:
    """The plain and the guarded server of one kind."""

    plain: Server
    guarded: Server

    def in_turn(self, path: str, seconds: int, core: int | None, *, plain_first: bool) -> tuple[Rate, Rate]:
        """Ask one after the other. Returns what the plain one and what the guarded one did."""
        if plain_first:
            return self.plain.put(path, seconds, core), self.guarded.put(path, seconds, core)
        guarded = self.guarded.put(path, seconds, core)
        return self.plain.put(path, seconds, core), guarded

    def at_once(self, path: str, seconds: int, core: int | None) -> tuple[Rate, Rate]:
        """The same, but ask both at the same time."""
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(side.put, path, seconds, core) for side in (self.plain, self.guarded)]
            return asked[0].result(), asked[1].result()


@dataclass
class Costs:
    """The rounds of one row on one server."""

    #: Requests a second, asked in turn.
    plain: list[float] = field(default_factory=list)
    guarded: list[float] = field(default_factory=list)
    #: Guarded over plain, asked at once.
    by_processor: list[float] = field(default_factory=list)

    def by_requests(self) -> list[float]:
        return [plain / guarded for plain, guarded in zip(self.plain, self.guarded, strict=True)]

    def add(self, pair: Pair, path: str, seconds: int, core: int | None) -> None:
        """Do a round."""
        plain, guarded = pair.in_turn(path, seconds, core, plain_first=len(self.plain) % 2 == 0)
        self.plain.append(plain.requests)
        self.guarded.append(guarded.requests)
        plain, guarded = pair.at_once(path, seconds, core)
        self.by_processor.append(guarded.processor / plain.processor)


def _processor_clock(process: int) -> int:
    """The clock of the processor time of ``process`` with all of its threads: see clock_getcpuclockid(3)."""
    return ~process << 3 | 2


@contextmanager
def _running(directory: str, names: list[str], core: int | None) -> Iterator[dict[str, Pair]]:
    """The servers by their names."""
    with ExitStack() as stack:
        pairs = {}
        for number, name in enumerate(names):
            sides = []
            for guarded in (False, True):
                place = f"{directory}/{number}-{int(guarded)}"
                server = Server(SERVERS[name], guarded=guarded, place=place, core=core)
                stack.callback(server.stop)
                sides.append(server)
            pairs[name] = Pair(*sides)
        yield pairs


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks servers", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a row is beyond its bound")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="starts of the servers: 3")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds for each row and start: 5")
    parser.add_argument("--seconds", type=int, default=1, metavar="N", help="seconds for each side: 1")
    parser.add_argument("--only", default="", metavar="TEXT", help="only servers or rows that contain TEXT")
    options = parser.parse_args(arguments)
    wanted = [(name, row) for name in SERVERS for row in PATHS if options.only in name or options.only in row]
    costs = {which: Costs() for which in wanted}
    for number in range(options.starts):
        _measure(costs, options.rounds, options.seconds)
        print(f"start {number + 1} of {options.starts} done", file=sys.stderr)
    passed = _print_table(costs)
    return 0 if passed or not options.check else 1


def _measure(costs: dict[tuple[str, str], Costs], rounds: int, seconds: int) -> None:
    """Start the servers, do so many rounds, and stop them."""
    cores = sorted(os.sched_getaffinity(0))
    serving, asking = (cores[-1], cores[0]) if len(cores) > 1 else (None, None)
    names = list(dict.fromkeys(name for name, _ in costs))
    with (
        # A project below the real /tmp is for tests only: each request has to make mount points for it.
        tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as directory,
        _running(directory, names, serving) as pairs,
    ):
        for name, row in costs:
            pairs[name].in_turn(PATHS[row], 1, asking, plain_first=True)  # to warm up
        for _ in range(rounds):
            for (name, row), found in costs.items():
                found.add(pairs[name], PATHS[row], seconds, asking)


def _print_table(costs: dict[tuple[str, str], Costs]) -> bool:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, {machine}, requests by {load.program()}\n")
    print("| server | request | plain | guarded | cost (middle half) | bound | | by processor time |")
    print("|---|---|---:|---:|---:|---:|---|---:|")
    passed = True
    for (name, row), found in costs.items():
        bound = BOUNDS[name][list(PATHS).index(row)]
        cost = statistics.median(found.by_requests())
        passed = passed and cost <= bound
        plain, guarded = (f"{statistics.median(side):,.0f}/s" for side in (found.plain, found.guarded))
        print(
            f"| {name} | {row} | {plain} | {guarded} | {_spread(found.by_requests())} | {bound:.2f} "
            f"| {'ok' if cost <= bound else '**beyond**'} | {_spread(found.by_processor)} |"
        )
    return passed


def _spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios * 2, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
