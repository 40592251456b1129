"""What a report tells: numbers, violations with their lines, and what is said on the logger (C2.3)."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads
from tmpguard.core.reports.report import MOST_KEPT


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as bound:
        yield bound


def attempt(call: Callable[[], object]) -> None:
    """An application that swallows its exceptions."""
    with contextlib.suppress(OSError):
        call()


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line and "line_of" not in line)


# --- violations ----------------------------------------------------------------------------------------


def test_a_violation_has_operation_path_errno_and_line(invocation: tmpguard.Invocation) -> None:
    with pytest.raises(OSError, match="Read-only"):
        open("/etc/new.txt", "w")  # the line
    here = test_a_violation_has_operation_path_errno_and_line
    (violation,) = invocation.report.violations
    assert violation == tmpguard.Violation(
        operation="open",
        path="/etc/new.txt",
        errno=errno.EROFS,
        location=tmpguard.Location(__file__, line_of(here, "# the line"), here.__qualname__),
        library=None,
        remedy="only /tmp is writable; write to /tmp/new.txt",
    )


def test_the_remedy_is_the_note_of_the_exception(invocation: tmpguard.Invocation) -> None:
    """C2.4: also where the application swallows it."""
    with pytest.raises(OSError, match="Read-only") as refused:
        os.mkdir("/etc/new")
    invocation.end()
    with pytest.raises(OSError, match="Stale") as late:
        os.mkdir("/tmp/late")
    (violation,), (late_write,) = invocation.report.violations, invocation.report.late_writes
    assert refused.value.__notes__ == [f"tmpguard: {violation.remedy}"]
    assert late.value.__notes__ == [f"tmpguard: {late_write.remedy}"]


def test_the_line_is_the_application_s_where_a_library_makes_the_call(
    invocation: tmpguard.Invocation,
) -> None:
    with pytest.raises(OSError, match="Read-only"):
        shutil.copyfile("/etc/passwd", "/etc/new.txt")  # the line
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert violation.location.file == __file__
    assert violation.location.line == line_of(
        test_the_line_is_the_application_s_where_a_library_makes_the_call, "# the line"
    )
    assert violation.library is not None
    assert (os.path.basename(violation.library.file), violation.library.function) == ("shutil.py", "copyfile")
    assert violation.library.line > 0


def test_the_line_is_the_innermost_of_the_application_s(invocation: tmpguard.Invocation) -> None:
    class Model:
        def save(self) -> None:
            Path("/etc/model.bin").write_bytes(b"x")  # the line

    def handler() -> None:
        attempt(Model().save)

    handler()
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert violation.location.function.endswith("Model.save")
    assert violation.library is not None
    assert "pathlib" in violation.library.file


def test_code_of_no_file_is_the_application_s(invocation: tmpguard.Invocation) -> None:
    exec(compile("def f(): open('/etc/new.txt', 'w')", "<template>", "exec"), space := {})  # type: ignore[var-annotated]
    attempt(space["f"])
    (violation,) = invocation.report.violations
    assert violation.location == tmpguard.Location("<template>", 1, "f")


def test_installed_packages_are_libraries(
    invocation: tmpguard.Invocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2.3: wherever they are installed."""
    source = "def store(path):\n    open(path, 'w')\n"
    for directory in ("/venv/lib/python3/site-packages", "/usr/lib/python3/dist-packages"):
        space: dict[str, Any] = {}
        exec(compile(source, f"{directory}/package/module.py", "exec"), space)
        attempt(lambda space=space: space["store"]("/etc/new.txt"))
    for violation in invocation.report.violations:
        assert violation.location is not None
        assert violation.location.file == __file__
        assert violation.library is not None
        assert (violation.library.line, violation.library.function) == (2, "store")


def test_violations_are_kept_in_their_order_whatever_becomes_of_the_exception(
    invocation: tmpguard.Invocation,
) -> None:
    attempt(lambda: open("/etc/first", "w"))
    attempt(lambda: os.mkdir("/etc/second"))
    attempt(lambda: os.rename("/etc/third", "/etc/no-such-file"))
    attempt(lambda: os.unlink("/etc/fourth"))
    assert [(one.operation, one.path) for one in invocation.report.violations] == [
        ("open", "/etc/first"),
        ("os.mkdir", "/etc/second"),
        ("os.rename", "/etc/third"),
        ("os.unlink", "/etc/fourth"),
    ]
    assert invocation.report.violation_count == 4


def test_a_full_tmp_is_a_violation(scratch_root: Path) -> None:
    """C3.4, C2.3"""
    with tmpguard.invocation(storage_size=1, bundle=None, scratch_root=scratch_root) as invocation:
        with pytest.raises(OSError, match="No space"):
            Path("/tmp/file.bin").write_bytes(bytes(2 << 20))
    assert {(one.operation, one.path, one.errno) for one in invocation.report.violations} == {
        ("write", "/tmp/file.bin", errno.ENOSPC)
    }
    assert all(one.location is not None for one in invocation.report.violations)


