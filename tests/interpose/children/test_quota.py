"""What children write is charged when they are over (C3.5)."""

from __future__ import annotations

import asyncio
import errno
import linecache
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tmpguard
from tests.interpose.children.conftest import Build
from tests.support import eventually
from tmpguard.core.reports.report import CHILD_OVERRUN

MB = 1_048_576


def fill(size: int, name: str = "big") -> list[str]:
    return ["sh", "-c", f"head -c {size} /dev/zero > /tmp/{name}"]


def used() -> int:
    return shutil.disk_usage("/tmp").used


def through_popen(command: list[str]) -> None:
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(0.001)


def through_asyncio(command: list[str]) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(*command)
        await process.wait()

    asyncio.run(main())


def through_posix_spawn(command: list[str]) -> None:
    os.waitpid(os.posix_spawn("/bin/sh", command, os.environ), 0)


def through_waiting(wait: Callable[[int], object]) -> Callable[[list[str]], None]:
    def route(command: list[str]) -> None:
        process = subprocess.Popen(command)  # kept: a forgotten one waits for its child itself
        wait(process.pid)

    return route


ROUTES: dict[str, Callable[[list[str]], object]] = {
    "run": subprocess.run,
    "poll": through_popen,
    "communicate": lambda command: subprocess.Popen(command).communicate(),
    "asyncio": through_asyncio,
    "posix_spawn": through_posix_spawn,
    "system": lambda command: os.system(command[2]),
    "popen": lambda command: os.popen(command[2]).close(),
    "spawn": lambda command: os.spawnvp(os.P_WAIT, "sh", command),
    "spawn without waiting": lambda command: os.waitpid(os.spawnvp(os.P_NOWAIT, "sh", command), 0),
    "wait": through_waiting(lambda _: os.wait()),
    "wait3": through_waiting(lambda _: os.wait3(0)),
    "wait4": through_waiting(lambda pid: os.wait4(pid, 0)),
    "waitid": through_waiting(lambda pid: os.waitid(os.P_PID, pid, os.WEXITED)),
}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("route", ROUTES)
def test_what_a_child_writes_is_charged_when_it_is_over(route: str, inside_any: tmpguard.Invocation) -> None:
    quota = inside_any.quota
    ROUTES[route](fill(100_000))
    assert quota.limit - quota.balance == 102_400  # known without another look
    Path("/tmp/more").write_bytes(bytes(MB - 102_400))
    with pytest.raises(OSError, match="No space left"):
        Path("/tmp/too-much").write_bytes(b"x")
    assert [violation.operation for violation in inside_any.report.violations] == ["write"]


def test_what_a_child_removes_can_be_written_again(inside_any: tmpguard.Invocation) -> None:
    Path("/tmp/big").write_bytes(bytes(MB))
    subprocess.run(["rm", "/tmp/big"], check=True)
    assert inside_any.quota.balance == MB
    Path("/tmp/big").write_bytes(bytes(MB))


def test_an_overrun_is_a_violation_and_nothing_can_be_written_until_it_is_gone(
    inside_any: tmpguard.Invocation,
) -> None:
    subprocess.run(fill(3 * MB), check=True)
    (violation,) = inside_any.report.violations
    assert (violation.operation, violation.errno) == (CHILD_OVERRUN, errno.ENOSPC)
    assert violation.operation == "quota exceeded by a child process"
    assert violation.path == "sh"
    assert violation.location is not None
    assert violation.location.file == __file__
    assert "fill(3 * MB)" in linecache.getline(__file__, violation.location.line)
    assert f"{3 * MB} bytes" in violation.remedy
    assert inside_any.report.used_bytes == inside_any.report.peak_bytes == 3 * MB
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            Path("/tmp/more").write_bytes(b"x")
    with pytest.raises(OSError, match="No space left"), open("/tmp/big", "r+b", buffering=0) as file:
        file.write(b"in place")
    subprocess.run(["true"], check=True)
    os.truncate("/tmp/big", MB - 4096)
    Path("/tmp/more").write_bytes(b"x")
    assert [violation.operation for violation in inside_any.report.violations].count(CHILD_OVERRUN) == 1
    subprocess.run(fill(2 * MB, "again"), check=True)
    assert [violation.operation for violation in inside_any.report.violations].count(CHILD_OVERRUN) == 2


def test_too_many_files_of_a_child_are_an_overrun(build_any: Build) -> None:
    with build_any(max_files=3).invocation() as invocation:
        subprocess.run(["sh", "-c", "cd /tmp; touch a b c"], check=True)
        assert invocation.report.violations == ()
        subprocess.run(["touch", "/tmp/d"], check=True)
        assert [violation.operation for violation in invocation.report.violations] == [CHILD_OVERRUN]
        with pytest.raises(OSError, match="No space left"):
            open("/tmp/e", "w")


def test_an_overrun_of_a_child_that_nobody_waits_for_is_found_at_the_end(build_any: Build) -> None:
    invocation = build_any(storage_size=1).invocation()
    with invocation:
        process = os.posix_spawn("/bin/sh", fill(2 * MB), os.environ)
        assert eventually(lambda: os.stat("/tmp").st_nlink and used() == MB)
    assert [violation.operation for violation in invocation.report.violations] == [CHILD_OVERRUN]
    os.waitpid(process, 0)


def test_writers_and_children_at_once_leave_a_true_account(inside_any: tmpguard.Invocation) -> None:
    running = [subprocess.Popen(fill(40_000, f"child-{number}")) for number in range(5)]
    for number in range(5):
        Path(f"/tmp/own-{number}").write_bytes(bytes(40_000))
    assert [process.wait() for process in running] == [0] * 5
    assert inside_any.quota.limit - inside_any.quota.credit == used() == 10 * 40_960
