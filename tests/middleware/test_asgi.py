"""tmpguard.asgi: when an invocation begins and ends (C4.3), under asyncio and trio, and who is guarded."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import tmpguard
from tests.support import listed
from tmpguard.asgi import Abandoned, TmpGuardMiddleware

Ended = Callable[[], list[tmpguard.Report]]

HTTP = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [],
    "http_version": "1.1",
    "scheme": "http",
    "server": ("test", 80),
    "client": ("test", 1),
    "root_path": "",
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


def serve(handler: Callable[[Request], Any], guard: tmpguard.Guard) -> TmpGuardMiddleware:
    return TmpGuardMiddleware(Starlette(routes=[Route("/", handler)]), guard=guard)


def client(app: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url="http://test")


def socket_client(app: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about which version of its HTTP client is installed
        from starlette.testclient import TestClient
    return TestClient(app)


def staying() -> Callable[[], Awaitable[dict[str, Any]]]:
    """The ``receive`` of a client that sends an empty body and never goes away."""
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await anyio.sleep_forever()
        return messages.pop()

    return receive


async def no_send(message: Any) -> None: ...


class Disconnecting:
    """A server whose client goes away when it has received the first part of the body."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.gone = anyio.Event()
        self._messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message.get("body"):
            self.received.append(message["body"])
            self.gone.set()
            await anyio.sleep_forever()  # the connection takes no more


# --- what a request sees -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_request_has_an_empty_tmp_of_its_own(guard: tmpguard.Guard, ended: Ended) -> None:
    async def handler(request: Request) -> Response:
        there = listed()
        Path("/tmp/same.txt").write_text("text")
        return PlainTextResponse(f"{there} {Path('/tmp/same.txt').read_text()}")

    async with client(serve(handler, guard)) as http:
        for _ in range(2):
            assert (await http.get("/")).text == "[] text"
    assert [(report.files, report.used_bytes) for report in ended()] == [(1, 4096)] * 2


@pytest.mark.anyio
async def test_a_write_outside_is_refused_and_reported_with_the_handlers_line(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    async def handler(request: Request) -> Response:
        try:
            open("file.txt", "w")
        except OSError as exc:
            return PlainTextResponse("\n".join([str(exc), *exc.__notes__]), 500)
        return PlainTextResponse("written")

    async with client(serve(handler, guard)) as http:
        response = await http.get("/")
    assert response.text == (
        "[Errno 30] Read-only file system: 'file.txt'\n"
        "tmpguard: only /tmp is writable; write to /tmp/file.txt"
    )
    [report] = ended()
    [violation] = report.violations
    assert (violation.operation, violation.path, violation.errno) == ("open", "file.txt", 30)
    assert violation.location is not None
    assert violation.location.file == __file__
    assert violation.location.function.endswith("handler")
    assert not os.path.exists("file.txt")


@pytest.mark.anyio
async def test_a_request_that_touches_no_file_makes_no_directory(
    guard: tmpguard.Guard, ended: Ended, scratch: Path
) -> None:
    async def handler(request: Request) -> Response:
        return PlainTextResponse(str(tmpguard.current() is not None))

    async with client(serve(handler, guard)) as http:
        assert (await http.get("/")).text == "True"
    assert os.listdir(scratch) == []
    assert len(ended()) == 1


@pytest.mark.anyio
async def test_after_the_request_the_caller_is_outside_again(guard: tmpguard.Guard) -> None:
    async def handler(request: Request) -> Response:
        return PlainTextResponse(str(tmpguard.current() is not None))

    app = serve(handler, guard)
    await app(dict(HTTP), staying(), no_send)
    assert tmpguard.current() is None


# --- options -------------------------------------------------------------------------------------------


async def answer(scope: Any, receive: Any, send: Any) -> None:
    current = tmpguard.current()
    await PlainTextResponse(str(current and current.report.quota_bytes))(scope, receive, send)


@pytest.mark.anyio
async def test_options_go_to_the_guard(options: dict[str, Any]) -> None:
    options |= {"storage_size": 200, "plan": "pro"}
    async with client(TmpGuardMiddleware(answer, **options)) as http:
        assert (await http.get("/")).text == str(200 * 1_048_576)


@pytest.mark.anyio
async def test_starlettes_add_middleware_takes_the_options(options: dict[str, Any]) -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse(str(tmpguard.current())))])
    app.add_middleware(TmpGuardMiddleware, **options)
    async with client(app) as http:
        assert (await http.get("/")).text != "None"


