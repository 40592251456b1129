"""File operations outside any invocation: start-up code, tests, other threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .measure import Batch, Prepare, Row


def _install(guarded: bool, *, served: bool) -> None:
    """Install the patched layer; ``served``: as it is in a process that has had an invocation."""
    if guarded:
        import tmpguard

        guard = tmpguard.Guard(bundle=None)
        if served:
            with guard.invocation():
                os.listdir("/tmp")


def _file(directory: str) -> str:
    path = os.path.join(directory, "file.txt")
    with open(path, "w") as file:
        file.write("text")
    return path


def _stat(served: bool) -> Prepare:
    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        _install(guarded, served=served)
        path = _file(directory)

        def batch(count: int) -> None:
            for _ in range(count):
                os.stat(path)

        yield batch

    return prepare


def _open(served: bool) -> Prepare:
    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        _install(guarded, served=served)
        path = _file(directory)

        def batch(count: int) -> None:
            for _ in range(count):
                open(path).close()

        yield batch

    return prepare


ROWS = (
    # In this order, and before all other rows: a process that has served once never is as before.
    Row("outside, before the first invocation: `os.stat`", 1.10, _stat(served=False)),
    Row("outside, before the first invocation: `open`", 1.05, _open(served=False)),
    Row("outside, after the first invocation: `os.stat`", 1.10, _stat(served=True)),
    Row("outside, after the first invocation: `open`", 1.10, _open(served=True)),
)
