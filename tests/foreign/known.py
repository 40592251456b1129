"""The tests of foreign suites that pass plainly and fail with the layer installed, each with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple


class Known(NamedTuple):
    """Tests of one suite that differ for one reason: their ids, as patterns of fnmatch, and the ways to run
    them in which they do.

    ``sometimes``: not in each run or not with each version of Python, so nothing is said where none of them
    differs.
    """

    reason: str
    suite: str
    ways: tuple[str, ...]
    tests: tuple[str, ...]
    sometimes: bool = False


KNOWN: tuple[Known, ...] = ()


def reason_of(suite: str, way: str, test: str) -> str:
    """Why the test differs; ``""`` where that is not known."""
    for known in KNOWN:
        if known.suite == suite and way in known.ways and any(_fits(test, one) for one in known.tests):
            return known.reason
    return ""


def stale(suite: str, way: str, tests: Iterable[str]) -> list[str]:
    """The patterns that fit none of ``tests``, which are all that differed."""
    found: Collection[str] = list(tests)
    return [
        pattern
        for known in KNOWN
        if known.suite == suite and way in known.ways and not known.sometimes
        for pattern in known.tests
        if not any(_fits(test, pattern) for test in found)
    ]


def _fits(test: str, pattern: str) -> bool:
    return fnmatchcase(test, pattern.replace("[", "[[]"))  # the ids of parametrised tests have brackets
