"""What type checkers see of the public interface (PEP 561, PEP 692)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SOURCE = """
import tmpguard
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as Wsgi
async def application(*args: object) -> None: ...
guard = tmpguard.Guard(storage_size=1, bundle=None)
with guard.invocation() as invocation:
    reveal_type(invocation.report.peak_bytes)
    reveal_type(tmpguard.current())
reveal_type(tmpguard.cold_start(guard=guard))
tmpguard.Guard(storage_sise=1)
tmpguard.Guard(storage_size="1")
tmpguard.invocation(storage_sise=1)
tmpguard.Guard.from_genezio(enforce=1)
TmpGuardMiddleware(application, storage_sise=1)
Wsgi(lambda *args: [], storage_size="1")
"""


def plainly(note: str) -> str:
    """``note`` as newer versions of mypy put it."""
    return re.sub(r"Union\[(.*), None\]", r"\1 | None", note.replace("builtins.", ""))


def test_options_and_results_are_typed_and_a_misspelled_option_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "application.py"
    source.write_text(SOURCE)
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", str(source)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    found = re.findall(r"application\.py:(\d+): (error|note): (.*)", result.stdout)
    notes = [plainly(text) for _, kind, text in found if kind == "note"]
    lines = SOURCE.splitlines()
    errors = {lines[int(line) - 1] for line, kind, _ in found if kind == "error"}
    assert notes[:3] == [
        'Revealed type is "int"',
        'Revealed type is "tmpguard.core.invocation.Invocation | None"',
        'Revealed type is "tmpguard.core.invocation.Invocation"',
    ], result.stdout
    assert errors == set(lines[10:]), result.stdout


#: A user's program. Whatever a checker finds in it is an error, but for the lines that say so.
PROGRAM = """
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import tmpguard
from fastapi import FastAPI
from flask import Flask
from tmpguard import metrics
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.testing.fixture import TmpGuard
from tmpguard.wsgi import TmpGuardMiddleware as WSGIMiddleware


def on_report(report: tmpguard.Report) -> None:
    for violation in report.violations:
        assert_type(violation.location, tmpguard.Location | None)
    assert_type(report.route, str)
    assert_type(report.leftovers, tuple[tmpguard.Leftover, ...])
    assert_type(report.unguarded_children, tuple[tmpguard.Child, ...])
    metrics.record(report)


findings = tmpguard.ReportFile("findings.jsonl", interval=60)
guard = tmpguard.Guard(storage_size=64, writable=["/data"], on_report=findings)
other = tmpguard.Guard.from_genezio("genezio.yaml", enforce=False, on_report=on_report)
options: dict[str, Any] = {"storage_size": 1}
tmpguard.Guard(**options)
app = FastAPI()
app.add_middleware(TmpGuardMiddleware, storage_size=64, lifespan=True, on_report=on_report)
application = TmpGuardMiddleware(app, guard=guard)
wsgi = WSGIMiddleware(Flask("shop"), guard=guard)


@tmpguard.guarded(storage_size=64)
def handler(event: dict[str, Any], context: object) -> str:
    return "answer"


@tmpguard.guarded
async def job(number: int) -> bytes:
    return b""


@guard
def rows(number: int) -> Iterator[int]:
    yield number


@guard
async def pages(number: int) -> AsyncIterator[int]:
    yield number


class Jobs:
    @tmpguard.invocation(storage_size=1)
    def run(self, name: str) -> float:
        return 1.0


assert_type(handler({}, None), str)
assert_type(rows(3), Iterator[int])
assert_type(Jobs().run("x"), float)


async def main() -> None:
    assert_type(await job(3), bytes)
    async with tmpguard.invocation() as invocation:
        assert_type(invocation, tmpguard.Invocation)
    async for page in pages(3):
        assert_type(page, int)


def test_upload(tmpguard: TmpGuard) -> None:
    client = tmpguard.client(app, storage_size=1, base_url="http://shop")
    assert_type(client.get("/").status_code, int)
    assert_type(tmpguard.last.peak_bytes, int)
    tmpguard.allow("EROFS", 30)


TmpGuardMiddleware(app, storage_sise=1)  # an error
tmpguard.ReportFile("findings.jsonl", intervall=3)  # an error
rows("x")  # an error
tmpguard.nothing  # an error
"""


def wrong_lines_by_mypy(directory: Path) -> set[int]:
    command = ["mypy", "--strict", f"--cache-dir={directory}", "program.py"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return {int(line) for line in re.findall(r"program\.py:(\d+): error", done.stdout)}


def wrong_lines_by_pyright(directory: Path) -> set[int]:
    pytest.importorskip("pyright")
    (directory / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = ["pyright", "--pythonpath", sys.executable, "--outputjson", "program.py"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {done.stderr or done.stdout}")
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


@pytest.mark.parametrize("checked", [wrong_lines_by_mypy, wrong_lines_by_pyright])
def test_a_correct_program_has_no_errors_and_mistakes_are_errors(
    tmp_path: Path, checked: Callable[[Path], set[int]]
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    meant = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# an error")}
    assert checked(tmp_path) == meant
