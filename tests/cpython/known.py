"""The tests of CPython that pass natively but not inside an invocation, with the reasons."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

ALL = ("3.11", "3.12", "3.13", "3.14", "3.15")


class Known(NamedTuple):
    """Tests that differ for one reason: patterns (fnmatch) for their ids, and the versions that differ.

    ``sometimes``: they do not differ in every run, or only without the C extension.
    """

    reason: str
    tests: tuple[str, ...]
    versions: tuple[str, ...] = ALL
    sometimes: bool = False

    def patterns(self) -> list[str]:
        return [f"test.{pattern}" for pattern in self.tests]


KNOWN: tuple[Known, ...] = (
    Known(
        "functions in C that were written for these tests open the file: native code is not covered",
        ("test_marshal.CAPI_TestCase.*",),
    ),
    Known(
        "the readline library (native code) writes its history",
        ("test_readline.*.test_nonascii_history", "test_readline.*.test_write_read_*"),
    ),
    Known(
        "the readline library (native code) writes its history",
        ("test_readline.*.test_append_limited_history",),
        ("3.14", "3.15"),
    ),
    Known(
        "the loader of the C library (native code) opens the file",
        ("test_ctypes.test_dlerror.TestNullDlsym.test_null_dlsym",),
        ("3.14", "3.15"),
    ),
    Known(
        "it counts descriptors, and an invocation keeps one for the mount namespace of its children",
        ("test_asyncio.test_unix_events.PidfdChildWatcherTests.test_pidfd_closed_when_waitpid_raises",),
        ("3.14", "3.15"),
    ),
    Known(
        "a subinterpreter has its own modules, in which nothing is replaced",
        (
            "test__xxsubinterpreters.RunStringTests.test_fork",
            "test_interpreters.*.test_fork",
            "test__interpreters.RunStringTests.test_fork",
        ),
    ),
    Known(
        '`children="contain"` refuses subinterpreters',
        (
            "test_threading.SubinterpThreadingTests.test_threads_join_with_no_main",
            "test_import.SinglephaseInitTests.test_basic_multiple_interpreters_*",
            "test_import.SubinterpImportTests.*",
            "test_import.ModexportTests.*_gil_used",
            "test_importlib.test_util.IncompatibleExtensionModuleRestrictionsTests.*",
        ),
        sometimes=True,
    ),
    Known(
        'they start child processes in `/tmp`, which with `children="allow"` see the real one',
        (
            "test_interpreters.test_api.TestInterpreterCall.test_func_in___main___*",
            "test_interpreters.test_api.TestInterpreterExec.test_display_preserved_exception",
            "test_interpreters.test_lifecycle.StartupTests.test_sys_path_0",
            "test_interpreters.StartupTests.test_sys_path_0",
        ),
        ("3.12", "3.13", "3.14", "3.15"),
        sometimes=True,
    ),
    Known(
        "it takes all memory from `_interpreters.create`, also from tmpguard's code around it",
        ("test_interpreters.test_stress.StressTests.test_create_interpreter_no_memory",),
        ("3.13", "3.14", "3.15"),
        sometimes=True,
    ),
    Known(
        "a subinterpreter finds no modules in `/tmp`",
        ("test__interpreters.RunFailedTests.test_invalid_syntax",),
        ("3.13", "3.14", "3.15"),
    ),
    Known(
        "without the C extension, `os.stat`, `os.lstat` and `open` are bound methods while tmpguard is "
        "installed (for speed), and pydoc shows that",
        ("test_pydoc.*.test_module_level_callable",),
        sometimes=True,
    ),
    Known(
        "a tracer sees all Python code, including tmpguard's",
        ("test_trace.TestCoverage.test_coverage_ignore",),
        ("3.11", "3.12"),
    ),
)


def version() -> str:
    """The version of this interpreter, as in the table."""
    return ".".join(map(str, sys.version_info[:2]))


def reason_of(test: str) -> str:
    """The listed reason why ``test`` differs; ``""`` if there is none."""
    for known in KNOWN:
        if version() in known.versions and any(fnmatchcase(test, pattern) for pattern in known.patterns()):
            return known.reason
    return ""


def stale(tests: Iterable[str], modules: Collection[str]) -> list[str]:
    """The patterns that match none of ``tests``, the differing ones, although their module was run."""
    found = list(tests)
    return [
        pattern
        for known in KNOWN
        if version() in known.versions and not known.sometimes
        for pattern in known.patterns()
        if any(pattern.startswith(f"test.{module}.") for module in modules)
        and not any(fnmatchcase(test, pattern) for test in found)
    ]
