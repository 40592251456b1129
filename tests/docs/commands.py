"""The commands of the pages, run as the reader runs them: as written, in a project of its own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import PROJECT, eventually

PATIENCE = 60.0


def environment(**changes: str) -> dict[str, str]:
    """With the commands of this environment first, and of pytest's plugins just the one."""
    scripts = sysconfig.get_path("scripts")
    for name in ("tmpguard", "pytest"):
        if not os.access(f"{scripts}/{name}", os.X_OK):
            pytest.skip(f"{scripts} has no {name}: install the project")
    variables = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "-p tmpguard.pytest_plugin -p no:cacheprovider -p no:warnings",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "NO_COLOR": "1",
        **changes,
    }
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_WORKSPACE", "BUILD_NUMBER", "FORCE_COLOR"):
        variables.pop(name, None)
    return variables


def lines_of(block: str) -> list[str]:
    """The commands of a block, without the prompt and the output."""
    lines = block.replace("\\\n", "").splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line.partition("  #")[0].strip() for line in prompted or lines]


def run(line: str, directory: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Have a shell run ``line`` in the project.

    Skips the test where the command needs namespaces that the machine does not permit.
    """
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=directory,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"this machine permits no namespaces: {done.stderr}")
    return done


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


class Served:
    """A server that a command of a page has started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: str) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._port = int(port)
        self._log = log

    def log(self) -> str:
        return self._log.read_text()

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> str:
        """End it as Ctrl-C does; what it printed."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        return self.log()


@contextmanager
def served(line: str, directory: Path, port: str, **changes: str) -> Iterator[Served]:
    """Start the server of ``line``, which may begin with variables, in the project. It takes ``port``."""
    words = shlex.split(line)
    while "=" in words[0]:
        name, _, changes[name] = words.pop(0).partition("=")
    log = directory.parent / f"{directory.name}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["env", *words],  # looks for the program in the PATH that it is given
            cwd=directory,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    one = Served(process, log, port)
    try:
        eventually(lambda: process.poll() is not None or one.listens(), seconds=PATIENCE)
        if process.poll() is not None and "unshare" in one.log():
            pytest.skip(f"this machine permits no namespaces: {one.log()}")
        assert process.poll() is None, one.log()
        yield one
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        log.unlink()
