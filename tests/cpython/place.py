"""The child process that runs one module of CPython's tests in one of three places.

The places are ``natively``, ``inside`` (an invocation), and ``read-only`` (the kernel's own read-only root,
the model of an invocation). Each child has its own mount namespace, with a tmpfs on ``/tmp`` and a new
directory in it as the working directory. So a run does not touch the machine's ``/tmp``, and its files
disappear with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import types
import unittest
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from tests.cpython.modules import LEFT_OUT, STAND_INS, is_of
from tests.parity import mounting

#: The size of ``/tmp`` in MB: more than any test needs.
SIZE = 2048

#: The resources that the tests may use: no network, no hours, no gigabytes.
RESOURCES = ("subprocess", "cpu")


class Recorder(unittest.TestResult):
    """Writes the outcome of each test as a line of JSON at once, because the process may crash."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._process = os.getpid()
        self._began = 0.0

    def tell(self, test: Any, outcome: str, message: str = "") -> None:
        if os.getpid() != self._process:
            return  # a forked child that left its test
        if isinstance(test, unittest.case._SubTest):
            test = test.test_case
        told = {
            "id": type(test).id(test),  # some tests have an attribute `id`
            "outcome": outcome,
            "message": message,
            "seconds": round(time.monotonic() - self._began, 3),
        }
        os.write(self._descriptor, json.dumps(told).encode() + b"\n")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._began = time.monotonic()
        self.tell(test, "started")

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.tell(test, "passed")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.tell(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.tell(test, "skipped", reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.tell(test, "failed", "unexpected success")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.tell(test, "failed", "".join(traceback.format_exception(*err)))

    addError = addFailure

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            message = "".join(traceback.format_exception(*err))
            self.tell(test, "failed", f"{subtest}\n{message}")


def run(module: str, wanted: list[str], result: Recorder) -> None:
    """Run ``test.<module>`` in a new directory below ``/tmp``; only the tests ``wanted``, if any."""
    from test import support
    from test.support import os_helper

    support.use_resources = list(RESOURCES)  # type: ignore[attr-defined]
    place = f"/tmp/place{os_helper.FS_NONASCII}"
    os.mkdir(place)
    os.chdir(place)
    tempfile.tempdir = None
    try:
        with _standing_in(*STAND_INS.get(module, ("unittest", "unittest"))):
            suite = unittest.TestLoader().loadTestsFromName(f"test.{module}")
    except unittest.SkipTest:
        return  # this interpreter or this machine lacks the feature
    unittest.TestSuite(test for test in _flat(suite) if _is_to_run(module, test, wanted)).run(result)


def _is_to_run(module: str, test: unittest.TestCase, wanted: list[str]) -> bool:
    name = type(test).id(test)
    if wanted:
        return name in wanted
    return is_of(module, name) and not any(fnmatchcase(name, pattern) for pattern in LEFT_OUT)


@contextlib.contextmanager
def _standing_in(name: str, other: str) -> Iterator[None]:
    """Make imports of the module ``name`` return the module ``other``."""
    before = sys.modules[name]
    sys.modules[name] = sys.modules[other]
    try:
        yield
    finally:
        sys.modules[name] = before


def _flat(suite: Any) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


#: They are about subinterpreters, which ``children="contain"`` refuses.
SUBINTERPRETERS = ("test__interpreters", "test__xxsubinterpreters", "test_interpreters")


@contextlib.contextmanager
def invocation(module: str) -> Iterator[None]:
    """An invocation for the tests of ``module``. Its child processes see the same ``/tmp``."""
    import tmpguard

    logging.getLogger("tmpguard").disabled = True  # it would warn of many refusals
    children = "allow" if module.startswith(SUBINTERPRETERS) else "contain"
    guard = tmpguard.Guard(storage_size=SIZE, plan="enterprise", bundle=None, children=children)
    with guard.invocation():
        yield
    tmpguard.drain()


def main() -> None:
    job = json.loads(sys.argv.pop())
    # Some tests need consecutive descriptors.
    descriptor = fcntl.fcntl(job["descriptor"], fcntl.F_DUPFD_CLOEXEC, 500)
    os.close(job["descriptor"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background jobs
    mounting.enter_namespace()
    if job["place"] == "read-only":
        mounting.make_read_only()
    mounting.Tmp((SIZE + 512) << 20, "").make()  # the guard is to enforce the limit, not the tmpfs
    os.chdir("/tmp")  # where native code writes relative names: os.chdir in an invocation does not affect it
    result = Recorder(descriptor)
    # Used by pickle and by modules that start processes.
    sys.modules["__main__"] = types.ModuleType("__main__")
    with invocation(job["module"]) if job["place"] == "inside" else contextlib.nullcontext():
        run(job["module"], job["wanted"], result)
    left = [name for name in os.listdir("/tmp") if not name.startswith("tmpguard-")]
    os.write(descriptor, json.dumps({"left": left}).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)  # even if tests left threads behind


if __name__ == "__main__":
    main()
