"""Whatever is done in whatever order: call for call the same as on a read-only root with a tmpfs on /tmp.

``python -m tests.parity`` runs many more scripts, from a seed of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.parity import differences
from tests.parity.differences import Pair
from tests.parity.scripts import Call
from tests.parity.search import Search

SEED = 1
SCRIPTS = 200


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with differences.pair() as made:
        yield made


def test_random_scripts_give_what_they_give_on_a_read_only_root(pair: Pair) -> None:
    """C1 to C3, C5.1, C7.1: results, errors with their names, and the free space."""
    said: list[str] = []
    search = Search(pair, 3, said.append)
    search.run_batch(SEED, 0, SCRIPTS)
    assert search.count >= SCRIPTS
    assert not search.differing, f"of seed {SEED}:" + "\n".join(said)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
@pytest.mark.parametrize("script", differences.kept(), ids=lambda script: json.dumps(script)[:60])
def test_script_that_differed_once(pair: Pair, script: list[Call], watched: bool) -> None:
    difference = pair.difference(script, watched)
    assert difference is None, f"\n{difference}"


def test_difference_is_found_and_shrunk(pair: Pair) -> None:
    """The comparison itself: a call that no two processes answer alike."""
    script = [["make", False], ["getcwd", True], ["pid"], ["close", 0]]
    difference = pair.difference(script)
    assert difference is not None
    assert pair.shrunk(difference, True).script == [["pid"]]
