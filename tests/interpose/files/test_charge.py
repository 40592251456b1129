"""What is charged to the quota, what is given back, and when (C3.2, C3.3, C3.6)."""

from __future__ import annotations

import gc
import mmap
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import fill, full, grows_by_a_page, used

MB = 1_048_576
PAGE = 4096


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


# --- what costs nothing (C3.2) -------------------------------------------------------------------------


def test_directories_and_empty_files_and_short_links_cost_nothing(guard: tmpguard.Guard) -> None:
    """C3.2"""
    with guard.invocation():
        fill("/tmp/full.bin", MB)
        os.makedirs("/tmp/" + "/".join("abcdefghij"))
        for number in range(300):
            os.mkdir(f"/tmp/{number}")
            os.symlink("t" * 100, f"/tmp/{number}/link")
            Path(f"/tmp/{number}/empty").touch()
        os.mkfifo("/tmp/fifo")
        assert used() == MB


def test_long_links_cost_a_page(guard: tmpguard.Guard) -> None:
    """C3.2: a tmpfs keeps targets of up to 127 bytes in the inode."""
    with guard.invocation():
        os.symlink("t" * 127, "/tmp/short")
        assert used() == 0
        os.symlink("t" * 128, "/tmp/long")
        assert used() == PAGE
        os.unlink("/tmp/long")
        assert used() == 0
        fill("/tmp/full.bin", MB)
        with full():
            os.symlink("t" * 128, "/tmp/long")
        assert not os.path.lexists("/tmp/long")
        os.symlink("t" * 127, "/tmp/other")


def test_holes_cost_nothing_until_they_are_written(guard: tmpguard.Guard) -> None:
    """C3.2"""
    with guard.invocation():
        with open("/tmp/sparse.bin", "w+b", buffering=0) as file:
            file.truncate(100 * MB)
            assert os.path.getsize("/tmp/sparse.bin") == 100 * MB
            assert used() == 0
            file.seek(50 * MB)
            file.write(b"+")
            assert used() == PAGE
            file.seek(50 * MB + 10)
            file.write(b"+")  # in the same page
            assert used() == PAGE
            os.pwrite(file.fileno(), b"+" * 2, 10 * PAGE - 1)  # in two pages
            assert used() == 3 * PAGE
            file.seek(0)
            assert file.read(10) == bytes(10)
            assert used() == 3 * PAGE
            file.truncate(20 * PAGE)
            assert used() == 2 * PAGE
        fill("/tmp/rest.bin", MB - 2 * PAGE)
        with open("/tmp/sparse.bin", "r+b", buffering=0) as file:
            file.seek(9 * PAGE)
            assert file.write(bytes(2 * PAGE)) == 2 * PAGE  # those two are there
            with full():
                file.write(b"+")


