"""The quota with many files and many threads, its report, and the limit on files (C3.3, C3.6)."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import fill, full, in_threads
from tmpguard.core.context import unguarded
from tmpguard.core.invocation import Invocation
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.pages import measure as original

MB = 1_048_576
PAGE = 4096


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


# --- the report (C3.6) ---------------------------------------------------------------------------------


def test_report_is_live_and_final(guard: tmpguard.Guard) -> None:
    """C3.2"""
    with guard.invocation() as invocation:
        report = invocation.report
        assert (report.quota_bytes, report.used_bytes, report.peak_bytes, report.files) == (MB, 0, 0, 0)
        os.mkdir("/tmp/directory")
        fill("/tmp/directory/file.bin", 5000)
        os.symlink("file.bin", "/tmp/directory/link")
        assert (report.used_bytes, report.peak_bytes, report.files) == (2 * PAGE, 2 * PAGE, 3)
        fill("/tmp/large.bin", 100 * PAGE)
        os.unlink("/tmp/large.bin")
        assert (report.used_bytes, report.peak_bytes, report.files) == (2 * PAGE, 102 * PAGE, 3)
    assert invocation.report is report
    assert (report.used_bytes, report.peak_bytes, report.files) == (2 * PAGE, 102 * PAGE, 3)


def test_report_of_an_invocation_without_files(guard: tmpguard.Guard) -> None:
    """C4.7"""
    with guard.invocation() as invocation:
        pass
    report = invocation.report
    assert (report.quota_bytes, report.used_bytes, report.peak_bytes, report.files) == (MB, 0, 0, 0)


PEAKS: dict[str, Callable[[], Any]] = {
    "unlinked": lambda: (fill("/tmp/a", 60 * PAGE), os.unlink("/tmp/a"), fill("/tmp/b", 10 * PAGE)),
    "truncated": lambda: (fill("/tmp/a", 60 * PAGE), os.truncate("/tmp/a", 10 * PAGE)),
    "opened again": lambda: (fill("/tmp/a", 60 * PAGE), fill("/tmp/a", 10 * PAGE)),
    "renamed over": lambda: (
        fill("/tmp/a", 50 * PAGE),
        fill("/tmp/b", 10 * PAGE),
        os.rename("/tmp/b", "/tmp/a"),
    ),
    "temporary": lambda: _temporary(60 * PAGE, 10 * PAGE),
}


def _temporary(size: int, kept: int) -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(size))
    fill("/tmp/kept.bin", kept)


@pytest.mark.parametrize("way", PEAKS)
def test_peak_is_the_most_that_was_used_at_one_time(guard: tmpguard.Guard, way: str) -> None:
    """C3.2: told live or only when all is over; a page more for each write at an unknown offset."""
    allowed = (60 * PAGE, 61 * PAGE) if way == "temporary" else (60 * PAGE,)
    for ask in (True, False):
        with guard.invocation() as invocation:
            PEAKS[way]()
            if ask:
                assert invocation.report.peak_bytes in allowed
                assert invocation.report.used_bytes == 10 * PAGE
        assert invocation.report.peak_bytes in allowed
        assert invocation.report.used_bytes == 10 * PAGE


def test_larger_storage_size(scratch_root: Path) -> None:
    """C3.1"""
    guard = tmpguard.Guard(storage_size=3, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert shutil.disk_usage("/tmp").total == invocation.report.quota_bytes == 3 * MB
        fill("/tmp/file.bin", 3 * MB)
        with full():
            fill("/tmp/more.bin", 1)


# --- the limit on files (C3.6) -------------------------------------------------------------------------


@pytest.fixture
def few(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(max_files=3, bundle=None, scratch_root=scratch_root)


INODES: dict[str, Callable[[str], Any]] = {
    "open": lambda path: open(path, "w").close(),
    "os.open": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
    "os.mkdir": os.mkdir,
    "os.symlink": lambda path: os.symlink("target", path),
    "os.mkfifo": os.mkfifo,
    "os.mknod": os.mknod,
    "shutil.copy": lambda path: shutil.copy(__file__, path),
    "Path.touch": lambda path: Path(path).touch(),
}


@pytest.mark.parametrize("maker", INODES)
def test_no_more_files_than_allowed(few: tmpguard.Guard, maker: str) -> None:
    """C3.6"""
    with few.invocation() as invocation:
        status = os.statvfs("/tmp")
        assert (status.f_files, status.f_ffree, status.f_favail) == (3, 3, 3)
        for number in range(3):
            INODES[maker](f"/tmp/{number}")
            assert os.statvfs("/tmp").f_ffree == 2 - number
        with full():
            INODES[maker]("/tmp/more")
        assert not os.path.lexists("/tmp/more")
        assert invocation.report.files == 3
        os.rename("/tmp/0", "/tmp/renamed")
        (os.rmdir if maker == "os.mkdir" else os.unlink)("/tmp/1")
        INODES[maker]("/tmp/more")
        with full():
            INODES[maker]("/tmp/and-more")


def test_files_that_are_there_may_be_written_at_the_limit(few: tmpguard.Guard) -> None:
    """C3.6"""
    with few.invocation() as invocation:
        for number in range(3):
            Path(f"/tmp/{number}").touch()
        for mode in ("w", "a", "r+"):
            with open("/tmp/0", mode) as file:
                file.write("text")
        os.rename("/tmp/0", "/tmp/1")
        Path("/tmp/0").touch()
        with pytest.raises(FileExistsError):
            os.mkdir("/tmp/0")
        with pytest.raises(FileNotFoundError):
            open("/tmp/missing/file", "w")
        assert not invocation.report.violations
        with full():
            Path("/tmp/more").touch()
        (violation,) = invocation.report.violations
        assert (violation.path, violation.errno) == ("/tmp/more", errno.ENOSPC)


def test_unlinked_file_counts_until_it_is_closed(few: tmpguard.Guard) -> None:
    """C3.2, C3.6"""
    with few.invocation():
        files = [tempfile.TemporaryFile() for _ in range(3)]
        with full():
            Path("/tmp/more").touch()
        files.pop().close()
        Path("/tmp/more").touch()
        for file in files:
            file.close()


# --- threads (C3.3) ------------------------------------------------------------------------------------


THREADS = 8


def pages_in_tmp() -> int:
    """What the files in /tmp hold by their lengths, whatever the quota thinks of it: in bytes."""
    sizes = [entry.stat().st_size for entry in os.scandir("/tmp") if entry.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def test_threads_fill_it_to_the_last_byte_and_not_beyond(guard: tmpguard.Guard) -> None:
    """C3.1, C3.4"""

    def work(number: int) -> None:
        choose = random.Random(number)
        with open(f"/tmp/{number}", "wb", buffering=0) as file:
            with full():
                while True:
                    file.write(bytes(choose.randrange(1, 9000)))
            with full():
                file.write(bytes(PAGE))

    with guard.invocation():
        in_threads(THREADS, work)
        assert shutil.disk_usage("/tmp").free == 0
        assert pages_in_tmp() == MB


@pytest.mark.parametrize("kind", ["unlink", "truncate", "rewrite", "temporary", "descriptor"])
def test_threads_are_never_refused_while_there_is_space(guard: tmpguard.Guard, kind: str) -> None:
    """C3.3: each of eight has an eighth of it, writes it full and frees it again."""
    share = MB // 8

    def work(number: int) -> None:
        path = f"/tmp/{number}"
        for _ in range(60):
            if kind == "temporary":
                with tempfile.TemporaryFile(buffering=0) as file:
                    assert file.write(bytes(share)) == share
                continue
            if kind == "descriptor":
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for _ in range(4):
                    assert os.write(descriptor, bytes(share // 4)) == share // 4
                os.close(descriptor)
            else:
                fill(path, share)
            if kind == "unlink":
                os.unlink(path)
            elif kind == "truncate":
                os.truncate(path, 0)

    with guard.invocation() as invocation:
        in_threads(THREADS, work)
        assert not invocation.report.violations
        assert invocation.report.peak_bytes <= MB


def test_threads_that_write_and_delete_never_overrun(guard: tmpguard.Guard) -> None:
    """C3.1, C3.4: looked at whenever all of them stand still; and what is free is then granted."""

    def check() -> None:
        assert pages_in_tmp() == shutil.disk_usage("/tmp").used <= MB

    barrier = threading.Barrier(THREADS, action=check)

    def work(number: int) -> None:
        choose = random.Random(number)
        try:
            for _ in range(30):
                for _ in range(5):
                    _write_or_delete(f"/tmp/{number}-{choose.randrange(4)}", choose)
                barrier.wait()
        except BaseException:
            barrier.abort()
            raise

    with guard.invocation() as invocation:
        in_threads(THREADS, work)
        assert invocation.report.peak_bytes <= MB
        assert any(violation.errno == errno.ENOSPC for violation in invocation.report.violations)


def test_threads_are_refused_only_when_all_is_used(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3.1, C3.4: looked at when each refusal is made, and after each step, while nobody can write."""
    refused: list[int] = []
    refusal = Invocation.refusal

    def refused_now(self: Any, *args: Any, **options: Any) -> OSError:
        refused.append(pages_in_tmp())
        return refusal(self, *args, **options)

    monkeypatch.setattr(Invocation, "refusal", refused_now)
    with guard.invocation() as invocation:
        lock, most = invocation.quota.lock, [0]

        def work(number: int) -> None:
            choose = random.Random(number)
            for _ in range(40):
                _write_or_delete(f"/tmp/{number}-{choose.randrange(3)}", choose)
                if choose.random() < 0.2:
                    assert shutil.disk_usage("/tmp").used <= MB
                with lock:
                    most[0] = max(most[0], pages_in_tmp())

        in_threads(THREADS, work)
        assert most == [MB]
        assert set(refused) == {MB}


