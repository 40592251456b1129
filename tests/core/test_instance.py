"""lifetime="instance": one /tmp for all invocations of a process, and what each leaves for the next."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.config.test_options import refused
from tests.support import in_threads, left_in, python, run_python
from tmpguard.core import originals
from tmpguard.core.reports.report import Leftover

MB = 1_048_576
PAGE = 4096


@pytest.fixture
def guard(scratch_root: Path) -> Iterator[tmpguard.Guard]:
    guard = tmpguard.Guard(lifetime="instance", storage_size=1, scratch_root=scratch_root, bundle=None)
    yield guard
    guard.end_instance()
    assert left_in(scratch_root) == []


def write(path: str, size: int = 1) -> None:
    with open(path, "wb") as file:
        file.write(b"x" * size)


# --- one /tmp ------------------------------------------------------------------------------------------


def test_the_next_invocation_finds_what_the_last_one_left(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/cache.bin", 5000)
    with guard.invocation() as second:
        assert os.path.getsize("/tmp/cache.bin") == 5000
        assert os.listdir("/tmp") == ["cache.bin"]
        assert (second.report.used_bytes, second.report.files) == (2 * PAGE, 1)
        assert shutil.disk_usage("/tmp").used == 2 * PAGE
    assert "cache.bin" not in originals.listdir("/tmp")


@pytest.mark.parametrize("running", [False, True])
def test_a_descriptor_that_outlived_the_instance_may_be_read_but_not_written(
    guard: tmpguard.Guard, running: bool
) -> None:
    """C4.5. Between the invocations of the instance it stays as it is."""
    with guard.invocation() as latest:
        descriptor = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
        if running:
            guard.end_instance()
    if not running:
        with guard.invocation() as latest:
            os.write(descriptor, b"text")
        guard.end_instance()
    with guard.invocation() as other:
        with pytest.raises(OSError, match="Stale") as caught:
            os.write(descriptor, b"text")
        os.pread(descriptor, 4, 0)
        assert other.report.peak_bytes == 0
    os.close(descriptor)
    assert caught.value.errno == errno.ESTALE
    assert [late.path for late in latest.report.late_writes] == ["/tmp/file"]


def test_without_it_each_begins_with_nothing_and_leaves_nothing(scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    for _ in range(2):
        with guard.invocation() as invocation:
            assert os.listdir("/tmp") == []
            write("/tmp/file")
        assert invocation.report.leftovers == ()
    guard.end_instance()
    with guard.invocation():
        write("/tmp/file")


def test_the_quota_is_that_of_the_instance(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/first", MB - PAGE)
    with guard.invocation() as second:
        with pytest.raises(OSError, match="No space left"):
            write("/tmp/second", 2 * PAGE)
        assert os.path.getsize("/tmp/second") == PAGE
        os.unlink("/tmp/first")
        write("/tmp/third", MB - PAGE)
    assert [violation.errno for violation in second.report.violations] == [errno.ENOSPC]


def test_the_limit_of_files_is_that_of_the_instance(scratch_root: Path) -> None:
    guard = tmpguard.Guard(lifetime="instance", max_files=2, scratch_root=scratch_root, bundle=None)
    for number in range(2):
        with guard.invocation():
            write(f"/tmp/{number}")
    with guard.invocation():
        with pytest.raises(OSError, match="No space left"):
            write("/tmp/2")
    guard.end_instance()


@pytest.mark.parametrize("by_start", [False, True])
def test_chdir_lasts_until_the_instance_ends(guard: tmpguard.Guard, by_start: bool) -> None:
    outside = os.getcwd()
    with tmpguard.cold_start(guard=guard) if by_start else guard.invocation():
        os.mkdir("/tmp/work")
        os.chdir("/tmp/work")
    with guard.invocation():
        assert os.getcwd() == "/tmp/work"
        write("out.json")
        os.rename("/tmp/work", "/tmp/works")
        assert os.getcwd() == "/tmp/works"
        assert os.listdir() == os.listdir("/tmp/works") == ["out.json"]
    guard.end_instance()
    with guard.invocation():
        assert os.getcwd() == outside
    guard.end_instance()


def test_concurrent_invocations_share_it_and_have_their_own_working_directory(
    guard: tmpguard.Guard,
) -> None:
    written = threading.Barrier(4)

    def work(number: int) -> None:
        with guard.invocation() as invocation:
            os.mkdir(f"/tmp/{number}")
            os.chdir(f"/tmp/{number}")
            write("here.txt")
            written.wait()
            assert os.getcwd() == f"/tmp/{number}"
            assert sorted(os.listdir("/tmp")) == ["0", "1", "2", "3"]
            assert os.listdir(".") == ["here.txt"]
            written.wait()
            assert invocation.report.files == 8

    in_threads(4, work)


def test_tasks_share_it_too(guard: tmpguard.Guard) -> None:
    async def request(number: int) -> list[str]:
        with guard.invocation():
            write(f"/tmp/{number}")
            await asyncio.sleep(0.01)
            return sorted(os.listdir("/tmp"))

    async def main() -> list[list[str]]:
        return await asyncio.gather(*(request(number) for number in range(3)))

    assert asyncio.run(main()) == [["0", "1", "2"]] * 3


def test_threads_that_use_it_first_at_once_share_one_directory(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        with guard.invocation():
            barrier.wait()
            write(f"/tmp/{number}")
            barrier.wait()
            assert len(os.listdir("/tmp")) == 8

    in_threads(8, work)


def test_a_link_that_one_made_is_followed_by_the_others(guard: tmpguard.Guard) -> None:
    """The quick way through names below /tmp is over for all of them."""
    with guard.invocation() as outer:
        write("/tmp/file")
        with guard.invocation():
            write("/tmp/other")
            with outer.bound():
                os.mkdir("/tmp/real")
                os.symlink("real", "/tmp/link")
                os.symlink("/etc", "/tmp/out")
            write("/tmp/link/inner")
            with pytest.raises(OSError, match="Read-only") as failed:
                write("/tmp/out/file")
    assert failed.value.errno == errno.EROFS
    with guard.invocation():
        assert os.listdir("/tmp/real") == ["inner"]
        with pytest.raises(OSError, match="Read-only"):
            write("/tmp/out/file")


def test_a_bundle_shows_in_it_and_is_nothing_left(scratch_root: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/file.txt").write_text("text")
    guard = tmpguard.Guard(lifetime="instance", bundle=tmp_path / "project", scratch_root=scratch_root)
    for number in range(2):
        with guard.invocation() as invocation:
            assert "package" in os.listdir("/tmp")
            assert Path("/tmp/package/file.txt").read_text() == "text"
            write(f"/tmp/{number}")
        assert invocation.report.leftovers == (Leftover(f"/tmp/{number}", PAGE),)
        assert invocation.report.files == number + 1
    guard.end_instance()


def test_what_is_not_in_the_bundle_is_absent_in_a_directory_that_was_walked_before(
    scratch_root: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    inner = project / "inner"
    inner.mkdir(parents=True)
    for name in ("kept.txt", "left.out"):
        (inner / name).write_text(name)
    (project / ".genezioignore").write_text("*.out\n")
    guard = tmpguard.Guard(lifetime="instance", bundle=project, scratch_root=scratch_root)
    with guard.invocation():
        assert os.stat(inner / "kept.txt").st_size == len("kept.txt")
        for look in (os.stat, os.lstat, os.readlink, open):
            with pytest.raises(FileNotFoundError):
                look(inner / "left.out")
            with pytest.raises(FileNotFoundError):
                look(str(inner / "left.out"))
    guard.end_instance()


# --- what is left --------------------------------------------------------------------------------------


def test_the_report_tells_what_an_invocation_leaves_for_the_next(guard: tmpguard.Guard) -> None:
    with guard.invocation() as first:
        write("/tmp/small", 1)
        os.mkdir("/tmp/directory")
        write("/tmp/directory/large", 3 * PAGE)
        write("/tmp/gone", 1)
        os.unlink("/tmp/gone")
        live = first.report.leftovers
    expected = (
        Leftover("/tmp/directory/large", 3 * PAGE),
        Leftover("/tmp/small", PAGE),
        Leftover("/tmp/directory", 0),
    )
    assert first.report.leftovers == live == expected
    with guard.invocation() as second:
        assert second.report.leftovers == ()
        with open("/tmp/small", "ab") as file:
            file.write(b"x" * PAGE)
        os.symlink("small", "/tmp/link")
    assert second.report.leftovers == (Leftover("/tmp/small", PAGE), Leftover("/tmp/link", 0))
    with guard.invocation() as third:
        shutil.rmtree("/tmp/directory")
        write("/tmp/small", 1)
    assert third.report.leftovers == ()
    assert first.report.leftovers == expected


def test_a_second_name_of_a_file_that_was_there_has_no_new_bytes(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/b", PAGE)
    with guard.invocation() as invocation:
        os.link("/tmp/b", "/tmp/a")
        write("/tmp/c", 2 * PAGE)
        os.link("/tmp/c", "/tmp/d")
        assert invocation.report.used_bytes == 3 * PAGE
    assert sorted(invocation.report.leftovers) == [
        Leftover("/tmp/a", 0),
        Leftover("/tmp/c", 2 * PAGE),
        Leftover("/tmp/d", 0),
    ]
    assert (invocation.report.used_bytes, invocation.report.files) == (3 * PAGE, 4)


def test_a_file_replaced_by_a_larger_one_counts_with_its_growth(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/file", PAGE)
    with guard.invocation() as invocation:
        write("/tmp/new", 4 * PAGE)
        os.replace("/tmp/new", "/tmp/file")
    assert invocation.report.leftovers == (Leftover("/tmp/file", 3 * PAGE),)


def test_only_the_thousand_largest_are_told(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        for number in range(1100):
            os.symlink("x", f"/tmp/{number:04}")
        write("/tmp/z", PAGE)
    assert len(invocation.report.leftovers) == 1000
    assert invocation.report.leftovers[0] == Leftover("/tmp/z", PAGE)
    assert invocation.report.files == 1101


def test_work_without_files_looks_for_nothing(guard: tmpguard.Guard, scratch_root: Path) -> None:
    with guard.invocation() as idle:
        pass
    assert list(scratch_root.iterdir()) == []
    with guard.invocation():
        write("/tmp/file")
        with idle.bound(), guard.invocation() as other:
            pass
    assert idle.report.leftovers == other.report.leftovers == ()


def test_each_invocation_has_its_own_peak(guard: tmpguard.Guard) -> None:
    with guard.invocation() as first:
        write("/tmp/large", 100 * PAGE)
        os.unlink("/tmp/large")
        write("/tmp/small", PAGE)
    with guard.invocation() as second:
        write("/tmp/other", 9 * PAGE)
        os.unlink("/tmp/other")
    with guard.invocation() as third:
        os.listdir("/tmp")
    peaks = [invocation.report.peak_bytes // PAGE for invocation in (first, second, third)]
    assert peaks == [100, 10, 1]


def test_the_peak_of_a_long_invocation_outlives_the_begin_of_another(guard: tmpguard.Guard) -> None:
    with guard.invocation() as long:
        write("/tmp/large", 50 * PAGE)
        os.unlink("/tmp/large")
        with guard.invocation() as short:
            write("/tmp/file", PAGE)
        assert long.report.peak_bytes == 50 * PAGE
    assert (long.report.peak_bytes, short.report.peak_bytes) == (50 * PAGE, PAGE)


def test_an_invocation_that_is_dropped_without_an_end_runs_no_more(guard: tmpguard.Guard) -> None:
    for name in "ab":
        dropped = guard.invocation()
        with dropped.bound():
            write(f"/tmp/{name}")
        del dropped
        gc.collect()
    with guard.invocation() as invocation:
        assert sorted(os.listdir("/tmp")) == ["a", "b"]
    assert invocation.report.leftovers == ()


def test_an_invocation_may_be_ended_by_the_garbage_collector(guard: tmpguard.Guard) -> None:
    """Which may run within the very code that sets a context variable, on Python 3.11."""

    class Ending:
        def __init__(self, invocation: tmpguard.Invocation) -> None:
            self.itself = self
            self.invocation = invocation

        def __del__(self) -> None:
            self.invocation.end()

    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for number in range(50):
            invocation = guard.invocation()
            with invocation.bound():
                write("/tmp/file")
            Ending(invocation)
            with guard.invocation() as other:
                assert tmpguard.current() is other
                write(f"/tmp/{number}")
            assert tmpguard.current() is None
    finally:
        gc.set_threshold(*before)


def test_reports_are_handed_out_with_what_is_left(scratch_root: Path) -> None:
    reports: list[tmpguard.Report] = []
    guard = tmpguard.Guard(
        lifetime="instance", on_report=reports.append, scratch_root=scratch_root, bundle=None
    )
    for number in range(3):
        invocation = guard.invocation()
        with invocation.bound():
            write(f"/tmp/{number}")
        invocation.end()
        invocation.end()
    with guard.invocation():
        pass
    assert tmpguard.drain(30)
    paths = [[leftover.path for leftover in report.leftovers] for report in reports]
    assert paths == [["/tmp/0"], ["/tmp/1"], ["/tmp/2"], []]
    guard.end_instance()
    assert len(reports) == 4


# --- after the end of an invocation --------------------------------------------------------------------


def test_an_open_file_goes_on_in_the_next_invocation(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        log = open("/tmp/log", "w")
        database = sqlite3.connect("/tmp/cache.sqlite3")
        database.execute("create table t (x)")
        database.commit()
    with guard.invocation() as second:
        log.write("from the second")
        log.flush()
        assert Path("/tmp/log").read_text() == "from the second"
        database.execute("insert into t values (1)")
        database.commit()
    assert [leftover.path for leftover in second.report.leftovers] == ["/tmp/log"]
    with guard.invocation():
        with pytest.raises(OSError, match="No space left"):
            log.write("x" * 2 * MB)
        database.close()
    guard.end_instance()
    with pytest.raises(OSError, match="Stale"):
        log.write("x")
    log.close()


def test_a_descriptor_of_an_earlier_invocation_is_charged(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        descriptor = os.open("/tmp/file", os.O_WRONLY | os.O_CREAT)
    with guard.invocation() as second:
        assert os.write(descriptor, b"x" * 2 * MB) == MB
        with pytest.raises(OSError, match="No space left"):
            os.write(descriptor, b"x")
        assert second.report.used_bytes == MB
        assert os.path.realpath(f"/proc/self/fd/{descriptor}") == "/tmp/file"
    assert second.report.leftovers == (Leftover("/tmp/file", MB),)
    os.close(descriptor)


def test_what_is_written_through_a_file_of_an_earlier_invocation_is_left_by_the_one_that_wrote(
    guard: tmpguard.Guard,
) -> None:
    with guard.invocation():
        log = open("/tmp/log", "wb", buffering=0)
    with guard.invocation() as second:
        log.write(b"x" * PAGE)
    with guard.invocation() as third:
        pass
    log.close()
    assert second.report.leftovers == (Leftover("/tmp/log", PAGE),)
    assert third.report.leftovers == ()


def test_code_that_still_runs_goes_on(guard: tmpguard.Guard) -> None:
    """As on a warm instance, where it goes on with the next request."""
    over = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        over.wait()
        try:
            write("/tmp/late")
            Path("/tmp/late").rename("/tmp/later")
        except BaseException as exc:
            failed.append(exc)

    with guard.invocation() as invocation:
        write("/tmp/file")
        thread = threading.Thread(target=work)
        thread.start()
    over.set()
    thread.join()
    assert failed == []
    assert invocation.report.late_writes == ()
    assert invocation.report.leftovers == (Leftover("/tmp/file", PAGE),)
    with guard.invocation():
        assert sorted(os.listdir("/tmp")) == ["file", "later"]


def test_a_write_outside_by_late_code_is_refused_and_recorded(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        write("/tmp/file")
    with invocation.bound():
        with pytest.raises(OSError, match="Read-only"):
            write("/etc/file")
    assert [violation.path for violation in invocation.report.violations] == ["/etc/file"]


def test_a_local_socket_listens_for_the_invocations_to_come(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("/tmp/socket")
        listener.listen()
    with listener, guard.invocation(), socket.socket(socket.AF_UNIX) as client:
        client.connect("/tmp/socket")
        assert listener.getsockname() == client.getpeername() == "/tmp/socket"


def test_a_temporary_directory_may_outlive_its_invocation(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        directory = tempfile.TemporaryDirectory()
        write(f"{directory.name}/file")
    with guard.invocation():
        assert os.listdir(directory.name) == ["file"]
        directory.cleanup()
        assert os.listdir("/tmp") == []


# --- the end of the instance ---------------------------------------------------------------------------


def test_the_end_of_the_instance_wipes_and_the_next_invocation_begins_a_new_one(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    with guard.invocation() as first:
        os.makedirs("/tmp/a/b")
        os.chmod("/tmp/a", 0)
        write("/tmp/file")
    guard.end_instance()
    guard.end_instance()
    assert list(scratch_root.iterdir()) == []
    assert first.report.files == 3
    with guard.invocation() as second:
        assert os.listdir("/tmp") == []
        write("/tmp/file")
    assert second.report.leftovers == (Leftover("/tmp/file", PAGE),)


def test_what_runs_when_the_instance_ends_gets_estale(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        file = open("/tmp/file", "w")
        guard.end_instance()
        for operation in (lambda: write("/tmp/other"), lambda: os.mkdir("/tmp/d"), lambda: file.write("x")):
            with pytest.raises(OSError, match="Stale") as failed:
                operation()
            assert failed.value.errno == errno.ESTALE
        file.close()
    assert len(invocation.report.late_writes) == 3


def test_a_guard_that_is_gone_leaves_nothing(scratch_root: Path) -> None:
    guard = tmpguard.Guard(lifetime="instance", scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        write("/tmp/file")
    assert left_in(scratch_root)
    del guard, invocation
    gc.collect()
    assert tmpguard.drain(30)
    assert left_in(scratch_root) == []


def test_the_end_of_the_process_wipes_it(scratch_root: Path) -> None:
    code = """
