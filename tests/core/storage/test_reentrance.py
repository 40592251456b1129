"""A signal handler or a finalizer may use files in the middle of tmpguard's own code (DESIGN, decision 10).

One is called, or raises, at the lines of tmpguard's that an operation passes, once for each line. Afterwards
the figures are those of the disk, and the end leaves nothing. Every fiftieth line is tried; all of them with
``TMPGUARD_EVERY_LINE=1``, which takes some minutes.
"""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.context import unguarded
from tmpguard.core.layout import SOURCE_ROOT

MB = 1 << 20
STRIDE = 1 if os.environ.get("TMPGUARD_EVERY_LINE") else 50
PAGE = 4096


class Interrupted(BaseException):
    """What a signal handler raises."""


class Tracer:
    """Calls ``handler`` at the line of tmpguard's with the number ``at``, counted as they are first run."""

    def __init__(self, handler: Callable[[], object], at: int, *, raises: bool = False) -> None:
        self.handler = handler
        self.at = at
        #: A signal raises its exception behind a call only.
        self.raises = raises
        self.seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCE_ROOT):
            return None
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            if line not in self.seen and not (self.raises and "(" not in linecache.getline(*line)):
                self.seen.add(line)
                if len(self.seen) == self.at:
                    sys.settrace(None)
                    self.handler()
                    sys.settrace(self)
        return self

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def write(path: str, size: int, mode: str = "wb") -> None:
    with open(path, mode) as file:
        file.write(b"x" * size)


def expose(path: str, size: int) -> None:
    with open(path, "w+b") as file:
        file.write(b"x" * size)
        file.fileno()
        file.flush()
        originals.write(file.raw.fileno(), b"y" * size)


def by_descriptor(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x" * 10_000)
    os.ftruncate(descriptor, 5_000)
    os.close(descriptor)


def unlink_open() -> None:
    with open("/tmp/unlinked", "wb", buffering=0) as file:
        file.write(b"x" * 10_000)
        os.unlink("/tmp/unlinked")
        file.write(b"x" * 10_000)


def rewrite() -> None:
    with open("/tmp/there", "r+b") as file:
        file.write(b"y" * 9_000)
        file.seek(2 * PAGE)
        file.write(b"z" * 30_000)
        file.truncate(PAGE)


def fill() -> None:
    with contextlib.suppress(OSError):
        write("/tmp/much", 2 * MB)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/tmp/much")


def replace() -> None:
    write("/tmp/new", 3 * PAGE)
    os.replace("/tmp/new", "/tmp/there")


def directories() -> None:
    os.makedirs("/tmp/a/b", exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink("a", "/tmp/link")
    write("/tmp/link/file", 100)
    shutil.rmtree("/tmp/a", ignore_errors=True)


def database() -> None:
    with (
        contextlib.closing(sqlite3.connect("/tmp/rows.db")) as connection,
        contextlib.suppress(sqlite3.Error),
    ):
        connection.execute("CREATE TABLE rows (text)")
        connection.executemany("INSERT INTO rows VALUES (?)", [("x" * 900,)] * 20)
        connection.commit()
        connection.execute("DELETE FROM rows")
        connection.commit()
        connection.execute("VACUUM")


OPERATIONS: dict[str, Callable[[], object]] = {
    "write": lambda: write("/tmp/there", 10_000),
    "append": lambda: write("/tmp/there", 10_000, "ab"),
    "expose": lambda: expose("/tmp/exposed", 5_000),
    "by descriptor": lambda: by_descriptor("/tmp/raw"),
    "unlink an open file": unlink_open,
    "rewrite": rewrite,
    "fill": fill,
    "replace": replace,
    "directories": directories,
    "database": database,
}


def measure() -> None:
    invocation = tmpguard.current()  # none where tmpguard runs outside of it
    if invocation is not None:
        assert invocation.report.used_bytes >= 0


def change() -> None:
    with contextlib.suppress(FileNotFoundError):
        os.truncate("/tmp/there", 100)
    write("/tmp/signal", 7_000)
    expose("/tmp/signal", 3_000)
    os.unlink("/tmp/signal")


HANDLERS: dict[str, Callable[[], object]] = {
    "changes files": change,
    "measures": measure,
}


def on_disk(invocation: tmpguard.Invocation) -> int:
    """What the files of ``invocation`` take up, in bytes, asked by nothing of tmpguard's."""
    directory = invocation.volume.directory
    assert directory is not None
    total = 0
    with unguarded():
        for place, _, names in os.walk(directory):
            total += sum(os.lstat(f"{place}/{name}").st_blocks * 512 for name in names)
    return total


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A scratch root on a memory file system, where a file has as many blocks as tmpfs charges."""
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield root
    shutil.rmtree(root)


def run(guard: tmpguard.Guard, operation: Callable[[], object], tracer: Tracer, *, raises: bool) -> None:
    with guard.invocation() as invocation:
        try:
            with tracer.running():
                write("/tmp/there", 5 * PAGE)
                operation()
        except Interrupted:
            assert raises
            _quietly(lambda: os.unlink("/tmp/much"))  # else nothing more may fit
        gc.collect()
        quota = invocation.quota
        write("/tmp/last", 10)  # from here on nothing is in the middle of something
        used = on_disk(invocation)
        balance = quota.balance
        assert not quota._stepping
        assert quota._doubtful or quota.limit - balance - quota._limbo.bytes == used
        report = invocation.report
        assert report.used_bytes == used
        assert quota.limit - quota.balance == used
        assert not [found for found in report.violations if "native" in found.operation]
        quota._doubtful = False
    assert invocation.mounted.directory is None or not os.path.exists(invocation.mounted.directory)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_at_any_line_finds_and_leaves_true_figures(root: Path, name: str, handler: str) -> None:
    guard = tmpguard.Guard(scratch_root=root, bundle=None, storage_size=1)
    interrupt = HANDLERS[handler]
    at = 1 + len(name) % STRIDE
    while True:
        at += STRIDE
        tracer = Tracer(lambda: _quietly(interrupt), at)
        run(guard, OPERATIONS[name], tracer, raises=False)
        if len(tracer.seen) < at:
            break
    tmpguard.drain()
    guard.scratch.release()
    assert list(root.iterdir()) == []
    assert at > 50


def _quietly(call: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        call()


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_at_any_line_loses_no_charge(root: Path, name: str) -> None:
    def interrupt() -> None:
        raise Interrupted

    guard = tmpguard.Guard(scratch_root=root, bundle=None, storage_size=1)
    at = 1 + len(name) % STRIDE
    while True:
        at += STRIDE
        tracer = Tracer(interrupt, at, raises=True)
        run(guard, OPERATIONS[name], tracer, raises=True)
        if len(tracer.seen) < at:
            break
    tmpguard.drain()
    guard.scratch.tidy(everything=True)
    guard.scratch.release()
    assert list(root.iterdir()) == []
    assert at > 50


def test_a_storm_of_signals_loses_nothing(root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=root, bundle=None, storage_size=1)
    signals, calm = 0, False

    def handler(*_: object) -> None:
        nonlocal signals
        signals += 1
        if tmpguard.current() is not None:
            _quietly(change)
        if not calm:  # else a signal that is already on its way would set the timer that was just cleared
            signal.setitimer(signal.ITIMER_REAL, 0.0002)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while signals < 500:
            with guard.invocation() as invocation:
                for operation in OPERATIONS.values():
                    operation()
                assert not [found for found in invocation.report.violations if "native" in found.operation]
    finally:
        calm = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    tmpguard.drain()
    guard.scratch.release()
    assert list(root.iterdir()) == []
