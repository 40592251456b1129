"""SQLite and the quota: every file of its counts, and a full /tmp is a full disk (C3.4, C3.5)."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.core.storage.test_credit import excess
from tests.support import in_threads

MB = 1 << 20
NAME = "/tmp/data.sqlite"
MODES = ("delete", "truncate", "persist", "wal", "memory")


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as invocation:
        yield invocation


def connect(mode: str = "delete", name: str = NAME) -> sqlite3.Connection:
    connection = sqlite3.connect(name)
    assert connection.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE IF NOT EXISTS blobs (data)")
    connection.commit()
    return connection


def insert(connection: sqlite3.Connection, size: int) -> None:
    connection.execute("INSERT INTO blobs VALUES (?)", (bytes(size),))
    connection.commit()


def fill(connection: sqlite3.Connection, size: int) -> int:
    """Insert until it is full; how many were committed."""
    for written in range(10_000):
        try:
            insert(connection, size)
        except sqlite3.OperationalError:
            connection.rollback()
            return written
    raise AssertionError("it is never full")


def on_disk() -> int:
    """What the files in /tmp hold, in whole pages."""
    return sum(-(-os.stat(f"/tmp/{name}").st_size // 4096) * 4096 for name in os.listdir("/tmp"))


@pytest.mark.parametrize("mode", MODES)
def test_what_was_committed_is_intact_after_a_full_disk(invocation: tmpguard.Invocation, mode: str) -> None:
    Path("/tmp/ballast").write_bytes(bytes(600_000))
    with contextlib.closing(connect(mode)) as connection:
        written = fill(connection, 50_000)
        assert 4 <= written <= 9
        written += fill(connection, 1_000)
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (written,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {violation.errno for violation in invocation.report.violations} == {errno.ENOSPC}
        os.unlink("/tmp/ballast")
        insert(connection, 50_000)
        connection.execute("DELETE FROM blobs")
        connection.commit()
        connection.execute("VACUUM")
    with contextlib.closing(connect(mode)) as connection:
        assert fill(connection, 50_000) >= 8
    assert invocation.report.peak_bytes <= MB


def test_the_error_says_what_to_do(invocation: tmpguard.Invocation) -> None:
    """C2.4"""
    with contextlib.closing(connect()) as connection:
        connection.execute("PRAGMA cache_size=10")
        for change in (
            lambda: connection.execute("INSERT INTO blobs VALUES (zeroblob(2000000))"),
            lambda: connection.cursor().executescript("CREATE TABLE other AS SELECT zeroblob(2000000)"),
            lambda: (
                connection.executemany("INSERT INTO blobs VALUES (?)", [(bytes(300_000),)] * 8)
                and connection.commit()
            ),
        ):
            with pytest.raises(sqlite3.OperationalError, match="full") as caught:
                change()
            assert ["is full" in note for note in caught.value.__notes__] == [True]
            connection.rollback()
    (place, *_) = {
        violation.location.file for violation in invocation.report.violations if violation.location
    }
    assert place == __file__


@pytest.mark.parametrize("mode", MODES)
def test_journals_and_logs_count(invocation: tmpguard.Invocation, mode: str) -> None:
    """C3.5: with the index of the log, while they are there."""
    with contextlib.closing(connect(mode)) as connection:
        for _ in range(20):
            connection.execute("INSERT INTO blobs VALUES (zeroblob(5000))")
            connection.commit()
            connection.execute("UPDATE blobs SET data = zeroblob(6000)")
            # As tmpguard counted it, against what is there.
            quota = invocation.quota
            counted = quota.limit - quota.credit - quota._limbo.bytes
            assert counted == on_disk() == invocation.report.used_bytes
            assert len(os.listdir("/tmp")) == {"memory": 1, "wal": 3}.get(mode, 2)
            connection.commit()
    assert invocation.report.used_bytes == on_disk()


def test_temporary_files_count(invocation: tmpguard.Invocation) -> None:
    """C3.5: they have no name, and are free when they are closed."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    with contextlib.closing(connect()) as connection:
        connection.execute("PRAGMA temp_store=FILE")
        before = invocation.report.used_bytes
        connection.execute("PRAGMA temp.cache_size=10")
        table = "CREATE TEMP TABLE {} AS SELECT randomblob(1000) AS z FROM ({})"
        connection.execute(table.format("wide", numbers.format(300)))
        assert invocation.report.used_bytes > before + 200_000
        assert os.listdir("/tmp") == ["data.sqlite"]
        with pytest.raises(sqlite3.OperationalError, match="full"):
            connection.execute(table.format("wider", numbers.format(3000)))
        connection.rollback()
    assert invocation.report.used_bytes == before
    quota = invocation.quota
    assert quota.limit - quota.credit - quota._limbo.bytes == before


def test_two_connections_to_one_database_are_charged_once(invocation: tmpguard.Invocation) -> None:
    """C3.2"""
    with contextlib.closing(connect()) as one, contextlib.closing(connect()) as other:
        for connection in (one, other, one, other):
            insert(connection, 100_000)
        one.execute("DELETE FROM blobs")
        one.commit()
        one.execute("VACUUM")
        insert(other, 50_000)
        quota = invocation.quota
        assert quota.limit - quota.credit - quota._limbo.bytes == on_disk() == invocation.report.used_bytes


