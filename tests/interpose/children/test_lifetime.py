"""Children of many requests at once, of ended ones, and what is left of all of them (C4)."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

import tmpguard
from tests.interpose.children.conftest import Build
from tests.support import in_threads, left_in
from tmpguard.core.context import unguarded
from tmpguard.interpose.children.accounts import children_of
from tmpguard.kernel.namespaces import PATIENCE


def test_requests_at_once_never_see_each_other_s_files(build_any: Build) -> None:
    guard = build_any(storage_size=1)

    def request(number: int) -> None:
        with guard.invocation():
            Path("/tmp/own.txt").write_text(f"{number}")
            for _ in range(2):
                script = "cat /tmp/own.txt; echo; ls /tmp; echo >> /tmp/count"
                done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
                assert done.stdout.splitlines()[:2] in ([f"{number}", "count"], [f"{number}", "own.txt"])
            assert Path("/tmp/count").read_text() == "\n\n"
            assert sorted(os.listdir("/tmp")) == ["count", "own.txt"]

    in_threads(6, request)


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return {one for one in found if "/proc/" not in one}


def processes() -> set[str]:
    """This process's children, zombies too."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def test_nothing_is_left_of_them(build: Build) -> None:
    """C4.2: no file, no descriptor, no process, no zombie, no mount."""
    guard = build(storage_size=1)
    gc.collect()
    mounts = Path("/proc/self/mountinfo").read_text()
    tmpguard.drain(30)
    before, running = descriptors(), processes()
    for _ in range(3):
        with guard.invocation():
            subprocess.run(["sh", "-c", "mkdir -p /tmp/a/b; echo > /tmp/a/b/c; chmod 0 /tmp/a"], check=True)
            with pytest.raises(FileNotFoundError):
                subprocess.run(["no-such-program"], check=False)
    assert tmpguard.drain(30)
    assert {one for one in descriptors() - before if "tmpguard-" not in one} == set()
    assert left_in(Path(guard.scratch.path)) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert processes() - running == set()


def test_a_child_that_outlives_its_request_never_meets_another_one(build_any: Build) -> None:
    """C4.1: its /tmp is emptied and nobody else's."""
    guard = build_any(storage_size=1)
    with guard.invocation():
        script = "echo > /tmp/mine; echo ready; read x; echo > /tmp/late || echo refused; ls -A /tmp | wc -l"
        child = subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    with guard.invocation():
        Path("/tmp/of-the-next").write_text("text")
        said, _ = child.communicate("\n")
        assert said.splitlines()[-2:] == ["refused", "0"], said
        assert os.listdir("/tmp") == ["of-the-next"]


def test_a_child_that_is_started_and_forgotten_enters_its_own_request_s_files(build_any: Build) -> None:
    """The request may be over before the child has entered its namespace."""
    guard = build_any(storage_size=1)
    reading, writing = os.pipe()
    children = []
    for number in range(10):
        with guard.invocation():
            Path(f"/tmp/{number}").write_text("")
            command = f"echo $(ls /tmp) > /proc/self/fd/{writing}"
            children.append(subprocess.Popen(["sh", "-c", command], pass_fds=[writing]))
    for child in children:
        child.wait()
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read().split()
    assert len(said) == len(set(said))
    assert all(one.isdecimal() for one in said)


def test_a_process_that_got_the_number_of_a_child_is_not_waited_for(build_any: Build) -> None:
    """A busy machine gives all of its numbers within minutes: nobody enters by this one any more."""
    guard = build_any(storage_size=1)
    with guard.invocation() as invocation:
        subprocess.run(["true"], check=True)
        (namespace,) = children_of(invocation).namespaces._made.values()
        namespace.entering(os.getppid())
    begin = time.monotonic()
    assert tmpguard.drain(60)
    assert time.monotonic() - begin < PATIENCE / 2


def test_a_child_of_an_ended_request_is_refused(build_any: Build) -> None:
    """C4.5"""
    guard = build_any(storage_size=1)
    invocation = guard.invocation()
    with invocation:
        subprocess.run(["true"], check=True)
    with invocation.bound(), pytest.raises(OSError, match="Stale file handle"):
        subprocess.run(["true"], check=False)
    assert [late.operation for late in invocation.report.late_writes] == ["subprocess.Popen"]
    assert tmpguard.drain(30)


def test_a_forked_child_starts_contained_ones(inside_any: tmpguard.Invocation) -> None:
    Path("/tmp/file.txt").write_text("text")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, subprocess.check_output(["cat", "/tmp/file.txt"]))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "text"
    os.waitpid(child, 0)


def test_threads_of_one_request_start_children_at_once(build_any: Build) -> None:
    guard = build_any(storage_size=1)
    with guard.invocation() as invocation:
        threads = [
            threading.Thread(
                target=lambda number=number: subprocess.run(["touch", f"/tmp/{number}"], check=True)
            )
            for number in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(os.listdir("/tmp")) == ["0", "1", "2", "3", "4"]
        assert invocation.report.violations == ()


def test_a_shared_tmp_is_shared_with_the_children_of_all_requests(build_any: Build) -> None:
    guard = build_any(storage_size=1, lifetime="instance")
    try:
        with guard.invocation():
            subprocess.run(["touch", "/tmp/first"], check=True)
        with guard.invocation() as invocation:
            assert subprocess.check_output(["ls", "/tmp"]) == b"first\n"
            subprocess.run(["sh", "-c", "head -c 2000000 /dev/zero > /tmp/second"], check=True)
            assert len(invocation.report.violations) == 1
    finally:
        guard.end_instance()


def test_code_outside_of_requests_starts_children_as_ever(build_any: Build, tmp_path: Path) -> None:
    """C6.4"""
    guard = build_any(storage_size=1)
    with guard.invocation():
        with unguarded():
            subprocess.run(["touch", tmp_path / "outside"], check=True)
    assert os.listdir(tmp_path) == ["outside"]
