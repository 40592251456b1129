"""What code that outlives its invocation meets: ESTALE, and an entry in ``report.late_writes`` (C4.5)."""

from __future__ import annotations

import contextlib
import csv
import errno
import gc
import io
import logging
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import case

pytestmark = pytest.mark.usefixtures("uninstalled")

# --- handles kept past the end -------------------------------------------------------------------------

WAYS_TO_OPEN: dict[str, Callable[[], Any]] = {
    "text": lambda: open("/tmp/file", "w"),
    "text for reading and writing": lambda: open("/tmp/file", "w+"),
    "text in lines": lambda: open("/tmp/file", "w", buffering=1),
    "text to append to": lambda: open("/tmp/file", "a"),
    "binary": lambda: open("/tmp/file", "wb"),
    "binary for reading and writing": lambda: open("/tmp/file", "w+b"),
    "binary, made exclusively": lambda: open("/tmp/file", "xb"),
    "raw": lambda: open("/tmp/file", "wb", buffering=0),
    "FileIO": lambda: io.FileIO("/tmp/file", "w"),
    "pathlib": lambda: Path("/tmp/file").open("wb"),
    "descriptor": lambda: os.fdopen(os.open("/tmp/file", os.O_CREAT | os.O_RDWR), "wb"),
    "opener": lambda: open("/tmp/file", "wb", opener=lambda path, flags: os.open(path, flags)),
    "TemporaryFile": tempfile.TemporaryFile,
    "NamedTemporaryFile": tempfile.NamedTemporaryFile,
    "NamedTemporaryFile that stays": lambda: tempfile.NamedTemporaryFile(delete=False),
    "SpooledTemporaryFile": lambda: _rolled_over(),
}


def _rolled_over() -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=1)
    file.write(b"more than that")
    return file


def data_for(file: Any) -> Any:
    return "text" if isinstance(file, io.TextIOBase) else b"text"


def flushed(file: Any, write: Callable[[], object]) -> None:
    """What was written to a file on a full disk is refused at once or when it leaves the buffers; so here."""
    write()
    file.flush()


def kept(guard: tmpguard.Guard) -> Iterator[tuple[Any, tmpguard.Invocation]]:
    """One file opened in each way, with something in its buffers, and the invocation, now over, of each."""
    for name, open_one in WAYS_TO_OPEN.items():
        with case(name):
            with guard.invocation() as invocation:
                file = open_one()
                file.write(data_for(file))
            yield file, invocation
            file.close()


def test_a_handle_kept_past_the_end_can_be_closed(guard: tmpguard.Guard) -> None:
    for file, invocation in kept(guard):
        file.close()
        file.close()
        assert file.closed
        assert invocation.report.late_writes == ()


def test_writing_to_a_handle_kept_past_the_end_is_stale(guard: tmpguard.Guard) -> None:
    for file, invocation in kept(guard):
        with pytest.raises(OSError, match="Stale") as refused:
            flushed(file, lambda file=file: file.write(data_for(file)))
        assert refused.value.errno == errno.ESTALE
        assert {late.errno for late in invocation.report.late_writes} == {errno.ESTALE}


def test_truncating_a_handle_kept_past_the_end_is_stale(guard: tmpguard.Guard) -> None:
    for file, invocation in kept(guard):
        with pytest.raises(OSError, match="Stale"):
            file.truncate(0)
        assert invocation.report.late_writes


def test_a_handle_forgotten_past_the_end_is_closed_by_the_collector(
    guard: tmpguard.Guard, recwarn: pytest.WarningsRecorder
) -> None:
    """Its warning is the usual one for an unclosed file, and nothing else happens."""
    for name, open_one in WAYS_TO_OPEN.items():
        with case(name):
            with guard.invocation() as invocation:
                file = open_one()
                file.write(data_for(file))
            del file
            gc.collect()
            assert {warning.category for warning in recwarn} <= {ResourceWarning}
            assert invocation.report.late_writes == ()


