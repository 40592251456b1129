"""Settings for Django's own tests, and a test runner for them: ``--settings=foreign_django``."""

from __future__ import annotations

import traceback
import unittest
from collections.abc import Iterator
from typing import Any

from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner
from foreign_layer import LAYER, RECORDER, WANTED, stable
from test_sqlite import *  # noqa: F403  # what Django's tests are run with

TEST_RUNNER = "foreign_django.Runner"

LAYER.start()


class Result(unittest.TextTestResult):
    """Records each outcome."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        RECORDER.tell(test.id(), "started")

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        RECORDER.tell(test.id(), "passed")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        RECORDER.tell(test.id(), "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        RECORDER.tell(test.id(), "skipped", reason)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        RECORDER.tell(test.id(), "failed", "".join(traceback.format_exception(*err)))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        RECORDER.tell(test.id(), "failed", "".join(traceback.format_exception(*err)))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            RECORDER.tell(test.id(), "failed", "".join(traceback.format_exception(*err)))


class Runner(DiscoverRunner):
    """Runs the tests that are wanted, each as the way to run them says."""

    def build_suite(self, *args: Any, **kwargs: Any) -> unittest.TestSuite:
        suite = super().build_suite(*args, **kwargs)
        if WANTED:
            suite = self.test_suite(test for test in _flat(suite) if stable(test.id()) in WANTED)
        return suite

    def get_resultclass(self) -> type[Result]:
        return Result


def _flat(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


_call = SimpleTestCase.__call__


def _called(self: Any, result: Any = None) -> None:
    """A test with its own setting up and tearing down; that of its class is outside."""
    with LAYER.test():
        _call(self, result)


SimpleTestCase.__call__ = _called  # type: ignore[method-assign]
