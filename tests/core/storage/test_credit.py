"""Whatever is done to files with many names and descriptors, nothing is taken for free that is not (C3).

The quota is kept by credit, which is set right whenever the disk is measured. Here nobody asks for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import io
import mmap
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core.invocation import Invocation
from tmpguard.interpose.files import builtin_open

LIBC = ctypes.CDLL(None)
PAGE = 4096
STEPS = 300
#: Few, so that they meet again and again.
PATHS = [f"/tmp/{name}" for name in "abc"]
MOST = 5
SIZES = (1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 20 * PAGE, 90 * PAGE)


class Work:
    """Random steps on a few paths and open files."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.opened: list[Any] = []
        self.done: list[str] = []

    def step(self) -> None:
        # What is opened closes itself sooner or later, and is then forgotten.
        while len(self.opened) > MOST:
            self.close_one()
        kind = self.random.choice(STEPS_OF_ALL_KINDS)
        self.done.append(kind.__name__)
        with contextlib.suppress(OSError, ValueError):
            kind(self)

    def close(self) -> None:
        while self.opened:
            self.close_one()

    # --- choices ---------------------------------------------------------------------------------------

    def path(self) -> str:
        return self.random.choice(PATHS)

    def size(self) -> int:
        return self.random.choice(SIZES)

    def any(self) -> Any:
        if not self.opened:
            self.open()
        return self.random.choice(self.opened)

    def descriptor(self) -> int:
        chosen = self.any()
        return chosen if isinstance(chosen, int) else int(chosen.fileno())

    # --- steps -----------------------------------------------------------------------------------------

    def open(self) -> None:
        mode = self.random.choice(["wb", "w+b", "ab", "r+b", "x+b", "a+b", "rb"])
        self.opened.append(open(self.path(), mode, self.random.choice([-1, -1, 0, 50])))

    def open_text(self) -> None:
        self.opened.append(open(self.path(), self.random.choice(["w", "a", "r+"])))

    def open_descriptor(self) -> None:
        flags = self.random.choice([0, os.O_TRUNC, os.O_APPEND, os.O_EXCL])
        self.opened.append(os.open(self.path(), os.O_RDWR | os.O_CREAT | flags))

    def open_nameless(self) -> None:
        self.opened.append(os.open("/tmp", os.O_TMPFILE | os.O_RDWR))

    def open_by_descriptor(self) -> None:
        number = self.random.choice([os.dup, _by_fcntl])(self.descriptor())
        try:
            self.opened.append(open(number, self.random.choice(["r+b", "wb", "ab", "rb"])))
        except (OSError, ValueError):
            os.close(number)

    def open_by_link(self) -> None:
        self.opened.append(
            open(f"/proc/self/fd/{self.descriptor()}", self.random.choice(["r+b", "wb", "ab"]))
        )

    def copy_descriptor(self) -> None:
        self.opened.append(os.dup(self.descriptor()))

    def replace_descriptor(self) -> None:
        os.dup2(self.descriptor(), self.descriptor())

    def write(self) -> None:
        chosen, data = self.any(), bytes(self.size())
        if isinstance(chosen, int):
            self.random.choice([os.write, _at_the_front, _in_parts])(chosen, data)
        else:
            chosen.write(data.decode() if isinstance(chosen, io.TextIOBase) else data)

    def write_natively(self) -> None:
        # What it took is found by the next guarded call.
        chosen, data = self.any(), bytes(self.size())
        if isinstance(chosen, int) or chosen.writable():
            descriptor = chosen if isinstance(chosen, int) else chosen.fileno()
            LIBC.write(descriptor, data, ctypes.c_size_t(len(data)))
        os.path.exists(PATHS[0])

    def flush(self) -> None:
        chosen = self.any()
        if not isinstance(chosen, int):
            chosen.flush()

    def seek(self) -> None:
        chosen, offset = self.any(), self.random.choice([0, 10, PAGE, 30 * PAGE])
        if isinstance(chosen, int):
            os.lseek(chosen, offset, os.SEEK_SET)
        else:
            chosen.seek(offset)

    def truncate(self) -> None:
        chosen, size = self.any(), self.random.choice([0, 1, PAGE, 5 * PAGE])
        if isinstance(chosen, int):
            os.ftruncate(chosen, size)
        else:
            chosen.truncate(size)

    def cut_and_go_on(self) -> None:
        # Of what is open and was never asked for its descriptor the end is known without asking the disk.
        files = [file for file in self.opened if isinstance(getattr(file, "name", None), str)]
        if not files:
            return
        file = self.random.choice(files)
        self.random.choice([os.truncate, _rewrite])(file.name, 0)
        size = self.size()
        file.write(b"x" * size if not isinstance(file, io.TextIOBase) else "x" * size)
        file.flush()

    def truncate_by_path(self) -> None:
        os.truncate(self.path(), self.random.choice([0, 1, PAGE, 5 * PAGE]))

    def allocate(self) -> None:
        os.posix_fallocate(self.descriptor(), self.random.choice([0, PAGE]), self.size())

    def map(self) -> None:
        descriptor = self.descriptor()
        status = os.fstat(descriptor)
        if status.st_blocks * 512 >= status.st_size:  # a disk may allocate the holes around what is touched
            with mmap.mmap(descriptor, 2 * PAGE) as mapped:
                mapped[PAGE + 1] = 1

    def copy(self) -> None:
        shutil.copyfile(self.path(), self.path())

    def move(self) -> None:
        self.random.choice([os.rename, os.replace])(self.path(), self.path())

    def link(self) -> None:
        os.link(self.path(), self.path())

    def link_descriptor(self) -> None:
        os.link(f"/proc/self/fd/{self.descriptor()}", self.path(), follow_symlinks=True)

    def unlink(self) -> None:
        os.unlink(self.path())

    def look(self) -> None:
        # From then on the credit is just what is free, and no longer hides what is taken for nothing.
        shutil.disk_usage("/tmp")

    def look_again(self) -> None:
        self.look()

    def close_one(self) -> None:
        if not self.opened:
            return
        chosen = self.opened.pop(self.random.randrange(len(self.opened)))
        with contextlib.suppress(OSError):
            if isinstance(chosen, int):
                os.close(chosen)
            else:
                chosen.close()

    def close_by_number(self) -> None:
        chosen = self.any()
        if isinstance(chosen, io.RawIOBase):
            self.opened.remove(chosen)
            os.close(chosen.fileno())
            with contextlib.suppress(OSError):
                chosen.close()

    def forget(self) -> None:
        files = [chosen for chosen in self.opened if not isinstance(chosen, int)]
        if files:
            self.opened.remove(self.random.choice(files))


