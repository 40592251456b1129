"""Instances for tests, run by this process's user or, from root, by one without rights."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import NOBODY, PROJECT
from tmpguard.emulator.instance import InstanceSettings, KernelInstance
from tmpguard.emulator.protocols import Span, StartFailed

SERVED = Path(__file__).with_name("served.py")


class Answer(NamedTuple):
    """What a request gave, and what happened in the instance meanwhile."""

    result: Any
    span: Span

    @property
    def findings(self) -> list[tuple[str, str, int]]:
        return [(one.operation, one.path, one.errno) for one in self.span.violations]


class Running:
    """An instance that runs ``served.py``."""

    def __init__(self, instance: KernelInstance, started: Span) -> None:
        self.instance = instance
        self.started = started
        self.late: tuple[Any, ...] = ()

    async def send(self, code: str) -> Any:
        """Have ``code`` run; its ``result``."""
        reader, writer = await asyncio.open_connection(*self.instance.address)
        body = code.encode()
        writer.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def request(self, code: str) -> Answer:
        """The same as the only request that runs."""
        self.late = self.instance.begin()
        result = await self.send(code)
        return Answer(result, self.instance.finish())


@asynccontextmanager
async def running(project: str | Path, **options: Any) -> AsyncIterator[Running]:
    """An instance of 1 MB. Skips where the machine permits none."""
    given: dict[str, Any] = {"storage_size": 1, "command": (interpreter(), str(SERVED), "3000"), **options}
    instance = KernelInstance(InstanceSettings(project=str(project), **given))
    try:
        started = await instance.start()
    except StartFailed as exc:
        if exc.step.startswith("unshare"):
            pytest.skip(f"this machine permits no namespaces: {exc}")
        raise
    try:
        yield Running(instance, started)
    finally:
        await instance.stop(10)


def in_instance(project: str | Path, scenario: Callable[[Running], Awaitable[Any]], **options: Any) -> Any:
    """What ``scenario`` returns, run with an instance."""

    async def main() -> Any:
        async with running(project, **options) as started:
            return await scenario(started)

    return asyncio.run(main())


def interpreter() -> str:
    """A Python that any user may run, if there is one: this one may be in root's home."""
    return public_interpreter() or sys.executable


@cache
def public_interpreter() -> str:
    for candidate in (sys.executable, "/usr/bin/python3"):
        if os.geteuid() or not os.path.exists(candidate) or _runs_as_nobody(candidate):
            return candidate
    return ""


def _runs_as_nobody(program: str) -> bool:
    check = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        done = subprocess.run([program, "-c", check], user=NOBODY, group=NOBODY, extra_groups=[], check=False)
    except PermissionError:
        return False
    return done.returncode == 0


@cache
def _is_readable_for_nobody() -> bool:
    """Whether other users may read this checkout and the libraries of this environment."""
    places = [str(PROJECT / "tests"), os.path.dirname(pytest.__file__)]
    check = f"import os, sys; sys.exit(not all(os.access(path, os.R_OK | os.X_OK) for path in {places!r}))"
    options: Any = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return (
        subprocess.run([public_interpreter(), "-c", check], cwd="/", check=False, **options).returncode == 0
    )


def run_as_user(code: str, *arguments: object) -> Any:
    """What ``scenario(arguments)`` in ``code`` returns, in a process of a user without rights.

    Skips if such a user can run no Python of this version, or cannot read this checkout.
    """
    program = public_interpreter()
    if not program:
        pytest.skip("no Python of this version is executable for other users")
    if not _is_readable_for_nobody():
        pytest.skip(f"other users may not read {PROJECT}, or this environment")
    paths = [str(PROJECT), *(path for path in sys.path if path.endswith("site-packages"))]
    done = subprocess.run(
        [program, "-c", f"{code}\nimport json; print(json.dumps(scenario(*{arguments!r})))"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(paths), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
    )
    if "this machine permits no namespaces" in done.stderr:
        pytest.skip(done.stderr.strip().rpartition("\n")[2])
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)
