"""A file as a writable mount: it may be changed, its directory may not, and SQLite may make its journals."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tmpguard

OTHERS: dict[str, tuple[Callable[[str], object], int]] = {
    "unlink": (os.unlink, errno.EROFS),
    "rename": (lambda path: os.rename(path, path + ".new"), errno.EROFS),
    "rename into /tmp": (lambda path: os.rename(path, "/tmp/moved"), errno.EXDEV),
    "replace": (lambda path: os.replace(path, path), errno.EROFS),
    "link": (lambda path: os.link(path, path + ".link"), errno.EROFS),
    "create": (lambda path: open(path, "x"), errno.EEXIST),
    "a file beside it": (lambda path: open(path + ".new", "w"), errno.EROFS),
    "a directory in place of a journal's": (lambda path: os.mkdir(path + "-other"), errno.EROFS),
}


@pytest.fixture(params=["/tmp", "/var/tmp"])
def project(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project below the real /tmp, and one that is not."""
    directory = Path(tempfile.mkdtemp(dir=request.param))
    with sqlite3.connect(directory / "db.sqlite3") as connection:
        connection.execute("create table t (a)")
    connection.close()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root, writable=[project / "db.sqlite3"])


def test_the_file_may_be_changed(guard: tmpguard.Guard, project: Path) -> None:
    path = project / "db.sqlite3"
    with guard.invocation() as invocation:
        path.write_bytes(b"x" * 10_000)
        with open(path, "r+b") as file:
            file.truncate(9_000)
        os.chmod(path, 0o600)
        assert os.access(path, os.W_OK)
        assert os.path.getsize(path) == 9_000
        assert path.name in os.listdir(project)
        assert {entry.name: entry.stat().st_size for entry in os.scandir(project)}[path.name] == 9_000
        assert invocation.report.used_bytes == 0
        assert not invocation.report.violations
    assert path.stat().st_size == 9_000
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", OTHERS)
def test_its_directory_is_read_only(guard: tmpguard.Guard, project: Path, name: str) -> None:
    """As where the kernel mounts a file on itself, on a read-only file system."""
    call, code = OTHERS[name]
    with guard.invocation(), pytest.raises(OSError, match=r"\[Errno") as caught:
        call(str(project / "db.sqlite3"))
    assert caught.value.errno == code
    assert os.listdir(project) == ["db.sqlite3"]


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_writes_it_with_its_journals(guard: tmpguard.Guard, project: Path, mode: str) -> None:
    path = project / "db.sqlite3"
    with guard.invocation() as invocation:
        connection = sqlite3.connect(path)
        assert connection.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        for number in range(3):
            with connection:
                connection.execute("insert into t values (?)", (number,))
        connection.close()
        assert not invocation.report.violations
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from t").fetchone() == (3,)
    connection.close()


def test_a_contained_child_may_change_it(project: Path, scratch_root: Path) -> None:
    path = project / "db.sqlite3"
    try:
        guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, writable=[path], children="contain")
    except tmpguard.ConfigurationError as exc:
        pytest.skip(str(exc))
    with guard.invocation():
        subprocess.run(["sh", "-c", f"echo changed > {path}"], check=True)
        done = subprocess.run(["sh", "-c", f"echo new > {path}.new"], check=False, stderr=subprocess.DEVNULL)
        assert done.returncode
    assert path.read_text() == "changed\n"
    assert os.listdir(project) == ["db.sqlite3"]
