"""docs/children.md says what is the case."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import tmpguard
from tests.interpose.children.conftest import Build
from tests.support import PROJECT
from tmpguard.config.options import CHILDREN as POLICIES
from tmpguard.core.reports.report import CHILD_OVERRUN

PAGE = (PROJECT / "docs" / "children.md").read_text()
MARK = "/tmp/of-the-request"


def by_asyncio() -> bool:
    async def main() -> int:
        return await (await asyncio.create_subprocess_exec("test", "-e", MARK)).wait()

    return asyncio.run(main()) == 0


def in_a_fork(call: Callable[[], object]) -> bool:
    child = os.fork()
    if not child:
        try:
            call()
        except PermissionError:
            os._exit(77)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 77:
        raise PermissionError
    return status == 0


def by_multiprocessing(method: str) -> bool:
    # Semaphores that a refused pool has left in a cycle: if they are collected while the resource tracker is
    # at work, it raises an error (Python 3.12).
    gc.collect()
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(os.path.exists, MARK).result()


#: Does a child that is started like this see a file of the request's?
ROWS: dict[str, Callable[[], bool]] = {
    "`subprocess`": lambda: subprocess.run(["test", "-e", MARK], check=False).returncode == 0,
    "`asyncio": by_asyncio,
    "`os.exec*`": lambda: in_a_fork(lambda: os.execvp("test", ["test", "-e", MARK])),
    "`multiprocessing` by spawn": lambda: by_multiprocessing("spawn"),
    "`multiprocessing` by its fork server": lambda: by_multiprocessing("forkserver"),
    "`os.fork`": lambda: in_a_fork(lambda: os._exit(0 if os.path.exists(MARK) else 1)),
}


def answers(row: str) -> dict[str, str]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row}")]
    return dict(zip(POLICIES, [cell.strip() for cell in line.strip("|").split("|")[1:]], strict=True))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", ROWS)
def test_each_way_to_a_child_goes_as_the_table_says(
    row: str, policy: str, build_any: Build, scratch_root: Path
) -> None:
    if policy == "contain":
        guard = build_any()
    else:
        guard = tmpguard.Guard(children=policy, bundle=None, scratch_root=scratch_root)
    with guard.invocation():
        Path(MARK).write_text("")
        try:
            found = "the request's" if ROWS[row]() else "the real one"
        except PermissionError:
            found = "refused"
    assert found == answers(row)[policy]


def test_the_default_and_the_names_are_right() -> None:
    assert '| `"allow"`, the default |' in PAGE
    assert tmpguard.Guard(bundle=None).children == "allow"
    assert all(f'`"{policy}"`' in PAGE for policy in POLICIES)
    assert f"`{CHILD_OVERRUN}`" in PAGE
