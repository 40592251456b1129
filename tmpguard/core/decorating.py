"""Runs each call of a decorated function as an invocation of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class Block(AbstractContextManager[Any], Protocol):
    """The invocation of one call."""

    def bound(self) -> AbstractContextManager[object]:
        """Make it the current invocation for one step."""
        ...

    def end(self) -> None:
        """End it. Never raises."""


def decorated(function: Callable[P, T], begin: Callable[[], Block]) -> Callable[P, T]:
    """Wrap ``function`` so that each call runs within a new invocation made by ``begin``.

    A coroutine function runs within one until it returns. The body of a generator runs step by step, each
    step within the invocation of that generator, which begins with the first step and ends with the
    generator. The code that consumes the generator is not part of it. Async generators likewise.
    """
    run: Any
    kinds = (function, type(function).__call__)  # of what is no function, its __call__ decides
    if any(map(inspect.isasyncgenfunction, kinds)):
        run = _of_async_generators(function, begin)
    elif any(map(inspect.isgeneratorfunction, kinds)):
        run = _of_generators(function, begin)
    elif any(map(inspect.iscoroutinefunction, kinds)):
        run = _of_coroutines(function, begin)
    else:
        run = _of_functions(function, begin)
    return cast("Callable[P, T]", functools.wraps(function)(run))


def _of_functions(function: Callable[..., Any], begin: Callable[[], Block]) -> Callable[..., Any]:
    def call(*args: object, **kwargs: object) -> Any:
        with begin():
            return function(*args, **kwargs)

    return call


def _of_coroutines(function: Callable[..., Any], begin: Callable[[], Block]) -> Callable[..., Any]:
    async def call(*args: object, **kwargs: object) -> Any:
        with begin():
            return await function(*args, **kwargs)

    return call


def _of_generators(function: Callable[..., Any], begin: Callable[[], Block]) -> Callable[..., Any]:
    def call(*args: object, **kwargs: object) -> Generator[Any, Any, Any]:
        invocation = begin()
        generator = function(*args, **kwargs)
        step, given = generator.send, None
        try:
            while True:
                with invocation.bound():
                    try:
                        value = step(given)
                    except StopIteration as stop:
                        return stop.value
                try:
                    step, given = generator.send, (yield value)
                except GeneratorExit:
                    with invocation.bound():
                        generator.close()
                    raise
                except BaseException as exc:
                    step, given = generator.throw, exc
        finally:
            invocation.end()

    return call


def _of_async_generators(function: Callable[..., Any], begin: Callable[[], Block]) -> Callable[..., Any]:
    async def call(*args: object, **kwargs: object) -> AsyncGenerator[Any, Any]:
        invocation = begin()
        generator = function(*args, **kwargs)
        step, given = generator.asend, None
        try:
            while True:
                with invocation.bound():
                    try:
                        value = await step(given)
                    except StopAsyncIteration:
                        return
                try:
                    step, given = generator.asend, (yield value)
                except GeneratorExit:
                    with invocation.bound():
                        await generator.aclose()
                    raise
                except BaseException as exc:
                    step, given = generator.athrow, exc
        finally:
            invocation.end()

    return call
