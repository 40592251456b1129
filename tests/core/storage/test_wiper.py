"""The end of an invocation is announced and wiped on a background thread, once (C4.2, C4.4)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads
from tmpguard.core.storage.scratch import ScratchRoot

CROWD = 8

Reported = tuple[tmpguard.Guard, list[tuple[tmpguard.Report, threading.Thread]]]


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


@pytest.fixture
def reported(scratch_root: Path) -> Reported:
    """A guard, and the reports that its callback was given with the thread that it was called on."""
    calls: list[tuple[tmpguard.Report, threading.Thread]] = []
    guard = tmpguard.Guard(
        scratch_root=scratch_root,
        bundle=None,
        on_report=lambda report: calls.append((report, threading.current_thread())),
    )
    return guard, calls


def test_end_may_be_called_again(reported: Reported, scratch_root: Path) -> None:
    guard, calls = reported
    invocation = guard.invocation()
    with invocation.bound():
        write("/tmp/file.txt", "text")
    for _ in range(3):
        invocation.end()
    with invocation.bound():
        invocation.end()
    assert tmpguard.drain(timeout=30)
    assert len(calls) == 1


def test_end_may_be_called_by_many_threads_at_once(reported: Reported) -> None:
    guard, calls = reported
    for _ in range(20):
        invocation = guard.invocation()
        barrier = threading.Barrier(CROWD)

        def end(_: int, invocation: Any = invocation, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            invocation.end()

        with invocation.bound():
            write("/tmp/file.txt", "text")
        in_threads(CROWD, end)
    assert tmpguard.drain(timeout=30)
    assert len(calls) == 20


def test_end_within_the_block_is_no_second_end(reported: Reported) -> None:
    guard, calls = reported
    with guard.invocation() as invocation:
        write("/tmp/file.txt", "text")
        invocation.end()
    assert tmpguard.drain(timeout=30)
    assert len(calls) == 1


def test_the_client_does_not_wait_for_the_wipe(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch, scratch_root: Path
) -> None:
    """C4.4: ``end`` returns while the wipe is still at its first step."""
    may_wipe, wiped_by = threading.Event(), []
    discard = ScratchRoot.discard

    def slow(self: ScratchRoot, directory: str, *more: Any) -> Any:
        assert may_wipe.wait(30)
        wiped_by.append(threading.current_thread())
        return discard(self, directory, *more)

    monkeypatch.setattr(ScratchRoot, "discard", slow)
    invocation = guard.invocation()
    with invocation.bound():
        os.makedirs("/tmp/a/b")
    invocation.end()
    assert wiped_by == []
    may_wipe.set()
    assert tmpguard.drain(timeout=30)
    assert wiped_by
    assert threading.current_thread() not in wiped_by


# --- on_report and drain -------------------------------------------------------------------------------


def end_in_block(invocation: tmpguard.Invocation) -> None:
    with invocation:
        write("/tmp/file.txt", "text")


def end_in_background(invocation: tmpguard.Invocation) -> None:
    with invocation.bound():
        write("/tmp/file.txt", "text")
    invocation.end()


def end_without_a_file(invocation: tmpguard.Invocation) -> None:
    invocation.end()


ENDS = [end_in_block, end_in_background, end_without_a_file]


@pytest.mark.parametrize("end", ENDS)
def test_on_report_is_called_once_on_another_thread(
    end: Callable[[tmpguard.Invocation], None], reported: Reported
) -> None:
    guard, calls = reported
    invocation = guard.invocation()
    end(invocation)
    assert tmpguard.drain(timeout=30)
    ((report, thread),) = calls
    assert report is invocation.report
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("end", ENDS)
def test_on_report_comes_after_the_wipe_and_belongs_to_no_invocation(
    end: Callable[[tmpguard.Invocation], None], scratch_root: Path
) -> None:
    """C4.2, C6.4: what the callback writes goes to the real file system."""
    seen: list[tuple[object, list[str]]] = []

    def on_report(report: tmpguard.Report) -> None:
        left = [path.name for path in scratch_root.glob("*/*")]
        seen.append((tmpguard.current(), left))
        (scratch_root.parent / "report.txt").write_text(repr(report))

    end(tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=on_report).invocation())
    assert tmpguard.drain(timeout=30)
    assert seen == [(None, [])]
    assert (scratch_root.parent / "report.txt").exists()


@pytest.mark.parametrize("end", ENDS)
def test_an_exception_of_on_report_is_logged_and_harmless(
    end: Callable[[tmpguard.Invocation], None], scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def on_report(_: tmpguard.Report) -> None:
        raise RuntimeError("of the callback")

    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=on_report)
    for _ in range(2):
        end(guard.invocation())
    assert tmpguard.drain(timeout=30)
    records = [record for record in caplog.records if record.name == "tmpguard"]
    assert [record.levelno for record in records] == [logging.ERROR, logging.ERROR]
    assert all("of the callback" in str(record.exc_text or record.exc_info) for record in records)


def test_drain_gives_up_after_its_timeout(scratch_root: Path) -> None:
    release = threading.Event()
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=lambda _: release.wait(30))
    guard.invocation().end()
    assert tmpguard.drain(timeout=0.01) is False
    release.set()
    assert tmpguard.drain(timeout=30) is True


def test_drain_within_the_callback_does_not_wait_for_itself(scratch_root: Path) -> None:
    answers: list[bool] = []
    guard = tmpguard.Guard(
        scratch_root=scratch_root, bundle=None, on_report=lambda _: answers.append(tmpguard.drain())
    )
    guard.invocation().end()
    assert tmpguard.drain(timeout=30)
    assert answers == [True]


def test_the_report_within_the_callback_is_final(scratch_root: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    guard = tmpguard.Guard(
        scratch_root=scratch_root,
        bundle=None,
        on_report=lambda report: seen.append((report.used_bytes, report.peak_bytes, report.files)),
    )
    end_in_background(guard.invocation())
    assert tmpguard.drain(timeout=30)
    assert seen == [(4096, 4096, 1)]
