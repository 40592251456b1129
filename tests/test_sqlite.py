"""SQLite within an invocation: redirected, limited, and read-only outside of /tmp (C1.1, C3.5, C6.1)."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import sqlite3.dbapi2
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard

MB = 1 << 20


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / "data.sqlite")) as connection:
        connection.executescript("CREATE TABLE items (name); INSERT INTO items VALUES ('one')")
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


@pytest.fixture
def name(tmp_path: Path) -> Iterator[str]:
    """A path below /tmp that nobody else uses."""
    path = f"/tmp/{tmp_path.name}.sqlite"
    yield path
    Path(path).unlink(missing_ok=True)


class EarlyConnection(sqlite3.Connection):
    """An application's own kind of connection, defined before there was a guard."""


def _subclass(*args: Any, **options: Any) -> sqlite3.Connection:
    class Connection(sqlite3.Connection):
        pass

    return Connection(*args, **options)


CONNECTS: dict[str, Callable[..., Any]] = {
    "sqlite3.connect": lambda *args: sqlite3.connect(*args),
    "sqlite3.dbapi2.connect": lambda *args: sqlite3.dbapi2.connect(*args),
    "sqlite3.Connection": lambda *args: sqlite3.Connection(*args),
    "subclass": _subclass,
    "factory": lambda *args: sqlite3.connect(*args, factory=EarlyConnection),
}


SPELLINGS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bytes": os.fsencode,
    "PathLike": Path,
    "doubled slash": lambda name: name.replace("/tmp/", "/tmp//"),
    "parent": lambda name: name.replace("/tmp/", "/usr/../tmp/"),
}


@pytest.mark.parametrize("connect", CONNECTS)
def test_database_below_tmp_is_the_invocations_own(guard: tmpguard.Guard, name: str, connect: str) -> None:
    """C1.1, C4.1, C6.1"""
    for _ in range(2):
        with guard.invocation() as invocation:
            with contextlib.closing(CONNECTS[connect](name)) as connection:
                connection.execute("CREATE TABLE items (name)")
                connection.execute("INSERT INTO items VALUES ('one')")
                connection.commit()
            with contextlib.closing(CONNECTS[connect](name)) as connection:
                assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
            assert os.path.getsize(name) > 0
            assert invocation.report.used_bytes == os.path.getsize(name)
        assert not invocation.report.violations
        assert not os.path.exists(name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_path_is_redirected(guard: tmpguard.Guard, name: str, spelling: str) -> None:
    """C1.2"""
    with guard.invocation():
        with contextlib.closing(sqlite3.connect(SPELLINGS[spelling](name))) as connection:
            connection.execute("CREATE TABLE items (name)")
        assert os.path.exists(name)
    assert not os.path.exists(name)


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "file:{}?mode=rwc#part"])
def test_uris_are_redirected(guard: tmpguard.Guard, name: str, form: str) -> None:
    """C1.2"""
    uri = form.format(name.replace("-", "%2d"))
    with guard.invocation():
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute("CREATE TABLE items (name)")
        assert os.path.exists(name)
    assert not os.path.exists(name)


def test_databases_in_memory_are_left_alone(guard: tmpguard.Guard) -> None:
    """C6.1"""
    with guard.invocation() as invocation:
        for database, uri in ((":memory:", False), ("", False), ("file:x?mode=memory&cache=shared", True)):
            with contextlib.closing(sqlite3.connect(database, uri=uri)) as connection:
                connection.execute("CREATE TABLE items (name)")
    assert not invocation.report.violations


# --- outside of /tmp -----------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["data.sqlite", "/tmp/package/data.sqlite"])
def test_database_of_the_project_may_be_read_but_not_written(
    guard: tmpguard.Guard, project: Path, database: str
) -> None:
    """C1.1, C2.1: with SQLite's own error for a read-only file system."""
    before = (project / "data.sqlite").read_bytes()
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
            with pytest.raises(sqlite3.OperationalError, match="readonly database"):
                connection.execute("INSERT INTO items VALUES ('two')")
        assert not invocation.report.used_bytes
    assert (project / "data.sqlite").read_bytes() == before
    assert os.listdir(project) == ["data.sqlite"]


