"""Start-up and shutdown of ASGI applications, as the clients of the fixture ask for them."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

import tmpguard
from tmpguard.asgi import ASGIApp, Receive, Scope, Send
from tmpguard.testing.lifespan import LifespanFailure, running

START = {"type": "lifespan.startup.complete"}
STOP = {"type": "lifespan.shutdown.complete"}


async def live(app: ASGIApp, log: list[str]) -> None:
    async with running(app):
        log.append("served")


async def obedient(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(START)
    await receive()
    await send(STOP)


async def refusing_the_scope(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("no lifespan")


async def returning_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    return


async def returning_without_an_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def returning_after_the_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(START)


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise LookupError("no settings")


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def failing_and_raising(scope: Scope, receive: Receive, send: Send) -> None:
    """As Starlette does."""
    await receive()
    try:
        raise LookupError("no settings")
    except LookupError:
        await send({"type": "lifespan.startup.failed", "message": "Traceback ..."})
        raise


async def raising_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(START)
    await receive()
    raise LookupError("no end")


async def failing_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send(START)
    await receive()
    await send({"type": "lifespan.shutdown.failed"})


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
@pytest.mark.parametrize(
    "app",
    [
        obedient,
        refusing_the_scope,
        returning_at_once,
        returning_without_an_answer,
        returning_after_the_start,
    ],
)
def test_an_application_is_served_whatever_its_lifespan_is(app: ASGIApp, backend: str) -> None:
    log: list[str] = []
    anyio.run(live, app, log, backend=backend)
    assert log == ["served"]


@BACKENDS
@pytest.mark.parametrize(
    ("app", "error", "message"),
    [
        (raising, LookupError, "^no settings$"),
        (failing, LifespanFailure, "^the application's startup failed: no database$"),
        (failing_and_raising, LookupError, "^no settings$"),
    ],
)
def test_a_failing_start_up_raises(app: ASGIApp, error: type[Exception], message: str, backend: str) -> None:
    log: list[str] = []
    with pytest.raises(error, match=message):  # and no group of exceptions
        anyio.run(live, app, log, backend=backend)
    assert log == []


@BACKENDS
@pytest.mark.parametrize(
    ("app", "error", "message"),
    [
        (raising_at_the_end, LookupError, "^no end$"),
        (failing_at_the_end, LifespanFailure, "^the application's shutdown failed: no message$"),
    ],
)
def test_a_failing_shutdown_raises(app: ASGIApp, error: type[Exception], message: str, backend: str) -> None:
    log: list[str] = []
    with pytest.raises(error, match=message):
        anyio.run(live, app, log, backend=backend)
    assert log == ["served"]


@BACKENDS
def test_each_request_has_its_own_copy_of_the_state(backend: str) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = "one"
            await obedient(scope, receive, send)
        else:
            seen.append(dict(scope["state"]))
            scope["state"]["user"] = "somebody"

    async def main() -> None:
        async with running(app) as served:
            for _ in range(2):
                await served({"type": "http"}, None, None)  # type: ignore[arg-type]

    anyio.run(main, backend=backend)
    assert seen == [{"pool": "one"}] * 2


@BACKENDS
def test_the_lifespan_is_in_no_invocation(backend: str) -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(tmpguard.current())
        await obedient(scope, receive, send)
        seen.append(tmpguard.current())

    async def main() -> None:
        with tmpguard.invocation() as invocation:
            async with running(app):
                assert tmpguard.current() is invocation

    anyio.run(main, backend=backend)
    assert seen == [None, None]


def test_the_ends_of_a_fixture_may_be_in_two_tasks() -> None:
    """As they are with pytest-asyncio."""

    async def main() -> None:
        entered = running(obedient)
        await asyncio.create_task(entered.__aenter__())
        await asyncio.create_task(entered.__aexit__(None, None, None))

    asyncio.run(main())
