"""What dead processes left is removed by the next, what living ones have is not (C4.6); forks and exits."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import python, run_python
from tmpguard.core.storage.claims import PREFIX, new_name, sweep

SERVER = """
import os, tmpguard
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
invocation = guard.invocation()
with invocation:
    os.makedirs("/tmp/a/b")
    with open("/tmp/a/b/file.txt", "w") as file:
        file.write("text")
    print("ready", flush=True)
    for line in sys.stdin:
        print(open("/tmp/a/b/file.txt").read(), os.listdir("/tmp"), flush=True)
"""


class Server:
    """Another process in the middle of a request."""

    def __init__(self, scratch_root: Path, code: str = SERVER) -> None:
        self.process = subprocess.Popen(
            python(code, scratch_root), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.read() == "ready"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(60) == -signal.SIGKILL

    def stop(self) -> None:
        """Let it finish its request and exit."""
        self.process.communicate(timeout=60)


@pytest.fixture
def server(scratch_root: Path) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(scratch_root))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def own_directories(scratch_root: Path) -> list[str]:
    return sorted(path.name for path in scratch_root.iterdir())


# --- killed (C4.6) -------------------------------------------------------------------------------------


def test_the_next_process_removes_what_a_killed_one_left(
    server: Callable[[], Server], scratch_root: Path
) -> None:
    for neighbour in [server() for _ in range(3)]:
        neighbour.kill()
    assert len(list(scratch_root.glob("*/*/a/b/file.txt"))) == 3
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    assert own_directories(scratch_root) == []


def test_the_next_process_leaves_a_living_neighbour_alone(
    server: Callable[[], Server], scratch_root: Path
) -> None:
    living = server()
    before = own_directories(scratch_root)
    dead = server()
    dead.kill()
    assert len(own_directories(scratch_root)) == 2
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    assert own_directories(scratch_root) == before
    assert living.ask() == "text ['a']"
    run_python("import tmpguard; tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)", scratch_root)
    assert living.ask() == "text ['a']"
    living.stop()
    assert own_directories(scratch_root) == []


def test_processes_that_start_at_once_remove_nothing_of_each_other(scratch_root: Path) -> None:
    """Several workers of one server, each with requests while the others start."""
    code = """
import os, tmpguard
from tmpguard.core.storage import claims
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
    claims.sweep(sys.argv[1])
    with guard.invocation():
        os.makedirs("/tmp/a")
        with open("/tmp/a/file.txt", "w") as file:
            file.write("text")
        assert open("/tmp/a/file.txt").read() == "text"
print("done")
"""
    workers = [Server(scratch_root, code) for _ in range(4)]
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write("\n")
        worker.process.stdin.flush()
    assert [worker.process.communicate(timeout=120)[0] for worker in workers] == ["done\n"] * 4
    assert own_directories(scratch_root) == []


def test_a_root_with_the_setgid_bit_is_swept(server: Callable[[], Server], scratch_root: Path) -> None:
    """Its directories inherit the bit: a shared directory of a group is often made so."""
    scratch_root.chmod(0o2775)
    server().kill()
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    assert own_directories(scratch_root) == []


# --- foreign things ------------------------------------------------------------------------------------


def test_what_only_bears_the_name_is_left_alone(scratch_root: Path, tmp_path: Path) -> None:
    """C4.6: another mode, a link, a file, another owner: none of it is a scratch directory of ours."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file.txt").write_text("text")
    (scratch_root / new_name()).write_text("text")
    (scratch_root / new_name()).symlink_to(elsewhere)
    (scratch_root / new_name()).symlink_to("nowhere")
    os.mkfifo(scratch_root / new_name())
    open_one = scratch_root / new_name()
    open_one.mkdir()
    open_one.chmod(0o755)
    (open_one / "file.txt").write_text("text")
    other = scratch_root / "other-name"
    other.mkdir(mode=0o700)
    before = sorted(path for path in scratch_root.rglob("*"))
    assert sweep(str(scratch_root)) == 0
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    assert sorted(path for path in scratch_root.rglob("*")) == before
    assert (elsewhere / "file.txt").read_text() == "text"


