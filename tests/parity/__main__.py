"""``python -m tests.parity --scripts 20000 --seed 1``: runs so many random scripts in both places.

Prints its progress and the first differences, each shrunk to few calls; exits with 1 if there are any.
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


def replay(script: list[Call], setting: differences.Setting) -> int:
    """Print the outcomes of one script, and where they differ both."""
    with differences.pair(setting) as pair:
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
    parser.add_argument("--differences", type=int, default=20, help="how many kinds are shrunk and printed")
    parser.add_argument("--keep", action="store_true", help="add their scripts to those that are always run")
    parser.add_argument("--script", help="run this one, in JSON, and print what its calls gave")
    parser.add_argument("--files", type=int, default=0, help="so many files fit into /tmp (0: any number)")
    parser.add_argument("--user", type=int, default=0, help="run the scripts as this user (0: as who calls)")
    options = parser.parse_args()
    setting = differences.Setting(options.files, options.user)
    if options.script:
        return replay(json.loads(options.script), setting)
    started = time.monotonic()
    with differences.pair(setting) as pair:
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