@pytest.mark.parametrize("mode", ["w", "a", "w+", "wb", "ab", "w+b"])
def test_no_door_to_a_kept_handle_stays_open(mode: str, guard: tmpguard.Guard) -> None:
    """Not ``writelines``, nor a method that was taken before, nor the buffers below."""
    with guard.invocation() as invocation:
        file = open("/tmp/file", mode)
        write = file.write
        rows = csv.writer(file) if "b" not in mode else None
    doors: list[Callable[[], object]] = [
        lambda: file.writelines([data_for(file)]),
        lambda: write(data_for(file)),
        lambda: file.truncate(0),
    ]
    if rows is not None:
        doors += [lambda: rows.writerow([1]), lambda: print("x", file=file)]
        doors += [lambda: file.buffer.write(b"x"), lambda: file.buffer.raw.write(b"x")]
    else:
        doors += [lambda: file.raw.write(b"x")]
    for number, door in enumerate(doors, 1):
        with pytest.raises(OSError, match="Stale"):
            flushed(file, door)
        assert len(invocation.report.late_writes) >= number
    file.close()


def test_a_late_write_names_the_file_as_the_application_does(guard: tmpguard.Guard) -> None:
    """C7.1: also where all that is known of it is a descriptor."""
    with guard.invocation() as invocation:
        files = [
            open("/tmp/named", "wb", 0),
            os.fdopen(os.open("/tmp/by descriptor", os.O_CREAT | os.O_RDWR), "wb", 0),
            tempfile.TemporaryFile(buffering=0),
        ]
    for file in files:
        with pytest.raises(OSError, match="Stale"):
            file.write(b"x")
        file.close()
    late = invocation.report.late_writes
    assert late[0].path == "/tmp/named"
    assert all("tmpguard-" not in violation.path for violation in late), late


def test_what_was_read_from_stays_readable(guard: tmpguard.Guard) -> None:
    """As an unlinked file: reading what is still there harms nobody."""
    with guard.invocation():
        Path("/tmp/file.txt").write_text("text")
        file = open("/tmp/file.txt")
    assert file.read() == "text"
    file.close()


# --- late operations -----------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[], object]] = {
    "open for reading": lambda: open("/tmp/file"),
    "open for writing": lambda: open("/tmp/file", "w"),
    "open elsewhere for writing": lambda: open("/etc/file", "w"),
    "io.FileIO": lambda: io.FileIO("/tmp/file", "w"),
    "os.open": lambda: os.open("/tmp/file", os.O_CREAT | os.O_WRONLY),
    "os.open for reading": lambda: os.open("/tmp/file", os.O_RDONLY),
    "os.stat": lambda: os.stat("/tmp/file"),
    "os.lstat": lambda: os.lstat("/tmp/file"),
    "os.access": lambda: os.access("/tmp/file", os.R_OK),
    "os.statvfs": lambda: os.statvfs("/tmp"),
    "os.readlink": lambda: os.readlink("/tmp/link"),
    "os.listdir": lambda: os.listdir("/tmp"),
    "os.scandir": lambda: os.scandir("/tmp"),
    "os.mkdir": lambda: os.mkdir("/tmp/directory"),
    "os.mkfifo": lambda: os.mkfifo("/tmp/fifo"),
    "os.symlink": lambda: os.symlink("/etc", "/tmp/link"),
    "os.link": lambda: os.link("/tmp/file", "/tmp/link"),
    "os.unlink": lambda: os.unlink("/tmp/file"),
    "os.remove": lambda: os.remove("/tmp/file"),
    "os.rmdir": lambda: os.rmdir("/tmp/directory"),
    "os.rename": lambda: os.rename("/tmp/file", "/tmp/other"),
    "os.replace": lambda: os.replace("/tmp/file", "/tmp/other"),
    "os.chmod": lambda: os.chmod("/tmp/file", 0o600),
    "os.chown": lambda: os.chown("/tmp/file", 0, 0),
    "os.utime": lambda: os.utime("/tmp/file"),
    "os.truncate": lambda: os.truncate("/tmp/file", 0),
    "os.chdir": lambda: os.chdir("/tmp"),
    "os.setxattr": lambda: os.setxattr("/tmp/file", "user.x", b""),
    "shutil.copyfile": lambda: shutil.copyfile("/etc/passwd", "/tmp/file"),
    "shutil.disk_usage": lambda: shutil.disk_usage("/tmp"),
    "tempfile.mkdtemp": tempfile.mkdtemp,
    "tempfile.TemporaryFile": tempfile.TemporaryFile,
    "Path.write_text": lambda: Path("/tmp/file").write_text("text"),
    "sqlite3.connect": lambda: sqlite3.connect("/tmp/database"),
}


