"""Invocations leave nothing behind in the process or on the disk (C4.2, C4.7).

The benchmarks count the same with 1,000 and 20,000 invocations; here are enough to see a leak of one each.
"""

from __future__ import annotations

import pathlib
import threading

import tmpguard
from tests.benchmarks import leaks

INVOCATIONS = 60
SMALLEST = 48
"""Bytes: an object with a reference or two. A leak of one for each invocation is seen."""


def test_invocations_leave_no_descriptor_thread_or_directory(tmp_path: pathlib.Path) -> None:
    guard = tmpguard.Guard(scratch_root=str(tmp_path), bundle=None)
    left = leaks.left_by(INVOCATIONS, guard, str(tmp_path))
    # Fewer is no leak: what an earlier test left to the background thread may go meanwhile.
    assert left.nothing, left


def test_background_ends_leave_no_descriptor_thread_or_directory(tmp_path: pathlib.Path) -> None:
    guard = tmpguard.Guard(scratch_root=str(tmp_path), bundle=None)

    def end_in_the_background() -> None:
        invocation = guard.invocation()
        with invocation.bound():
            with open("/tmp/file.txt", "w") as file:
                file.write("text")
        invocation.end()

    end_in_the_background()
    assert tmpguard.drain(timeout=60)
    threads, directories = set(threading.enumerate()), sorted(path.name for path in tmp_path.rglob("*"))
    for _ in range(INVOCATIONS):
        end_in_the_background()
    assert tmpguard.drain(timeout=60)
    assert set(threading.enumerate()) <= threads
    assert sorted(path.name for path in tmp_path.rglob("*")) == directories


def test_memory_stays_flat_over_many_invocations(tmp_path: pathlib.Path) -> None:
    guard = tmpguard.Guard(scratch_root=str(tmp_path), bundle=None)
    leaks.growth_over(100, guard)  # what is filled once, is filled
    # A table of the interpreter's that is made larger counts once, and a leak in every run.
    assert any(leaks.growth_over(2_000, guard) < 1_000 * SMALLEST for _ in range(3))
