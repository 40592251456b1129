"""Connections that outlive what they were opened in: an invocation, a thread, a process (C4.2, C4.5)."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import sys
from pathlib import Path

import pytest

import tmpguard
from tests.support import left_in, run_python
from tmpguard.core.storage.quota import Quota
from tmpguard.interpose.sqlite import files

MODES = ("delete", "truncate", "wal", "memory")


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root)


def begun(mode: str) -> sqlite3.Connection:
    """A connection within a transaction."""
    connection = sqlite3.connect(f"/tmp/{mode}.sqlite")
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE items (data)")
    connection.commit()
    connection.execute("INSERT INTO items VALUES (zeroblob(20000))")
    return connection


def run(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
    connection.commit()


@pytest.mark.parametrize("mode", MODES)
def test_connection_kept_past_the_end_writes_nothing_and_can_be_closed(
    guard: tmpguard.Guard, scratch_root: Path, mode: str
) -> None:
    """C4.5"""
    with guard.invocation() as invocation:
        connection = begun(mode)
    with guard.invocation() as other:
        for statement in ("INSERT INTO items VALUES (zeroblob(200000))", "ATTACH '/tmp/new.sqlite' AS new"):
            with pytest.raises(sqlite3.OperationalError):
                run(connection, statement)
        with contextlib.suppress(sqlite3.OperationalError):
            connection.rollback()
        assert connection.execute("SELECT count(*) FROM items").fetchone()[0] in (0, 1)
        connection.close()
        assert os.listdir("/tmp") == []
        assert not other.report.violations
    assert invocation.report.late_writes
    assert not invocation.report.violations
    assert not left_in(scratch_root)


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_connections_that_are_collected_after_the_end_do_no_harm(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    class Kept:
        pass

    with guard.invocation():
        for mode in MODES:
            kept = Kept()
            kept.me, kept.connection = kept, begun(mode)  # type: ignore[attr-defined]
    del kept
    name = f"/tmp/{os.getpid()}-other.sqlite-wal"  # as the real /tmp might have
    Path(name).touch()
    try:
        gc.collect()
        assert os.path.exists(name)
    finally:
        os.unlink(name)
    assert not left_in(scratch_root)


def test_connection_of_an_instance_lives_on(scratch_root: Path) -> None:
    guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root, lifetime="instance")
    try:
        with guard.invocation():
            connection = begun("delete")
            connection.commit()
        with guard.invocation() as second:
            connection.execute("INSERT INTO items VALUES (2)")
            connection.commit()
            with contextlib.closing(sqlite3.connect("/tmp/delete.sqlite")) as other:
                assert other.execute("SELECT count(*) FROM items").fetchone() == (2,)
                other.execute("INSERT INTO items VALUES (zeroblob(100000))")
                other.commit()
            connection.execute("DELETE FROM items")
            connection.commit()
            connection.execute("VACUUM")
            assert second.report.used_bytes == os.path.getsize("/tmp/delete.sqlite") == 8192
        connection.close()
    finally:
        guard.end_instance()


# --- the end of a process ------------------------------------------------------------------------------

ENDS = """
import gc, logging, os, sqlite3, sys, threading, time
from contextlib import suppress
import tmpguard
logging.disable()
guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=sys.argv[2])

def begun(mode):
    connection = sqlite3.connect(f"/tmp/{mode}.sqlite", check_same_thread=False)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE IF NOT EXISTS items (data)")
    connection.commit()
    connection.execute("INSERT INTO items VALUES (zeroblob(20000))")
    return connection

class Kept:
    pass

def keep(mode):
    kept = Kept()
    kept.me, kept.connection = kept, begun(mode)
    return kept

MODES = ("delete", "truncate", "wal", "memory")

def within():
    global kept, memory
    guard.invocation().__enter__()
    kept = [keep(mode) for mode in MODES]
    memory = sqlite3.connect(":memory:")
    memory.execute("CREATE TEMP TABLE items (data)")

def after():
    global kept
    with guard.invocation():
        kept = [keep(mode) for mode in MODES]

def in_daemon_threads():
    def work():
        # Those that still run when SQLite is left to itself get an error, and are none the worse.
        with suppress(sqlite3.OperationalError), guard.invocation():
            connection = begun("delete")
            while True:
                connection.execute("INSERT INTO items VALUES (zeroblob(3000))")
                connection.execute("DELETE FROM items")
                connection.commit()
    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05)

def in_a_fork():
    with guard.invocation():
        connection = begun("delete")
        connection.commit()
        child = os.fork()
        if not child:
            other = sqlite3.connect("/tmp/delete.sqlite")
            other.execute("INSERT INTO items VALUES (1)")
            other.commit()
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (2,)