import os, tmpguard
guard = tmpguard.Guard(lifetime="instance", scratch_root=sys.argv[1], bundle=None)
with guard.invocation():
    os.makedirs("/tmp/a/b")
print(len(os.listdir(sys.argv[1])))
"""
    assert run_python(code, scratch_root) == "1\n"
    assert list(scratch_root.iterdir()) == []


def test_a_killed_process_s_is_removed_by_the_next_one(scratch_root: Path) -> None:
    code = """
import os, signal, tmpguard
guard = tmpguard.Guard(lifetime="instance", scratch_root=sys.argv[1], bundle=None)
with guard.invocation():
    open("/tmp/file", "w").close()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run(python(code, scratch_root), check=False)
    assert len(list(scratch_root.iterdir())) == 1
    assert (
        run_python("import tmpguard; tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)", scratch_root)
        == ""
    )
    assert list(scratch_root.iterdir()) == []


# --- processes -----------------------------------------------------------------------------------------


def test_each_process_has_its_own(scratch_root: Path) -> None:
    """Workers that a server forks after the guard was used, and a child forked within a request."""
    code = """
import os, tmpguard
guard = tmpguard.Guard(lifetime="instance", scratch_root=sys.argv[1], bundle=None)

def child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

def worker():
    with guard.invocation() as invocation:
        print("worker", os.listdir("/tmp"))
        open("/tmp/worker", "w").close()
    with guard.invocation() as invocation:
        print("worker", os.listdir("/tmp"))
    guard.end_instance()

def forked():
    print("forked", sorted(os.listdir("/tmp")))
    open("/tmp/forked", "w").close()

with guard.invocation():
    open("/tmp/parent", "w").close()
    child(forked)
child(worker)
with guard.invocation():
    print("parent", sorted(os.listdir("/tmp")))
"""
    assert run_python(code, scratch_root).splitlines() == [
        "forked ['parent']",
        "worker []",
        "worker ['worker']",
        "parent ['forked', 'parent']",
    ]
    assert list(scratch_root.iterdir()) == []


