"""What the tests of the middlewares share: a small guard whose reports and scratch directories are seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import left_in

#: The names that the applications here use in their /tmp. None of them may ever turn up in the real one.
NAMES = ("same.txt", "body.txt", "late.txt", "callback.txt", "upload.txt")


@pytest.fixture(autouse=True)
def real_tmp() -> Iterator[None]:
    """The real /tmp is never touched (C4.2)."""
    before = {name for name in NAMES if os.path.lexists(f"/tmp/{name}")}
    yield
    tmpguard.drain()
    assert {name for name in NAMES if os.path.lexists(f"/tmp/{name}")} == before


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """The scratch root of the test's guard; at the end nothing is left in it (C4.2)."""
    root = tmp_path / "scratch"
    root.mkdir()
    yield root
    assert tmpguard.drain(30)
    assert left_in(root) == []


@pytest.fixture
def reports() -> list[tmpguard.Report]:
    """The final report of every invocation that ended, in their order; see ``ended``."""
    return []


@pytest.fixture
def ended(reports: list[tmpguard.Report]) -> Callable[[], list[tmpguard.Report]]:
    """Waits for the background and returns the reports of all invocations that ended so far."""

    def wait() -> list[tmpguard.Report]:
        assert tmpguard.drain(30)
        return reports

    return wait


@pytest.fixture
def options(scratch: Path, reports: list[tmpguard.Report]) -> dict[str, Any]:
    """Options of a guard of 1 MB, for a middleware that takes options."""
    return {"storage_size": 1, "bundle": None, "scratch_root": scratch, "on_report": reports.append}


@pytest.fixture
def guard(options: dict[str, Any]) -> tmpguard.Guard:
    return tmpguard.Guard(**options)