def test_hard_links_are_charged_once(guard: tmpguard.Guard) -> None:
    """C3.2"""
    with guard.invocation():
        fill("/tmp/first", MB // 2)
        for name in ("second", "third"):
            os.link("/tmp/first", f"/tmp/{name}")
            assert used() == MB // 2
        os.unlink("/tmp/first")
        os.rename("/tmp/third", "/tmp/second")  # the same file: both names stay
        assert used() == MB // 2
        fill("/tmp/other", MB // 2)
        with full():
            fill("/tmp/more", 1)
        os.unlink("/tmp/second")
        assert used() == MB
        os.unlink("/tmp/third")
        assert used() == MB // 2


# --- unlinked and open (C3.2) --------------------------------------------------------------------------


def _temporary() -> Any:
    return tempfile.TemporaryFile(buffering=0)


def _unlinked() -> Any:
    file = open("/tmp/unlinked.bin", "w+b", buffering=0)
    os.unlink("/tmp/unlinked.bin")
    return file


def _replaced() -> Any:
    file = open("/tmp/replaced.bin", "w+b", buffering=0)
    Path("/tmp/empty").touch()
    os.replace("/tmp/empty", "/tmp/replaced.bin")
    return file


def _with_its_directory() -> Any:
    os.makedirs("/tmp/gone/deep")
    file = open("/tmp/gone/deep/file.bin", "w+b", buffering=0)
    shutil.rmtree("/tmp/gone")
    return file


def _nameless() -> Any:
    return open(os.open("/tmp", os.O_RDWR | os.O_TMPFILE, 0o600), "w+b", buffering=0)


UNLINKED: dict[str, Callable[[], Any]] = {
    "TemporaryFile": _temporary,
    "os.unlink": _unlinked,
    "os.replace": _replaced,
    "rmtree": _with_its_directory,
    "O_TMPFILE": _nameless,
}


@pytest.mark.parametrize("kind", UNLINKED)
@pytest.mark.parametrize("by_descriptor", [False, True])
def test_unlinked_file_costs_until_it_is_closed(
    guard: tmpguard.Guard, kind: str, by_descriptor: bool
) -> None:
    """C3.2, C3.3"""
    with guard.invocation():
        file = UNLINKED[kind]()
        write = (lambda data: os.write(file.fileno(), data)) if by_descriptor else file.write
        assert write(bytes(MB // 2)) == MB // 2
        assert used() == MB // 2
        assert write(bytes(MB)) == MB // 2
        assert used() == MB
        with full():
            write(b"+")
        with full():
            fill("/tmp/other.bin", 1)
        file.seek(0)
        assert file.read() == bytes(MB)
        file.close()
        fill("/tmp/other.bin", MB)
        assert used() == MB


def test_unlinked_file_costs_until_its_last_descriptor_is_closed(guard: tmpguard.Guard) -> None:
    """C3.2"""
    with guard.invocation():
        with open("/tmp/file.bin", "wb", buffering=0) as file:
            file.write(bytes(MB))
            copy = os.dup(file.fileno())
            os.unlink("/tmp/file.bin")
        assert used() == MB
        with full():
            fill("/tmp/other.bin", 1)
        os.close(copy)
        assert used() == 0
        fill("/tmp/other.bin", MB)


def test_unlinked_file_costs_while_it_is_mapped(guard: tmpguard.Guard) -> None:
    """C3.2: a mapping holds it as a descriptor does."""
    with guard.invocation():
        with open("/tmp/file.bin", "w+b", buffering=0) as file:
            file.write(bytes(MB // 2))
            mapping = mmap.mmap(file.fileno(), 0)
        os.unlink("/tmp/file.bin")
        assert used() == MB // 2
        mapping.close()
        assert used() == 0


def test_named_temporary_file_is_free_when_it_is_closed(guard: tmpguard.Guard) -> None:
    """C3.2, C3.3"""
    with guard.invocation():
        for _ in range(3):
            with tempfile.NamedTemporaryFile() as file:
                file.write(bytes(MB))
                file.flush()
                assert used() == MB
            with tempfile.TemporaryDirectory() as directory:
                fill(f"{directory}/file.bin", MB)
                assert used() == MB
        assert used() == 0


def test_forgotten_file_is_free_when_it_is_collected(guard: tmpguard.Guard) -> None:
    """C3.2, C3.3"""
    with guard.invocation():
        file: Any = tempfile.TemporaryFile(buffering=0)
        file.write(bytes(MB))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del file
            gc.collect()
        fill("/tmp/other.bin", MB)


# --- freed space can be used at once (C3.3) ------------------------------------------------------------


def _reopened(path: str) -> None:
    open(path, "wb").close()


def _truncated_by_descriptor(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.ftruncate(descriptor, 0)
    os.close(descriptor)


def _truncated_by_file(path: str) -> None:
    with open(path, "r+b") as file:
        file.truncate(0)


def _opened_truncating(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def _renamed_over(path: str) -> None:
    Path("/tmp/empty").touch()
    os.rename("/tmp/empty", path)


def _moved_over(path: str) -> None:
    os.mkdir("/tmp/directory")
    Path("/tmp/directory/empty").touch()
    shutil.move("/tmp/directory/empty", path)


FREEING: dict[str, Callable[[str], Any]] = {
    "os.unlink": os.unlink,
    "Path.unlink": lambda path: Path(path).unlink(),
    "os.truncate": lambda path: os.truncate(path, 0),
    "os.ftruncate": _truncated_by_descriptor,
    "file.truncate": _truncated_by_file,
    "open wb": _reopened,
    "open O_TRUNC": _opened_truncating,
    "os.rename": _renamed_over,
    "shutil.move": _moved_over,
    "Path.write_bytes": lambda path: Path(path).write_bytes(b""),
}


@pytest.mark.parametrize("way", FREEING)
def test_freed_space_can_be_used_at_once(guard: tmpguard.Guard, way: str) -> None:
    """C3.3"""
    with guard.invocation() as invocation:
        for _ in range(3):
            fill("/tmp/file.bin", MB)
            assert used() == MB
            FREEING[way]("/tmp/file.bin")
            fill("/tmp/other.bin", MB)
            assert used() == MB
            os.unlink("/tmp/other.bin")
            shutil.rmtree("/tmp/directory", ignore_errors=True)
            assert used() == 0
        assert not invocation.report.violations


def test_rmtree_frees_all_of_it(guard: tmpguard.Guard) -> None:
    """C3.3"""
    with guard.invocation():
        for _ in range(2):
            for number in range(32):
                os.makedirs(f"/tmp/tree/{number}")
                fill(f"/tmp/tree/{number}/file.bin", MB // 32)
            with full():
                fill("/tmp/other.bin", 1)
            shutil.rmtree("/tmp/tree")
            os.unlink("/tmp/other.bin")
            assert used() == 0


def test_full_file_can_be_overwritten_in_place(guard: tmpguard.Guard) -> None:
    """C3.3"""
    with guard.invocation() as invocation:
        fill("/tmp/file.bin", MB)
        for mode in ("r+b", "wb", "w+b"):
            with open("/tmp/file.bin", mode) as file:
                file.write(os.urandom(MB))
            assert used() == MB
        descriptor = os.open("/tmp/file.bin", os.O_RDWR)
        for offset in (0, 5000, MB - 10):
            assert os.pwrite(descriptor, b"0123456789", offset) == 10
        with mmap.mmap(descriptor, 0) as mapping:
            mapping[:] = bytes(MB)
        os.close(descriptor)
        assert used() == MB
        assert not invocation.report.violations


def test_part_of_a_file_is_freed_by_truncating(guard: tmpguard.Guard) -> None:
    """C3.3"""
    with guard.invocation():
        fill("/tmp/file.bin", MB)
        for size, kept in ((MB - 1, MB), (MB - PAGE, MB - PAGE), (PAGE + 1, 2 * PAGE), (1, PAGE), (0, 0)):
            os.truncate("/tmp/file.bin", size)
            assert used() == kept
            fill("/tmp/rest.bin", MB - kept)
            assert used() == MB
            os.unlink("/tmp/rest.bin")


# --- many steps (C3.6) ---------------------------------------------------------------------------------


def test_usage_is_exact_after_each_of_many_steps(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C3.2, C3.3, C3.6: against a model of files as sets of pages."""
    grows = grows_by_a_page(scratch_root)
    choose = random.Random(3)
    model: dict[str, set[int]] = {}
    with guard.invocation() as invocation:
        peak = 0
        for step in range(400):
            name = f"/tmp/{choose.randrange(6)}"
            offset, size = choose.randrange(40) * 1000, choose.randrange(1, 60_000)
            action = choose.choice(["write", "write", "append", "truncate", "unlink", "rename", "hole"])
            pages = model.setdefault(name, set())
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                length = os.fstat(descriptor).st_size
                if action in ("write", "append"):
                    offset = length if action == "append" else offset
                    new = set(range(offset // PAGE, (offset + size - 1) // PAGE + 1))
                    if grows and offset > length and length % PAGE:
                        new.add(length // PAGE)
                    if sum(map(len, model.values())) + len(new - pages) > MB // PAGE:
                        continue
                    assert os.pwrite(descriptor, bytes(size), offset) == size
                    pages |= new
                elif action in ("truncate", "hole"):
                    size = size if action == "truncate" else length + size
                    os.ftruncate(descriptor, size)
                    if grows and size > length and length % PAGE:
                        pages.add(length // PAGE)
                    pages -= {page for page in pages if page * PAGE >= size}
                elif action == "unlink":
                    os.unlink(name)
                    del model[name]
                else:
                    os.rename(name, "/tmp/0")
                    model["/tmp/0"] = model.pop(name)
            finally:
                os.close(descriptor)
            expected = sum(map(len, model.values())) * PAGE
            assert used() == expected, f"step {step}: {action}"
            peak = max(peak, expected)
        assert invocation.report.peak_bytes == peak
        assert not invocation.report.violations
    assert invocation.report.used_bytes == sum(map(len, model.values())) * PAGE
    assert invocation.report.files == len(model)


@pytest.mark.parametrize("mode", ["wb", "w+b", "w"])
def test_buffer_in_a_cycle_is_collected_without_a_word(
    mode: str, guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7.2: the collector clears references before it closes files, and the buffer still has its own."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    with guard.invocation(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        cycle: list[object] = [open("/tmp/file", mode)]
        cycle[0].write("text" if mode == "w" else b"data")  # type: ignore[attr-defined]
        cycle.append(cycle)
        del cycle
        gc.collect()
    assert told == []


def test_buffer_is_flushed_when_the_collector_has_cleared_the_reference_to_its_file(
    guard: tmpguard.Guard,
) -> None:
    """As the collector of cycles may do it: references first, then what the finalizers still write."""
    with guard.invocation() as invocation:
        with open("/tmp/file", "wb") as file:
            charge = file.raw.write.__self__  # type: ignore[attr-defined]
            charge._raw = lambda: None
            file.write(b"data")
        assert Path("/tmp/file").read_bytes() == b"data"
        with pytest.raises(ValueError, match="closed file"):
            charge.write(b"more")
        assert invocation.report.used_bytes == 4096


# --- pipes ---------------------------------------------------------------------------------------------


def _by_descriptor(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _by_file(mode: str, buffering: int = -1, opener: Any = None) -> Callable[[str, bytes], None]:
    def write(path: str, data: bytes) -> None:
        with open(path, mode, buffering, opener=opener) as file:
            for start in range(0, len(data), 50_000):
                part = data[start : start + 50_000]
                file.write(part if "b" in mode else part.decode())

    return write


def _by_a_given_descriptor(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY), "wb") as file:
        file.write(data)


INTO_PIPES: dict[str, Callable[[str, bytes], None]] = {
    "os.write": _by_descriptor,
    "open w": _by_file("w"),
    "open wb": _by_file("wb"),
    "open ab": _by_file("ab"),
    "open wb without a buffer": _by_file("wb", 0),
    "opener": _by_file("wb", opener=lambda path, flags: os.open(path, flags)),
    "descriptor": _by_a_given_descriptor,
    "write_bytes": lambda path, data: Path(path).write_bytes(data) and None,
}


@pytest.mark.parametrize("way", INTO_PIPES)
def test_what_goes_through_a_pipe_is_not_charged(scratch_root: Path, way: str) -> None:
    data = b"x" * ((1 << 20) + 100_000)
    with tmpguard.invocation(storage_size=1, scratch_root=scratch_root, bundle=None) as invocation:
        os.mkfifo("/tmp/pipe")
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(Path("/tmp/pipe").read_bytes()), daemon=True)
        reader.start()
        INTO_PIPES[way]("/tmp/pipe", data)
        reader.join()
        assert read == [data]
        assert invocation.report.peak_bytes == 0
        assert not invocation.report.violations


@pytest.mark.parametrize("limits", [{}, {"max_files": 5}], ids=str)
@pytest.mark.parametrize("mode", ["w", "wb", "ab"])
def test_who_waits_for_the_other_end_of_a_pipe_keeps_nobody_waiting(
    scratch_root: Path, mode: str, limits: dict[str, int]
) -> None:
    with tmpguard.invocation(storage_size=1, scratch_root=scratch_root, bundle=None, **limits):
        os.mkfifo("/tmp/pipe")
        Path("/tmp/file").write_bytes(b"x")
        opened = threading.Event()

        def wait() -> None:
            with open("/tmp/pipe", mode):
                opened.set()

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        for _ in range(50):
            Path("/tmp/file").write_bytes(b"xy")
            os.truncate("/tmp/file", 1)
            time.sleep(0.001)
        descriptor = os.open("/tmp/pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert opened.wait(10)
        waiting.join()
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "splice"), reason="os.splice is Linux's")
def test_who_waits_for_what_is_spliced_keeps_nobody_waiting(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        out, into = os.pipe()
        spliced: list[int] = []

        def wait() -> None:
            with open("/tmp/spliced", "wb") as file:
                while count := os.splice(out, file.fileno(), 1 << 20):
                    spliced.append(count)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        for _ in range(20):
            Path("/tmp/file").write_bytes(bytes(PAGE + 1))
            os.write(into, b"x" * 100)
            time.sleep(0.001)
        os.close(into)
        waiting.join(10)
        assert not waiting.is_alive()
        os.close(out)
        assert sum(spliced) == os.path.getsize("/tmp/spliced") == 2000
        assert used() == 3 * PAGE
