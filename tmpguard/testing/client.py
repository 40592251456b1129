"""httpx clients of an application: each request is an invocation."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from tmpguard.config.options import OPTIONS, unknown_option
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation
from tmpguard.guard import Guard

from .applications import GuardedASGI, GuardedWSGI
from .interface import checked_interface
from .lifespan import running
from .loop import LoopThread
from .startup import Start, StartingASGI

try:
    import httpx
except ModuleNotFoundError:  # pragma: no cover - depends on what is installed
    try:
        import httpx2 as httpx  # type: ignore[import-not-found, no-redef]
    except ModuleNotFoundError as exc:
        raise ConfigurationError("tmpguard's clients need httpx: pip install httpx") from exc

#: The options of the guard, those of the transport, and what else a client takes that httpx does not.
_GUARD: Final = (*OPTIONS, "writable_tmp_path")
_TRANSPORT: Final = ("raise_app_exceptions",)
_CLIENT: Final = ("interface",)

#: Those of httpx's own that an error names.
_USUAL: Final = ("base_url", "headers", "cookies", "auth", "follow_redirects")

BASE_URL: Final = "http://testserver"

Options = dict[str, Any]


def split_options(options: Options, client: type) -> tuple[Options, Options, Options]:
    """The options of the guard, of the client and of its transport.

    Raises ConfigurationError for one that is of none of them.
    """
    known = {*_GUARD, *_TRANSPORT, *_CLIENT, *inspect.signature(client).parameters} - {"transport"}
    for name in options:
        if name not in known:
            raise ConfigurationError(unknown_option(name, (*_GUARD, *_TRANSPORT, *_CLIENT, *_USUAL)))
    guards = {name: value for name, value in options.items() if name in _GUARD}
    transports = {name: value for name, value in options.items() if name in _TRANSPORT}
    others = {"base_url": BASE_URL}
    others |= {
        name: value
        for name, value in options.items()
        if name not in guards and name not in transports and name not in _CLIENT
    }
    return guards, others, transports


class _LoopTransport(httpx.BaseTransport):
    """Sends requests to an ASGI application that lives in the loop of another thread."""

    def __init__(self, app: Any, start: Start, guarded: Callable[[Any], Any], **options: Any) -> None:
        self._options = options
        self._guarded = guarded
        self._loop = LoopThread(lambda: running(StartingASGI(app, start)))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()  # a body that comes from an iterator is read here, in its own thread
        return self._loop.run(self._send(request))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        transport = httpx.ASGITransport(self._guarded(self._loop.value), **self._options)
        response = await transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in response.stream])
        return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(body))

    def close(self) -> None:
        self._loop.close()


class Clients:
    """Makes a test's clients. ``guard`` makes their guards of options, ``start`` the invocation of a
    start-up."""

    def __init__(self, guard: Callable[[dict[str, Any]], Guard], start: Callable[[Guard], Invocation | None]):
        self._guard = guard
        self._start = start

    def sync_client(self, app: Any, options: dict[str, Any]) -> httpx.Client:
        """A client of an ASGI or WSGI application; closing it shuts an ASGI application down."""
        interface = checked_interface(options.get("interface"), app)
        guards, others, transports = split_options(options, httpx.Client)
        guard = self._guard(guards)
        transport: httpx.BaseTransport
        if interface == "wsgi":
            transport = httpx.WSGITransport(GuardedWSGI(app, lambda test: guard), **transports)
        else:
            transport = _LoopTransport(
                app,
                lambda: self._start(guard),
                lambda app: GuardedASGI(app, lambda test: guard),
                **transports,
            )
        try:
            return httpx.Client(transport=transport, **others)
        except BaseException:
            transport.close()
            raise

    @asynccontextmanager
    async def async_client(self, app: Any, options: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
        """A client of an ASGI application in the running event loop, between its start-up and its
        shutdown."""
        if checked_interface(options.get("interface"), app) == "wsgi":
            raise ConfigurationError(
                f"{app!r} is a WSGI application: use tmpguard.client(app), which is not async"
            )
        guards, others, transports = split_options(options, httpx.AsyncClient)
        guard = self._guard(guards)
        async with running(StartingASGI(app, lambda: self._start(guard))) as served:
            transport = httpx.ASGITransport(GuardedASGI(served, lambda test: guard), **transports)
            async with httpx.AsyncClient(transport=transport, **others) as client:
                yield client
