"""Work that a handler hands on runs for its request, through the frameworks' own ways (C6.2, C4.5)."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import asgiref.sync
import fastapi
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import tmpguard
from tests.support import eventually
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

Ended = Callable[[], list[tmpguard.Report]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def read() -> str:
    return Path("/tmp/same.txt").read_text()


def in_pool(pool: ThreadPoolExecutor) -> str:
    return pool.submit(read).result()


def in_thread(start: Callable[[Callable[[], None]], threading.Thread]) -> str:
    found: list[str] = []
    thread = start(lambda: found.append(read()))
    thread.start()
    thread.join()
    return found[0]


# --- from a sync endpoint ------------------------------------------------------------------------------


class ReadingThread(threading.Thread):
    """A thread that overrides run, as applications do."""

    found = ""

    def run(self) -> None:
        self.found = read()


def by_subclass() -> str:
    thread = ReadingThread()
    thread.start()
    thread.join()
    return thread.found


def by_thread_pool() -> str:
    with ThreadPool(1) as pool:
        return pool.apply(read)


def by_map() -> str:
    with ThreadPoolExecutor(1) as pool:
        return next(pool.map(lambda _: read(), [0]))


def by_nested_executors() -> str:
    with ThreadPoolExecutor(1) as outer, ThreadPoolExecutor(1) as inner:
        return outer.submit(in_pool, inner).result()


def by_initializer() -> str:
    found: list[str] = []
    with ThreadPoolExecutor(1, initializer=lambda: found.append(read())) as pool:
        pool.submit(int).result()
    return found[0]


SYNC_WAYS: dict[str, Callable[[], str]] = {
    "Thread": lambda: in_thread(lambda job: threading.Thread(target=job)),
    "Thread subclass": by_subclass,
    "Timer": lambda: in_thread(lambda job: threading.Timer(0, job)),
    "ThreadPoolExecutor.submit": lambda: in_pool(ThreadPoolExecutor(1)),
    "ThreadPoolExecutor.map": by_map,
    "ThreadPoolExecutor initializer": by_initializer,
    "nested executors": by_nested_executors,
    "multiprocessing.pool.ThreadPool": by_thread_pool,
    "copy_context": lambda: contextvars.copy_context().run(read),
    "asgiref.async_to_sync": lambda: asgiref.sync.async_to_sync(by_aiofiles)(),
    "asyncio.run": lambda: asyncio.run(by_aiofiles()),
}


@pytest.mark.parametrize("way", SYNC_WAYS)
def test_a_flask_view_hands_on(way: str, options: dict[str, Any], ended: Ended) -> None:
    app = flask.Flask(__name__)
    app.testing = True
    app.wsgi_app = WsgiMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/")
    def view() -> str:
        Path("/tmp/same.txt").write_text("of this request")
        return SYNC_WAYS[way]()

    with app.test_client().get("/") as response:
        assert response.text == "of this request"
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


# --- from an async handler -----------------------------------------------------------------------------


async def by_aiofiles() -> str:
    async with aiofiles.open("/tmp/same.txt") as file:
        return await file.read()


async def read_later() -> str:
    await asyncio.sleep(0)
    return read()


async def in_executor(pool: ThreadPoolExecutor | None) -> str:
    return await asyncio.get_running_loop().run_in_executor(pool, read)


async def by_task_group() -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(read_later())
    return task.result()


async def by_call_soon() -> str:
    loop = asyncio.get_running_loop()
    found = loop.create_future()
    loop.call_soon(lambda: found.set_result(read()))
    return await found


async def by_call_soon_threadsafe() -> str:
    loop = asyncio.get_running_loop()
    found = loop.create_future()
    await asyncio.to_thread(loop.call_soon_threadsafe, lambda: found.set_result(read()))
    return await found


async def by_iterating() -> str:
    def parts() -> Any:
        yield read()

    return "".join([part async for part in iterate_in_threadpool(parts())])


ASYNC_WAYS: dict[str, Callable[[], Awaitable[Any]]] = {
    "asyncio.to_thread": lambda: asyncio.to_thread(read),
    "run_in_executor": lambda: in_executor(None),
    "run_in_executor with a pool": lambda: in_executor(ThreadPoolExecutor(1)),
    "create_task": lambda: asyncio.create_task(read_later()),
    "gather": lambda: first(asyncio.gather(read_later())),
    "TaskGroup": by_task_group,
    "wait_for": lambda: asyncio.wait_for(read_later(), None),
    "call_soon": by_call_soon,
    "call_soon_threadsafe": by_call_soon_threadsafe,
    "aiofiles": by_aiofiles,
    "asgiref.sync_to_async": lambda: asgiref.sync.sync_to_async(read)(),
    "asgiref.sync_to_async in any thread": lambda: asgiref.sync.sync_to_async(read, thread_sensitive=False)(),
    "asgiref there and back": lambda: asgiref.sync.sync_to_async(asgiref.sync.async_to_sync(read_later))(),
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(read),
    "anyio.to_thread and from_thread": lambda: anyio.to_thread.run_sync(anyio.from_thread.run, read_later),
    "anyio.Path": lambda: anyio.Path("/tmp/same.txt").read_text(),
    "anyio.open_file": lambda: by_open_file(),
    "run_in_threadpool": lambda: run_in_threadpool(read),
    "iterate_in_threadpool": by_iterating,
}


async def first(results: Awaitable[list[str]]) -> str:
    return (await results)[0]


async def by_open_file() -> str:
    async with await anyio.open_file("/tmp/same.txt") as file:
        return await file.read()


@pytest.mark.anyio
@pytest.mark.parametrize("way", ASYNC_WAYS)
async def test_a_starlette_handler_hands_on(way: str, guard: tmpguard.Guard, ended: Ended) -> None:
    async def handler(request: Request) -> Response:
        Path("/tmp/same.txt").write_text("of this request")
        return PlainTextResponse(await ASYNC_WAYS[way]())

    app = TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)
    async with client(app) as http:
        assert (await http.get("/")).text == "of this request"
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


@pytest.mark.parametrize("way", ["anyio.to_thread", "anyio.to_thread and from_thread", "anyio.open_file"])
def test_a_starlette_handler_hands_on_under_trio(way: str, guard: tmpguard.Guard, ended: Ended) -> None:
    async def handler(request: Request) -> Response:
        Path("/tmp/same.txt").write_text("of this request")
        ways = {**ASYNC_WAYS, "anyio.to_thread and from_thread": there_and_back}
        return PlainTextResponse(await ways[way]())

    async def there_and_back() -> str:
        async def back() -> str:
            await anyio.sleep(0)
            return read()

        return await anyio.to_thread.run_sync(anyio.from_thread.run, back)

    async def request() -> str:
        app = TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)
        async with client(app) as http:
            return (await http.get("/")).text

    assert anyio.run(request, backend="trio") == "of this request"
    assert [report.late_writes for report in ended()] == [()]


@pytest.mark.anyio
async def test_a_fastapi_endpoint_in_the_threadpool_hands_on(options: dict[str, Any], ended: Ended) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(TmpGuardMiddleware, **options)

    @app.get("/{way}")
    def endpoint(way: str) -> str:
        Path("/tmp/same.txt").write_text("of this request")
        return SYNC_WAYS[way]()

    async with client(app) as http:
        for way in ("Thread", "ThreadPoolExecutor.submit", "nested executors"):
            assert (await http.get(f"/{way}")).json() == "of this request"
    assert [report.files for report in ended()] == [1, 1, 1]


# --- shared workers ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_worker_of_a_shared_pool_serves_each_request_as_its_own(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    pool = ThreadPoolExecutor(1)
    assert pool.submit(tmpguard.current).result() is None

    async def handler(request: Request) -> Response:
        Path("/tmp/same.txt").write_text(request.url.query)
        return PlainTextResponse(await in_executor(pool))

    app = TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)
    async with client(app) as http:
        answers = await asyncio.gather(*(http.get(f"/?{number}") for number in range(20)))
    assert [answer.text for answer in answers] == [str(number) for number in range(20)]
    assert pool.submit(tmpguard.current).result() is None
    assert len(ended()) == 20


@pytest.mark.anyio
async def test_a_worker_that_a_request_started_belongs_to_nobody(guard: tmpguard.Guard) -> None:
    pool = ThreadPoolExecutor(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert pool.submit(tmpguard.current).result() is not None

    await TmpGuardMiddleware(app, guard=guard)({"type": "http"}, None, None)  # type: ignore[arg-type]
    assert pool.submit(tmpguard.current).result() is None


# --- late work -----------------------------------------------------------------------------------------


def test_a_thread_that_outlives_its_request_gets_estale_and_is_reported(
    options: dict[str, Any], ended: Ended
) -> None:
    over = threading.Event()
    errors: list[OSError] = []
    threads: list[threading.Thread] = []

    def late() -> None:
        over.wait()
        for operation in (lambda: Path("/tmp/late.txt").write_text("late"), lambda: Path("/tmp").iterdir()):
            try:
                list(operation())  # type: ignore[call-overload]
            except OSError as exc:
                errors.append(exc)

    app = flask.Flask(__name__)
    app.wsgi_app = WsgiMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/")
    def view() -> str:
        Path("/tmp/same.txt").touch()
        threads.append(threading.Thread(target=late))
        threads[0].start()
        return ""

    app.test_client().get("/").close()
    [report] = ended()
    assert (report.files, report.late_writes) == (1, ())
    over.set()
    threads[0].join()
    assert [error.errno for error in errors] == [errno.ESTALE] * 2
    write, listing = report.late_writes
    assert (write.path, write.errno, listing.path) == ("/tmp/late.txt", errno.ESTALE, "/tmp")
    assert write.location is not None
    assert write.location.file == __file__


@pytest.mark.anyio
async def test_a_task_that_outlives_its_request_gets_estale_and_is_reported(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    over = asyncio.Event()
    tasks: list[asyncio.Task[int]] = []

    async def late() -> int:
        await over.wait()
        return Path("/tmp/late.txt").write_text("late")

    async def handler(request: Request) -> Response:
        tasks.append(asyncio.create_task(late()))
        return PlainTextResponse("")

    app = TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)
    async with client(app) as http:
        await http.get("/")
    [report] = ended()
    over.set()
    with pytest.raises(OSError, match="Errno 116") as info:
        await tasks[0]
    assert info.value.errno == errno.ESTALE
    assert [(late.operation, late.path) for late in report.late_writes] == [("open", "/tmp/late.txt")]


def test_a_file_that_a_late_thread_still_holds_refuses_and_closes(
    options: dict[str, Any], ended: Ended
) -> None:
    app = flask.Flask(__name__)
    app.wsgi_app = WsgiMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]
    files: list[Any] = []

    @app.get("/")
    def view() -> str:
        files.append(open("/tmp/late.txt", "w"))
        files[0].write("in time")
        return ""

    app.test_client().get("/").close()
    [report] = ended()
    with pytest.raises(OSError, match="Errno 116"):
        files[0].write("late")
    files[0].close()
    assert eventually(lambda: [late.operation for late in report.late_writes]) == ["write"]
