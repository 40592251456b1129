"""The body of a test as one invocation."""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import pytest

from tmpguard.core.errors import ConfigurationError
from tmpguard.guard import Guard

from .records import TestRecord

ROUTE = "(body of the test)"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def guarded_function(
    function: Callable[Arguments, Result], guard: Guard, test: TestRecord
) -> Callable[Arguments, Result]:
    """``function``, wrapped so that each call is an invocation of its own.

    The invocation is bound inside the function, because async test runners call it in their own contexts.
    """

    @contextmanager
    def invocation() -> Iterator[None]:
        entry = test.begin("body", ROUTE)
        with guard.invocation() as bound:
            entry.add(bound)
            yield

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Arguments.args, **kwargs: Arguments.kwargs) -> object:
            with invocation():
                return await function(*args, **kwargs)

        return asynchronous  # type: ignore[return-value]

    @functools.wraps(function)
    def synchronous(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with invocation():
            return function(*args, **kwargs)

    return synchronous


@contextmanager
def guarding(item: pytest.Item, guard: Guard, test: TestRecord) -> Iterator[None]:
    """Guard the test function of ``item`` within the block."""
    function = getattr(item, "obj", None)
    if not callable(function):  # a doctest, or a test type of another plugin
        raise ConfigurationError(f"{item.nodeid} has no test function to run as an invocation")
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis is not None:  # hypothesis calls the inner test once for each example
        inner = hypothesis.inner_test
        hypothesis.inner_test = guarded_function(inner, guard, test)
        try:
            yield
        finally:
            hypothesis.inner_test = inner
        return
    replacement = guarded_function(function, guard, test)
    item.obj = replacement  # type: ignore[attr-defined]
    case = getattr(item, "instance", None)
    if isinstance(case, unittest.TestCase):  # an async test case looks its method up itself
        setattr(case, item.name, replacement)
    try:
        yield
    finally:
        item.obj = function  # type: ignore[attr-defined]
        if isinstance(case, unittest.TestCase):
            vars(case).pop(item.name, None)
