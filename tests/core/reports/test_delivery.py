"""Every finished report reaches ``on_report``, and a slow callback delays nobody (C4.4)."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.support import eventually, left_in, run_python
from tmpguard.core.background import Background
from tmpguard.core.reports import delivery as reporter


class Slow:
    """A callback that does not return until it may."""

    def __init__(self) -> None:
        self.may_return = threading.Event()
        self.begun = threading.Event()
        self.reports: list[tmpguard.Report] = []

    def __call__(self, report: tmpguard.Report) -> None:
        self.begun.set()
        assert self.may_return.wait(30)
        self.reports.append(report)


@pytest.fixture
def slow() -> Iterator[Slow]:
    callback = Slow()
    yield callback
    callback.may_return.set()
    assert tmpguard.drain(30)


def end_of_one(guard: tmpguard.Guard) -> None:
    invocation = guard.invocation()
    with invocation.bound():
        os.makedirs("/tmp/a/b")
    invocation.end()


def test_a_slow_callback_delays_neither_the_end_nor_the_wipe(slow: Slow, scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=slow)
    for _ in range(5):
        end_of_one(guard)
    assert slow.begun.wait(30)
    assert eventually(lambda: left_in(scratch_root) == [])
    assert slow.reports == []
    slow.may_return.set()
    assert tmpguard.drain(30)
    assert len(slow.reports) == 5


def test_what_waits_for_a_slow_callback_is_bounded(
    slow: Slow, scratch_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is dropped is counted, and said twice: when it begins, and how many when it is over."""
    monkeypatch.setattr(reporter, "WAITING", 10)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=slow)
    guard.invocation().end()
    assert slow.begun.wait(30)
    for _ in range(25):
        guard.invocation().end()
    assert eventually(lambda: guard.dropped_reports == 15)
    slow.may_return.set()
    assert tmpguard.drain(30)
    assert (len(slow.reports), guard.dropped_reports) == (11, 15)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            f"tmpguard: on_report={slow!r} is too slow: 10 reports are waiting, new ones are dropped until "
            "it catches up; let it hand slow work, such as a network request, to a queue of its own",
        ),
        (logging.WARNING, f"tmpguard: 15 reports were dropped while on_report={slow!r} was too slow"),
    ]


def test_after_it_caught_up_reports_come_again(
    slow: Slow, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "WAITING", 2)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=slow)
    for _ in range(6):
        guard.invocation().end()
    assert eventually(lambda: guard.dropped_reports >= 3)
    slow.may_return.set()
    assert tmpguard.drain(30)
    before = len(slow.reports)
    guard.invocation().end()
    assert tmpguard.drain(30)
    assert len(slow.reports) == before + 1


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, ValueError])
def test_whatever_the_callback_raises_the_next_report_comes(
    raised: type[BaseException], scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tmpguard.Report] = []

    def on_report(report: tmpguard.Report) -> None:
        calls.append(report)
        raise raised

    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=on_report)
    for _ in range(2):
        end_of_one(guard)
    assert tmpguard.drain(30)
    assert len(calls) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_a_callback_may_be_taken_away_while_reports_wait_for_it(slow: Slow, scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=slow)
    for _ in range(3):
        end_of_one(guard)
    assert slow.begun.wait(30)
    guard.on_report = None
    slow.may_return.set()
    assert tmpguard.drain(30)
    assert len(slow.reports) == 1
    reports: list[tmpguard.Report] = []
    guard.on_report = reports.append
    end_of_one(guard)
    assert tmpguard.drain(30)
    assert len(reports) == 1


def test_the_report_has_the_duration_of_the_wipe(scratch_root: Path) -> None:
    reports: list[tmpguard.Report] = []
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=reports.append)
    before = time.perf_counter()
    end_of_one(guard)
    assert tmpguard.drain(30)
    assert 0 < reports[0].wipe_seconds < time.perf_counter() - before


def test_a_report_that_is_asked_for_afterwards_knows_it_too(guard: tmpguard.Guard) -> None:
    with guard.invocation() as block:
        Path("/tmp/file.txt").write_text("text")
    invocation = guard.invocation()
    with invocation.bound():
        Path("/tmp/file.txt").write_text("text")
    invocation.end()
    for ended in (block, invocation):
        assert ended.report.used_bytes == 4096
        assert ended.report.wipe_seconds > 0


# --- at the exit ---------------------------------------------------------------------------------------

EXIT = """
import atexit, sys, time, tmpguard
guard = tmpguard.Guard(
    scratch_root=sys.argv[1], bundle=None, on_report=lambda report: (time.sleep(0.02), print(report.files))
)
def work():
    invocation = guard.invocation()
    with invocation.bound():
        with open("/tmp/file.txt", "w"):
            pass
    invocation.end()
"""


def test_what_waits_at_the_exit_is_handed_out(scratch_root: Path) -> None:
    assert run_python(f"{EXIT}\nfor _ in range(5): work()", scratch_root) == "1\n" * 5
    assert os.listdir(scratch_root) == []


def test_work_that_begins_at_the_exit_is_handed_out_too(scratch_root: Path) -> None:
    """From 3.12 on no thread can be started then."""
    assert run_python(f"{EXIT}\natexit.register(work)", scratch_root) == "1\n"
    assert os.listdir(scratch_root) == []


def test_where_no_thread_can_be_started_the_job_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Jobs(Background[list[str]]):
        def _do(self, job: list[str]) -> None:
            job.append(threading.current_thread().name)

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr("tmpguard.core.real.start_new_thread", fail)
    jobs, job = Jobs("jobs"), list[str]()
    jobs._jobs.put(job)
    jobs._wake()
    assert job == [threading.current_thread().name]