def _write_or_delete(path: str, choose: random.Random) -> None:
    if choose.random() < 0.3:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        file.write(bytes(choose.randrange(1, 150_000)))


def test_threads_that_write_delete_and_measure_share_it_without_a_quarrel(guard: tmpguard.Guard) -> None:
    """C3.1, C3.3: each of eight keeps to an eighth of it, so none is refused; nobody measures too much."""
    share = MB // 8

    def work(number: int) -> None:
        choose = random.Random(number)
        for turn in range(50):
            _spend(f"/tmp/{number}", share, choose.choice(SPENDING), choose)
            if turn % 4 == number % 4:
                assert 0 <= shutil.disk_usage("/tmp").used <= MB
                assert tmpguard.current().report.used_bytes <= MB  # type: ignore[union-attr]

    with guard.invocation() as invocation:
        in_threads(THREADS, work)
        assert not invocation.report.violations
        assert shutil.disk_usage("/tmp").used == pages_in_tmp() == invocation.report.used_bytes
        assert invocation.report.peak_bytes <= MB


SPENDING = (
    "write",
    "append",
    "sparse",
    "truncate",
    "unlink",
    "replace",
    "temporary",
    "descriptor",
    "mapping",
)


def _spend(path: str, share: int, how: str, choose: random.Random) -> None:
    """Use what there is of ``share`` in one of many ways; never more, since what was there goes first."""
    size = choose.randrange(1, share + 1)
    if how != "truncate":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if how == "write":
        fill(path, size)
    elif how == "append":
        for _ in range(8):
            with open(path, "ab") as file:
                file.write(bytes(size // 8))
    elif how == "sparse":
        with open(path, "wb") as file:
            file.seek(10 * MB)
            file.write(bytes(min(size, share - PAGE)))
    elif how == "truncate":
        with open(path, "ab") as file:
            file.truncate(size // 2)
    elif how == "replace":
        fill(path, size // 2)
        fill(path + ".new", size // 2 // PAGE * PAGE)
        os.replace(path + ".new", path)
    elif how == "temporary":
        with tempfile.TemporaryFile(buffering=0) as temporary:
            assert temporary.write(bytes(size)) == size
    elif how == "descriptor":
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(descriptor, 0, size)
        assert os.pwrite(descriptor, bytes(size), 0) == size
        os.close(descriptor)
    elif how == "mapping":
        with open(path, "w+b") as file:
            file.truncate(size)
            with mmap.mmap(file.fileno(), size) as mapping:
                mapping[:] = b"x" * size


@pytest.mark.parametrize("kind", ["unlinked", "never named"])
def test_a_nameless_file_with_several_descriptors_is_given_back_once(
    guard: tmpguard.Guard, kind: str
) -> None:
    with guard.invocation():
        for _ in range(3):
            if kind == "unlinked":
                Path("/tmp/file").write_bytes(bytes(8 * PAGE))
                file = open("/tmp/file", "r+b")
                os.unlink("/tmp/file")
            else:
                file = open(os.open("/tmp", os.O_TMPFILE | os.O_RDWR), "r+b")
                file.write(bytes(8 * PAGE))
                file.flush()
            copies = [os.fdopen(os.dup(file.fileno()), "r+b") for _ in range(3)]
            for opened in (file, *copies):
                opened.close()
        # Nothing here asks for the disk usage, which would set all right.
        for number in range(MB // PAGE):
            Path(f"/tmp/{number}").write_bytes(bytes(PAGE))
        with full():
            Path("/tmp/last").write_bytes(bytes(1))


# --- thousands of files (DESIGN, decision 3) -----------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scratch directories that were measured, one entry for each time."""
    calls: list[str] = []

    def measure(parent: int, name: str) -> Usage:
        calls.append(name)
        return original(parent, name)

    monkeypatch.setattr(sys.modules["tmpguard.core.storage.volume"], "measure", measure)
    return calls


FILES = 3000


def _rewritten(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"text")


def _updated(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"text")


def _written_at(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"text", 10)
    os.close(descriptor)


def _replaced(path: str) -> None:
    os.unlink(path)
    _rewritten(path)


def _emptied(path: str) -> None:
    os.truncate(path, 0)
    _written_at(path)


REWRITES: dict[str, Callable[[str], None]] = {
    "open wb": _rewritten,
    "open r+b": _updated,
    "os.pwrite": _written_at,
    "unlink": _replaced,
    "truncate": _emptied,
}


def test_full_tmp_of_many_files_is_not_measured_for_each_rewrite(
    scratch_root: Path, measured: list[str]
) -> None:
    """C3.3: the count of measurements does not grow with the rewrites."""
    guard = tmpguard.Guard(storage_size=12, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        for number in range(FILES):
            fill(f"/tmp/{number}", 1)
        fill("/tmp/rest.bin", 12 * MB - FILES * PAGE)
        assert len(measured) <= 1
        for kind, rewrite in REWRITES.items():
            measured.clear()
            for _ in range(200):
                rewrite("/tmp/1500")
            assert len(measured) <= 1, kind
        assert not invocation.report.violations
        with full():
            fill("/tmp/more", 1)
        assert invocation.report.used_bytes == 12 * MB


def test_work_far_from_the_limit_measures_nothing(guard: tmpguard.Guard, measured: list[str]) -> None:
    """C3.2: a write only subtracts from the credit."""
    with guard.invocation():
        for number in range(20):
            fill(f"/tmp/{number}", 5000)
            os.unlink(f"/tmp/{number}")
        assert not measured


# --- the peak is what the disk held at one time -------------------------------------------------------


def bytes_on_disk(invocation: tmpguard.Invocation) -> int:
    """What the files of ``invocation`` hold, in bytes, asked by nothing of tmpguard's."""
    directory = invocation.volume.directory
    assert directory is not None
    with unguarded():
        found = [os.lstat(f"{place}/{name}") for place, _, names in os.walk(directory) for name in names]
    return sum(status.st_blocks * 512 for status in found)


@pytest.fixture
def in_memory() -> Iterator[tmpguard.Guard]:
    """A guard whose scratch root is on a tmpfs, where a file has the blocks that are charged."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm")
    root = tempfile.mkdtemp(dir="/dev/shm")
    yield tmpguard.Guard(storage_size=1, bundle=None, scratch_root=root)
    tmpguard.drain()
    shutil.rmtree(root)


def test_the_peak_of_a_rewritten_archive_is_its_size(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation, zipfile.ZipFile("/tmp/z.zip", "w") as archive:
        for number in range(17):
            archive.writestr(f"f{number}", bytes(2000))
    assert invocation.report.peak_bytes == invocation.report.used_bytes == 9 * PAGE


def test_the_peak_counts_what_a_child_removed(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        Path("/tmp/large").write_bytes(bytes(50 * PAGE))
        with unguarded():
            os.unlink(f"{invocation.volume.directory}/large")  # as a child does
        assert invocation.report.used_bytes == 0
        assert invocation.report.peak_bytes == 50 * PAGE
    assert invocation.report.peak_bytes == 50 * PAGE


def test_two_files_open_on_the_same_name_are_counted_once(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        with (
            open("/tmp/x", "wb", 0) as one,
            open("/tmp/x", "wb", 0) as other,
            open("/tmp/x", "ab", 0) as third,
        ):
            for _ in range(10):
                one.write(bytes(PAGE))
                other.write(bytes(PAGE))
            third.write(bytes(PAGE))
        os.unlink("/tmp/x")
    assert invocation.report.peak_bytes == 11 * PAGE


@pytest.mark.parametrize("seed", range(20))
def test_the_peak_is_that_of_the_disk_whatever_is_done(in_memory: tmpguard.Guard, seed: int) -> None:
    chance = random.Random(seed)
    names = ["/tmp/a", "/tmp/b", "/tmp/c"]
    most = 0
    with in_memory.invocation() as invocation:
        opened: list[Any] = []
        for _ in range(60):
            name, size = chance.choice(names), chance.choice([1, 100, PAGE, 5000, 40_000])
            kind = chance.randrange(7)
            if kind == 0 and len(opened) < 3:
                opened.append(open(name, chance.choice(["wb", "ab", "w+b"]), 0))
            elif kind == 1 and opened:
                opened.pop(chance.randrange(len(opened))).close()
            elif kind in (2, 3) and opened:
                chance.choice(opened).write(b"x" * size)
            elif kind == 4 and opened:
                file = chance.choice(opened)
                file.seek(
                    chance.randrange(os.fstat(file.fileno()).st_size + 1) if chance.random() < 0.5 else 0
                )
            elif kind == 5:
                Path(name).write_bytes(b"y" * size)
            elif not opened and os.path.exists(name):
                chance.choice([os.unlink, lambda path: os.replace(path, "/tmp/d")])(name)
            most = max(most, bytes_on_disk(invocation))
        for file in opened:
            file.close()
        assert invocation.report.peak_bytes == most
        assert invocation.report.used_bytes == bytes_on_disk(invocation)
    assert invocation.report.peak_bytes == most
