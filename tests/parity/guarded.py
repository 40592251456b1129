"""The child process that runs scripts in invocations.

It has its own mount namespace, in which everything is read-only except for one temporary directory, so a
fault in the guard does no damage. The project is in that directory, and really is writable.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import Any

from tests.parity import mounting, scripts
from tmpguard import Guard
from tmpguard.config import options

#: Calls that catch errors and try again: their own error need not be the refusal.
COMPOSED = (
    *("makedirs", "renames", "removedirs", "copy", "copytree", "move", "rmtree", "path_method", "name_"),
    *("path_copied", "mkdir_parents"),
)


class Runner:
    """Runs scripts in invocations of one guard."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.project: str = job["project"]
        # An environment below /tmp would be visible there (C1.5). The kernel set-up has none.
        options.pinned = lambda *more: []
        self.guard = Guard(
            storage_size=job["size"] >> 20,
            bundle=self.project,
            scratch_root=job["scratch"],
            max_files=job["files"] or None,
        )
        self._before = self._tree()

    def run(self, script: list[scripts.Call], project: str, watched: bool) -> list[scripts.Outcome]:
        """The outcomes. Faults of the report and of the credit are appended to them."""
        with self.guard.invocation() as invocation:
            outcomes = scripts.run(script, project, watched, lambda: _state(invocation))
        seen = 0
        for call, outcome in zip(script, outcomes, strict=False):
            told, _, (known, too_much) = outcome
            if too_much:
                outcome[0] += f" with a credit of {too_much} too much"
            if re.match(r"OSError EROFS", told) and known == seen and not call[0].startswith(COMPOSED):
                outcome[0] += " without a violation"
            seen = known
        for outcome in outcomes:
            del outcome[2:]
        if self._tree() != self._before:
            outcomes[-1][0].append(f"the project is {self._tree()}, no more {self._before}")
            self._before = self._tree()
        return outcomes

    def _tree(self) -> list[Any]:
        """The real state of the project, which must not change."""
        found = []
        for parent, directories, files in os.walk(self.project):
            for name in [".", *directories, *files]:
                path = os.path.join(parent, name)
                status = os.lstat(path)
                found.append([path, status.st_mode, status.st_size, status.st_nlink, status.st_mtime_ns])
                found[-1] += os.listxattr(path, follow_symlinks=False)
        return sorted(found, key=repr)


def _state(invocation: Any) -> tuple[int, int]:
    """The number of violations, and the number of bytes by which the credit exceeds the free space."""
    excess = 0
    if invocation.mounted.directory is not None:
        quota = invocation.quota
        with quota.lock:
            excess = quota.balance + invocation.volume.measure()[0].bytes - quota.limit
    return len(invocation.report.violations), max(excess, 0)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    mounting.enter_namespace()
    mounting.make_read_only(job["throw_away"])
    scripts.load()
    if job["user"]:
        mounting.become(job["user"])
    logging.getLogger("tmpguard").disabled = True  # it would warn of thousands of refusals
    runner = Runner(job)
    runner.guard.invocation().__enter__().__exit__(None, None, None)  # installs the patched layer
    scripts.prepare()
    mounting.answer(lambda: None, {"run": runner.run})


if __name__ == "__main__":
    main()