def test_what_merely_fails_is_no_violation(invocation: tmpguard.Invocation) -> None:
    """C2.2: errors that the application would meet on any machine."""
    for call in (
        lambda: open("/etc/nowhere"),
        lambda: os.mkdir("/etc"),
        lambda: open("/etc", "w"),
        lambda: os.listdir("/etc/passwd"),
        lambda: os.rmdir("/tmp/nowhere"),
        lambda: open("/etc/nowhere/new.txt", "w"),
    ):
        attempt(call)
    os.makedirs("/etc", exist_ok=True)
    assert not os.access("/etc", os.W_OK)
    assert invocation.report.violations == ()


def test_violations_of_many_threads_are_all_kept(invocation: tmpguard.Invocation) -> None:
    in_threads(4, lambda number: [attempt(lambda: os.mkdir(f"/etc/{number}")) for _ in range(25)] and None)
    assert len(invocation.report.violations) == 100


def test_past_a_thousand_violations_are_only_counted(invocation: tmpguard.Invocation) -> None:
    """A loop of refusals cannot fill the memory."""
    logging.getLogger("tmpguard").disabled = True
    try:
        for number in range(MOST_KEPT + 10):
            attempt(lambda number=number: os.mkdir(f"/etc/{number}"))
    finally:
        logging.getLogger("tmpguard").disabled = False
    report = invocation.report
    assert MOST_KEPT == 1000
    assert (len(report.violations), report.violation_count) == (MOST_KEPT, MOST_KEPT + 10)
    assert [report.violations[0].path, report.violations[-1].path] == ["/etc/0", "/etc/999"]


def test_late_writes_are_kept_apart_and_bounded_too(guard: tmpguard.Guard) -> None:
    """C4.5"""
    invocation = guard.invocation()
    invocation.end()
    logging.getLogger("tmpguard").disabled = True
    try:
        with invocation.bound():
            for _ in range(MOST_KEPT + 10):
                attempt(lambda: os.mkdir("/tmp/late"))
    finally:
        logging.getLogger("tmpguard").disabled = False
    assert (len(invocation.report.late_writes), invocation.report.violation_count) == (MOST_KEPT, 0)
    assert invocation.report.violations == ()


# --- numbers -------------------------------------------------------------------------------------------


def test_a_report_is_live_while_the_invocation_runs(invocation: tmpguard.Invocation) -> None:
    report = invocation.report
    assert (report.quota_bytes, report.used_bytes, report.peak_bytes, report.files) == (128 << 20, 0, 0, 0)
    Path("/tmp/file.bin").write_bytes(bytes(10_000))
    assert (report.used_bytes, report.peak_bytes, report.files) == (12_288, 12_288, 1)
    os.truncate("/tmp/file.bin", 1)
    os.mkdir("/tmp/directory")
    os.symlink("x", "/tmp/directory/link")
    assert (report.used_bytes, report.peak_bytes, report.files) == (4096, 12_288, 3)
    assert invocation.report is report


def test_a_report_is_final_after_the_end(guard: tmpguard.Guard) -> None:
    """It tells what was left behind."""
    with guard.invocation() as invocation:
        Path("/tmp/file.bin").write_bytes(bytes(10_000))
        Path("/tmp/gone.bin").write_bytes(bytes(20_000))
        os.unlink("/tmp/gone.bin")
    for report in (invocation.report, invocation.report):
        assert (report.used_bytes, report.files) == (12_288, 1)
        assert report.peak_bytes == 12_288 + 20_480


def test_a_report_that_is_first_read_after_the_end_is_the_same(guard: tmpguard.Guard) -> None:
    """Also where the wipe is still on its way."""
    invocation = guard.invocation()
    with invocation.bound():
        os.makedirs("/tmp/a/b")
        Path("/tmp/a/b/file.bin").write_bytes(bytes(10_000))
    invocation.end()
    report = invocation.report
    assert (report.used_bytes, report.peak_bytes, report.files) == (12_288, 12_288, 3)


