"""``python -m tests.parity --scripts 20000 --seed 1`` runs random scripts in both places.

It prints its progress and the first differences, each shrunk to a few calls. It exits with 1 if there are
any.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time

from tests.parity import differences
from tests.parity.scripts import Call
from tests.parity.search import BATCH, Search


def replay(script: list[Call], setting: differences.Setting, kind: type[differences.Pair]) -> int:
    """Print the outcomes of one script; both of them where they differ."""
    with differences.pair(setting, kind) as pair:
        pairs = zip(*pair.outcomes(script, True), strict=True)
    same = True
    for call, (kernels, guards) in zip([*script, "end"], pairs, strict=False):
        print(json.dumps(call), *kernels, sep="\n    ")
        if kernels != guards:
            same = False
            print("  but within an invocation", *guards, sep="\n    ")
    return 0 if same else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("--scripts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--differences", type=int, default=20, help="the number of kinds that are shrunk and printed"
    )
    parser.add_argument("--keep", action="store_true", help="add their scripts to kept_scripts.jsonl")
    parser.add_argument("--script", help="run this script (JSON) and print its outcomes")
    parser.add_argument(
        "--files", type=int, default=0, help="the number of files that fit into /tmp (0: no limit)"
    )
    parser.add_argument(
        "--user", type=int, default=0, help="the user id to run the scripts as (0: the caller's)"
    )
    parser.add_argument(
        "--watching", action="store_true", help="compare a guard with enforce=False with no guard at all"
    )
    options = parser.parse_args()
    kind = differences.WatchedPair if options.watching else differences.Pair
    setting = differences.Setting(options.files, options.user)
    if options.script:
        return replay(json.loads(options.script), setting, kind)
    started = time.monotonic()
    with differences.pair(setting, kind) as pair:
        search = Search(pair, options.differences, functools.partial(print, flush=True))
        for number in range(0, options.scripts, BATCH):
            search.run_batch(options.seed, number, min(BATCH, options.scripts - number))
            passed = time.monotonic() - started
            print(
                f"{search.count} scripts, {search.calls} calls, {search.differing} differ, {passed:.0f} s",
                flush=True,
            )
    if options.keep:
        differences.keep(list(search.found.values()), setting)
    return 1 if search.differing else 0


if __name__ == "__main__":
    sys.exit(main())
