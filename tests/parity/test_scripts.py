"""Random scripts behave, call by call, as on a read-only root with a tmpfs on /tmp.

``python -m tests.parity`` runs many more of them, with any seed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.parity import differences
from tests.parity.differences import Pair, Setting
from tests.parity.scripts import Call
from tests.parity.search import Search

SEED = 1
SCRIPTS = 200


#: As root, as a user who is subject to file modes, and with few files in /tmp.
SETTINGS = {"any": Setting(), "user": Setting(user=1234), "files": Setting(files=16)}


@pytest.fixture(scope="module")
def pairs() -> Iterator[Callable[[Setting], Pair]]:
    """Returns the pair of a setting, and makes it on first use."""
    made: dict[Setting, Pair] = {}
    with contextlib.ExitStack() as stack:

        def pair(setting: Setting) -> Pair:
            if setting.user and os.geteuid() != 0:
                pytest.skip("only root can become somebody else")
            if setting not in made:
                made[setting] = stack.enter_context(differences.pair(setting))
            return made[setting]

        yield pair


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_random_scripts_give_what_they_give_on_a_read_only_root(
    pairs: Callable[[Setting], Pair], setting: Setting
) -> None:
    """C1 to C3, C5.1, C7.1: results, errors with their names, and the free space."""
    said: list[str] = []
    search = Search(pairs(setting), 3, said.append)
    search.run_batch(SEED, 0, SCRIPTS)
    assert search.count >= SCRIPTS
    assert not search.differing, f"of seed {SEED}:" + "\n".join(said)


def test_random_scripts_give_what_they_give_without_a_guard_that_only_watches() -> None:
    """C2.5: call by call, with a project that can be written to, and with ignored files."""
    said: list[str] = []
    with differences.pair(Setting(), differences.WatchedPair) as pair:
        search = Search(pair, 3, said.append)
        search.run_batch(SEED, 0, SCRIPTS)
        for _, script in differences.kept():
            search.run(script)
    assert not search.differing, f"of seed {SEED}:" + "\n".join(said)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
@pytest.mark.parametrize(("setting", "script"), differences.kept())
def test_script_that_differed_once(
    pairs: Callable[[Setting], Pair], setting: Setting, script: list[Call], watched: bool
) -> None:
    difference = pairs(setting).difference(script, watched)
    assert difference is None, f"\n{difference}"


def test_difference_is_found_and_shrunk(pairs: Callable[[Setting], Pair]) -> None:
    """Tests the comparison with a call whose result differs between processes."""
    pair = pairs(Setting())
    script = [["make", False], ["getcwd", True], ["pid"], ["close", 0]]
    difference = pair.difference(script)
    assert difference is not None
    assert pair.shrunk(difference, True).script == [["pid"]]
