"""What writes by a descriptor below Python: the quota's truth is the disk (C3.5)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import logging
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads

MB = 1 << 20
EXCEEDED = "quota exceeded by a native writer"


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as invocation:
        yield invocation


def native_write(descriptor: int, size: int) -> None:
    """As a C library writes."""
    libc = ctypes.CDLL(None)
    data = b"\1" * size
    assert libc.write(descriptor, data, ctypes.c_size_t(size)) == size


def operations(invocation: tmpguard.Invocation) -> list[tuple[str, str]]:
    return [(violation.operation, violation.path) for violation in invocation.report.violations]


def full(action: Callable[[], object]) -> OSError:
    with pytest.raises(OSError, match="No space left on device") as caught:
        action()
    assert caught.value.errno == errno.ENOSPC
    return caught.value


def counted(invocation: tmpguard.Invocation) -> int:
    """As tmpguard counted it, without asking the disk for all of it."""
    quota = invocation.quota
    quota.check()
    return quota.limit - quota.balance - quota._limbo.bytes


# --- how it is found -----------------------------------------------------------------------------------


def write_a_file() -> None:
    Path("/tmp/other").write_bytes(b"text")


#: Guarded calls, each of which finds it.
CALLS: dict[str, Callable[[Any], object]] = {
    "stat": lambda _: os.stat("/tmp/file"),
    "listdir": lambda _: os.path.exists("/tmp/missing"),
    "open for reading": lambda _: open("/tmp/file", "rb").close(),
    "unlink": lambda _: os.unlink("/tmp/file"),
    "disk_usage": lambda _: shutil.disk_usage("/tmp"),
    "report": lambda invocation: invocation.report.used_bytes,
}


@pytest.mark.parametrize("call", CALLS)
def test_next_guarded_call_finds_an_overrun(
    invocation: tmpguard.Invocation, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    file = open("/tmp/file", "wb")
    native_write(file.fileno(), 2 * MB)
    assert not invocation.report._violations
    with contextlib.suppress(OSError):
        CALLS[call](invocation)
    (violation,) = invocation.report.violations
    assert (violation.operation, violation.path, violation.errno) == (EXCEEDED, "/tmp/file", errno.ENOSPC)
    assert violation.location is not None
    assert violation.location.file == __file__
    assert EXCEEDED in caplog.text
    file.close()
    assert len(invocation.report.violations) == 1
    assert invocation.report.peak_bytes == 2 * MB


def test_next_write_is_refused_until_space_is_freed(invocation: tmpguard.Invocation) -> None:
    """C3.3"""
    file = open("/tmp/file", "wb", buffering=0)
    file.write(b"text")
    native_write(file.fileno(), 2 * MB)
    other = open("/tmp/other", "wb", buffering=0)
    for write in (
        lambda: file.write(b"x"),
        lambda: other.write(b"x"),
        write_a_file,
        lambda: os.pwrite(other.fileno(), b"x", 0),
        lambda: os.posix_fallocate(other.fileno(), 0, 1),
    ):
        assert EXCEEDED in full(write).__notes__[0]
    assert operations(invocation)[0] == (EXCEEDED, "/tmp/file")
    assert invocation.report.used_bytes == 2 * MB + 4096
    os.truncate("/tmp/file", 0)
    assert other.write(b"x") == 1
    file.close()
    other.close()
    write_a_file()
    assert invocation.report.used_bytes == counted(invocation) == 4096


def test_overrun_that_is_found_by_closing_is_an_error_then(invocation: tmpguard.Invocation) -> None:
    file = open("/tmp/file", "w")
    native_write(file.fileno(), 2 * MB)
    error = full(file.close)
    assert EXCEEDED in error.__notes__[0]
    assert file.closed
    assert operations(invocation) == [(EXCEEDED, "/tmp/file")]
    os.unlink("/tmp/file")
    write_a_file()
    assert counted(invocation) == invocation.report.used_bytes == 4096


def test_next_overrun_is_told_after_the_first_one_was_removed(invocation: tmpguard.Invocation) -> None:
    """Nothing was written the usual way in between."""
    for path in ("/tmp/one.bin", "/tmp/two.bin"):
        with pytest.raises(OSError, match="No space left on device"):
            with open(path, "wb") as file:
                native_write(file.fileno(), 2 * MB)
        os.unlink(path)
    assert operations(invocation) == [(EXCEEDED, "/tmp/one.bin"), (EXCEEDED, "/tmp/two.bin")]


def test_overrun_of_a_file_that_is_never_closed_is_found_at_the_end(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        file = open("/tmp/file", "wb")
        native_write(file.fileno(), 2 * MB)
    assert operations(invocation) == [(EXCEEDED, "/tmp/file")]
    assert invocation.report.used_bytes == invocation.report.peak_bytes == 2 * MB
    file.close()


def test_guard_that_only_watches_records_it(scratch_root: Path) -> None:
    """C2.5: when the disk is asked, at the end."""
    guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root, enforce=False)
    with guard.invocation() as invocation, tempfile.NamedTemporaryFile(dir="/tmp") as file:
        native_write(file.fileno(), 2 * MB)
        invocation.end()
    assert operations(invocation) == [(EXCEEDED, file.name)]


def test_an_instance_tells_it_to_the_request_that_did_it(scratch_root: Path) -> None:
    guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root, lifetime="instance")
    try:
        with guard.invocation() as first:
            write_a_file()
        with guard.invocation() as second:
            file = open("/tmp/file", "wb")
            native_write(file.fileno(), 2 * MB)
        assert not first.report.violations
        assert operations(second) == [(EXCEEDED, "/tmp/file")]
        with guard.invocation():
            full(write_a_file)
        file.close()
    finally:
        guard.end_instance()


# --- which descriptors ---------------------------------------------------------------------------------


def of_os_open() -> int:
    return os.open("/tmp/file", os.O_RDWR | os.O_CREAT)


def of_mkstemp() -> int:
    return tempfile.mkstemp()[0]


def of_tmpfile() -> int:
    return os.open("/tmp", os.O_RDWR | os.O_TMPFILE)


def of_dup() -> int:
    with open("/tmp/file", "wb") as file:
        return os.dup(file.fileno())


def of_dup2() -> int:
    spare = os.open("/dev/null", os.O_RDONLY)
    with open("/tmp/file", "wb") as file:
        return os.dup2(file.fileno(), spare)


@pytest.mark.parametrize("make", [of_os_open, of_mkstemp, of_tmpfile, of_dup, of_dup2])
def test_raw_descriptors_are_looked_at(invocation: tmpguard.Invocation, make: Callable[[], int]) -> None:
    descriptor = make()
    try:
        native_write(descriptor, 10_000)
        write_a_file()
        assert counted(invocation) == invocation.report.used_bytes == 3 * 4096 + 4096
        native_write(descriptor, 2 * MB)
        full(write_a_file)
        assert operations(invocation)[0][0] == EXCEEDED
    finally:
        os.close(descriptor)


def test_descriptor_that_is_closed_is_looked_at_once_more(invocation: tmpguard.Invocation) -> None:
    descriptor = of_os_open()
    native_write(descriptor, 2 * MB)
    os.close(descriptor)
    full(write_a_file)
    os.unlink("/tmp/file")
    write_a_file()
    assert not invocation.quota.check()
    assert counted(invocation) == invocation.report.used_bytes == 4096


def test_descriptors_file_that_is_renamed_or_unlinked_stays_counted(invocation: tmpguard.Invocation) -> None:
    """C3.2"""
    descriptor = of_os_open()
    native_write(descriptor, 10_000)
    os.rename("/tmp/file", "/tmp/renamed")
    native_write(descriptor, 10_000)
    assert counted(invocation) == 20480
    os.unlink("/tmp/renamed")
    native_write(descriptor, 10_000)
    assert invocation.report.used_bytes == 32768
    os.close(descriptor)
    assert invocation.report.used_bytes == 0


def test_child_that_still_writes_when_its_file_is_closed_is_found(invocation: tmpguard.Invocation) -> None:
    code = "import sys; sys.stdin.read(); sys.stdout.write('x' * 2_000_000)"
    with open("/tmp/file", "wb") as file:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=file)
    write_a_file()
    child.communicate(b"now")
    os.stat("/tmp/other")
    assert operations(invocation) == [(EXCEEDED, "/tmp/file")]
    full(write_a_file)


def test_written_files_whose_descriptor_nobody_has_are_not_looked_at(
    invocation: tmpguard.Invocation,
) -> None:
    """They cost nothing more, and neither does what was closed."""
    files = [open("/tmp/a", "w"), open("/tmp/b", "wb"), open("/tmp/c", "w+b")]
    with tempfile.NamedTemporaryFile() as named, tempfile.TemporaryFile("w") as nameless:
        assert not invocation.quota._exposed
        nameless.write("text")
        named.fileno()
        assert len(invocation.quota._exposed) == 1
    for file in files:
        file.close()
    shutil.copyfile("/tmp/a", "/tmp/copy")
    assert not invocation.quota._exposed
    os.stat("/tmp/a")
    assert invocation.mounted.prefix is not None


def test_own_writes_to_an_exposed_file_are_charged_once(invocation: tmpguard.Invocation) -> None:
    with open("/tmp/file", "w+b") as file:
        file.fileno()
        for _ in range(5):
            file.write(bytes(10_000))
            file.flush()
            native_write(file.fileno(), 10_000)
            file.seek(0, os.SEEK_END)
        assert counted(invocation) == invocation.report.used_bytes == 102_400
        file.truncate(50_000)
        assert counted(invocation) == invocation.report.used_bytes == 53_248
        os.unlink("/tmp/file")
        file.write(bytes(100_000))
        file.flush()
    assert counted(invocation) == invocation.report.used_bytes == 0


def test_link_made_while_a_file_is_exposed_is_followed(invocation: tmpguard.Invocation) -> None:
    """C1.2"""
    with open("/tmp/file", "wb") as file:
        file.fileno()
        os.mkdir("/tmp/directory")
        os.symlink("/tmp/directory", "/tmp/link")
        Path("/tmp/link/../inner").write_text("text")
        assert os.path.exists("/tmp/inner")
    os.stat("/tmp/file")
    assert os.path.realpath("/tmp/link/x") == "/tmp/directory/x"
    assert invocation.mounted.prefix is None


def test_threads_with_exposed_files_never_overrun_by_their_own_writes(
    invocation: tmpguard.Invocation,
) -> None:
    def work(number: int) -> None:
        for turn in range(30):
            with contextlib.suppress(OSError), open(f"/tmp/{number}", "wb", buffering=0) as file:
                file.fileno()
                for _ in range(4):
                    file.write(bytes(50_000))
                    file.truncate(10_000 * (turn % 3))

    in_threads(4, work)
    assert invocation.report.peak_bytes <= MB
    assert EXCEEDED not in dict(operations(invocation))
    assert counted(invocation) == invocation.report.used_bytes


def test_log_in_tmp_of_an_overrun_does_no_harm(invocation: tmpguard.Invocation) -> None:
    handler = logging.FileHandler("/tmp/guard.log")
    logging.getLogger("tmpguard").addHandler(handler)
    try:
        with open("/tmp/file", "wb") as file:
            native_write(file.fileno(), MB - 8192)
            os.stat("/tmp/file")
            native_write(file.fileno(), 100_000)
            with contextlib.suppress(OSError):
                write_a_file()
    finally:
        logging.getLogger("tmpguard").removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
    assert operations(invocation)[0] == (EXCEEDED, "/tmp/file")


# --- the libraries -------------------------------------------------------------------------------------


def saved_array(size: int) -> str:
    numpy = pytest.importorskip("numpy")
    numpy.save("/tmp/array.npy", numpy.ones(size, dtype="u1"))
    return "/tmp/array.npy"


def array_to_file(size: int) -> str:
    numpy = pytest.importorskip("numpy")
    numpy.ones(size, dtype="u1").tofile("/tmp/array.bin")
    return "/tmp/array.bin"


def array_to_open_file(size: int) -> str:
    numpy = pytest.importorskip("numpy")
    with open("/tmp/array.bin", "wb") as file:
        file.write(b"head")
        numpy.ones(size, dtype="u1").tofile(file)
        file.write(b"tail")
    return "/tmp/array.bin"


def picture(size: int) -> Any:
    image = pytest.importorskip("PIL.Image")
    side = int(size**0.5)
    return image.effect_noise((side, side), 120)


def saved_jpeg(size: int) -> str:
    picture(size).save("/tmp/picture.jpg", quality=100)
    return "/tmp/picture.jpg"


def saved_tiff(size: int) -> str:
    picture(size).save("/tmp/picture.tif")
    return "/tmp/picture.tif"


def by_child(size: int) -> str:
    with open("/tmp/output", "wb") as file:
        subprocess.run(["head", "-c", str(size), "/dev/zero"], stdout=file, check=True)
    return "/tmp/output"


LIBRARIES = [saved_array, array_to_file, array_to_open_file, saved_jpeg, saved_tiff, by_child]


@pytest.mark.parametrize("save", LIBRARIES)
def test_libraries_that_write_natively_are_counted_and_limited(
    invocation: tmpguard.Invocation, save: Callable[[int], str]
) -> None:
    path = save(100_000)
    size = -(-os.path.getsize(path) // 4096) * 4096
    assert size > 40_000
    assert counted(invocation) == invocation.report.used_bytes == size
    assert not invocation.report.violations
    full(lambda: save(5 * MB))
    assert invocation.report.violations[-1].errno == errno.ENOSPC
    for name in os.listdir("/tmp"):
        os.unlink(f"/tmp/{name}")
    assert os.path.getsize(save(100_000)) > 40_000
    assert invocation.report.used_bytes == size


def test_memory_map_of_numpy_is_charged(invocation: tmpguard.Invocation) -> None:
    numpy = pytest.importorskip("numpy")
    mapped = numpy.memmap("/tmp/mapped", dtype="u1", mode="w+", shape=(100_000,))
    mapped[:] = 1
    mapped.flush()
    assert invocation.report.used_bytes == 102_400
    full(lambda: numpy.memmap("/tmp/large", dtype="u1", mode="w+", shape=(2 * MB,)))
    del mapped


def test_buffered_and_text_files_give_their_descriptor(invocation: tmpguard.Invocation) -> None:
    """C7.2"""
    for mode in ("w", "wb", "w+", "r+b"):
        with open("/tmp/file", mode) as file:
            assert os.fstat(file.fileno()).st_ino == os.stat("/tmp/file").st_ino
        with pytest.raises(ValueError, match="closed file"):
            file.fileno()
    raw = io.FileIO("/tmp/file", "w")
    assert raw.fileno() == raw.fileno()
    raw.close()
    with pytest.raises(ValueError, match="closed file"):
        raw.fileno()
    assert not invocation.quota.check()


# --- mappings ------------------------------------------------------------------------------------------


@pytest.fixture
def mapped_file(invocation: tmpguard.Invocation) -> Iterator[Any]:
    with open("/tmp/mapped", "w+b") as file:
        file.truncate(100_000)
        yield file


def test_mapping_is_charged_when_it_is_made_and_when_it_grows(
    invocation: tmpguard.Invocation, mapped_file: Any
) -> None:
    with mmap.mmap(mapped_file.fileno(), 0) as mapping:
        assert counted(invocation) == invocation.report.used_bytes == 102_400
        mapping.resize(200_000)
        mapping[-1] = 1
        assert counted(invocation) == invocation.report.used_bytes == 200_704
        mapping.resize(50_000)
        assert counted(invocation) == invocation.report.used_bytes == 53_248
        assert "is full" in full(lambda: mapping.resize(2 * MB)).__notes__[0]
        assert len(mapping) == 50_000
        mapping.resize(300_000)
        mapping[:] = bytes([1]) * 300_000
        mapping.flush()
    assert counted(invocation) == invocation.report.used_bytes == 303_104
    assert [violation.operation for violation in invocation.report.violations] == ["mmap.resize"]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((200_000,), {}, ValueError),
        ((-1,), {}, OverflowError),
        ((4096,), {"offset": -1}, OverflowError),
        ((4096,), {"offset": 200_000 // 4096 * 4096}, ValueError),
        ((0,), {"offset": 4_096_000}, ValueError),
        ((4096,), {"offset": 1}, OSError),
        ((4096,), {"offset": None}, TypeError),
        (("4096",), {}, TypeError),
    ],
)
def test_mapping_that_cannot_be_allocates_nothing(
    invocation: tmpguard.Invocation,
    mapped_file: Any,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        mmap.mmap(mapped_file.fileno(), *arguments, **options)
    assert counted(invocation) == invocation.report.used_bytes == 0


def test_part_of_a_file_may_be_mapped(invocation: tmpguard.Invocation, mapped_file: Any) -> None:
    granularity = mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(mapped_file.fileno(), granularity, offset=granularity) as mapping:
        mapping[:4] = b"text"
        assert counted(invocation) == invocation.report.used_bytes == granularity
    mapped_file.seek(granularity)
    assert mapped_file.read(4) == b"text"


def test_mapping_shows_itself_as_ever(invocation: tmpguard.Invocation, mapped_file: Any) -> None:
    """C7.2"""
    with mmap.mmap(mapped_file.fileno(), 0) as mapping:
        assert repr(mapping).startswith("<mmap.mmap closed=False, access=ACCESS_DEFAULT, length=100000")

    class Mapped(mmap.mmap):
        pass

    with Mapped(-1, 4096) as other:
        assert repr(other).startswith("<Mapped closed=False")
