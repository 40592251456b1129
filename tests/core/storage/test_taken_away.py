"""A scratch directory that somebody else takes away is made anew, and a full disk says whose it is (C4.6)."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

import pytest

import tmpguard
from tests.support import left_in, run_with_mounts


def take_away(scratch_root: Path, *, root: bool = False) -> None:
    """As a cleaner of temporary files does, or ``rm -rf`` in a child process."""
    paths = (
        [str(scratch_root)] if root else [str(path) for path in Context().run(list, scratch_root.glob("*"))]
    )
    subprocess.run(["rm", "-rf", *paths], check=True)


def connect() -> None:
    sqlite3.connect("/tmp/new.db").close()


def bind() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("/tmp/socket")


WAYS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "open to write": (lambda: open("/tmp/a", "w").close(), ["a"]),
    "open to append": (lambda: open("/tmp/a", "ab").close(), ["a"]),
    "os.open": (lambda: os.close(os.open("/tmp/a", os.O_CREAT | os.O_WRONLY)), ["a"]),
    "os.mkdir": (lambda: os.mkdir("/tmp/d"), ["d"]),
    "os.makedirs": (lambda: os.makedirs("/tmp/d/e"), ["d"]),
    "os.symlink": (lambda: os.symlink("nowhere", "/tmp/l"), ["l"]),
    "os.mkfifo": (lambda: os.mkfifo("/tmp/f"), ["f"]),
    "Path.touch": (lambda: Path("/tmp/a").touch(), ["a"]),
    "a relative path": (lambda: (os.chdir("/tmp"), open("a", "w").close()), ["a"]),
    "shutil.copy": (lambda: shutil.copy(__file__, "/tmp/a"), ["a"]),
    "a temporary directory": (lambda: os.rmdir(tempfile.mkdtemp()), []),
    "a temporary file": (lambda: tempfile.TemporaryFile().close(), []),
    "sqlite3.connect": (connect, ["new.db"]),
    "a local socket": (bind, ["socket"]),
    "os.stat": (lambda: os.stat("/tmp"), []),
    "os.lstat": (lambda: os.lstat("/tmp/."), []),
    "os.listdir": (lambda: os.listdir("/tmp"), []),
    "os.scandir": (lambda: os.scandir("/tmp").close(), []),
    "os.path.exists": (lambda: os.path.exists("/tmp/x"), []),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("root", [False, True], ids=["the directories", "the scratch root"])
def test_a_running_request_gets_an_empty_tmp(scratch_root: Path, way: str, root: bool) -> None:
    call, left = WAYS[way]
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, platform="none")
    with guard.invocation() as invocation:
        Path("/tmp/before").write_bytes(bytes(10))
        take_away(scratch_root, root=root)
        call()
        assert os.listdir("/tmp") == left
        assert invocation.report.violations == ()
    assert left_in(scratch_root) == []


def test_what_was_there_is_missing_under_its_own_name(guard: tmpguard.Guard, scratch_root: Path) -> None:
    with guard.invocation():
        Path("/tmp/before").write_bytes(bytes(10))
        take_away(scratch_root)
        for call in (
            lambda: open("/tmp/before"),
            lambda: os.remove("/tmp/before"),
            lambda: os.stat("/tmp/before"),
        ):
            with pytest.raises(FileNotFoundError) as caught:
                call()
            assert caught.value.filename == "/tmp/before"


def test_the_space_of_what_was_taken_away_is_free_again(scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, platform="none", storage_size=1)
    with guard.invocation() as invocation:
        Path("/tmp/before").write_bytes(bytes(1 << 20))
        take_away(scratch_root)
        Path("/tmp/after").write_bytes(bytes(1 << 20))
        assert invocation.report.used_bytes == 1 << 20


def test_mount_points_are_there_again(scratch_root: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=project)
    with guard.invocation():
        assert os.listdir("/tmp") == ["package"]
        take_away(scratch_root)
        Path("/tmp/a").touch()
        assert sorted(os.listdir("/tmp")) == ["a", "package"]


def test_later_requests_of_an_instance_can_write(scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, platform="none", lifetime="instance")
    for number in range(3):
        with guard.invocation():
            Path(f"/tmp/{number}").write_bytes(bytes(10))
            assert Path(f"/tmp/{number}").read_bytes() == bytes(10)
        take_away(scratch_root)
    guard.end_instance()
    assert left_in(scratch_root) == []


FULL = """
import os, errno, tmpguard
from pathlib import Path
from tests.parity import mounting

place = sys.argv[1]
mounting.mount_tmpfs(place, 1 << 20)
guard = tmpguard.Guard(scratch_root=place, bundle=None, platform="none", storage_size=64)

def by_descriptor():
    descriptor = os.open("/tmp/b", os.O_CREAT | os.O_WRONLY)
    while True:
        os.write(descriptor, bytes(1 << 20))

for fill in (lambda: Path("/tmp/a").write_bytes(bytes(2 << 20)), by_descriptor):
    with guard.invocation() as invocation:
        try:
            fill()
        except OSError as exc:
            assert exc.errno == errno.ENOSPC
            assert "not the quota" in exc.__notes__[0], exc.__notes__
            assert place not in "".join([str(exc), *exc.__notes__])
        else:
            raise AssertionError
        assert invocation.report.violations == ()
"""


def test_a_full_disk_says_that_it_is_not_the_quota(tmp_path: Path) -> None:
    run_with_mounts(FULL, tmp_path)