STEPS_OF_ALL_KINDS: list[Callable[[Work], None]] = [
    step
    for name, step in vars(Work).items()
    if not name.startswith("_") and name not in ("step", "close", "path", "size", "any", "descriptor")
]


def _by_fcntl(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)


def _at_the_front(descriptor: int, data: bytes) -> int:
    return os.pwrite(descriptor, data, 0)


def _rewrite(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def _in_parts(descriptor: int, data: bytes) -> int:
    return os.writev(descriptor, [data[:10], data[10:]])


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing is closed meanwhile by the collector of cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def excess(invocation: Invocation) -> tuple[int, int]:
    """How many bytes and how many files more than there are free the quota takes for free."""
    quota = invocation.quota
    with quota.lock, _uncollected():
        held, _ = invocation.volume.measure()
        files = quota._files_credit + held.files - quota.max_files if quota.max_files is not None else 0
        return max(0, quota.balance + held.bytes - quota.limit), max(0, files)


def _truncate_another() -> None:
    with open("/tmp/log", "r+b") as file:
        file.truncate(0)


def _cut_natively() -> None:
    """By a descriptor that is closed again, with as much in the file as before."""
    with open("/tmp/log", "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        LIBC.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), b"x", size + 10 * PAGE)


CUTS: dict[str, Callable[[], object]] = {
    "open": lambda: open("/tmp/log", "w").close(),
    "os.open": lambda: os.close(os.open("/tmp/log", os.O_WRONLY | os.O_TRUNC)),
    "os.truncate": lambda: os.truncate("/tmp/log", 0),
    "truncate": _truncate_another,
    "copyfile": lambda: shutil.copyfile("/tmp/empty", "/tmp/log"),
    "natively": _cut_natively,
}


@pytest.mark.parametrize("lifetime", ["invocation", "instance"])
@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("cut", CUTS)
def test_what_was_cut_under_an_open_file_is_charged_anew(
    scratch_root: Path, cut: str, buffering: int, lifetime: str
) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, lifetime=lifetime)
    with guard.invocation() as invocation, open("/tmp/log", "wb", buffering) as log:
        Path("/tmp/empty").touch()
        for size in (100, 10, PAGE, 5000, 3 * PAGE):
            log.write(bytes(size))
            log.flush()
            shutil.disk_usage("/tmp")
            with guard.invocation() if lifetime == "instance" else contextlib.nullcontext():
                CUTS[cut]()
            log.write(bytes(size))
            log.flush()
            assert excess(invocation) == (0, 0)
    guard.end_instance()


def test_what_was_cut_unseen_is_charged_anew_once_the_disk_was_asked(scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation, open("/tmp/log", "wb", 0) as log:
        log.write(bytes(PAGE + 1))
        LIBC.truncate(os.fsencode(f"{invocation.namespace.scratch()}/log"), ctypes.c_long(0))
        shutil.disk_usage("/tmp")
        log.write(b"x")
        assert excess(invocation) == (0, 0)


@pytest.mark.parametrize("size", [1, 10, PAGE - 1, PAGE, 3 * PAGE + 5])
@pytest.mark.parametrize("mode", ["ab", "a"])
def test_an_append_is_charged_from_where_the_file_ended(scratch_root: Path, mode: str, size: int) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        for turn in range(1, 6):
            with open("/tmp/log", mode) as log:
                log.write("x" * size if mode == "a" else b"x" * size)  # type: ignore[call-overload]
            assert excess(invocation) == (0, 0)
            used = invocation.quota.limit - invocation.quota.balance
            assert used == -(-turn * size // PAGE) * PAGE  # without having measured
        assert os.path.getsize("/tmp/log") == 5 * size


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_a_file_that_is_opened_again_while_it_is_being_opened(
    scratch_root: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """By a signal handler, or by another thread: both may write to it then."""
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    others: list[Any] = []

    def init(raw: io.FileIO, *args: Any) -> None:
        original(raw, *args)
        monkeypatch.undo()
        others.append(open("/tmp/log", "ab", 0))
        others[0].write(bytes(PAGE - 10))

    original = builtin_open._init
    with guard.invocation() as invocation:
        Path("/tmp/log").write_bytes(b"")
        monkeypatch.setattr(builtin_open, "_init", init)
        with open("/tmp/log", mode) as log:
            for _ in range(4):
                for file in (log, others[0]):
                    file.write(bytes(PAGE + 1))
                    file.flush()
                    used = invocation.quota.limit - invocation.quota.balance
                    assert used == invocation.volume.measure()[0].bytes
        others[0].close()
    assert len(others) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("limits", [{"storage_size": 128}, {"storage_size": 1}, {"max_files": 5}], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_random_work_never_has_more_credit_than_there_is_free(
    scratch_root: Path, seed: int, limits: dict[str, int]
) -> None:
    work = Work(seed)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, **limits)
    with guard.invocation() as invocation, contextlib.closing(work):
        for _ in range(STEPS):
            work.step()
            assert excess(invocation) == (0, 0), f"{excess(invocation)} after {work.done[-8:]}"
        while work.opened:
            work.done.append("close")
            work.close_one()
            assert excess(invocation) == (0, 0), f"{excess(invocation)} after {work.done[-8:]}"
