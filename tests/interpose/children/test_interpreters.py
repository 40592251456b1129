"""Subinterpreters see the real file system, and are treated as child processes (C6.3)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard

interpreters: Any = pytest.importorskip("concurrent.interpreters", reason="only Python 3.14 has these")
futures: Any = importlib.import_module("concurrent.futures")


@pytest.fixture
def made_before() -> Iterator[Any]:
    made = interpreters.create()
    yield made
    made.close()


def make_and_close() -> None:
    interpreters.create().close()


def submit() -> None:
    with futures.InterpreterPoolExecutor(1) as pool:
        assert pool.submit(sum, [1, 2]).result() == 3


def guard_with(children: str, scratch_root: Path) -> tmpguard.Guard:
    guard = tmpguard.Guard(children="refuse", scratch_root=scratch_root, bundle=None)
    guard.children = children  # "contain" needs nothing of the machine here
    return guard


def test_they_are_allowed_and_logged_once_a_line(
    scratch_root: Path, made_before: Any, caplog: pytest.LogCaptureFixture
) -> None:
    guard = guard_with("allow", scratch_root)
    with guard.invocation() as invocation, caplog.at_level(logging.WARNING, "tmpguard"):
        for _ in range(2):
            submit()
            make_and_close()
            made_before.exec("pass")
    assert invocation.report.violations == ()
    assert len(caplog.records) == 3
    assert all("cannot be contained" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("children", ["refuse", "contain"])
@pytest.mark.parametrize("use", [submit, make_and_close, None], ids=["submit", "create", "exec"])
def test_they_are_refused(
    children: str, use: Callable[[], None] | None, scratch_root: Path, made_before: Any
) -> None:
    guard = guard_with(children, scratch_root)
    with guard.invocation() as invocation, pytest.raises(OSError, match="not permitted"):
        use() if use is not None else made_before.exec("pass")
    assert len(invocation.report.violations) == 1
    remedy = invocation.report.violations[0].remedy
    assert ("cannot be contained" in remedy) is (children == "contain")