@pytest.mark.parametrize(
    "wrong", [{"storage_size": 0}, {"storage_size": 129}, {"storage": 1}, {"guard": "a guard"}]
)
def test_a_wrong_option_is_refused_when_the_middleware_is_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=next(iter(wrong))):
        TmpGuardMiddleware(answer, **wrong)


def test_a_guard_and_options_together_are_refused(guard: tmpguard.Guard) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match="storage_size"):
        TmpGuardMiddleware(answer, guard=guard, storage_size=1)


# --- scopes --------------------------------------------------------------------------------------------


def test_a_websocket_connection_is_one_invocation(guard: tmpguard.Guard, ended: Ended) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            with open("/tmp/same.txt", "a") as file:
                file.write(text)
            await socket.send_text(Path("/tmp/same.txt").read_text())

    app = socket_client(TmpGuardMiddleware(Starlette(routes=[WebSocketRoute("/", echo)]), guard=guard))
    with app.websocket_connect("/") as one, app.websocket_connect("/") as two:
        for socket, text, expected in [(one, "a", "a"), (two, "b", "b"), (one, "c", "ac")]:
            socket.send_text(text)
            assert socket.receive_text() == expected
        assert ended() == []
    assert [report.files for report in ended()] == [1, 1]


@pytest.mark.anyio
async def test_lifespan_passes_with_the_real_file_system(guard: tmpguard.Guard, tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        assert tmpguard.current() is None
        (tmp_path / "started").touch()
        yield
        (tmp_path / "stopped").touch()

    messages: list[Any] = []
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        messages.append(message["type"])

    app = TmpGuardMiddleware(Starlette(lifespan=lifespan), guard=guard)
    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert messages == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "started", "stopped"}


@pytest.mark.anyio
async def test_the_wipes_are_finished_when_the_shutdown_is_complete(
    guard: tmpguard.Guard, scratch: Path
) -> None:
    """Then a server may be gone at once: uvicorn dies of the signal that stopped it."""
    left: dict[str, list[str]] = {}
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def handler(request: Request) -> Response:
        for number in range(100):
            os.makedirs(f"/tmp/{number}/directory")
        return PlainTextResponse("")

    app = serve(handler, guard)

    async def receive() -> Any:
        await app(dict(HTTP), staying(), no_send)
        return next(incoming)

    async def send(message: Any) -> None:
        left[message["type"]] = os.listdir(scratch)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert len(left["lifespan.startup.complete"]) == 1
    assert left["lifespan.shutdown.complete"] == []


@pytest.mark.anyio
async def test_a_scope_that_nobody_knows_passes_as_it_is(guard: tmpguard.Guard) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send, tmpguard.current()))

    scope = {"type": "tea"}
    receive = staying()
    await TmpGuardMiddleware(app, guard=guard)(scope, receive, no_send)
    assert seen[0][0] is scope
    assert seen == [(scope, receive, no_send, None)]


@pytest.mark.anyio
async def test_the_server_is_not_asked_to_open_a_path_itself(guard: tmpguard.Guard) -> None:
    extensions = {"http.response.pathsend": {}, "tls": {"version": 1}}
    scope = {**HTTP, "extensions": extensions}
    messages = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def handler(request: Request) -> Response:
        assert request.scope["extensions"] == {"tls": {"version": 1}}
        Path("/tmp/body.txt").write_text("the body")
        return FileResponse("/tmp/body.txt")

    await serve(handler, guard)(scope, staying(), send)
    assert b"".join(message.get("body", b"") for message in messages) == b"the body"
    assert extensions == {"http.response.pathsend": {}, "tls": {"version": 1}}


# --- the end of an invocation --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_async_generator_streams_from_tmp(guard: tmpguard.Guard, ended: Ended) -> None:
    async def body() -> AsyncIterator[str]:
        for number in range(3):
            await anyio.sleep(0)
            yield Path("/tmp/body.txt").read_text() + str(number)

    async def handler(request: Request) -> Response:
        Path("/tmp/body.txt").write_text("part ")
        return StreamingResponse(body())

    async with client(serve(handler, guard)) as http:
        assert (await http.get("/")).text == "part 0part 1part 2"
    assert [report.late_writes for report in ended()] == [()]


