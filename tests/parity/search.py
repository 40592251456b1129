"""Runs many random scripts, and keeps of their differences one of each kind."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.parity.differences import Difference, Pair
from tests.parity.generated import scripts
from tests.parity.scripts import Call

#: Scripts that are chosen in one go: Hypothesis remembers all of them.
BATCH = 500

#: Left out where files are limited: what a tmpfs charges as inodes, and tmpguard does not.
CHARGED_AS_FILES = ("setxattr", "chdir", "fchdir")


class Search:
    """What was run so far, and the differences that were found, one of each kind."""

    def __init__(self, pair: Pair, most: int, say: Callable[[str], None]) -> None:
        self.pair = pair
        self.most = most
        self.say = say
        self.count = self.calls = self.differing = 0
        self.found: dict[str, Difference] = {}

    def run(self, script: list[Call]) -> None:
        if self.pair.setting.files:
            script = [call for call in script if call[0] not in CHARGED_AS_FILES]
        # Each other script is asked for its space at the end only: being asked has the guard measure anew.
        watched = self.count % 2 == 0
        self.count += 1
        self.calls += len(script)
        difference = self.pair.difference(script, watched)
        if difference is None:
            return
        self.differing += 1
        if difference.bucket not in self.found and len(self.found) < self.most:
            shrunk = self.pair.shrunk(difference, watched)
            self.found[difference.bucket] = shrunk
            self.say(f"\n{difference.bucket}\n{shrunk}")

    def run_batch(self, seed: int, number: int, size: int) -> None:
        """Run ``size`` scripts of those of ``seed`` from the one with the ``number`` on."""

        @hypothesis.seed(seed * 1_000_003 + number)
        @hypothesis.settings(
            max_examples=size,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(scripts)
        def one(script: list[Call]) -> None:
            self.run(script)

        one()
