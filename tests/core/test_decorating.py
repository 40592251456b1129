"""``@tmpguard.guarded(...)``, ``@guard`` and ``@tmpguard.invocation()``: each call is an invocation."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard


def write() -> list[str]:
    """Add a file to the current invocation's /tmp. Returns all of its files."""
    assert tmpguard.current() is not None
    open(f"/tmp/{len(os.listdir('/tmp'))}", "w").close()
    return sorted(os.listdir("/tmp"))


class Ends:
    """The reports of a guard's invocations, and the guard."""

    def __init__(self, scratch_root: Path) -> None:
        self.reports: list[tmpguard.Report] = []
        self.guard = tmpguard.Guard(bundle=None, scratch_root=scratch_root, on_report=self.reports.append)

    def count(self) -> int:
        tmpguard.drain()
        return len(self.reports)


@pytest.fixture
def ends(scratch_root: Path) -> Ends:
    return Ends(scratch_root)


# --- functions -----------------------------------------------------------------------------------------


def test_a_handler_with_options(scratch_root: Path) -> None:
    @tmpguard.guarded(storage_size=2, bundle=None, scratch_root=scratch_root)
    def handler(event: dict[str, int], context: object = None) -> tuple[int, list[str]]:
        """Documented."""
        invocation = tmpguard.current()
        assert invocation is not None
        return invocation.report.quota_bytes + event["more"], write()

    assert handler({"more": 1}) == (2 * 1024 * 1024 + 1, ["0"])
    assert handler({"more": 0}, context=None) == (2 * 1024 * 1024, ["0"])
    assert (handler.__name__, handler.__doc__) == ("handler", "Documented.")
    assert list(inspect.signature(handler).parameters) == ["event", "context"]
    assert tmpguard.current() is None


def test_without_parentheses() -> None:
    @tmpguard.guarded
    def handler(event: int) -> tuple[int, list[str]]:
        return event, write()

    assert handler(3) == (3, ["1", "package"])  # with the options of tmpguard.Guard()


def test_a_guard_decorates(ends: Ends) -> None:
    @ends.guard
    def handler() -> list[str]:
        return write()

    assert [handler(), handler()] == [["0"], ["0"]]
    assert ends.count() == 2
    assert tmpguard.guarded(guard=ends.guard)(write)() == ["0"]


def test_a_method(ends: Ends) -> None:
    class Task:
        name = "task"

        @ends.guard
        def run(self, more: str) -> tuple[str, list[str]]:
            return self.name + more, write()

    assert Task().run("!") == ("task!", ["0"])


def test_an_object_that_is_called_is_what_its_call_is(ends: Ends) -> None:
    """An adapter of AWS Lambda, or an ASGI application."""

    class Handler:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, event: str) -> list[str]:
            return [self.name, event, *write()]

    class Asynchronous:
        async def __call__(self, event: str) -> list[str]:
            await asyncio.sleep(0)
            return [event, *write()]

    class Generating:
        def __call__(self) -> Iterator[list[str]]:
            yield write()
            yield write()

    assert ends.guard(Handler("name"))("event") == ["name", "event", "0"]
    handler = ends.guard(Asynchronous())
    assert inspect.iscoroutinefunction(handler)
    assert asyncio.run(handler("event")) == ["event", "0"]
    assert list(ends.guard(Generating())()) == [["0"], ["0", "1"]]
    assert ends.count() == 3
    made = ends.guard(Asynchronous)()  # a class is called to make an object
    assert isinstance(made, Asynchronous)


def test_what_it_raises_ends_the_invocation(ends: Ends) -> None:
    @ends.guard
    def handler() -> None:
        open("/etc/new", "w")

    with pytest.raises(OSError, match="Read-only file system"):
        handler()
    assert tmpguard.current() is None
    assert ends.count() == 1
    assert len(ends.reports[0].violations) == 1


