"""A cold start: importing tmpguard, its first guard and its first invocation, against importing FastAPI.

Both in one process, FastAPI first, as in an application that uses both: what is imported for either one is
paid for by FastAPI. Each round is a new process. It is measured by processor time: what else the machine does
meanwhile would disturb half a second more than anything.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Not from tests.support, which imports tmpguard: the plain side of the rows is forked from this process.
PROJECT: Final = Path(__file__).parents[2]

NAME: Final = "cold start: import, first guard and first invocation, against `import fastapi`"

BOUND: Final = 0.25
"""The largest ratio that is allowed."""

_CODE: Final = """
import time
begin = time.process_time()
import fastapi
between = time.process_time()
import tmpguard
guard = tmpguard.Guard(bundle=None)
with guard.invocation():
    pass
print(between - begin, time.process_time() - between)
"""


def start() -> tuple[float, float]:
    """The processor seconds of both in a new process."""
    command = [sys.executable, "-c", _CODE]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # which a container's image often sets
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT, env=environment)
    printed = done.stdout
    fastapi, own = map(float, printed.split())
    return fastapi, own


def starts(rounds: int) -> list[tuple[float, float]]:
    """So many of them, after one that fills the caches and writes the bytecode."""
    start()
    return [start() for _ in range(rounds)]


def line(found: list[tuple[float, float]]) -> tuple[str, bool]:
    """The row of the table, and whether it is within the bound."""
    low, ratio, high = statistics.quantiles([own / fastapi for fastapi, own in found], method="inclusive")
    fastapi, own = (statistics.median(side) * 1e3 for side in zip(*found, strict=True))
    passed = ratio <= BOUND
    verdict = "ok" if passed else "**beyond**"
    return (
        f"| {NAME} | {fastapi:.0f} ms | {own:.0f} ms | {ratio:.3f} ({low:.2f} to {high:.2f}) "
        f"| {BOUND:.2f} | {verdict} |",
        passed,
    )