def uninstalled():
    with guard.invocation():
        connection = begun("wal")
        connection.commit()
        tmpguard.uninstall()
        connection.execute("INSERT INTO items VALUES (1)")
        connection.commit()

globals()[sys.argv[1]]()
print("done")
"""


@pytest.mark.parametrize("end", ["within", "after", "in_daemon_threads", "in_a_fork", "uninstalled"])
def test_process_that_ends_with_open_connections_ends_well(scratch_root: Path, end: str) -> None:
    """C4.2: the collector closes them when no Python can be called any more."""
    assert run_python(ENDS, end, scratch_root) == "done\n"
    assert os.listdir(scratch_root) == []


@pytest.mark.parametrize("error", [TimeoutError, SystemExit, KeyboardInterrupt])
def test_what_a_signal_handler_raises_comes_in_the_place_of_sqlite_s_error(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Without tmpguard in between it is called, and raises, once SQLite has returned."""
    from tmpguard.interpose.sqlite.pages import Pages

    def interrupted(self: Pages, offset: int, size: int) -> list[int]:
        raise error

    with guard.invocation(), contextlib.closing(sqlite3.connect("/tmp/data.sqlite")) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(Pages, "new", interrupted)
            with pytest.raises(error):
                connection.execute("CREATE TABLE t (x)")
        connection.execute("CREATE TABLE t (x)")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            connection.execute("CREATE TABLE t (x)")


def is_traced() -> bool:
    """Whether a coverage tool sees each line of tmpguard's, and calls its own code in between."""
    monitoring = getattr(sys, "monitoring", None)
    tools = [] if monitoring is None else [monitoring.get_tool(number) for number in range(6)]
    return sys.gettrace() is not None or any(tools)


@pytest.mark.parametrize("error", [TimeoutError, SystemExit, KeyboardInterrupt])
def test_what_a_signal_handler_raises_while_a_file_is_closed_comes_behind_it(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    if is_traced():
        pytest.skip("a tracer's calls come between the request to raise and the end of the callback")
    raised = error("in the handler")

    def interrupted(opened: object, file: int) -> int:
        raise raised

    with guard.invocation():
        connection = sqlite3.connect("/tmp/data.sqlite")
        connection.execute("CREATE TABLE t (x)")
        with monkeypatch.context() as patch:
            patch.setattr(files, "_close", interrupted)
            with pytest.raises(error) as caught:
                connection.close()
        assert caught.value is raised
        with contextlib.closing(sqlite3.connect("/tmp/data.sqlite")) as connection:
            with pytest.raises(sqlite3.OperationalError, match="already exists"):
                connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize("handler", ["frees", "writes"])
def test_a_write_that_a_handler_interrupts_is_charged_by_what_there_is_behind_it(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    taken = Quota.take

    def take(self: Quota, growth: int, inode: int = 0) -> bool:
        monkeypatch.setattr(Quota, "take", taken)
        if handler == "writes":  # so that the charge is out of date
            self.stamp += 1
            return False
        refused = taken(self, growth, inode)
        os.unlink("/tmp/much")
        return refused

    with (
        guard.invocation() as invocation,
        contextlib.closing(sqlite3.connect("/tmp/data.sqlite")) as connection,
    ):
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        with open("/tmp/much", "wb") as file:
            file.write(bytes(invocation.quota.balance - 8192 if handler == "frees" else 4096))
        monkeypatch.setattr(Quota, "take", take)
        connection.execute("INSERT INTO t VALUES (?)", ["x" * 100_000])
        connection.commit()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
        assert invocation.report.used_bytes == invocation.quota.limit - invocation.quota.balance
        assert not invocation.report.violations


def test_kept_error_of_a_closed_database_leaves_the_accounting_of_the_next_alone(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3.5: its traceback holds what was known of a file whose inode the next file may get."""
    from tmpguard.interpose.sqlite.pages import Pages

    def interrupted(self: Pages, offset: int, size: int) -> list[int]:
        self.add(offset, size)
        raise TimeoutError

    kept = []
    for number in range(20):
        with (
            guard.invocation() as invocation,
            contextlib.closing(sqlite3.connect("/tmp/data.sqlite")) as connection,
        ):
            connection.execute("CREATE TABLE t (x)")
            assert invocation.report.used_bytes == 8192, number
            with monkeypatch.context() as patch:
                patch.setattr(Pages, "new", interrupted)
                with pytest.raises(TimeoutError) as error:
                    connection.execute("CREATE TABLE more (x)")
            kept.append(error)
