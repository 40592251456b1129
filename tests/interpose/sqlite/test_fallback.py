"""SQLite where its functions cannot be reached by ctypes: limited when it is opened, and without ATTACH."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

import pytest

import tmpguard
from tmpguard.interpose.sqlite import connect as sqlite

MB = 1 << 20


@pytest.fixture(autouse=True)
def without_vfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_vfs", None)


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"/tmp/{tmp_path.name}.sqlite"


def test_database_is_the_invocations_own(guard: tmpguard.Guard, name: str) -> None:
    """C1.1"""
    with guard.invocation() as invocation:
        for database, uri in ((name, False), (f"file:{name}?mode=rw", True)):
            with contextlib.closing(sqlite3.connect(database, uri=uri)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS items (name)")
        assert invocation.report.used_bytes == os.path.getsize(name)
    assert not os.path.exists(name)


def test_database_of_the_project_may_be_read_but_not_written(guard: tmpguard.Guard, project: Path) -> None:
    """C1.1, C2.1"""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect("data.sqlite")) as connection:
            assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
            with pytest.raises(sqlite3.OperationalError, match="readonly database"):
                connection.execute("INSERT INTO items VALUES ('two')")
        for missing in ("new.sqlite", "missing/new.sqlite"):
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                sqlite3.connect(missing)
    assert [violation.path for violation in invocation.report.violations] == ["new.sqlite"]
    assert os.listdir(project) == ["data.sqlite"]


@pytest.mark.parametrize("statement", ["ATTACH DATABASE '{}' AS other", "VACUUM INTO '{}'"])
@pytest.mark.parametrize("below_tmp", [True, False])
def test_statements_that_open_files_are_refused(
    guard: tmpguard.Guard, name: str, project: Path, statement: str, below_tmp: bool
) -> None:
    """C1.1, C2.3, C6.3: SQLite would open them on the real file system."""
    database = name if below_tmp else "new.sqlite"
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect("data.sqlite")) as connection:
            with pytest.raises(sqlite3.DatabaseError):
                connection.execute(statement.format(database))
            with pytest.raises(sqlite3.DatabaseError):
                connection.execute("ATTACH ? AS other", (database,))
            assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
    violation, _ = invocation.report.violations
    assert (violation.path, violation.errno) == (database, errno.EROFS)
    assert violation.location is not None
    assert violation.location.file == __file__
    assert not os.path.exists(name)
    assert os.listdir(project) == ["data.sqlite"]


def test_databases_in_memory_are_attached(guard: tmpguard.Guard, name: str) -> None:
    """C6.1"""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("ATTACH DATABASE ':memory:' AS other")
            connection.execute("CREATE TABLE other.items (name)")
            connection.execute("VACUUM")
    assert not invocation.report.violations


def test_application_that_takes_its_authorizer_out_keeps_the_guards(guard: tmpguard.Guard, name: str) -> None:
    """C1.1"""
    with guard.invocation():
        with contextlib.closing(sqlite3.connect(":memory:")) as memory:
            with contextlib.closing(sqlite3.connect(name + ".own")) as connection:
                for opened in (memory, connection):
                    opened.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
                    with pytest.raises(sqlite3.DatabaseError):
                        opened.execute(f"ATTACH DATABASE '{name}' AS other")
                    opened.set_authorizer(None)
                    with pytest.raises(sqlite3.DatabaseError):
                        opened.execute(f"ATTACH DATABASE '{name}' AS other")
    assert not os.path.exists(name)


def test_full_tmp_is_a_full_database(guard: tmpguard.Guard, name: str) -> None:
    """C3.4, C3.5: what was committed before stays."""
    with guard.invocation() as invocation:
        Path("/tmp/other.bin").write_bytes(bytes(MB // 2))
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("CREATE TABLE blobs (data)")
            for _ in range(8):
                connection.execute("INSERT INTO blobs VALUES (zeroblob(50000))")
                connection.commit()
            with pytest.raises(sqlite3.OperationalError, match="full"):
                connection.execute("INSERT INTO blobs VALUES (zeroblob(150000))")
            connection.rollback()
            assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (8,)
        assert invocation.report.peak_bytes <= MB
