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
            with pytest.raises(sqlite3.OperationalError, match="readonly database") as caught:
                connection.execute("INSERT INTO items VALUES ('two')")
        (violation,) = invocation.report.violations
        assert "copy the database to /tmp/data.sqlite first" in violation.remedy
        assert caught.value.__notes__ == [f"tmpguard: {violation.remedy}"]
        assert (violation.operation, violation.path, violation.errno) == (
            "sqlite3 write",
            database,
            errno.EROFS,
        )
        assert violation.location is not None
        assert violation.location.file == __file__
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

#: A statement that makes a database, and its parameters.
MAKING: dict[str, Callable[[str], tuple[str, tuple[str, ...]]]] = {
    "ATTACH literal": lambda name: (f"ATTACH '{name}' AS other", ()),
    "ATTACH parameter": lambda name: ("ATTACH ? AS other", (name,)),
    "ATTACH URI": lambda name: ("ATTACH ? AS other", (f"file:{name}?mode=rwc",)),
    "VACUUM INTO literal": lambda name: (f"VACUUM INTO '{name}'", ()),
    "VACUUM INTO parameter": lambda name: ("VACUUM INTO ?", (name,)),
}


@pytest.mark.parametrize("statement", MAKING)
@pytest.mark.parametrize("database", [":memory:", "", "data.sqlite", "/tmp/own.sqlite"])
def test_statements_that_open_files_use_the_invocations_own(
    guard: tmpguard.Guard, name: str, statement: str, database: str
) -> None:
    """C1.1, C6.1"""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
            connection.execute(*MAKING[statement](name))
            if "ATTACH" in statement:
                connection.execute("CREATE TABLE other.items AS SELECT 'attached' AS name")
                connection.commit()
                files = [row[2] for row in connection.execute("PRAGMA database_list")]
                assert name in files
        assert os.path.exists(name)
        with contextlib.closing(sqlite3.connect(name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        used = sum(os.path.getsize(f"/tmp/{found}") for found in os.listdir("/tmp") if "sqlite" in found)
        assert invocation.report.used_bytes == used
    assert not invocation.report.violations
    assert not os.path.exists(name)


@pytest.mark.parametrize("statement", MAKING)
def test_statements_that_open_files_are_refused_outside(
    guard: tmpguard.Guard, project: Path, statement: str
) -> None:
    """C2.1, C2.3, C2.4: SQLite's error is the one for a read-only file system."""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE TABLE items (name)")
            with pytest.raises(sqlite3.OperationalError, match="unable to open database") as caught:
                connection.execute(*MAKING[statement]("new.sqlite"))
    (violation,) = invocation.report.violations
    assert "copy the database to /tmp/new.sqlite first" in violation.remedy
    assert caught.value.__notes__ == [f"tmpguard: {violation.remedy}"]
    assert (violation.path, violation.errno) == ("new.sqlite", errno.EROFS)
    assert violation.location is not None
    assert violation.location.file == __file__
    assert os.listdir(project) == ["data.sqlite"]


def test_database_of_the_project_is_attached_for_reading(guard: tmpguard.Guard, name: str) -> None:
    """C1.1, C2.3"""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("ATTACH 'data.sqlite' AS project")
            assert connection.execute("SELECT name FROM project.items").fetchall() == [("one",)]
            connection.execute("CREATE TABLE items AS SELECT * FROM project.items")
            with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
                connection.execute("INSERT INTO project.items VALUES ('two')")
    (violation,) = invocation.report.violations
    assert (violation.path, violation.errno) == ("data.sqlite", errno.EROFS)


def test_database_of_the_project_in_wal_mode_is_as_on_a_read_only_disk(
    guard: tmpguard.Guard, project: Path
) -> None:
    """C1.1: its index cannot be made there."""
    with contextlib.closing(sqlite3.connect(project / "data.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    with guard.invocation():
        with contextlib.closing(sqlite3.connect("data.sqlite")) as connection:
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                connection.execute("SELECT * FROM items")
        with contextlib.closing(sqlite3.connect("file:data.sqlite?immutable=1", uri=True)) as connection:
            assert connection.execute("SELECT name FROM items").fetchall() == [("one",)]
    assert os.listdir(project) == ["data.sqlite"]


def test_guard_that_only_watches_lets_sqlite_write(
    project: Path, scratch_root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2.5"""
    monkeypatch.chdir(project)
    guard = tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root, enforce=False)
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect("data.sqlite")) as connection:
            connection.execute("INSERT INTO items VALUES ('two')")
            connection.execute("INSERT INTO items VALUES ('three')")
            connection.commit()
        found = [(violation.path, violation.errno) for violation in invocation.report.violations]
        assert found == [("data.sqlite", errno.EROFS)] * 2
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("CREATE TABLE items AS SELECT zeroblob(2000000)")
            connection.commit()
        assert invocation.report.used_bytes > 2_000_000
    assert invocation.report.violations[-1].errno == errno.ENOSPC
    with contextlib.closing(sqlite3.connect(project / "data.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (3,)


def test_databases_shared_in_memory_are_those_of_the_process(guard: tmpguard.Guard, name: str) -> None:
    """C4.1, C6.1: they have no file. Those that they attach would not be the invocation's: refused."""
    uri = "file:shared?mode=memory&cache=shared"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as outside:
        outside.execute("CREATE TABLE items (name)")
        with guard.invocation() as invocation:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
                assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)
                with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                    connection.execute("ATTACH ? AS other", (name,))
            assert [violation.errno for violation in invocation.report.violations] == [errno.EROFS]
    assert not os.path.exists(name)


def test_databases_in_memory_are_attached(guard: tmpguard.Guard, name: str) -> None:
    """C6.1"""
    with guard.invocation() as invocation:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("ATTACH DATABASE ':memory:' AS other")
            connection.execute("CREATE TABLE other.items (name)")
            connection.execute("VACUUM")
    assert not invocation.report.violations


def test_connection_class_taken_before_is_never_let_through(
    guard: tmpguard.Guard, name: str, project: Path
) -> None:
    """C6.1: where it cannot be redirected, it is refused. Since 3.15 its base can be replaced."""
    with guard.invocation() as invocation:
        if sqlite3.Connection in EarlyConnection.__mro__:
            with contextlib.closing(EarlyConnection(name)) as connection:
                connection.execute("CREATE TABLE items (name)")
            assert os.path.exists(name)
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                EarlyConnection("new.sqlite")
        else:
            for database in (name, "new.sqlite"):
                with pytest.raises(OSError, match="Read-only file system"):
                    EarlyConnection(database)
        refused = [violation.path for violation in invocation.report.violations]
        assert refused in (["new.sqlite"], [name, "new.sqlite"])
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


def test_names_of_databases_are_virtual(guard: tmpguard.Guard, name: str) -> None:
    """C7.1"""
    with guard.invocation():
        with contextlib.closing(sqlite3.connect(name)) as connection:
            (row,) = connection.execute("PRAGMA database_list").fetchall()
            assert row[2] == name
        os.symlink(name, name + "-link")
        with contextlib.closing(sqlite3.connect(name + "-link")) as connection:
            assert connection.execute("PRAGMA database_list").fetchone()[2] == name


# --- a VFS that a URI names ----------------------------------------------------------------------------

VFSS = ["unix", "unix-none", "unix-dotfile", "unix-excl"]
STATEMENTS = ["ATTACH 'file:{}?vfs={}' AS other", "VACUUM INTO 'file:{}?vfs={}'"]


@pytest.mark.parametrize("vfs", VFSS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_vfs_named_in_a_statement_is_refused(
    guard: tmpguard.Guard, name: str, statement: str, vfs: str
) -> None:
    """It would lead to the real /tmp (C1.1, C4.1)."""
    with (
        guard.invocation() as invocation,
        contextlib.closing(sqlite3.connect("/tmp/own.db", uri=True)) as own,
    ):
        with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
            own.execute(statement.format(name, vfs))
        own.execute("ATTACH 'file:/tmp/other.db' AS third")
        own.execute("CREATE TABLE third.t (x)")
        own.execute("ATTACH 'file:/shared?vfs=memdb' AS memory")
    assert caught.value.__notes__ == ["tmpguard: leave vfs= out of the URI"]
    assert [(violation.operation, violation.path) for violation in invocation.report.violations] == [
        ("sqlite3 ATTACH", name)
    ]
    assert not os.path.exists(name)


@pytest.mark.parametrize("vfs", VFSS)
def test_outside_invocations_a_named_vfs_is_sqlite_s_own(guard: tmpguard.Guard, name: str, vfs: str) -> None:
    with guard.invocation(), contextlib.closing(sqlite3.connect("/tmp/own.db")):
        pass
    with contextlib.closing(sqlite3.connect(f"file:{name}?vfs={vfs}", uri=True)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        with guard.invocation():  # it uses the real file system within an invocation, too
            connection.execute("INSERT INTO t VALUES (2)")
            connection.commit()
    with contextlib.closing(sqlite3.connect(":memory:", uri=True)) as connection:
        connection.execute(f"ATTACH 'file:{name}?vfs={vfs}' AS other")
        assert connection.execute("SELECT x FROM other.t").fetchall() == [(1,), (2,)]
        with pytest.raises(sqlite3.OperationalError, match="no such vfs"):
            connection.execute("ATTACH 'file:/tmp/x?vfs=no-such' AS third")


def test_without_enforcement_a_named_vfs_is_recorded(project: Path, name: str) -> None:
    guard = tmpguard.Guard(bundle=project, enforce=False)
    with guard.invocation() as invocation, contextlib.closing(sqlite3.connect(":memory:", uri=True)) as own:
        own.execute(f"ATTACH 'file:{name}?vfs=unix' AS other")
        own.execute("CREATE TABLE other.t (x)")
    assert [violation.path for violation in invocation.report.violations] == [name]
    assert os.path.exists(name)