@pytest.mark.anyio
async def test_a_generator_in_the_threadpool_streams_from_tmp(guard: tmpguard.Guard, ended: Ended) -> None:
    def body() -> Iterator[str]:
        with open("/tmp/body.txt") as file:
            yield from file

    def handler(request: Request) -> Response:
        Path("/tmp/body.txt").write_text("one\ntwo\n")
        return StreamingResponse(body())

    async with client(serve(handler, guard)) as http:
        assert (await http.get("/")).text == "one\ntwo\n"
    assert [report.late_writes for report in ended()] == [()]


@pytest.mark.anyio
async def test_a_file_response_sends_a_file_of_tmp(guard: tmpguard.Guard, ended: Ended) -> None:
    content = os.urandom(300_000)

    async def handler(request: Request) -> Response:
        Path("/tmp/body.txt").write_bytes(content)
        return FileResponse("/tmp/body.txt", filename="body.txt")

    async with client(serve(handler, guard)) as http:
        response = await http.get("/")
        part = await http.get("/", headers={"Range": "bytes=1000-1999"})
    assert response.content == content
    assert response.headers["content-length"] == "300000"
    # Starlette knows parts of a file since 0.39, and says so.
    assert part.content == (content[1000:2000] if "accept-ranges" in response.headers else content)
    assert [report.files for report in ended()] == [1, 1]


@pytest.mark.anyio
async def test_a_background_task_still_sees_the_file(guard: tmpguard.Guard, ended: Ended) -> None:
    sent = anyio.Event()
    found = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            sent.set()

    async def later() -> None:
        await sent.wait()
        found.append(await anyio.to_thread.run_sync(Path("/tmp/body.txt").read_text))
        os.remove("/tmp/body.txt")

    async def handler(request: Request) -> Response:
        Path("/tmp/body.txt").write_text("for later")
        return PlainTextResponse("done", background=BackgroundTask(later))

    await serve(handler, guard)(dict(HTTP), staying(), send)
    assert found == ["for later"]
    assert [report.files for report in ended()] == [0]


@pytest.mark.anyio
async def test_an_exception_in_the_handler_ends_the_invocation(guard: tmpguard.Guard, ended: Ended) -> None:
    async def handler(request: Request) -> Response:
        Path("/tmp/same.txt").write_text("left behind")
        raise RuntimeError("the handler's own")

    async with client(serve(handler, guard)) as http:
        with pytest.raises(RuntimeError, match="the handler's own"):
            await http.get("/")
    async with client(serve(handler, guard), raise_app_exceptions=False) as http:
        assert (await http.get("/")).status_code == 500
    assert [report.files for report in ended()] == [1, 1]
    assert tmpguard.current() is None


@pytest.mark.anyio
async def test_a_cancelled_handler_cleans_up_and_ends(guard: tmpguard.Guard, ended: Ended) -> None:
    started = anyio.Event()

    async def handler(request: Request) -> Response:
        Path("/tmp/same.txt").write_text("left behind")
        Path("/tmp/body.txt").write_text("cleaned up")
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            os.remove("/tmp/body.txt")
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve(handler, guard), dict(HTTP), staying(), no_send)
        await started.wait()
        assert ended() == []
        tasks.cancel_scope.cancel()
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


# Starlette leaves the generator of such a client to the garbage collector, and trio warns of each.
abandoned = pytest.mark.filterwarnings(
    "ignore:Async generator .* was garbage collected:ResourceWarning",
    "ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning",
)


