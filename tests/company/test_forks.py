"""Forks beside threads: the child inherits each lock as it is at that moment."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tmpguard
from tests.support import PROJECT, eventually
from tmpguard.core import real


def refused() -> None:
    with contextlib.suppress(OSError):
        open("/var/new.txt", "w").close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_beside_threads_that_are_refused_can_be_refused(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "tmpguard")
    over = threading.Event()

    def work() -> None:
        with guard.invocation():
            while not over.is_set():
                refused()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with guard.invocation():
            for _ in range(40):
                pid = os.fork()
                if not pid:
                    refused()
                    os._exit(0)
                assert eventually(lambda pid=pid: os.waitpid(pid, os.WNOHANG) != (0, 0)), "the child hangs"  # type: ignore[misc]
    finally:
        over.set()
        for thread in threads:
            thread.join()


# --- locks that a thread holds at the moment of the fork -----------------------------------------------


@contextmanager
def all_held() -> Iterator[None]:
    """Another thread holds each lock of tmpguard's."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        locks = [lock for reference in tuple(real._locks) if (lock := reference()) is not None]
        for lock in locks:
            lock.acquire()
        held.set()
        over.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()


def forked(work: Callable[[], object]) -> int:
    """The status of a forked child that does ``work``; the alarm ends one that hangs."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use_everything() -> None:
    """Whatever takes a lock: files, entries, databases, refusals, reports, the background threads."""
    refused()
    Path("/tmp/child.bin").write_bytes(bytes(5000))
    os.mkdir("/tmp/child")
    os.rename("/tmp/child.bin", "/tmp/child/file.bin")
    with os.scandir("/tmp") as entries:
        assert {entry.name for entry in entries} >= {"child", "before.bin"}
    with contextlib.closing(sqlite3.connect("/tmp/child/rows.db")) as connection, connection:
        connection.execute("CREATE TABLE rows (text)")
    invocation = tmpguard.current()
    assert invocation is not None
    assert invocation.report.used_bytes > 5000
    assert invocation.report.violations
    Path("/tmp/before.bin").unlink()


@pytest.mark.parametrize("lifetime", ["invocation", "instance"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_inherits_no_lock_that_a_thread_holds(
    lifetime: str, scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "tmpguard")
    guard = tmpguard.Guard(lifetime=lifetime, scratch_root=scratch_root, bundle=None, storage_size=1)

    def in_the_same() -> None:
        use_everything()
        assert tmpguard.current().report.violation_count == 2  # type: ignore[union-attr]

    def in_another() -> None:
        for lifetime in ("invocation", "instance"):
            another = tmpguard.Guard(lifetime=lifetime, scratch_root=scratch_root, bundle=None)  # type: ignore[arg-type]
            with another.invocation():
                open("/tmp/before.bin", "w").close()
                use_everything()
            another.end_instance()
        tmpguard.drain()

    def in_the_next() -> None:
        with guard.invocation():
            open("/tmp/before.bin", "w").close()
            use_everything()
        guard.end_instance()

    with guard.invocation():
        open("/tmp/before.bin", "w").close()
        refused()
        assert forked(bool) == 0  # the first one makes what it shares
        with contextlib.closing(sqlite3.connect("/tmp/rows.db")), all_held():
            statuses = [forked(work) for work in (in_the_same, in_another, in_the_next)]
    guard.end_instance()
    assert statuses == [0, 0, 0]


def test_a_lock_that_the_forking_thread_holds_stays_its_own() -> None:
    """A signal handler may fork in the middle of a step, which goes on in the child."""
    lock = real.RLock()

    def release() -> None:
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()

    with lock:
        assert forked(release) == 0


def test_what_a_thread_was_in_the_middle_of_is_measured_in_the_child(guard: tmpguard.Guard) -> None:
    """The child has a copy of the credit, in which half a step may be missing."""
    with guard.invocation() as invocation:
        Path("/tmp/file.bin").write_bytes(bytes(5000))
        assert forked(bool) == 0  # the first one makes what it shares
        quota = invocation.quota
        inside, over = threading.Event(), threading.Event()

        def half() -> None:
            quota.credit -= 40_960
            inside.set()
            over.wait()
            quota.credit += 40_960

        def work() -> None:
            assert quota.charging(0, bool) is False
            assert quota.balance == quota.limit - 8192

        stuck = threading.Thread(target=quota.charging, args=(0, half))
        stuck.start()
        inside.wait()
        try:
            assert forked(work) == 0
        finally:
            over.set()
            stuck.join()


def test_every_lock_is_one_of_those_that_a_fork_frees() -> None:
    """None of the standard library is freed, and those of ``threading`` may not be real (DESIGN, 8)."""
    for path in (PROJECT / "tmpguard").rglob("*.py"):
        if path.relative_to(PROJECT / "tmpguard").parts[0] in ("emulator", "testing"):
            continue  # their own processes; the main thread's event loop
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            assert name not in ("Condition", "Event", "Semaphore"), path
            if name in ("Lock", "RLock", "allocate_lock") and isinstance(node, ast.Attribute):
                assert isinstance(node.value, ast.Name), path
                allowed = {"real"} | ({"_thread", "threading"} if path.name == "real.py" else set())
                assert node.value.id in allowed, path
                assert name == "RLock" or path.name in ("real.py", "background.py"), path


def test_no_lock_of_a_library_is_in_the_way_of_a_refusal() -> None:
    """``functools.cached_property`` has one for all instances of a class up to 3.11."""
    for path in (PROJECT / "tmpguard").rglob("*.py"):
        if not {"core", "interpose"}.isdisjoint(path.parts):
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert "cached_property" not in names, path
