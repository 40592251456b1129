"""``tmpguard run --json`` in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import PROJECT

PATIENCE = 60.0


class RunCommand:
    """A run, and the events that it has printed so far."""

    def __init__(self, *arguments: str, directory: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tmpguard", "run", "--json", *arguments],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, event: str, **wanted: Any) -> dict[str, Any]:
        """The next such event that was not waited for yet.

        Skips the test where the machine permits no namespaces.
        """
        for one in self.events:
            if one["event"] == event and not one.get("seen") and wanted.items() <= one.items():
                one["seen"] = True
                return one
        while line := self._lines.get(timeout=PATIENCE):
            one = json.loads(line)
            self.events.append(one)
            if one["event"] == "start failed" and one["step"].startswith("unshare"):
                pytest.skip(f"this machine permits no namespaces: {one['reason']}")
            if one["event"] == event and wanted.items() <= one.items():
                one["seen"] = True
                return one
        raise AssertionError(f"no {event}: {self.events}\n{self.errors()}")

    def listen(self) -> None:
        """Wait until it serves."""
        self.url: str = self.wait_for("listening")["address"]

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE, **options)

    def processes(self) -> list[int]:
        """All processes of the run but the first."""
        found = [self.process.pid]
        for process in found:
            for task in os.listdir(f"/proc/{process}/task"):
                found += map(int, Path(f"/proc/{process}/task/{task}/children").read_text().split())
        return found[1:]

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, by: int = signal.SIGINT) -> dict[str, Any]:
        """Ask it to end; the last summary."""
        self.process.send_signal(by)
        summary = self.wait_for("summary")
        assert self.process.wait(PATIENCE) == 0, self.errors()
        assert self.errors() == ""
        report: dict[str, Any] = summary["report"]
        return report

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def run_command(*arguments: str, directory: Path, **environment: str) -> Iterator[RunCommand]:
    """A run that ends with the block. Its command may say ``python`` for this interpreter."""
    words = [sys.executable if word == "python" else word for word in arguments]
    one = RunCommand(*words, directory=directory, **environment)
    try:
        yield one
    finally:
        one.kill()
