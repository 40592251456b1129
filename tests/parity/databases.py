"""Records what SQLite does on a full and on a read-only disk, operation by operation.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000) SELECT i FROM n"

#: Statements and their parameters, by the names that the tests show; "" stands for a commit.
AFTERWARDS: list[tuple[str, tuple[Any, ...]]] = [
    ("UPDATE t SET b = b || b WHERE a % 2", ()),
    ("DELETE FROM t WHERE a % 2 = 0", ()),
    ("", ()),
    ("VACUUM", ()),
    ("INSERT INTO t (b) VALUES (zeroblob(100))", ()),
    ("", ()),
    ("DELETE FROM t", ()),
    ("", ()),
    ("VACUUM", ()),
    ("PRAGMA wal_checkpoint(TRUNCATE)", ()),
    ("PRAGMA database_list", ()),
    ("ATTACH ? AS other", ("/tmp/b.db",)),
    ("CREATE TABLE other.x AS SELECT * FROM t", ()),
    ("INSERT INTO t (b) VALUES (zeroblob(9000))", ()),
    ("INSERT INTO other.x SELECT * FROM t", ()),
    ("", ()),
    ("PRAGMA database_list", ()),
    ("DETACH other", ()),
    ("VACUUM INTO '/tmp/c.db'", ()),
    ("VACUUM INTO '/usr/c.db'", ()),
    ("ATTACH '/usr/c.db' AS q", ()),
    ("ATTACH '/usr/none/c.db' AS q", ()),
    ("ATTACH 'file:/tmp/c.db?mode=ro' AS q", ()),
    (f"CREATE TEMP TABLE q AS SELECT randomblob(200) z FROM ({NUMBERS})", ()),
    ("CREATE INDEX temp.qi ON q(z)", ()),
    ("BEGIN IMMEDIATE", ()),
    ("INSERT INTO t (b) VALUES (zeroblob(90000))", ()),
]


def free() -> int:
    return shutil.disk_usage("/tmp").free


def attempt(change: Callable[[], Any]) -> Any:
    """Its result or its error, and the contents of /tmp afterwards."""
    try:
        result = change()
        if isinstance(result, sqlite3.Cursor):
            result = result.fetchall()
    except sqlite3.Error as exc:
        result = [type(exc).__name__, str(exc), exc.sqlite_errorname]
    return [result, free(), sorted([name, os.path.getsize(f"/tmp/{name}")] for name in os.listdir("/tmp"))]


def fill(connection: sqlite3.Connection, size: int) -> Any:
    """Insert until the disk is full, without looking at it in between."""
    written = 0
    try:
        while True:
            connection.execute("INSERT INTO t (b) VALUES (?)", (bytes([written % 250 + 1]) * size,))
            connection.commit()
            written += 1
    except sqlite3.Error as exc:
        return [written, str(exc), exc.sqlite_errorname, connection.in_transaction, free()]


def in_mode(mode: str) -> list[Any]:
    """Fill, read, empty and otherwise use a database in the journal mode ``mode``."""
    told: list[Any] = []
    with contextlib.closing(sqlite3.connect("/tmp/a.db")) as connection:
        told.append(attempt(lambda: connection.execute(f"PRAGMA journal_mode={mode}")))
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        connection.commit()
        for size in (50_000, 3_000, 100):
            told.append(fill(connection, size))
            told.append(attempt(connection.rollback))
            told.append(attempt(lambda: connection.execute("SELECT count(*), sum(length(b)) FROM t")))
            told.append(attempt(lambda: connection.execute("PRAGMA integrity_check")))
        for statement, parameters in AFTERWARDS:
            run = connection.commit if not statement else lambda: connection.execute(statement, parameters)  # noqa: B023
            told.append([statement, attempt(run)])
            if told[-1][1][0] and "Error" in str(told[-1][1][0]):
                told.append(attempt(connection.rollback))
    told.append(attempt(lambda: None))
    for name in os.listdir("/tmp"):
        if name != "package":
            os.unlink(f"/tmp/{name}")
    told.append(free())
    return told


def outside(project: str) -> list[Any]:
    """Use databases on a read-only disk."""
    os.chdir(project)
    told: list[Any] = []
    for database, uri in (
        ("plain.db", False),
        ("wal.db", False),
        ("file:wal.db?immutable=1", True),
        ("hot.db", False),
        ("new.db", False),
        ("missing/new.db", False),
        ("dir", False),
        ("file:plain.db?mode=ro", True),
        ("file:new.db?mode=ro", True),
        ("link.db", False),
        ("into-tmp.db", False),
    ):
        try:
            connection = sqlite3.connect(database, uri=uri)
        except sqlite3.Error as exc:
            told.append([database, str(exc), exc.sqlite_errorname])
            continue
        with contextlib.closing(connection):
            for statement in (
                "PRAGMA database_list",
                "SELECT * FROM items",
                "BEGIN IMMEDIATE",
                "INSERT INTO items VALUES (1)",
                "CREATE TABLE IF NOT EXISTS items (a)",
                "CREATE TABLE others (a)",
                "PRAGMA journal_mode=WAL",
                "VACUUM",
                "CREATE TEMP TABLE own AS SELECT 1",
                "PRAGMA journal_mode",
            ):
                told.append([database, statement, attempt(lambda: connection.execute(statement))])  # noqa: B023
    return told
