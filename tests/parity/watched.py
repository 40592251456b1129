"""The child process that runs scripts as they are, or in invocations that only watch (C2.5).

It has its own mount namespace, in which everything is read-only except for a tmpfs on ``/tmp`` and one on the
project, which both begin anew with each script.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from typing import Any

from tests.parity import mounting, places, scripts
from tmpguard import Guard
from tmpguard.config import options


class Runner:
    """Runs scripts, within invocations of a guard if the ``job`` says so."""

    def __init__(self, job: dict[str, Any]) -> None:
        options.pinned = lambda *more: []
        self._tmp = mounting.Tmp(job["size"], "")
        self._project: str = job["project"]
        self._mounted = False
        self._guard: Guard | None = None
        if job["watches"]:
            ignore = os.path.join(os.path.dirname(self._project), "ignore")
            self._guard = Guard(
                storage_size=job["size"] >> 20,
                bundle=self._project,
                ignore=ignore,
                scratch_root=job["scratch"],
                max_files=8,
                enforce=False,
            )
            self._guard.invocation().__enter__().__exit__(None, None, None)  # installs the patched layer

    def run(self, script: list[scripts.Call], project: str, watched: bool) -> list[scripts.Outcome]:
        """The outcomes, and what went wrong in the judges."""
        self._begin()
        faults = _Faults()
        logging.getLogger("tmpguard").addHandler(faults)
        with contextlib.nullcontext() if self._guard is None else self._guard.invocation():
            outcomes = scripts.run(script, project, watched)
        logging.getLogger("tmpguard").removeHandler(faults)
        return [*outcomes, [faults.found, None]]

    def _begin(self) -> None:
        os.chdir("/")
        self._tmp.make()
        if self._mounted:
            mounting.unmount(self._project)
        mounting.mount_tmpfs(self._project, 1 << 20)
        self._mounted = True
        places.make_project(self._project)


class _Faults(logging.Handler):
    """Collects the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(self.format(record))


def main() -> None:
    job = json.loads(sys.stdin.readline())
    mounting.enter_namespace()
    mounting.make_read_only(job["project"])
    scripts.load()
    logger = logging.getLogger("tmpguard")
    logger.propagate = False
    runner = Runner(job)
    scripts.prepare()
    mounting.answer(lambda: None, {"run": runner.run})


if __name__ == "__main__":
    main()