@abandoned
@pytest.mark.anyio
async def test_a_client_that_goes_away_in_mid_stream_ends_the_invocation(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    async def body() -> AsyncIterator[bytes]:
        with open("/tmp/body.txt", "rb") as file:
            while part := file.read(4096):
                yield part

    async def handler(request: Request) -> Response:
        Path("/tmp/body.txt").write_bytes(bytes(100_000))
        return StreamingResponse(body())

    server = Disconnecting()
    await serve(handler, guard)(dict(HTTP), server.receive, server.send)
    assert server.received == [bytes(4096)]
    assert [report.files for report in ended()] == [1]


@abandoned
@pytest.mark.anyio
async def test_a_generator_left_behind_is_closed_for_its_own_request(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    """Wherever it is collected: not on the real file system, and not in the request that runs just then."""
    closed = anyio.Event()
    kept = []

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"part"
        finally:
            with suppress(OSError):
                Path("/tmp/late.txt").write_text("the body was closed")
            closed.set()

    async def handler(request: Request) -> Response:
        kept.append(body())
        return StreamingResponse(kept[0])

    server = Disconnecting()
    await serve(handler, guard)(dict(HTTP), server.receive, server.send)
    assert server.received == [b"part"]
    [report] = ended()
    other = guard.invocation()
    with other.bound():
        kept.clear()
        gc.collect()
        with anyio.fail_after(30):
            await closed.wait()
        assert listed() == []
    other.end()
    assert not os.path.exists("/tmp/late.txt")
    assert [(late.operation, late.path) for late in report.late_writes] == [("open", "/tmp/late.txt")]


def test_the_generators_that_are_remembered_do_not_pile_up(guard: tmpguard.Guard) -> None:
    async def parts() -> AsyncIterator[int]:
        yield 1

    hooks = Abandoned(None, lambda generator: None)
    invocation = guard.invocation()
    with invocation.bound():
        for _ in range(5):
            alive: list[Any] = [parts() for _ in range(1000)]
            for generator in alive:
                hooks.begin(generator)
            assert {hash(generator) for generator in alive} <= set(hooks.owners)
            last = alive[-1]
            del alive, generator
    invocation.end()
    assert len(hooks.owners) < 3000
    hooks.begin(last)  # another one in its place, outside of any invocation
    assert hash(last) not in hooks.owners


def test_a_call_that_is_thrown_away_ends_where_it_is_collected(guard: tmpguard.Guard, ended: Ended) -> None:
    class Forever:
        def __await__(self) -> Iterator[None]:
            yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        Path("/tmp/same.txt").write_text("left behind")
        await Forever()

    call = TmpGuardMiddleware(app, guard=guard)(dict(HTTP), staying(), no_send)
    contextvars.Context().run(call.send, None)
    assert ended() == []
    call.close()
    assert [report.files for report in ended()] == [1]
    assert tmpguard.current() is None


# --- FastAPI -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_fastapi_spools_an_upload_into_the_requests_tmp(options: dict[str, Any], ended: Ended) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(TmpGuardMiddleware, **(options | {"storage_size": 3}))

    @app.post("/")
    def upload(file: fastapi.UploadFile) -> dict[str, Any]:
        current = tmpguard.current()
        assert current is not None
        spooled = current.report.used_bytes
        Path("/tmp/upload.txt").write_bytes(file.file.read(4096))
        return {"spooled": spooled, "size": file.size, "listed": listed()}

    async with client(app) as http:
        fits = await http.post("/", files={"file": ("a.bin", bytes(2_000_000))})
    assert fits.json() == {"spooled": 2_002_944, "size": 2_000_000, "listed": ["upload.txt"]}
    [report] = ended()
    assert (report.used_bytes, report.files) == (4096, 1)
    assert report.peak_bytes >= 2_002_944 + 4096


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # older Starlettes leave the file to the collector
@pytest.mark.anyio
async def test_fastapi_refuses_an_upload_that_does_not_fit(options: dict[str, Any], ended: Ended) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(TmpGuardMiddleware, **options)

    @app.post("/")
    def upload(file: fastapi.UploadFile) -> None: ...

    async with client(app, raise_app_exceptions=False) as http:
        response = await http.post("/", files={"file": ("a.bin", bytes(2_000_000))})
    assert response.status_code >= 400
    [report] = ended()
    assert report.peak_bytes <= 1_048_576
    gc.collect()


@pytest.mark.anyio
async def test_fastapi_dependencies_and_sync_endpoints_share_the_requests_tmp(
    options: dict[str, Any], ended: Ended
) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(TmpGuardMiddleware, **options)
    closed = []

    def directory() -> Iterator[Path]:
        Path("/tmp/same.txt").write_text("of the dependency")
        yield Path("/tmp")
        closed.append(Path("/tmp/body.txt").read_text())

    @app.get("/")
    def endpoint(directory: Path = fastapi.Depends(directory)) -> str:  # noqa: B008 (how FastAPI declares them)
        (directory / "body.txt").write_text("of the endpoint")
        return (directory / "same.txt").read_text()

    async with client(app) as http:
        assert (await http.get("/")).json() == "of the dependency"
    assert closed == ["of the endpoint"]
    assert [report.files for report in ended()] == [2]


# --- hygiene -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["tmpguard", "tmpguard.asgi", "tmpguard.wsgi"])
def test_importing_it_loads_no_framework(module: str) -> None:
    frameworks = (
        "{'django', 'flask', 'starlette', 'werkzeug', 'fastapi', 'anyio', 'asgiref', 'trio', 'pytest'}"
    )
    code = f"import sys, {module}; print(sorted({frameworks} & set(sys.modules)))"
    project = Path(tmpguard.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
