"""What invocations leave behind: descriptors, threads, directories, memory.

`tests/core/test_leaks.py` holds the same facts with fewer invocations.
"""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from dataclasses import dataclass

import tmpguard


@dataclass(frozen=True)
class Left:
    """What was there after a run of invocations and not before it."""

    descriptors: int
    threads: int
    directories: int

    @property
    def nothing(self) -> bool:
        return self.descriptors <= 0 and self.threads <= 0 and self.directories <= 0


def work(guard: tmpguard.Guard) -> None:
    """One invocation that uses files and directories and leaves them to the wipe."""
    with guard.invocation():
        os.makedirs("/tmp/a/b")
        with open("/tmp/a/b/file.txt", "w") as file:
            file.write("text")
        os.symlink("/etc/passwd", "/tmp/a/link")
        os.listdir("/tmp/a")


def left_by(invocations: int, guard: tmpguard.Guard, scratch_root: str) -> Left:
    """Run so many invocations and count what they leave. ``scratch_root`` is the guard's."""
    work(guard)  # what is made once and kept is there before the count
    tmpguard.drain()
    before = _counts(scratch_root)
    for _ in range(invocations):
        work(guard)
    tmpguard.drain()
    after = _counts(scratch_root)
    return Left(*(late - early for early, late in zip(before, after, strict=True)))


def growth_over(invocations: int, guard: tmpguard.Guard) -> int:
    """Bytes of Python memory by which the second half of so many invocations has grown the process."""
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(2):
            for _ in range(invocations // 2):
                work(guard)
            tmpguard.drain()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes[1] - sizes[0]
    finally:
        tracemalloc.stop()


def _counts(scratch_root: str) -> tuple[int, int, int]:
    gc.collect()
    directories = sum(len(names) for _, names, _ in os.walk(scratch_root))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), directories
