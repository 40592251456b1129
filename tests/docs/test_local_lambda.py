"""The pages for SAM CLI, LocalStack and the runtime interface emulator: what needs no Docker is done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.rie import INVOCATIONS
from tests.docs.test_platform_pages import blocks, check_commands, page, write_files
from tests.support import PROJECT

pytest.importorskip("click")
pytest.importorskip("rich")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's project, the working directory meanwhile."""
    directory = tmp_path / "project"
    (directory / "src").mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter in the working directory prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:src", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sam_check_and_invoke(project: Path) -> None:
    pytest.importorskip("httptools")
    text = page("sam")
    write_files(text)
    (project / "event.json").write_text("{}")
    check_commands(text.replace("$ tmpguard invoke", "$ skipped"))
    (quoted,) = [block for block in blocks(text, "console") if "tmpguard invoke" in block]
    arguments, *lines = quoted.splitlines()
    done = subprocess.run(
        [sys.executable, "-m", *arguments.removeprefix("$ ").split()],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"this machine permits no namespaces: {done.stderr}")
    assert done.returncode == 1
    for line in lines:
        assert line in done.stderr


def test_sam_in_tests(project: Path) -> None:
    text = page("sam")
    write_files(text)
    (source,) = [block for block in blocks(text, "python") if "from_project" in block]
    (project / "test_upload.py").write_text(source)
    failed = run_pytest()
    assert failed.returncode == 1
    assert "1 failed" in failed.stdout
    assert "Read-only file system: 'uploads.log'" in failed.stdout
    mended = (project / "src/app.py").read_text().replace('"uploads.log"', '"/tmp/uploads.log"')
    (project / "src/app.py").write_text(mended)
    assert run_pytest().returncode == 0


def run_pytest() -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:src", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_upload.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


CALL = """
try:
    print(MODULE.handle({}, None))
except OSError as exc:
    print(exc, *exc.__notes__, sep="\\n")
import sys
print("tmpguard" in sys.modules)
"""


def test_sam_local_guards_the_handler_where_it_says_so(project: Path) -> None:
    write_files(page("sam"))
    call = "import guarded" + CALL.replace("MODULE", "guarded")
    assert run_python(call, AWS_SAM_LOCAL="true").splitlines() == [
        "[Errno 30] Read-only file system: 'uploads.log'",
        "tmpguard: only /tmp is writable; write to /tmp/uploads.log",
        "True",
    ]
    assert not os.path.exists("uploads.log")
    assert run_python(call).splitlines() == ["{'statusCode': 200}", "False"]
    Path("/tmp/upload.json").unlink(missing_ok=True)


def test_localstack_guards_the_handler_where_it_says_so(project: Path) -> None:
    text = page("localstack")
    (source,) = blocks(text, "python")
    (project / "app.py").write_text(source)
    call = "import app" + CALL.replace("MODULE", "app")
    printed = run_python(call, LOCALSTACK_HOSTNAME="172.17.0.2")
    assert printed.endswith("True\n")
    assert f"\n```\n{printed.removesuffix('True' + chr(10))}```\n" in text
    assert run_python(call).splitlines() == ["{'statusCode': 200}", "False"]
    Path("/tmp/upload.json").unlink(missing_ok=True)


# --- the runtime interface emulator --------------------------------------------------------------------


@contextmanager
def emulated(**environment: str) -> Iterator[tuple[str, list[str]]]:
    """AWS's runtime client under the stand-in: the address, and at the end the lines of the log."""
    program = str(PROJECT / "tests" / "docs" / "rie.py")
    command = [sys.executable, program, "0", sys.executable, "-m", "awslambdaric", "app.handle"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}{INVOCATIONS}", lines
        finally:
            process.send_signal(signal.SIGINT)
            lines += process.stdout.read().splitlines()


def answer_to(address: str, event: Any) -> Any:
    return httpx.post(address, json=event, timeout=None).json()


def test_a_guarded_handler_under_the_emulator(project: Path) -> None:
    pytest.importorskip("awslambdaric")
    text = page("runtime-interface-emulator")
    write_files(text)
    (answer,) = blocks(text, "json")
    with emulated(GUARDED="1") as (address, log):
        assert answer_to(address, {"bytes": 1000}) == json.loads(answer)
        assert answer_to(address, {"bytes": 513 << 20})["/tmp/upload.bin"] == "ENOSPC"
    assert not os.path.exists("upload.bin")
    quoted = re.findall(r"^tmpguard: .*\[Errno.*$", text, re.MULTILINE)
    assert len(quoted) == len(log) == 2
    for line, said in zip(quoted, log, strict=True):
        assert said.endswith(line.replace("/var/task", os.getcwd()))


def test_without_the_variable_the_handler_is_not_guarded(project: Path) -> None:
    pytest.importorskip("awslambdaric")
    write_files(page("runtime-interface-emulator"))
    with emulated() as (address, _):
        answer = answer_to(address, {"bytes": 1000})
    assert set(answer.values()) == {"written"}
    Path("/tmp/upload.bin").unlink(missing_ok=True)
