"""``/dev/shm`` is memory and no disk: writable where the platform has one (C1.6)."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.shared_memory
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this machine has no /dev/shm")


@pytest.fixture
def name() -> Iterator[Path]:
    path = Path(f"/dev/shm/tmpguard-{uuid.uuid4().hex}")
    yield path
    path.unlink(missing_ok=True)


def test_a_request_writes_there_without_quota_or_wipe(guard: tmpguard.Guard, name: Path) -> None:
    with guard.invocation() as invocation:
        name.write_bytes(bytes(8192))
        assert os.access("/dev/shm", os.W_OK)
        assert invocation.report.used_bytes == 0
        subprocess.run([sys.executable, "-c", f"open({str(name)!r}, 'ab').write(b'x')"], check=True)
    assert name.stat().st_size == 8193
    assert invocation.report.violations == ()


def test_values_arrays_locks_and_shared_memory_work(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        value, array = multiprocessing.Value("i", 3), multiprocessing.Array("i", 3)
        with value.get_lock():
            value.value += 1
        array[2] = 5
        assert (value.value, list(array)) == (4, [0, 0, 5])
        memory = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
        memory.buf[:4] = b"text"
        memory.close()
        memory.unlink()
    assert invocation.report.violations == ()


@pytest.mark.parametrize("platform", ["aws-lambda", "vercel"])
def test_a_platform_without_it_has_a_finding_for_what_needs_it(
    platform: str, scratch_root: Path, name: Path
) -> None:
    guard = tmpguard.Guard(platform=platform, scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        with pytest.raises(OSError, match="Function not implemented") as locks:
            multiprocessing.Lock()
        with pytest.raises(FileNotFoundError):
            multiprocessing.shared_memory.SharedMemory(create=True, size=100)
        with pytest.raises(OSError, match="Read-only"):
            name.touch()
    assert locks.value.errno == errno.ENOSYS
    assert "multiprocessing.Pipe" in locks.value.__notes__[0]
    found = [(one.operation, one.errno) for one in invocation.report.violations]
    assert ("multiprocessing.SemLock", errno.ENOSYS) in found
    assert ("multiprocessing.SharedMemory", errno.ENOENT) in found
    assert ("open", errno.EROFS) in found or ("os.open", errno.EROFS) in found


def test_enforce_false_only_records_it(scratch_root: Path) -> None:
    guard = tmpguard.Guard(
        platform="aws-lambda", storage_size=512, scratch_root=scratch_root, bundle=None, enforce=False
    )
    with guard.invocation() as invocation, multiprocessing.Lock():
        pass
    assert [one.errno for one in invocation.report.violations] == [errno.ENOSYS]