@pytest.mark.parametrize("used", [True, False], ids=["after use", "never used"])
def test_a_late_operation_is_stale_and_recorded(
    used: bool, guard: tmpguard.Guard, scratch_root: Path
) -> None:
    for name, operation in OPERATIONS.items():
        with guard.invocation() as invocation:
            if used:
                Path("/tmp/file").write_text("text")
        with case(name):
            with invocation.bound(), pytest.raises(OSError, match="Stale") as refused:
                operation()
            assert refused.value.errno == errno.ESTALE
            late = invocation.report.late_writes
            assert {violation.errno for violation in late} == {errno.ESTALE}
            assert late[0].location is not None
            assert late[0].location.file == __file__
            assert invocation.report.violations == ()
            assert list(scratch_root.glob("*/*")) == []


def test_a_late_bind_is_stale(guard: tmpguard.Guard) -> None:
    invocation = guard.invocation()
    invocation.end()
    with invocation.bound(), socket.socket(socket.AF_UNIX) as listening:
        with pytest.raises(OSError, match="Stale"):
            listening.bind("/tmp/socket")


def test_late_writes_by_descriptor_are_stale(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        descriptor = os.open("/tmp/file", os.O_CREAT | os.O_RDWR)
        os.write(descriptor, b"text")
    late: list[Callable[[], object]] = [
        lambda: os.write(descriptor, b"x"),
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.writev(descriptor, [b"x"]),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.posix_fallocate(descriptor, 0, 4096),
        lambda: os.fchmod(descriptor, 0o600),
    ]
    with invocation.bound():
        for number, call in enumerate(late, 1):
            with pytest.raises(OSError, match="Stale"):
                call()
            assert len(invocation.report.late_writes) == number
        os.close(descriptor)
    assert all(violation.path == "/tmp/file" for violation in invocation.report.late_writes)


def test_pipes_and_sockets_are_no_files_and_work_on(guard: tmpguard.Guard) -> None:
    """C1.3: a late thread can still answer and log."""
    invocation = guard.invocation()
    invocation.end()
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with invocation.bound(), ours, theirs:
        os.write(writing, b"text")
        ours.sendall(b"text")
        assert (os.read(reading, 4), theirs.recv(4)) == (b"text", b"text")
    os.close(reading)
    os.close(writing)
    assert invocation.report.late_writes == ()


def test_a_thread_that_outlives_its_invocation_writes_nowhere(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    over, caught = threading.Event(), []

    def work() -> None:
        over.wait(30)
        try:
            Path("/tmp/late.txt").write_text("late")
        except OSError as exc:
            caught.append(exc.errno)

    with guard.invocation() as invocation:
        Path("/tmp/file.txt").write_text("text")
        thread = threading.Thread(target=work)
        thread.start()
    over.set()
    thread.join()
    assert caught == [errno.ESTALE]
    assert [(late.path, late.errno) for late in invocation.report.late_writes] == [
        ("/tmp/late.txt", errno.ESTALE)
    ]
    assert list(scratch_root.glob("*/*")) == []
    assert not os.path.exists("/tmp/late.txt")


def test_a_logged_traceback_is_no_late_write(guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture) -> None:
    """SURFACE 1.1: to show its lines the interpreter reads source files, whoever's code is running."""
    invocation = guard.invocation()
    invocation.end()
    with invocation.bound():
        try:
            open("/tmp/file.txt", "w")
        except OSError:
            logging.getLogger("application").exception("could not")
    assert 'open("/tmp/file.txt", "w")' in caplog.text
    assert [late.path for late in invocation.report.late_writes] == ["/tmp/file.txt"]


def test_modules_can_be_imported_late(
    guard: tmpguard.Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SURFACE 1.1"""
    (tmp_path / "imported_late.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imported_late", raising=False)
    invocation = guard.invocation()
    invocation.end()
    with invocation.bound():
        import imported_late  # type: ignore[import-not-found]

        assert imported_late.answer == 42
    assert invocation.report.late_writes == ()


# --- raw descriptors ----------------------------------------------------------------------------------

THROUGH: dict[str, Callable[[int], object]] = {
    "os.write": lambda descriptor: os.write(descriptor, b"x" * 5_000_000),
    "os.pwrite": lambda descriptor: os.pwrite(descriptor, b"x", 0),
    "os.writev": lambda descriptor: os.writev(descriptor, [b"x"]),
    "os.ftruncate": lambda descriptor: os.ftruncate(descriptor, 5_000_000),
    "os.truncate": lambda descriptor: os.truncate(descriptor, 5_000_000),
    "os.posix_fallocate": lambda descriptor: os.posix_fallocate(descriptor, 0, 4096),
    "os.fchmod": lambda descriptor: os.fchmod(descriptor, 0o600),
    "os.utime": lambda descriptor: os.utime(descriptor, (0, 0)),
}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("operation", THROUGH)
@pytest.mark.parametrize("duplicate", [False, True])
def test_nobody_changes_a_file_through_a_descriptor_that_was_kept(
    guard: tmpguard.Guard, operation: str, within: bool, duplicate: bool
) -> None:
    """C4.5"""
    with guard.invocation() as over:
        descriptor = os.open("/tmp/kept", os.O_RDWR | os.O_CREAT)
        if duplicate:
            first, descriptor = descriptor, os.dup(descriptor)
            os.close(first)
    with guard.invocation() if within else contextlib.nullcontext():
        with pytest.raises(OSError, match="Stale file handle"):
            THROUGH[operation](descriptor)
        os.fstat(descriptor)
        os.close(descriptor)
    assert [(late.operation, late.path) for late in over.report.late_writes] == [(operation, "/tmp/kept")]


def test_a_number_that_was_closed_and_is_used_again_is_not_refused(
    guard: tmpguard.Guard, tmp_path: Path
) -> None:
    with guard.invocation():
        descriptor = os.open("/tmp/kept", os.O_RDWR | os.O_CREAT)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, descriptor)
    os.close(other)
    assert os.write(descriptor, b"x") == 1
    os.close(descriptor)
    with guard.invocation():
        again = os.open("/tmp/new", os.O_RDWR | os.O_CREAT)
        assert os.write(again, b"x") == 1
        os.close(again)


def test_the_last_reference_may_go_with_the_close(guard: tmpguard.Guard) -> None:
    """A raw file has no buffer that an end would have to see to, and is closed by its own method."""
    with guard.invocation():
        kept = [open("/tmp/raw", "wb", buffering=0), tempfile.TemporaryFile(buffering=0)]
    while kept:
        kept.pop().close()  # warns where it is collected first: a ResourceWarning


def test_a_nameless_file_may_have_the_number_of_one_that_outlived_its_request(guard: tmpguard.Guard) -> None:
    """The file system gives a number to another file once the old one is closed."""
    from tmpguard.core.storage import outlived

    with guard.invocation() as first:
        kept = os.open("/tmp/kept", os.O_CREAT | os.O_RDWR)
    os.close(kept)
    with guard.invocation(), tempfile.TemporaryFile(buffering=0) as file:
        status = os.fstat(file.fileno())
        directory = first.mounted.directory
        assert directory is not None
        outlived.remember((status.st_dev, status.st_ino), outlived.Outlived(directory, "/tmp/kept", first))
        assert os.write(file.fileno(), b"text") == 4