@pytest.mark.parametrize("tail", ["a1b2c3d4", "a1b2c3d4e5f6-1", "a1b2c3d4e5fg", "A1B2C3D4E5F6"])
def test_a_directory_whose_name_only_begins_like_ours_is_left_alone(scratch_root: Path, tail: str) -> None:
    """As `mkdtemp(prefix="tmpguard-")` makes one: of this user and with our mode."""
    Path(tempfile.mkdtemp(prefix=PREFIX, dir=scratch_root), "file.txt").write_text("text")
    (scratch_root / f"{PREFIX}{tail}").mkdir(mode=0o700)
    before = sorted(scratch_root.rglob("*"))
    assert sweep(str(scratch_root)) == 0
    assert sorted(scratch_root.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_another_user_s_directory_is_left_alone(scratch_root: Path) -> None:
    directory = scratch_root / new_name()
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    assert sweep(str(scratch_root)) == 0
    assert directory.exists()


# --- fork ----------------------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> str:
    """What ``work`` returned in a forked child, or the error that it raised there."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = f"{work()}"
        except BaseException as exc:
            answer = repr(exc)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@contextmanager
def held_by_another_thread(lock: Any) -> Iterator[None]:
    holding, released = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            released.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(30)
    try:
        yield
    finally:
        released.set()
        thread.join()


def test_a_fork_while_another_thread_makes_a_scratch_directory_or_writes(guard: tmpguard.Guard) -> None:
    """The thread that would let go of the lock is not there in the child."""

    def work() -> object:
        signal.alarm(20)  # which ends the child, where it waits for ever
        with open("/tmp/file.txt", "ab", buffering=0) as file:
            file.write(b"text")
        with guard.invocation(), open("/tmp/other.txt", "w") as other:
            return other.write("text")

    with guard.invocation() as invocation:
        with open("/tmp/file.txt", "wb") as file:
            file.write(b"text")
        os.symlink("file.txt", "/tmp/link")  # from here on a fork itself needs no lock
        making = sys.modules[type(invocation).__module__]._lock
        for lock in (invocation.quota.lock, making):
            with held_by_another_thread(lock):
                assert forked(work) == "4"


def test_a_forked_child_has_invocations_of_its_own(guard: tmpguard.Guard, scratch_root: Path) -> None:
    with guard.invocation():
        Path("/tmp/file.txt").write_text("parent")

    def work() -> object:
        with guard.invocation():
            Path("/tmp/file.txt").write_text("child")
            inside = os.listdir("/tmp")
        return inside, own_directories(scratch_root)

    assert forked(work) == "(['file.txt'], [])"


def test_a_forked_child_does_not_wipe_what_its_parent_has(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C4.6"""
    invocation = guard.invocation()
    with invocation.bound():
        Path("/tmp/file.txt").write_text("parent")

    def work() -> object:
        invocation.end()
        drained = tmpguard.drain(30)
        with guard.invocation():
            Path("/tmp/file.txt").write_text("child")
        swept = sweep(str(scratch_root))
        return drained, swept

    assert forked(work) == "(True, 0)"
    with invocation:
        assert Path("/tmp/file.txt").read_text() == "parent"
    assert own_directories(scratch_root) == []


def test_a_forked_child_that_leaves_the_parent_s_block_does_not_wipe_it(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        Path("/tmp/file.txt").write_text("parent")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            break_out = guard.invocation()
            with suppress(BaseException), break_out:
                Path("/tmp/other.txt").write_text("child")
            current = tmpguard.current()
            assert current is not None
            current.__exit__(None, None, None)
            os.write(writing, b"left")
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            assert pipe.read() == "left"
        os.waitpid(child, 0)
        assert Path("/tmp/file.txt").read_text() == "parent"
        assert "other.txt" not in os.listdir("/tmp")


def test_a_child_forked_within_an_invocation_uses_its_tmp(guard: tmpguard.Guard) -> None:
    """C6.2: as the child of a process in the kernel's own set-up would."""

    def work() -> object:
        text = Path("/tmp/parent.txt").read_text()
        Path("/tmp/child.txt").write_text("child")
        os.mkdir("/tmp/directory")
        os.unlink("/tmp/parent.txt")
        try:
            open("/etc/file.txt", "w")
        except OSError as exc:
            return text, exc.errno

    with guard.invocation():
        Path("/tmp/parent.txt").write_text("parent")
        assert forked(work) == "('parent', 30)"
        assert sorted(os.listdir("/tmp")) == ["child.txt", "directory"]


def test_a_child_forked_within_an_invocation_sweeps_in_no_invocation(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    """C4.6: the backstop took it for the application's own doing, and what was half wiped stayed locked."""
    dead = scratch_root / new_name()
    dead.mkdir(0o700)
    (dead / "1/directory/in/it").mkdir(parents=True)

    def work() -> object:
        invocation = tmpguard.current()
        assert invocation is not None
        return invocation.report.violations

    with guard.invocation():
        assert forked(work) == "()"
    assert not dead.exists()


def _in_a_pool(number: int) -> str:
    Path(f"/tmp/{number}.txt").write_text("text")
    return f"{sorted(os.listdir('/tmp'))}"


@pytest.mark.parametrize("used", [True, False], ids=["used", "not used"])
def test_a_fork_pool_started_within_an_invocation_uses_its_tmp(
    used: bool, guard: tmpguard.Guard, scratch_root: Path
) -> None:
    """SURFACE 4: whether /tmp was used before the fork or not."""
    context = multiprocessing.get_context("fork")
    with guard.invocation():
        if used:
            assert os.listdir("/tmp") == []
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(_in_a_pool, 1).result() == "['1.txt']"
            assert pool.submit(_in_a_pool, 2).result() == "['1.txt', '2.txt']"
        assert sorted(os.listdir("/tmp")) == ["1.txt", "2.txt"]
    assert own_directories(scratch_root) == []


# --- workers that are forked from one parent, as by `gunicorn --preload` (C4.6) ----------------------------

WORKERS = """
import os, signal, tmpguard
from tmpguard.core.context import unguarded
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)

def worker(work, then):
    pid = os.fork()
    if not pid:
        work()
        then()
        os._exit(0)
    return pid

def request(name="file"):
    invocation = guard.invocation().__enter__()
    os.makedirs("/tmp/a/b")
    open(f"/tmp/a/b/{name}", "w").close()

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def found():
    with unguarded():
        return sorted(name for _, _, names in os.walk(sys.argv[1]) for name in names)

def nothing():
    pass
"""

PRELOADED = {
    "a worker that serves nothing yet": """
os.waitpid(worker(request, killed), 0)
assert found() == ["file"]
os.waitpid(worker(nothing, nothing), 0)
assert found() == []
""",
    "one after the other": """
for _ in range(3):
    os.waitpid(worker(request, killed), 0)
    assert found() == ["file"]
os.waitpid(worker(nothing, nothing), 0)
assert found() == []
""",
    "a living one beside it": """
reading, writing = os.pipe()
go_on, said = os.pipe()

def living():
    request("living")
    os.write(writing, b"x")
    os.read(go_on, 1)
    assert os.listdir("/tmp/a/b") == ["living"]

pid = worker(living, nothing)
os.read(reading, 1)
os.waitpid(worker(request, killed), 0)
assert found() == ["file", "living"]
os.waitpid(worker(nothing, nothing), 0)
assert found() == ["living"]
os.write(said, b"x")
assert os.waitpid(pid, 0)[1] == 0
""",
    "the parent has a request of its own": """
request("parent's")
for then in (nothing, killed):
    os.waitpid(worker(nothing, then), 0)
    assert found() == ["parent's"]
""",
    "a worker of a worker": """
def parent():
    os.waitpid(worker(request, killed), 0)
    assert found() == ["file"]
    os.waitpid(worker(nothing, nothing), 0)
    assert found() == []

assert os.waitpid(worker(parent, nothing), 0)[1] == 0
""",
    "by multiprocessing": """
import multiprocessing
fork = multiprocessing.get_context("fork")
def job():
    request()
    killed()
process = fork.Process(target=job)
process.start()
process.join()
assert found() == ["file"]
process = fork.Process(target=nothing)
process.start()
process.join()
assert found() == []
""",
}


@pytest.mark.parametrize("code", PRELOADED.values(), ids=PRELOADED.keys())
def test_a_forked_worker_removes_what_a_killed_one_left(code: str, scratch_root: Path) -> None:
    assert run_python(WORKERS + code, scratch_root) == ""


# --- exit ----------------------------------------------------------------------------------------------

USE = """
import os, threading, tmpguard
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
invocation = guard.invocation()
invocation.__enter__()
os.makedirs("/tmp/a/b")
"""

EXITS = {
    "ended": "invocation.__exit__(None, None, None)",
    "ended in the background": "invocation.end()",
    "never ended": "",
    "only its scratch directory was made": "os.rmdir('/tmp/a/b'); os.rmdir('/tmp/a')",
    "SystemExit": "sys.exit()",
    "many in the background": """
for _ in range(50):
    other = guard.invocation()
    with other.bound():
        os.makedirs("/tmp/a/b")
    other.end()
""",
    "in a thread": """
def work():
    with guard.invocation():
        os.makedirs("/tmp/a/b")
threading.Thread(target=work).start()
""",
}


@pytest.mark.parametrize("end", EXITS.values(), ids=EXITS.keys())
def test_the_exit_of_the_interpreter_leaves_nothing(end: str, scratch_root: Path) -> None:
    """C4.2"""
    assert run_python(USE + end, scratch_root) == ""
    assert own_directories(scratch_root) == []


def test_an_error_at_the_top_of_a_program_is_shown_as_ever(scratch_root: Path) -> None:
    done = subprocess.run(
        python(USE + "raise ZeroDivisionError('of the program')", scratch_root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: of the program"
    assert own_directories(scratch_root) == []
