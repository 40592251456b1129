"""Real servers on the loopback, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support import eventually, free_port

PROJECT = Path(__file__).resolve().parents[2]


class Server:
    """A server that is running, and the directory where its scratch directories are made."""

    def __init__(self, command: list[str], log: Path, scratch: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.scratch = scratch
        self._log = log
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'examples'}",
            "TMPDIR": str(scratch),
            "PORT": self.url.rpartition(":")[2],
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, *(part.replace("PORT", environment["PORT"]) for part in command)]
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=PROJECT / "examples",
                start_new_session=True,
            )
        if not eventually(lambda: self.process.poll() is not None or self._answers()) or not self._answers():
            self.kill()
            raise AssertionError(f"{command} does not answer:\n{log.read_text()}")

    def _answers(self) -> bool:
        try:
            httpx.get(self.url)
        except httpx.TransportError:
            return False
        return True

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def scratch_directories(self) -> list[str]:
        """The scratch directories in which a request has something, with the directory of their process.

        An empty one may be kept for a request to come.
        """
        found = []
        for process in self.scratch.glob("tmpguard-*"):
            with suppress(FileNotFoundError):
                for path in process.iterdir():
                    # A file is moved here for a moment before it is removed.
                    with suppress(FileNotFoundError, NotADirectoryError):
                        found += [path] if any(path.iterdir()) else []
        return sorted(f"{path.parent.name}/{path.name}" for path in found)

    def stop(self, by: int = signal.SIGTERM) -> str:
        """Ask the server to stop and wait until it did; returns its log."""
        self.process.send_signal(by)
        self.process.wait(60)
        return self._log.read_text()

    def kill(self) -> None:
        """Kill the server with its workers, without a chance to clean up."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server: ``start(arguments of python..., PORT where its port goes)``."""
    servers: list[Server] = []

    def start(*command: str) -> Server:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        servers.append(Server(list(command), tmp_path / f"server-{len(servers)}.log", scratch))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
