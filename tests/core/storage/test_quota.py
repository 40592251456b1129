"""The quota of an invocation's /tmp: what fits, what is charged and what is given back (C3)."""

from __future__ import annotations

import contextlib
import enum
import errno
import mmap
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import tmpguard
from tests.support import full, used

MB = 1_048_576
PAGE = 4096


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "fits.bin").write_bytes(bytes(range(256)) * 4096)
    (directory / "over.bin").write_bytes(bytes(range(256)) * 4096 + b"+")
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


def fill(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.write(bytes(size))


# --- exactly so many bytes (C3.1, C3.4, C3.5) ----------------------------------------------------------


def _write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[write(view) or 0 :]


def _opened(mode: str, step: int, **options: Any) -> Callable[[str, bytes], None]:
    def write(path: str, data: bytes) -> None:
        with open(path, mode, **options) as file:
            for start in range(0, len(data), step):
                piece = data[start : start + step]
                file.write(piece if "b" in mode else piece.decode("latin-1"))

    return write


def _raw(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        _write_all(file.write, data)


@contextlib.contextmanager
def _descriptor(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _os_write(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        _write_all(lambda view: os.write(descriptor, view), data)


def _os_writev(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        _write_all(lambda view: os.writev(descriptor, [view[:3], view[3:10_000], view[10_000:]]), data)


def _os_pwrite(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        for end in range(len(data), 0, -100_000):  # from behind, so that there are holes in between
            start = max(0, end - 100_000)
            while start < end:
                start += os.pwrite(descriptor, data[start:end], start)


def _os_pwritev(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        done = 0
        while done < len(data):
            done += os.pwritev(descriptor, [data[done : done + 70_000]], done)


def _sendfile(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor, open(_source(data), "rb") as source:
        done = 0
        while done < len(data):
            done += os.sendfile(descriptor, source.fileno(), done, len(data) - done)


def _splice(path: str, data: bytes) -> None:
    reader, writer = os.pipe()
    try:
        with _descriptor(path) as descriptor:
            for start in range(0, len(data), PAGE):
                piece = data[start : start + PAGE]
                os.write(writer, piece)
                assert os.splice(reader, descriptor, len(piece)) == len(piece)
    finally:
        os.close(reader)
        os.close(writer)


def _fallocated(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        os.posix_fallocate(descriptor, 0, len(data))
        os.pwrite(descriptor, data, 0)


def _mapped(path: str, data: bytes) -> None:
    with _descriptor(path) as descriptor:
        os.ftruncate(descriptor, len(data))
        with mmap.mmap(descriptor, len(data)) as mapping:
            mapping[:] = data


def _temporary(path: str, data: bytes) -> None:
    # Closed by itself: where the disk is full, `with` leaves it open, of which 3.14 warns.
    with contextlib.closing(tempfile.NamedTemporaryFile(dir="/tmp", delete=False)) as file:
        file.write(data)
    os.rename(file.name, path)


def _source(data: bytes) -> str:
    return "fits.bin" if len(data) <= MB else "over.bin"


WRITERS: dict[str, Callable[[str, bytes], Any]] = {
    "buffered": _opened("wb", MB * 2),
    "buffered in small steps": _opened("wb", 1000),
    "buffered without truncating": _opened("ab", 5000),
    "text": _opened("w", 10_000, encoding="latin-1", newline=""),
    "raw": _raw,
    "Path.write_bytes": lambda path, data: Path(path).write_bytes(data),
    "os.write": _os_write,
    "os.writev": _os_writev,
    "os.pwrite": _os_pwrite,
    "os.pwritev": _os_pwritev,
    "os.sendfile": _sendfile,
    "os.splice": _splice,
    "os.posix_fallocate": _fallocated,
    "mmap": _mapped,
    "shutil.copyfile": lambda path, data: shutil.copyfile(_source(data), path),
    "shutil.copyfileobj": lambda path, data: _copied(path, _source(data)),
    "tempfile": _temporary,
}


def _copied(path: str, source: str) -> None:
    with open(path, "wb") as target, open(source, "rb") as origin:
        shutil.copyfileobj(origin, target)


@pytest.mark.parametrize("writer", WRITERS)
def test_exactly_the_storage_size_fits_and_one_byte_more_does_not(guard: tmpguard.Guard, writer: str) -> None:
    """C3.1, C3.4, C3.5"""
    write, fits, over = WRITERS[writer], Path("fits.bin"), Path("over.bin")
    with guard.invocation() as invocation:
        write("/tmp/file.bin", fits.read_bytes())
        assert os.path.getsize("/tmp/file.bin") == MB == used()
        assert not invocation.report.violations
        assert Path("/tmp/file.bin").read_bytes() == fits.read_bytes()
        with full():
            fill("/tmp/one-more.bin", 1)
        os.unlink("/tmp/file.bin")
        os.unlink("/tmp/one-more.bin")
        assert used() == 0
        with full():
            write("/tmp/file.bin", over.read_bytes())
        assert used() <= MB
        if os.path.exists("/tmp/file.bin") and writer not in ("os.pwrite", "os.posix_fallocate", "mmap"):
            assert Path("/tmp/file.bin").read_bytes() == fits.read_bytes()
            assert used() == MB
        assert invocation.report.violations[-1].errno == errno.ENOSPC


def test_copy_file_range_fills_it_to_the_last_byte(guard: tmpguard.Guard) -> None:
    """C3.4, C3.5: within /tmp, that is; from elsewhere it has to be copied otherwise (C1.1)."""
    with guard.invocation():
        with open("/tmp/source.bin", "wb") as file:
            file.write(os.urandom(MB // 2 + 1))
        with open("/tmp/source.bin", "rb") as source, _descriptor("/tmp/copy.bin") as copy:
            copied = os.copy_file_range(source.fileno(), copy, MB)
            assert copied == MB // 2 - PAGE
            assert used() == MB
            with full():
                os.copy_file_range(source.fileno(), copy, MB)
        with open("/tmp/source.bin", "rb") as source:
            assert Path("/tmp/copy.bin").read_bytes() == source.read(copied)
        with open("fits.bin", "rb") as outside, _descriptor("/tmp/copy.bin") as copy:
            with pytest.raises(OSError, match="Invalid cross-device link") as caught:
                os.copy_file_range(outside.fileno(), copy, 1)
            assert caught.value.errno == errno.EXDEV


def test_numbers_of_other_types_are_descriptors_too(guard: tmpguard.Guard) -> None:
    """C3.5: of an enumeration, for example."""
    with guard.invocation() as invocation:
        with open("/tmp/file.bin", "wb") as file:
            number = enum.IntEnum("number", {"descriptor": file.fileno()}).descriptor
            assert os.write(number, bytes(PAGE)) == PAGE
            assert os.write(number, bytes(2 * MB)) == MB - PAGE
            with open(number, "wb", buffering=0, closefd=False) as again, full():
                again.write(b"x")
            assert [violation.operation for violation in invocation.report.violations] == ["write"]


@pytest.mark.parametrize("flags", [os.RWF_APPEND, os.RWF_APPEND | os.RWF_DSYNC])
def test_what_pwritev_appends_whatever_the_offset_is_charged(guard: tmpguard.Guard, flags: int) -> None:
    """C3.5"""
    with guard.invocation():
        fill("/tmp/file.bin", MB - 2 * PAGE)
        with open("/tmp/file.bin", "r+b", buffering=0) as file:
            assert os.pwritev(file.fileno(), [bytes(3 * PAGE)], 0, flags) == 2 * PAGE
            assert used() == MB
            with full():
                os.pwritev(file.fileno(), [b"x"], 0, flags)
            assert os.path.getsize("/tmp/file.bin") == MB


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 10_000])
def test_whole_pages_are_charged(guard: tmpguard.Guard, size: int) -> None:
    """C3.2"""
    with guard.invocation():
        fill("/tmp/file.bin", size)
        assert used() == -(-size // PAGE) * PAGE


def test_many_small_files_fill_it_page_by_page(guard: tmpguard.Guard) -> None:
    """C3.2: one byte takes a page, an empty file none."""
    with guard.invocation():
        for number in range(MB // PAGE):
            fill(f"/tmp/{number}", 1)
        assert used() == MB
        with full():
            fill("/tmp/one-more", 1)
        fill("/tmp/empty", 0)
        with open("/tmp/0", "ab") as file:
            file.write(bytes(PAGE - 1))  # its page has room
        assert used() == MB


# --- archives (C3.5) -----------------------------------------------------------------------------------


def test_zip_archive_fits_to_the_byte(guard: tmpguard.Guard) -> None:
    """C3.5"""
    overhead = 30 + 46 + 22 + 2 * len("name")

    def pack(size: int) -> None:
        with zipfile.ZipFile("/tmp/archive.zip", "w") as archive:
            archive.writestr("name", bytes(size - overhead))

    with guard.invocation():
        pack(MB)
        assert os.path.getsize("/tmp/archive.zip") == MB == used()
        with full():
            pack(MB + 1)
        assert used() <= MB


def test_tar_archive(guard: tmpguard.Guard) -> None:
    """C3.5: it grows by records of 10 KiB."""

    def pack(size: int) -> None:
        with tarfile.open("/tmp/archive.tar", "w") as archive:
            with open("fits.bin", "rb") as source:
                entry = tarfile.TarInfo("name")
                entry.size = size
                archive.addfile(entry, source)

    with guard.invocation():
        pack(102 * 10_240 - 3 * 512)
        assert os.path.getsize("/tmp/archive.tar") == 102 * 10_240 == used()
        with full():
            pack(102 * 10_240)
        assert used() <= MB


def test_unpacking_stops_where_it_is_full(guard: tmpguard.Guard, project: Path) -> None:
    """C3.4, C3.5: a bomb fills no more than the quota."""
    with zipfile.ZipFile(project / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("first.bin", bytes(MB // 2))
        archive.writestr("second.bin", bytes(MB))
    with guard.invocation():
        with full():
            shutil.unpack_archive("bomb.zip", "/tmp/unpacked")
        assert os.path.getsize("/tmp/unpacked/first.bin") == MB // 2
        assert os.path.getsize("/tmp/unpacked/second.bin") == MB // 2
        assert used() == MB
        shutil.rmtree("/tmp/unpacked")
        assert used() == 0


# --- the part that fits (C3.4) -------------------------------------------------------------------------

PARTS: dict[str, Callable[[int, bytes], int]] = {
    "os.write": os.write,
    "os.writev": lambda descriptor, data: os.writev(descriptor, [data[:100], data[100:]]),
    "os.pwrite": lambda descriptor, data: os.pwrite(descriptor, data, os.fstat(descriptor).st_size),
    "os.pwritev": lambda descriptor, data: os.pwritev(descriptor, [data], os.fstat(descriptor).st_size),
    "os.sendfile": lambda descriptor, data: _from_project(os.sendfile, descriptor),
}


def _from_project(call: Callable[..., int], descriptor: int) -> int:
    with open("over.bin", "rb") as source:
        return call(descriptor, source.fileno(), 0, MB + 1)


@pytest.mark.parametrize("writer", PARTS)
@pytest.mark.parametrize("before", [0, 1000])
def test_write_that_fits_in_part_returns_the_short_count(
    guard: tmpguard.Guard, writer: str, before: int
) -> None:
    """C3.4"""
    with guard.invocation() as invocation, _descriptor("/tmp/file.bin") as descriptor:
        assert os.write(descriptor, bytes(before)) == before
        assert PARTS[writer](descriptor, bytes(MB + 1)) == MB - before
        assert not invocation.report.violations
        with full():
            PARTS[writer](descriptor, b"+")
        assert os.fstat(descriptor).st_size == MB == used()
        assert len(invocation.report.violations) == 1


def test_raw_file_returns_the_short_count(guard: tmpguard.Guard) -> None:
    """C3.4"""
    with guard.invocation(), open("/tmp/file.bin", "wb", buffering=0) as file:
        assert file.write(bytes(1000)) == 1000
        assert file.write(bytes(MB)) == MB - 1000
        with full():
            file.write(b"+")
        assert file.tell() == MB


def test_allocation_is_all_or_nothing(guard: tmpguard.Guard) -> None:
    """C3.4, C3.5: as fallocate(2) on a tmpfs."""
    with guard.invocation(), _descriptor("/tmp/file.bin") as descriptor:
        with full():
            os.posix_fallocate(descriptor, 0, MB + 1)
        assert used() == 0
        os.posix_fallocate(descriptor, 0, MB // 2)
        with full():
            os.posix_fallocate(descriptor, 0, MB + 1)
        assert used() == MB // 2
        os.posix_fallocate(descriptor, 0, MB)
        assert used() == MB


def test_buffered_file_keeps_what_was_not_written_yet(guard: tmpguard.Guard) -> None:
    """C3.4: nothing that was accepted is lost; flushed again once there is space, it is all there."""
    data = os.urandom(3 * PAGE)
    with guard.invocation():
        fill("/tmp/other.bin", MB - PAGE)
        with open("/tmp/file.bin", "wb", buffering=MB) as file:
            file.write(data)
            with full():
                file.flush()
            assert os.path.getsize("/tmp/file.bin") == PAGE
            with full():
                file.flush()
            os.unlink("/tmp/other.bin")
            file.flush()
        assert Path("/tmp/file.bin").read_bytes() == data


def test_buffered_file_raises_from_write_flush_or_close(guard: tmpguard.Guard) -> None:
    """C3.4"""
    with guard.invocation():
        with open("/tmp/file.bin", "wb") as file:
            with full():
                file.write(bytes(2 * MB))
            assert used() == MB
            os.truncate("/tmp/file.bin", 0)
        fill("/tmp/other.bin", MB - used())
        late: BinaryIO = open("/tmp/late.bin", "wb")
        assert late.write(b"+") == 1
        with full():
            late.close()
        assert late.closed
        with full(), open("/tmp/text.txt", "w") as text:
            text.write("text")


# --- what a refusal tells ------------------------------------------------------------------------------


def test_refused_write_is_a_violation_with_a_note(guard: tmpguard.Guard) -> None:
    """C2.3, C2.4, C3.4"""
    with guard.invocation() as invocation:
        fill("/tmp/other.bin", MB)
        with open("/tmp/file.bin", "wb", buffering=0) as file:
            with pytest.raises(OSError, match="No space left on device") as caught:
                file.write(b"+")
        assert caught.value.filename is None
        (note,) = caught.value.__notes__
        assert "/tmp is full" in note
        assert "1 MB" in note
    (violation,) = invocation.report.violations
    assert (violation.path, violation.errno) == ("/tmp/file.bin", errno.ENOSPC)
    assert violation.location is not None
    assert violation.location.file == __file__