@pytest.mark.parametrize("connect", CONNECTS)
def test_new_database_outside_of_tmp_is_refused(guard: tmpguard.Guard, project: Path, connect: str) -> None:
    """C2.1, C2.3"""
    with guard.invocation() as invocation:
        with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
            CONNECTS[connect]("new.sqlite")
        (violation,) = invocation.report.violations
        assert (violation.operation, violation.path, violation.errno) == (
            "sqlite3.connect",
            "new.sqlite",
            errno.EROFS,
        )
        assert violation.location is not None
        assert violation.location.file == __file__
    assert os.listdir(project) == ["data.sqlite"]


def test_missing_directory_is_no_violation(guard: tmpguard.Guard) -> None:
    """C2.2"""
    with guard.invocation() as invocation:
        for database in ("missing/new.sqlite", "/tmp/missing/new.sqlite"):
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                sqlite3.connect(database)
    assert not invocation.report.violations


# --- statements that open files ------------------------------------------------------------------------


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
            assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
    (violation,) = invocation.report.violations
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


def test_connection_class_taken_before_is_never_let_through(
    guard: tmpguard.Guard, name: str, project: Path
) -> None:
    """C6.1: it cannot be redirected, so it is refused."""
    with guard.invocation() as invocation:
        for database in (name, "new.sqlite"):
            with pytest.raises(OSError, match="Read-only file system"):
                EarlyConnection(database)
        assert len(invocation.report.violations) == 2
    assert not os.path.exists(name)
    assert os.listdir(project) == ["data.sqlite"]


def test_application_may_set_an_authorizer_of_its_own(guard: tmpguard.Guard, name: str) -> None:
    """C7.2"""
    seen = []

    def authorizer(action: int, *rest: str | None) -> int:
        seen.append(action)
        return sqlite3.SQLITE_OK

    with guard.invocation():
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.set_authorizer(authorizer)
            connection.execute("CREATE TABLE items (name)")
            connection.set_authorizer(None)
    assert sqlite3.SQLITE_CREATE_TABLE in seen


@pytest.mark.xfail(strict=True, reason="PRAGMA database_list names the file behind the path")
def test_names_of_databases_are_virtual(guard: tmpguard.Guard, name: str, scratch_root: Path) -> None:
    """C7.1"""
    with guard.invocation():
        with contextlib.closing(sqlite3.connect(name)) as connection:
            (row,) = connection.execute("PRAGMA database_list").fetchall()
            assert str(scratch_root) not in row[2]


# --- the quota (C3.5) ----------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, size: int) -> bool:
    connection.execute("INSERT INTO blobs VALUES (?)", (bytes(size),))
    connection.commit()
    return True


def test_full_tmp_is_a_full_database(guard: tmpguard.Guard, name: str) -> None:
    """C3.4, C3.5: what was committed before stays."""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("CREATE TABLE blobs (data)")
            connection.commit()
            written = 0
            with contextlib.suppress(sqlite3.OperationalError):
                while insert(connection, 50_000):
                    written += 1
            assert 15 <= written <= 20
            with pytest.raises(sqlite3.OperationalError, match="full"):
                insert(connection, 50_000)
            connection.rollback()
            assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (written,)
            assert invocation.report.used_bytes <= MB
            connection.execute("DELETE FROM blobs")
            insert(connection, 50_000)
        assert invocation.report.peak_bytes <= MB


def test_database_leaves_space_that_other_files_have_taken(guard: tmpguard.Guard, name: str) -> None:
    """C3.5"""
    with guard.invocation() as invocation:
        Path("/tmp/other.bin").write_bytes(bytes(MB - 200_000))
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("CREATE TABLE blobs (data)")
            connection.commit()
            with pytest.raises(sqlite3.OperationalError, match="full"):
                insert(connection, 300_000)
            connection.rollback()
        assert invocation.report.used_bytes <= MB
        os.unlink("/tmp/other.bin")
        with contextlib.closing(sqlite3.connect(name)) as connection:
            insert(connection, 300_000)
        assert 300_000 < invocation.report.used_bytes <= MB
