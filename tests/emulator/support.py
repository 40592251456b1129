"""Instances without the kernel's side, for the tests of the pool and the proxy.

:class:`Inside` serves within the test's own event loop, by h11: whatever the proxy sends has to be acceptable
to a second, strict implementation. :class:`Outside` runs a command as a plain process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11

from tests.support import free_port
from tmpguard.core.reports.report import Violation
from tmpguard.emulator.http.framing import Refused
from tmpguard.emulator.http.local import Local
from tmpguard.emulator.http.pool import Limits, Pool
from tmpguard.emulator.http.proxy import Proxy
from tmpguard.emulator.http.turns import Done
from tmpguard.emulator.protocols import Instance, Span, StartFailed

NO_SPAN = Span(0, 0, 0, (), ())
VIOLATION = Violation("open", "/srv/out.txt", 30, None, None, "only /tmp is writable")
PATIENCE = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop, in which a callback that raises fails the test."""
    errors: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await asyncio.wait_for(work, PATIENCE)

    asyncio.run(main())
    assert errors == [], errors


async def until(ask: Callable[[], object]) -> None:
    """Wait until the answer is true."""
    while not ask():
        await asyncio.sleep(0.005)


# --- applications --------------------------------------------------------------------------------------


class Call:
    """A request as the application gets it."""

    def __init__(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._connection = connection
        self.reader = reader
        self.writer = writer

    async def next_event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            if self._connection.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._connection.receive_data(await self.reader.read(65_536))
        return event

    async def receive(self) -> bool:
        """Wait for the head of the next request; False if there is none."""
        event = await self.next_event()
        if not isinstance(event, h11.Request):
            return False
        self.method = event.method.decode()
        self.target = event.target.decode()
        self.raw_headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
        self.headers = dict(self.raw_headers)
        return True

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while isinstance(event := await self.next_event(), h11.Data):
            yield bytes(event.data)

    async def body(self) -> bytes:
        return b"".join([part async for part in self.chunks()])

    async def send(self, event: h11.Event) -> None:
        self.writer.write(self._connection.send(event) or b"")
        await self.writer.drain()

    async def begin(self, status: int = 200, **headers: str) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await self.send(h11.Response(status_code=status, headers=named))

    async def part(self, data: bytes) -> None:
        await self.send(h11.Data(data=data))

    async def end(self) -> None:
        await self.send(h11.EndOfMessage())

    async def answer(self, body: bytes = b"ok", status: int = 200, **headers: str) -> None:
        """The whole response, after the whole request."""
        await self.body()
        await self.begin(status, content_length=str(len(body)), **headers)
        if self.method != "HEAD" and body:
            await self.part(body)
        await self.end()


Handler = Callable[[Call], Awaitable[None]]


async def hello(call: Call) -> None:
    await call.answer(b"hello")


async def echo(call: Call) -> None:
    await call.begin(content_type="application/octet-stream")
    async for part in call.chunks():
        await call.part(part)
    await call.end()


class Inside:
    """An instance whose application is a coroutine of the test."""

    def __init__(self, number: int, handler: Handler) -> None:
        self.number = number
        self.address = ("", 0)
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.handler = handler
        self.calls: list[str] = []
        self.connections = 0
        self.late: tuple[Violation, ...] = ()
        self.span = NO_SPAN
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> Span:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()
        return NO_SPAN

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        connection = h11.Connection(h11.SERVER)
        call = Call(connection, reader, writer)
        try:
            while await call.receive():
                await self.handler(call)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def begin(self) -> tuple[Violation, ...]:
        self.calls.append("begin")
        late, self.late = self.late, ()
        return late

    def measure(self) -> Span:
        self.calls.append("measure")
        span, self.span = self.span, NO_SPAN
        return span

    def finish(self) -> Span:
        self.calls.append("finish")
        span, self.span = self.span, NO_SPAN
        return span

    async def stop(self, grace: float) -> None:
        self.calls.append("stop")
        self.close()

    def close(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def crash(self, status: int) -> None:
        """The application ends, with all its connections."""
        self.close()
        self.ended.set_result(status)


class Outside:
    """An instance that is a plain process: a command that listens on the port that stands for PORT in it."""

    def __init__(self, number: int, command: list[str], **options: Any) -> None:
        self.number = number
        self.address = ("127.0.0.1", int(free_port()))
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._command = [sys.executable, *(one.replace("PORT", str(self.address[1])) for one in command)]
        self._options = options

    async def start(self) -> Span:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=subprocess.DEVNULL, **self._options
        )
        self._watcher = asyncio.ensure_future(self._watch())
        while not self.ended.done():
            with suppress(OSError):
                _, writer = await asyncio.open_connection(*self.address)
                writer.close()
                return NO_SPAN
            await asyncio.sleep(0.02)
        raise StartFailed("exec", f"the command ended with status {self.ended.result()}")

    async def _watch(self) -> None:
        status = await self.process.wait()
        if not self.ended.done():
            self.ended.set_result(status)

    def begin(self) -> tuple[Violation, ...]:
        return ()

    def measure(self) -> Span:
        return NO_SPAN

    def finish(self) -> Span:
        return NO_SPAN

    async def stop(self, grace: float) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._watcher), grace)
        with suppress(ProcessLookupError):
            self.process.kill()
        await self._watcher


