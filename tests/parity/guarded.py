"""The child process that runs scripts within invocations.

It has a mount namespace of its own, in which all but one throw-away directory is read-only: so a guard that
lets something through harms nobody. The project lies in that directory, and can be written there.
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

#: Calls that look first, catch errors and try again: a refusal within need not be what comes out.
COMPOSED = ("makedirs", "renames", "removedirs", "copy", "copytree", "move", "rmtree", "path_method", "name_")


class Runner:
    """Runs scripts in invocations of one guard."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.project: str = job["project"]
        # An environment below /tmp would be seen there (C1.5), and the kernel set-up has none.
        options.pinned = lambda *more: []
        self.guard = Guard(
            storage_size=job["size"] >> 20,
            bundle=self.project,
            scratch_root=job["scratch"],
            max_files=job["files"] or None,
        )
        self._before = self._tree()

    def run(self, script: list[scripts.Call], project: str, watched: bool) -> list[scripts.Outcome]:
        """The outcomes, and in place of what a refusal must leave on the report, what is wrong about it."""
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
        """The project as it really is: a guard that leaks shows here."""
        found = []
        for parent, directories, files in os.walk(self.project):
            for name in [".", *directories, *files]:
                path = os.path.join(parent, name)
                status = os.lstat(path)
                found.append([path, status.st_mode, status.st_size, status.st_nlink, status.st_mtime_ns])
                found[-1] += os.listxattr(path, follow_symlinks=False)
        return sorted(found, key=repr)


def _state(invocation: Any) -> tuple[int, int]:
    """How many violations it has, and how many bytes more than there are free it takes for free."""
    excess = 0
    if invocation.mounted.directory is not None:
        quota = invocation.quota
        with quota.lock:
            excess = quota.balance + invocation.volume.measure().bytes - quota.limit
    return len(invocation.report.violations), max(excess, 0)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    mounting.enter_namespace()
    mounting.make_read_only(job["throw_away"])
    scripts.load()
    if job["user"]:
        mounting.become(job["user"])
    logging.getLogger("tmpguard").disabled = True  # a warning for each of many thousand refusals
    runner = Runner(job)
    runner.guard.invocation().__enter__().__exit__(None, None, None)  # puts the patched layer in place
    scripts.prepare()
    mounting.answer(lambda: None, {"run": runner.run})


if __name__ == "__main__":
    main()