def test_a_report_of_an_invocation_without_files_is_all_zero(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        pass
    report = invocation.report
    assert (report.used_bytes, report.peak_bytes, report.files, report.violations, report.late_writes) == (
        0,
        0,
        0,
        (),
        (),
    )


def test_reports_and_their_parts_show_themselves(invocation: tmpguard.Invocation) -> None:
    Path("/tmp/file.bin").write_bytes(b"x")
    attempt(lambda: open("/etc/new.txt", "w"))
    assert repr(invocation.report) == (
        "<Report 4096 of 134217728 bytes, 1 files, 1 violations, 0 late writes>"
    )
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert str(violation.location) == f"{__file__}:{violation.location.line} in {violation.location.function}"
    assert "open" in repr(violation)
    assert "/etc/new.txt" in repr(violation)


def test_violations_compare_and_cannot_be_changed(invocation: tmpguard.Invocation) -> None:
    attempt(lambda: open("/etc/new.txt", "w"))
    (violation,) = invocation.report.violations
    assert violation in {violation}
    with pytest.raises(AttributeError):
        violation.path = "x"  # type: ignore[misc]
    assert isinstance(invocation.report.violations, tuple)
    assert isinstance(invocation.report.late_writes, tuple)


# --- the logger ----------------------------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "tmpguard"]


def test_each_violation_is_one_warning(
    invocation: tmpguard.Invocation, caplog: pytest.LogCaptureFixture
) -> None:
    attempt(lambda: open("/etc/new.txt", "w"))
    ((level, message),) = said(caplog)
    assert level == logging.WARNING
    (violation,) = invocation.report.violations
    assert (
        message == "tmpguard: open '/etc/new.txt': [Errno 30] Read-only file system, "
        f"{violation.remedy} ({violation.location})"
    )


def test_a_guard_that_only_watches_says_would(
    tmp_path: Path, scratch_root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2.5"""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    with tmpguard.invocation(bundle=project, scratch_root=scratch_root, enforce=False) as invocation:
        Path("new.txt").write_text("text")
    assert (project / "new.txt").read_text() == "text"
    ((level, message),) = said(caplog)
    assert (level, message.split(": ")[:2]) == (logging.WARNING, ["tmpguard", "would refuse open 'new.txt'"])
    assert [one.errno for one in invocation.report.violations] == [errno.EROFS]


def test_a_logging_handler_that_is_itself_refused_does_not_start_over(
    scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that opens its file late, outside of /tmp: as many an application has one."""
    logger = logging.getLogger("tmpguard")

    class Writing(logging.Handler):
        refused = 0

        def emit(self, record: logging.LogRecord) -> None:
            try:
                with open("/etc/application.log", "a") as file:
                    file.write(record.getMessage())
            except OSError:
                self.refused += 1

    handler = Writing()
    logger.addHandler(handler)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, log_interval=0)
    try:
        with guard.invocation() as invocation:
            for _ in range(3):
                attempt(lambda: os.mkdir("/etc/new"))
    finally:
        logger.removeHandler(handler)
    assert handler.refused == 3
    paths = [violation.path for violation in invocation.report.violations]
    assert sorted(paths) == ["/etc/application.log"] * 3 + ["/etc/new"] * 3
    assert len(said(caplog)) == 3


def test_a_logging_handler_may_write_to_tmp(guard: tmpguard.Guard) -> None:
    logger = logging.getLogger("tmpguard")
    with guard.invocation():
        handler = logging.FileHandler("/tmp/guard.log")
        logger.addHandler(handler)
        try:
            attempt(lambda: os.mkdir("/etc/new"))
        finally:
            logger.removeHandler(handler)
            handler.close()
        assert "os.mkdir '/etc/new'" in Path("/tmp/guard.log").read_text()


def test_a_logging_handler_that_raises_is_the_application_s_error(scratch_root: Path) -> None:
    """The refusal is on the report all the same, and later ones are told again."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError

    logger, handler = logging.getLogger("tmpguard"), Raising()
    logger.addHandler(handler)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, log_interval=0)
    try:
        with guard.invocation() as invocation:
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    os.mkdir("/etc/new")
    finally:
        logger.removeHandler(handler)
    assert len(invocation.report.violations) == 2


def test_threads_of_one_invocation_are_each_heard(
    invocation: tmpguard.Invocation, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is being told must not silence another's."""
    inside, done = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:  # not `emit`: that is called under a lock
            if "/etc/first" in record.getMessage():
                inside.set()
                done.wait(30)
            return True

    logger, handler = logging.getLogger("tmpguard"), Slow()
    logger.addHandler(handler)
    try:
        thread = threading.Thread(target=lambda: attempt(lambda: os.mkdir("/etc/first")))
        thread.start()
        assert inside.wait(30)
        attempt(lambda: os.mkdir("/etc/second"))
        done.set()
        thread.join()
    finally:
        logger.removeHandler(handler)
    assert len(invocation.report.violations) == 2
    assert sorted(message.split(": ")[1] for _, message in said(caplog)) == [
        "os.mkdir '/etc/first'",
        "os.mkdir '/etc/second'",
    ]


def test_an_invocation_that_only_uses_tmp_logs_nothing(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.invocation():
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "file.txt").write_text("text")
        assert os.listdir("/etc")
    assert tmpguard.drain(timeout=30)
    assert said(caplog) == []