# --- the pool and the proxy ----------------------------------------------------------------------------


class Log:
    """What the pool said."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.failed: list[StartFailed] = []
        self.ended: list[tuple[int, str, bool]] = []
        self.late: list[tuple[int, tuple[Violation, ...]]] = []

    def on_started(self, number: int, span: Span, seconds: float) -> None:
        self.started.append(number)

    def on_start_failed(self, number: int, failed: StartFailed) -> None:
        self.failed.append(failed)

    def on_ended(self, number: int, reason: str, *, crashed: bool) -> None:
        self.ended.append((number, reason, crashed))

    def on_late_writes(self, number: int, violations: tuple[Violation, ...]) -> None:
        self.late.append((number, violations))


class Stage:
    """A proxy with its pool, and what they said."""

    def __init__(
        self,
        make: Callable[[int], Instance],
        limits: Limits,
        request_timeout: float = 0.0,
        local: Callable[[Local], None] | None = None,
    ) -> None:
        self.log = Log()
        self.made: list[Any] = []
        self.done: list[Done] = []
        self.refused: list[Refused] = []

        def noted(number: int) -> Instance:
            self.made.append(make(number))
            return self.made[-1]  # type: ignore[no-any-return]

        self.pool = Pool(noted, limits, self.log)
        self.proxy = Proxy(
            self.pool,
            self.done.append,
            on_refused=self.refused.append,
            request_timeout=request_timeout,
            local_prefix=b"/__tmpguard__/",
            local=local,
        )

    async def open(self) -> None:
        await self.pool.start()
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.proxy.client, "127.0.0.1", 0)
        self.port: int = self.server.sockets[0].getsockname()[1]
        self.proxy.start()

    async def close(self) -> None:
        self.server.close()
        await self.pool.stop()
        await self.proxy.close()

    async def connect(self, limit: int = 65_536) -> Peer:
        """A client's connection, which reads ahead about twice ``limit`` bytes."""
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))

    async def get(self, target: str = "/", method: str = "GET", body: bytes = b"") -> Answer:
        """One request over a connection of its own."""
        peer = await self.connect()
        try:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            peer.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + body)
            return await peer.answer(method)
        finally:
            peer.close()


class Answer:
    """A response as the client gets it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Peer:
    """A client's connection, whose bytes are the test's own and whose responses are read by h11."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._left = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, in whole. Raises RemoteProtocolError if it is cut short."""
        head = await self._head(method)
        body = bytearray()
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage), event
                self._left = self._connection.trailing_data[0]
                return Answer(head.status, head.headers, bytes(body))

    async def head(self, method: str = "GET") -> Answer:
        """The head of the next response; the body is read by :meth:`part`."""
        return await self._head(method)

    async def part(self) -> bytes:
        """The next bytes of the body, b"" at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _head(self, method: str) -> Answer:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self._connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        self._connection.send(h11.EndOfMessage())
        if self._left:
            self._connection.receive_data(self._left)
            self._left = b""
        while isinstance(event := await self._next(), h11.InformationalResponse):
            if event.status_code == 101:
                break
        assert isinstance(event, (h11.Response, h11.InformationalResponse)), event
        headers = {name.decode().title(): value.decode("latin-1") for name, value in event.headers}
        return Answer(event.status_code, headers, b"")

    async def _next(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self.reader.read(65_536))
        return event

    async def is_closed(self) -> bool:
        """Wait for the end of the connection; False if anything else comes."""
        with suppress(ConnectionError):
            return await self.reader.read(1) == b""
        return True

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def stage(
    handler: Handler = hello,
    *,
    instances: int = 1,
    concurrency: int = 1,
    request_timeout: float = 0.0,
    local: Callable[[Local], None] | None = None,
    make: Callable[[int], Instance] | None = None,
    **limits: Any,
) -> AsyncIterator[Stage]:
    """A proxy in front of instances whose application is ``handler``."""
    one = Stage(
        make or (lambda number: Inside(number, handler)),
        Limits(instances=instances, concurrency=concurrency, **limits),
        request_timeout,
        local,
    )
    await one.open()
    try:
        yield one
    finally:
        await one.close()