def test_space_that_other_files_take_or_leave_counts_at_once(invocation: tmpguard.Invocation) -> None:
    """C3.3"""
    with contextlib.closing(connect()) as connection:
        Path("/tmp/other.bin").write_bytes(bytes(MB - 100_000))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            insert(connection, 300_000)
        connection.rollback()
        os.truncate("/tmp/other.bin", 0)
        insert(connection, 300_000)
        with pytest.raises(OSError, match="No space left"):
            Path("/tmp/other.bin").write_bytes(bytes(MB - 200_000))
    assert invocation.report.used_bytes == MB


def test_number_of_files_is_limited(scratch_root: Path) -> None:
    """C3.6: a journal is a file."""
    guard = tmpguard.Guard(storage_size=1, max_files=2, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        with contextlib.closing(connect()) as connection:
            insert(connection, 10)
            Path("/tmp/second").touch()
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                insert(connection, 10)
            connection.rollback()
            os.unlink("/tmp/second")
            insert(connection, 10)
        assert [violation.errno for violation in invocation.report.violations] == [errno.ENOSPC]


def test_backup_dump_blobs_and_serialized_databases(invocation: tmpguard.Invocation) -> None:
    """C3.5, C6.1"""
    with (
        contextlib.closing(connect()) as connection,
        contextlib.closing(sqlite3.connect(":memory:")) as memory,
    ):
        insert(connection, 100_000)
        connection.backup(memory)
        assert "CREATE TABLE blobs" in next(line for line in memory.iterdump() if "blobs" in line)
        with contextlib.closing(sqlite3.connect("/tmp/backup.sqlite")) as backup:
            memory.backup(backup)
            memory.execute("INSERT INTO blobs VALUES (zeroblob(900000))")
            memory.commit()
            with pytest.raises(sqlite3.OperationalError, match="full"):
                memory.backup(backup)
            assert backup.execute("SELECT count(*) FROM blobs").fetchone() == (1,)
        with connection.blobopen("blobs", "data", 1) as blob:
            blob.write(b"text")
        connection.commit()
        content = connection.serialize()
        memory.deserialize(content)
        assert memory.execute("SELECT substr(data, 1, 4) FROM blobs").fetchone() == (b"text",)
    assert invocation.report.used_bytes == on_disk()


def test_threads_that_write_at_once_never_overrun(invocation: tmpguard.Invocation) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> None:
        with contextlib.closing(connect(MODES[number % 4], f"/tmp/{number}.sqlite")) as connection:
            start.wait(60)
            for size in (100_000, 20_000, 3_000):
                with contextlib.suppress(sqlite3.OperationalError):
                    for _ in range(20):
                        insert(connection, size)
                connection.rollback()
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    in_threads(4, work)
    assert invocation.report.peak_bytes <= MB
    assert invocation.report.used_bytes == on_disk()


def test_views_of_sqlite_are_used_again(guard: tmpguard.Guard) -> None:
    """C4.2: what SQLite keeps for ever is no more than was needed at one time."""
    from tmpguard.interpose.sqlite import files as sqlite_files
    from tmpguard.interpose.sqlite import vfs as sqlite_vfs

    def work() -> None:
        for _ in range(3):
            with guard.invocation():
                connection = connect()
                insert(connection, 10)
                connection.close()

    work()
    gc.collect()
    slots = len(sqlite_vfs._slots)
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    gc.collect()
    assert len(sqlite_vfs._slots) == slots
    assert not sqlite_files._opened
    assert not sqlite_files._pages


# --- what others do to a database that is open ---------------------------------------------------------


@pytest.mark.parametrize("way", ["by its path", "by opening it", "by its descriptor"])
def test_what_others_have_cut_off_is_charged_again(invocation: tmpguard.Invocation, way: str) -> None:
    journal = f"{NAME}-journal"
    connection = connect("persist")
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # the journal stays open
    connection.executemany("INSERT INTO blobs VALUES (?)", [(bytes(100),)] * 2000)
    connection.commit()
    connection.execute("UPDATE blobs SET data = zeroblob(99)")
    connection.commit()
    assert os.path.getsize(journal) > 100_000
    if way == "by its path":
        os.truncate(journal, 0)
    elif way == "by opening it":
        open(journal, "wb").close()
    else:
        with open(journal, "r+b") as file:
            file.truncate(0)
    connection.execute("UPDATE blobs SET data = zeroblob(98)")
    connection.commit()
    assert os.path.getsize(journal) > 100_000
    assert excess(invocation) == (0, 0)
    connection.close()


def test_the_index_of_a_database_that_was_replaced_counts_until_it_is_closed(
    invocation: tmpguard.Invocation,
) -> None:
    first = connect("wal")
    insert(first, 100)
    for suffix in ("", "-wal"):
        os.unlink(NAME + suffix)
    second = connect("wal")
    insert(second, 100)
    second.close()  # which takes the index away that the first one has open
    assert not os.path.exists(NAME + "-shm")
    assert excess(invocation) == (0, 0)
    first.close()
    assert shutil.disk_usage("/tmp").used == on_disk()
