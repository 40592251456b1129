"""The calls by descriptor do what they would do on a tmpfs, whatever the disk can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tmpguard

MB = 1_048_576

FLAGS = [name for name in dir(os) if name.startswith("RWF_")]

Call = Callable[[int, int], object]

#: What may be done with a descriptor and flags, and what the kernel says to it before it looks at the flags.
CALLS: dict[str, Call] = {
    "write": lambda fd, flags: os.pwritev(fd, [b"text"], 0, flags),
    "write at the position": lambda fd, flags: os.pwritev(fd, [b"text"], -1, flags),
    "write nothing": lambda fd, flags: os.pwritev(fd, [b""], 0, flags),
    "write before the start": lambda fd, flags: os.pwritev(fd, [b"text"], -2, flags),
    "write text": lambda fd, flags: os.pwritev(fd, ["text"], 0, flags),  # type: ignore[list-item]
    "read": lambda fd, flags: os.preadv(fd, [bytearray(4)], 0, flags),
    "read at the position": lambda fd, flags: os.preadv(fd, [bytearray(4)], -1, flags),
    "read past the end": lambda fd, flags: os.preadv(fd, [bytearray(4)], 100, flags),
    "read into an empty buffer and another": lambda fd, flags: os.preadv(
        fd, [bytearray(), bytearray(4)], 0, flags
    ),
    "read nothing": lambda fd, flags: os.preadv(fd, [bytearray()], 0, flags),
    "read before the start": lambda fd, flags: os.preadv(fd, [bytearray(4)], -2, flags),
    "read into bytes": lambda fd, flags: os.preadv(fd, [b"text"], 0, flags),  # type: ignore[list-item]
    "read of nothing": lambda fd, flags: os.preadv(-1, [bytearray(4)], 0, flags),
}


def told(call: Call, descriptor: int, flags: int) -> str:
    """The outcome, and where the descriptor is after it."""
    try:
        outcome = repr(call(descriptor, flags))
    except (OSError, TypeError, BufferError) as exc:
        outcome = f"{type(exc).__name__} {exc}"
    return f"{outcome} at {os.lseek(descriptor, 0, os.SEEK_CUR)}"


@pytest.fixture
def memory() -> Iterator[int]:
    """A file on a tmpfs, in any process."""
    descriptor = os.memfd_create("a file", os.MFD_CLOEXEC)
    os.write(descriptor, b"some text")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("access", [os.O_RDWR, os.O_RDONLY, os.O_WRONLY])
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("call", CALLS)
def test_flags_are_supported_as_on_a_tmpfs(
    guard: tmpguard.Guard, memory: int, call: str, flag: str, access: int
) -> None:
    natively = os.open(f"/proc/self/fd/{memory}", access)
    expected = told(CALLS[call], natively, getattr(os, flag))
    os.close(natively)
    with guard.invocation() as invocation:
        Path("/tmp/file").write_text("some text")
        descriptor = os.open("/tmp/file", access)
        assert told(CALLS[call], descriptor, getattr(os, flag)) == expected
        os.close(descriptor)
    assert not invocation.report.violations


def test_elsewhere_the_file_system_decides(guard: tmpguard.Guard) -> None:
    """C1.1: the rest is seen as it is."""
    with open(__file__, "rb") as file:
        file.read()  # into the cache: otherwise, the first read that does not wait gets nothing
        expected = told(CALLS["read"], file.fileno(), os.RWF_NOWAIT)
        with guard.invocation():
            assert told(CALLS["read"], file.fileno(), os.RWF_NOWAIT) == expected


def test_an_observed_application_gets_what_its_disk_supports() -> None:
    """C2.5"""
    guard = tmpguard.Guard(bundle=None, enforce=False)
    with guard.invocation(), open("/tmp/tmpguard-observed", "w+b") as file:
        os.unlink(file.name)
        file.write(b"some text")
        file.flush()
        observed = told(CALLS["read"], file.fileno(), os.RWF_NOWAIT)
    with open("/tmp/tmpguard-observed", "w+b") as file:
        os.unlink(file.name)
        file.write(b"some text")
        file.flush()
        assert told(CALLS["read"], file.fileno(), os.RWF_NOWAIT) == observed


def test_a_descriptor_that_outlived_its_invocation_may_be_read(guard: tmpguard.Guard) -> None:
    """C4.5: changing it is ESTALE."""
    with guard.invocation() as invocation:
        descriptor = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
        os.write(descriptor, b"text")
    with invocation.bound():
        with pytest.raises(OSError, match="Stale") as caught:
            os.pwritev(descriptor, [b"text"], 0, os.RWF_DSYNC)
        os.preadv(descriptor, [bytearray(4)], 0)
    os.close(descriptor)
    assert caught.value.errno == errno.ESTALE


@pytest.mark.parametrize("call", ["splice", "copy_file_range", "sendfile", "write", "pwrite", "ftruncate"])
def test_a_descriptor_for_neither_reading_nor_writing_is_a_bad_one(guard: tmpguard.Guard, call: str) -> None:
    """Linux accepts O_WRONLY | O_RDWR. The pipe is empty: nobody waits for what could not be written."""
    source, end = os.pipe()
    os.set_blocking(source, False)

    def outcome() -> int | None:
        descriptor = os.open("/tmp/tmpguard-neither", os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        calls: dict[str, Callable[[], object]] = {
            "splice": lambda: os.splice(source, descriptor, 600_000),
            "copy_file_range": lambda: os.copy_file_range(descriptor, descriptor, 10, 0, 20),
            "sendfile": lambda: os.sendfile(descriptor, descriptor, 0, 10),
            "write": lambda: os.write(descriptor, bytes(2 * MB)),
            "pwrite": lambda: os.pwrite(descriptor, bytes(2 * MB), 5),
            "ftruncate": lambda: os.ftruncate(descriptor, 2 * MB),
        }
        try:
            calls[call]()
        except OSError as exc:
            return exc.errno
        finally:
            os.close(descriptor)
            os.unlink("/tmp/tmpguard-neither")
        return None

    native = outcome()
    with guard.invocation():
        assert outcome() == native
    for descriptor in (source, end):
        os.close(descriptor)
