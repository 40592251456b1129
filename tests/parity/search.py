"""Runs many random scripts, and keeps one difference of each kind."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.parity.differences import Difference, Pair
from tests.parity.generated import scripts
from tests.parity.scripts import Call

#: The number of scripts in one run of Hypothesis, which remembers all of them.
BATCH = 500

#: Calls that are omitted if the number of files is limited: a tmpfs charges inodes for them, tmpguard does
#: not.
CHARGED_AS_FILES = ("setxattr", "chdir", "fchdir")


class Search:
    """Counts what was run so far, and holds one difference of each kind."""

    def __init__(self, pair: Pair, most: int, say: Callable[[str], None]) -> None:
        self.pair = pair
        self.most = most
        self.say = say
        self.count = self.calls = self.differing = 0
        self.found: dict[str, Difference] = {}

    def run(self, script: list[Call]) -> None:
        if self.pair.setting.files:
            script = [call for call in script if call[0] not in CHARGED_AS_FILES]
        # In every second script, the space is only asked for at the end: asking makes the guard measure it.
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
        """Run ``size`` scripts of ``seed``, starting with the script ``number``."""

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
