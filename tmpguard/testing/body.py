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


def guarded(
    function: Callable[Arguments, Result], guard: Guard, test: TestRecord
) -> Callable[Arguments, Result]:
    """``function``, each call of which is an invocation of its own.

    The function itself and not its caller is bound: runners of async tests call it in contexts of their own.
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
    """Have the test function of ``item`` guarded while it is called."""
    function = getattr(item, "obj", None)
    if not callable(function):  # a doctest, or another plugin's kind of test
        raise ConfigurationError(f"{item.nodeid} has no function that could be an invocation")
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis is not None:  # each of the examples is a call of what is within
        inner = hypothesis.inner_test
        hypothesis.inner_test = guarded(inner, guard, test)
        try:
            yield
        finally:
            hypothesis.inner_test = inner
        return
    replacement = guarded(function, guard, test)
    item.obj = replacement  # type: ignore[attr-defined]
    case = getattr(item, "instance", None)
    if isinstance(case, unittest.TestCase):  # which looks for its method by itself where that is async
        setattr(case, item.name, replacement)
    try:
        yield
    finally:
        item.obj = function  # type: ignore[attr-defined]
        if isinstance(case, unittest.TestCase):
            vars(case).pop(item.name, None)
