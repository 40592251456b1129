"""What is said of violations on the logger: one warning with stable fields, limited by source line."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import threading
from collections.abc import Callable
from errno import EROFS
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import run_python
from tmpguard.core.reports import log


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(scratch_root=scratch_root, bundle=None, storage_size=1)


def attempt(path: str) -> None:
    with contextlib.suppress(OSError):
        os.mkdir(path)  # the line


HERE = str(Path(inspect.getfile(attempt)).resolve())
LINE = inspect.getsourcelines(attempt)[1] + 2


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Of each record: the path, and how many more it stands for."""
    return [(record.tmpguard_path, record.tmpguard_repeated) for record in caplog.records]  # type: ignore[attr-defined]


# --- fields --------------------------------------------------------------------------------------------


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("tmpguard_")}


def test_a_record_has_what_the_violation_has_in_fields_of_stable_names(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.invocation():
        attempt("/etc/new")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tmpguard", logging.WARNING)
    assert fields(record) == {
        "tmpguard_operation": "os.mkdir",
        "tmpguard_path": "/etc/new",
        "tmpguard_errno": EROFS,
        "tmpguard_error": "EROFS",
        "tmpguard_file": HERE,
        "tmpguard_line": LINE,
        "tmpguard_function": "attempt",
        "tmpguard_library": None,
        "tmpguard_remedy": "only /tmp is writable; write to /tmp/new",
        "tmpguard_refused": True,
        "tmpguard_late": False,
        "tmpguard_repeated": 0,
    }


def test_the_text_can_be_written_whatever_bytes_the_path_has(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.invocation():
        attempt(os.fsdecode(b"/etc/\xff"))
    (record,) = caplog.records
    assert "write to /tmp/\\udcff" in record.getMessage().encode("utf-8").decode()


def test_the_fields_have_the_library_s_line_and_late_and_watched_operations(
    scratch_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=project, enforce=False)
    with guard.invocation() as invocation:
        shutil.copyfile("/etc/passwd", project / "copy.txt")
    with invocation.bound():
        (project / "late").mkdir()
    enforcing = tmpguard.Guard(scratch_root=scratch_root, bundle=project)
    with enforcing.invocation() as invocation:
        pass
    with invocation.bound():
        attempt("/tmp/late")
    watched, watched_late, late = map(fields, caplog.records)
    assert (watched["tmpguard_refused"], watched["tmpguard_late"]) == (False, False)
    assert "shutil.py" in watched["tmpguard_library"]
    assert (watched_late["tmpguard_refused"], watched_late["tmpguard_late"]) == (False, True)
    assert (late["tmpguard_refused"], late["tmpguard_late"]) == (True, True)
    assert (late["tmpguard_error"], late["tmpguard_library"]) == ("ESTALE", None)


# --- how often -----------------------------------------------------------------------------------------


def test_a_source_line_is_logged_at_once_then_only_counted(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    """Over requests, too; every violation is on its report all the same."""
    for number in range(3):
        with guard.invocation() as invocation:
            for _ in range(4):
                attempt(f"/etc/{number}")
        assert len(invocation.report.violations) == 4
    assert said(caplog) == [("/etc/0", 0)]


def test_the_count_is_given_by_the_first_record_after_the_interval(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(log.real, "monotonic", lambda: now)
    with guard.invocation():
        for _ in range(50):
            attempt("/etc/new")
        now += log.INTERVAL
        attempt("/etc/last")
        attempt("/etc/counted")
    assert said(caplog) == [("/etc/new", 0), ("/etc/last", 49)]
    assert caplog.records[1].getMessage() == (
        "tmpguard: os.mkdir '/etc/last': [Errno 30] Read-only file system, "
        f"only /tmp is writable; write to /tmp/last ({HERE}:{LINE} in attempt), "
        "and 49 more from there since it was last logged"
    )


def test_after_a_quiet_interval_a_line_is_logged_at_once_again(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(log.real, "monotonic", lambda: now)
    with guard.invocation():
        attempt("/etc/first")
        now += log.INTERVAL + 1
        attempt("/etc/second")
    assert said(caplog) == [("/etc/first", 0), ("/etc/second", 0)]


def test_lines_and_kinds_of_error_are_distinguished(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    def fill_or_write(path: str) -> None:
        with contextlib.suppress(OSError):
            Path(path).write_bytes(bytes(2 << 20))

    with guard.invocation():
        for _ in range(2):
            attempt("/etc/new")
            fill_or_write("/etc/new.bin")
            fill_or_write("/tmp/new.bin")
    assert [(record.tmpguard_path, record.tmpguard_error) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("/etc/new", "EROFS"),
        ("/etc/new.bin", "EROFS"),
        ("/tmp/new.bin", "ENOSPC"),
    ]


def test_each_guard_counts_for_itself(
    guard: tmpguard.Guard, scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in (guard, tmpguard.Guard(scratch_root=scratch_root, bundle=None)):
        with each.invocation():
            attempt("/etc/new")
    assert len(caplog.records) == 2


def test_an_interval_of_zero_logs_each(scratch_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tmpguard.invocation(scratch_root=scratch_root, bundle=None, log_interval=0):
        for number in range(3):
            attempt(f"/etc/{number}")
    assert said(caplog) == [("/etc/0", 0), ("/etc/1", 0), ("/etc/2", 0)]


@pytest.mark.parametrize("value", [-1, True, "60", None, float("inf"), float("nan")])
def test_what_is_no_interval_is_refused(value: Any) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=r"log_interval=.* is not a duration: give seconds"):
        tmpguard.Guard(bundle=None, log_interval=value)


# --- bounds --------------------------------------------------------------------------------------------


def violate(lines: Callable[[int], int], count: int) -> None:
    """Refusals at generated source lines."""
    for number in range(count):
        code = "\n" * lines(number) + "try: open('/etc/new.txt', 'w')\nexcept OSError: pass"
        exec(compile(code, "<generated>", "exec"))


def test_so_many_lines_are_remembered_and_none_of_their_counts_is_lost(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LINES", 20)
    with guard.invocation():
        for _ in range(3):
            violate(lambda _: 0, 1)
        violate(lambda number: number, 50)
    assert len(guard.journal._lines) <= 20
    # The first line was forgotten to make room: what was counted of it was said then.
    assert [record.tmpguard_repeated for record in caplog.records if record.tmpguard_repeated] == [3]  # type: ignore[attr-defined]
    assert len(caplog.records) == 50 + 1


def test_no_handler_is_called_under_the_lock(guard: tmpguard.Guard) -> None:
    """Another thread's violation can be told while a handler takes its time."""
    inside, done, answers = threading.Event(), threading.Event(), list[bool]()

    class Slow(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            if record.tmpguard_path == "/etc/first":  # type: ignore[attr-defined]
                inside.set()
                answers.append(done.wait(30))
            return True

    logger, handler = logging.getLogger("tmpguard"), Slow()
    logger.addHandler(handler)
    try:
        with guard.invocation():
            thread = threading.Thread(target=lambda: violate_at("/etc/first"))
            thread.start()
            assert inside.wait(30)
            attempt("/etc/second")
            done.set()
            thread.join()
    finally:
        logger.removeHandler(handler)
    assert answers == [True]


def violate_at(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)


# --- the exit, and forks -------------------------------------------------------------------------------

LOOP = """
import logging, os, sys, tmpguard
logging.basicConfig(stream=sys.stdout, format="%(tmpguard_path)s %(tmpguard_repeated)s")
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
def work(name, count):
    with guard.invocation():
        for number in range(count):
            try: os.mkdir(f"/etc/{name}{number}")
            except OSError: pass
"""


def test_counts_are_logged_at_the_exit(scratch_root: Path) -> None:
    assert run_python(f"{LOOP}\nwork('a', 5)", scratch_root).splitlines() == ["/etc/a0 0", "/etc/a4 4"]


def test_a_forked_child_counts_by_itself(scratch_root: Path) -> None:
    code = f"""{LOOP}
work('parent', 3)
sys.stdout.flush()
child = os.fork()
if not child:
    work('child', 2)
    sys.exit()
os.waitpid(child, 0)
"""
    assert run_python(code, scratch_root).splitlines() == [
        "/etc/parent0 0",
        "/etc/child0 0",
        "/etc/child1 1",
        "/etc/parent2 2",
    ]