def test_coroutines_at_the_same_time(ends: Ends) -> None:
    @ends.guard
    async def handler(number: int) -> tuple[int, list[str]]:
        await asyncio.sleep(0)
        return number, write()

    async def main() -> list[tuple[int, list[str]]]:
        return await asyncio.gather(handler(1), handler(2))

    assert inspect.iscoroutinefunction(handler)
    assert asyncio.run(main()) == [(1, ["0"]), (2, ["0"])]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"storage_size": 256}, "over the free plan's 128 MB"),
        ({"storage": 1}, "storage"),
        ({"guard": 3}, "is not a tmpguard.Guard"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_when_the_function_is_decorated(options: dict[str, Any], said: str) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=said):
        tmpguard.guarded(**options)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"decorates a function, not 64: use @tmpguard.guarded"):
        tmpguard.guarded(64)  # type: ignore[call-overload]


# --- generators ----------------------------------------------------------------------------------------


def test_the_steps_of_a_generator_are_one_invocation(ends: Ends) -> None:
    @ends.guard
    def steps(count: int) -> Iterator[list[str]]:
        for _ in range(count):
            yield write()

    assert inspect.isgeneratorfunction(steps)
    for found, expected in zip(steps(2), [["0"], ["0", "1"]], strict=True):
        assert found == expected
        assert tmpguard.current() is None  # its consumer is no part of it
    assert ends.count() == 1


def test_two_generators_do_not_mix(ends: Ends) -> None:
    @ends.guard
    def steps() -> Iterator[list[str]]:
        while True:
            yield write()

    one, other = steps(), steps()
    assert [next(one), next(other), next(one)] == [["0"], ["0"], ["0", "1"]]
    one.close()  # type: ignore[attr-defined]
    assert next(other) == ["0", "1"]
    other.close()  # type: ignore[attr-defined]
    assert ends.count() == 2


def test_a_generator_gets_what_is_sent_and_thrown(ends: Ends) -> None:
    said: list[object] = []

    @ends.guard
    def steps() -> Generator[int, str, str]:
        said.append((yield 1))
        try:
            yield 2
        except ValueError as exc:
            said.append(str(exc))
        try:
            yield 3
        finally:
            said.append(write())
        return "over"

    running = steps()
    assert [next(running), running.send("sent"), running.throw(ValueError("thrown"))] == [1, 2, 3]
    with pytest.raises(StopIteration) as stopped:
        next(running)
    assert stopped.value.value == "over"
    assert said == ["sent", "thrown", ["0"]]
    assert ends.count() == 1


def test_a_generator_that_is_dropped_ends(ends: Ends) -> None:
    cleaned: list[list[str]] = []

    @ends.guard
    def steps() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(write())

    running = steps()
    assert next(running) == 1
    del running
    assert cleaned == [["0"]]
    assert ends.count() == 1


def test_a_generator_that_is_never_started_is_no_invocation(ends: Ends) -> None:
    @ends.guard
    def steps() -> Iterator[int]:
        yield 1

    steps()
    assert ends.count() == 0


def test_async_generators(ends: Ends) -> None:
    said: list[list[str]] = []

    @ends.guard
    async def steps() -> AsyncIterator[list[str]]:
        try:
            while True:
                await asyncio.sleep(0)
                yield write()
        finally:
            said.append(write())

    async def consume(count: int) -> list[list[str]]:
        found = []
        running = steps()
        async for step in running:
            assert tmpguard.current() is None
            found.append(step)
            if len(found) == count:
                break
        await running.aclose()  # type: ignore[attr-defined]
        return found

    async def main() -> list[list[list[str]]]:
        return await asyncio.gather(consume(1), consume(2))

    assert inspect.isasyncgenfunction(steps)
    assert asyncio.run(main()) == [[["0"]], [["0"], ["0", "1"]]]
    assert sorted(said, key=len) == [["0", "1"], ["0", "1", "2"]]
    assert ends.count() == 2


def test_an_async_generator_gets_what_is_sent_and_thrown(ends: Ends) -> None:
    said: list[object] = []

    @ends.guard
    async def steps() -> Any:
        said.append((yield 1))
        try:
            yield 2
        except ValueError as exc:
            said.append(str(exc))
        yield 3

    async def main() -> list[int]:
        running = steps()
        found = [
            await anext(running),
            await running.asend("sent"),
            await running.athrow(ValueError("thrown")),
        ]
        async for _ in running:
            raise AssertionError("it has no more")
        return found

    assert asyncio.run(main()) == [1, 2, 3]
    assert said == ["sent", "thrown"]
    assert ends.count() == 1
