"""What a finalizer or the end of the request tries again is no second finding (C2.3)."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from errno import ENOSPC
from typing import Any

import pytest

import tmpguard
from tests.support import MB

OPENED: dict[str, Callable[[], Any]] = {
    "binary": lambda: open("/tmp/a", "wb"),
    "text": lambda: open("/tmp/a", "w"),
    "random access": lambda: open("/tmp/a", "w+b"),
    "large buffer": lambda: open("/tmp/a", "wb", 100_000),
    "descriptor": lambda: os.fdopen(os.open("/tmp/a", os.O_WRONLY | os.O_CREAT), "wb"),
    "temporary": lambda: tempfile.TemporaryFile(),
}


@pytest.fixture
def guard(scratch_root: Any) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


def fill(file: Any) -> None:
    piece: Any = "x" * 100 if hasattr(file, "encoding") else b"x" * 100

    def write() -> None:
        for _ in range(2 * MB // 100):
            file.write(piece)

    with pytest.raises(OSError, match="No space"):
        write()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("opened", OPENED)
def test_a_file_that_is_dropped_is_refused_once(guard: tmpguard.Guard, opened: str) -> None:
    with guard.invocation() as invocation:
        file = OPENED[opened]()
        fill(file)
        (violation,) = invocation.report.violations
        del file
        gc.collect()
        assert invocation.report.violations == (violation,)
    assert (violation.errno, violation.location and violation.location.function) == (
        ENOSPC,
        "fill.<locals>.write",
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("opened", OPENED)
def test_a_file_that_outlives_the_request_is_refused_once(guard: tmpguard.Guard, opened: str) -> None:
    with guard.invocation() as invocation:
        file = OPENED[opened]()
        fill(file)
    tmpguard.drain()
    del file
    gc.collect()
    assert len(invocation.report.violations) == 1
    assert not invocation.report.late_writes


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_bytes_of_a_dropped_file_are_another_finding(guard: tmpguard.Guard) -> None:
    """What was never refused before is lost there, and nobody else says so."""
    with guard.invocation() as invocation:
        with open("/tmp/b", "wb", 0) as other:
            other.write(bytes(MB))
        file = open("/tmp/a", "wb")
        file.write(b"y" * 1000)
        del file
        gc.collect()
    assert [violation.path for violation in invocation.report.violations] == ["/tmp/a"]


def test_what_the_application_tries_again_is_another_finding(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        file = open("/tmp/a", "wb")
        fill(file)
        with pytest.raises(OSError, match="No space"):
            file.flush()
        assert len(invocation.report.violations) == 2
        with pytest.raises(OSError, match="No space"):
            file.close()
