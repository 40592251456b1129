"""uvloop starts children below Python; they are refused and contained all the same (C6.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.interpose.children.conftest import Build
from tmpguard.core.reports.report import CHILD_OVERRUN

uvloop = pytest.importorskip("uvloop")

PIPE = asyncio.subprocess.PIPE


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_contained(build: Build) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", "file.txt", cwd="/tmp", stdout=PIPE)
        assert await process.communicate() == (b"text", None)
        script = "cat /tmp/file.txt; echo $A; head -c 2000000 /dev/zero > /tmp/big; kill -TERM $$"
        environment = {"A": "value", "PATH": "/usr/bin:/bin"}
        process = await asyncio.create_subprocess_shell(script, env=environment, stdout=PIPE)
        assert await process.communicate() == (b"textvalue\n", None)
        assert process.returncode == -15
        for program, error in (("no-such-program", FileNotFoundError), ("/etc", PermissionError)):
            with pytest.raises(error) as failed:
                await asyncio.create_subprocess_exec(program)
            assert failed.value.filename == program
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("true", cwd="/nowhere")
        process = await asyncio.create_subprocess_exec("sleep", "100")
        process.terminate()
        assert await process.wait() == -15

    with build(storage_size=1).invocation() as invocation:
        Path("/tmp/file.txt").write_text("text")
        run(main)
        assert [violation.operation for violation in invocation.report.violations] == [CHILD_OVERRUN]


def test_refused(scratch_root: Path) -> None:
    async def main() -> None:
        for start in (asyncio.create_subprocess_exec, asyncio.create_subprocess_shell):
            with pytest.raises(PermissionError):
                await start("true")

    guard = tmpguard.Guard(children="refuse", bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        run(main)
        assert len(invocation.report.violations) == 2
