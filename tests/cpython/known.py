"""The tests of CPython that pass natively and not inside an invocation, each with the reason."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

ALL = ("3.11", "3.12", "3.13", "3.14", "3.15")


class Known(NamedTuple):
    """Tests that differ for one reason: their ids, as patterns of fnmatch, and the versions where they do.

    ``sometimes``: not in each run, so nothing is said where none of them differs.
    """

    reason: str
    tests: tuple[str, ...]
    versions: tuple[str, ...] = ALL
    sometimes: bool = False

    def patterns(self) -> list[str]:
        return [f"test.{pattern}" for pattern in self.tests]


KNOWN: tuple[Known, ...] = (
    Known(
        "they run a second copy of the importer, which they make from its source: it reaches files by "
        "`posix` and `_io`, and so finds no modules in `/tmp`",
        ("test_importlib.*.Source_*", "test_importlib.*.SourceDateEpoch_*"),
    ),
    Known(
        "functions of C, made for these tests, open the file: native code is not seen",
        ("test_marshal.CAPI_TestCase.*",),
    ),
    Known(
        "the library readline, native code, writes its history",
        ("test_readline.*.test_nonascii_history", "test_readline.*.test_write_read_*"),
    ),
    Known(
        "a sub-interpreter has modules of its own, in which nothing is replaced",
        (
            "test__xxsubinterpreters.RunStringTests.test_fork",
            "test_interpreters.*.test_fork",
        ),
    ),
    Known(
        "`os.stat`, `os.lstat` and `open` are bound methods while tmpguard is in place, for speed, and pydoc "
        "says so",
        ("test_pydoc.*.test_module_level_callable",),
    ),
    Known(
        "a tracer of all Python code sees that of tmpguard, too",
        ("test_trace.TestCoverage.test_coverage_ignore",),
        ("3.12",),
    ),
)


def version() -> str:
    """The version of this interpreter as the table names it."""
    return ".".join(map(str, sys.version_info[:2]))


def reason_of(test: str) -> str:
    """Why the test ``test`` differs here; ``""`` where that is not known."""
    for known in KNOWN:
        if version() in known.versions and any(fnmatchcase(test, pattern) for pattern in known.patterns()):
            return known.reason
    return ""


def stale(tests: Iterable[str], modules: Collection[str]) -> list[str]:
    """The patterns that fit none of ``tests``, which are all that differed, though their module was run."""
    found = list(tests)
    return [
        pattern
        for known in KNOWN
        if version() in known.versions and not known.sometimes
        for pattern in known.patterns()
        if any(pattern.startswith(f"test.{module}.") for module in modules)
        and not any(fnmatchcase(test, pattern) for test in found)
    ]