# --- the option ----------------------------------------------------------------------------------------


def test_an_unknown_lifetime_is_refused() -> None:
    for value in ("Instance", "", None, True, 1, ["instance"]):
        refused(f"lifetime={value!r}", '"invocation"', '"instance"', lifetime=value)


def test_a_start_is_part_of_the_instance(guard: tmpguard.Guard) -> None:
    with tmpguard.cold_start(guard=guard) as start:
        write("/tmp/model.bin")
    assert start.report.cold_start
    assert start.report.leftovers == (Leftover("/tmp/model.bin", PAGE),)
    with guard.invocation() as invocation:
        assert os.listdir("/tmp") == ["model.bin"]
    assert not invocation.report.cold_start


def test_the_middlewares_keep_it_between_requests(scratch_root: Path) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from tmpguard.asgi import TmpGuardMiddleware

    app = FastAPI()
    app.add_middleware(TmpGuardMiddleware, lifetime="instance", scratch_root=scratch_root, bundle=None)

    @app.post("/{name}")
    def keep(name: str) -> list[str]:
        write(f"/tmp/{name}")
        return sorted(os.listdir("/tmp"))

    with TestClient(app) as client:
        assert client.post("/a").json() == ["a"]
        assert client.post("/b").json() == ["a", "b"]
    assert list(scratch_root.iterdir()) == []


def test_flask_keeps_it_between_requests(guard: tmpguard.Guard) -> None:
    from flask import Flask

    from tmpguard.wsgi import TmpGuardMiddleware

    app = Flask(__name__)
    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, guard=guard)  # type: ignore[method-assign]

    @app.post("/<name>")
    def keep(name: str) -> list[str]:
        write(f"/tmp/{name}")
        return sorted(os.listdir("/tmp"))

    for expected in (["a"], ["a", "b"]):
        with app.test_client().post(f"/{expected[-1]}") as response:
            assert response.json == expected
