"""httpx clients for an application: each request is an invocation."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from tmpguard.asgi import ASGIApp
from tmpguard.config.interface import checked_interface
from tmpguard.config.options import unknown_option
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation
from tmpguard.guard import Guard

from .applications import GuardedWSGI
from .http import httpx
from .settings import GUARD_OPTIONS

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

#: The options of the transport, and the client's other options that httpx does not have.
_TRANSPORT: Final = ("raise_app_exceptions",)
_CLIENT: Final = ("interface",)

#: httpx's own options that an error message lists.
_USUAL: Final = ("base_url", "headers", "cookies", "auth", "follow_redirects")

BASE_URL: Final = "http://testserver"

Keywords = dict[str, Any]


def split_options(options: Keywords, client: type) -> tuple[Keywords, Keywords, Keywords]:
    """Split ``options`` into those of the guard, of the client and of its transport.

    Raises ConfigurationError for an unknown option.
    """
    known = {*GUARD_OPTIONS, *_TRANSPORT, *_CLIENT, *inspect.signature(client).parameters} - {"transport"}
    for name in options:
        if name not in known:
            raise ConfigurationError(unknown_option(name, (*GUARD_OPTIONS, *_TRANSPORT, *_CLIENT, *_USUAL)))
    guards = {name: value for name, value in options.items() if name in GUARD_OPTIONS}
    transports = {name: value for name, value in options.items() if name in _TRANSPORT}
    others = {"base_url": BASE_URL}
    others |= {
        name: value
        for name, value in options.items()
        if name not in guards and name not in transports and name not in _CLIENT
    }
    return guards, others, transports


@contextmanager
def _needing_anyio() -> Iterator[None]:
    """Report a missing anyio. Only clients of ASGI applications need it."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name != "anyio":
            raise
        raise ConfigurationError(
            "clients of ASGI applications need anyio: pip install 'tmpguard[testing]'"
        ) from exc


class Clients:
    """Makes a test's clients.

    ``guard`` makes a guard from options; ``start`` makes the invocation for a start-up.
    """

    def __init__(self, guard: Callable[[dict[str, Any]], Guard], start: Callable[[Guard], Invocation | None]):
        self._guard = guard
        self._start = start

    def sync_client(self, app: object, options: dict[str, Any]) -> httpx.Client:
        """A client of an ASGI or WSGI application; closing it shuts an ASGI application down."""
        interface = checked_interface(options.get("interface"), app)
        guards, others, transports = split_options(options, httpx.Client)
        guard = self._guard(guards)
        transport: httpx.BaseTransport
        if interface == "wsgi":
            wsgi = cast("WSGIApplication", app)
            transport = httpx.WSGITransport(GuardedWSGI(wsgi, lambda test: guard), **transports)
        else:
            with _needing_anyio():
                from .asgi_client import LoopTransport
            asgi = cast(ASGIApp, app)
            transport = LoopTransport(asgi, guard, lambda: self._start(guard), **transports)
        try:
            return httpx.Client(transport=transport, **others)
        except BaseException:
            transport.close()
            raise

    @asynccontextmanager
    async def async_client(self, app: object, options: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
        """A client of an ASGI application that runs in the current event loop.

        The application starts up on entry and shuts down on exit.
        """
        if checked_interface(options.get("interface"), app) == "wsgi":
            raise ConfigurationError(
                f"{app!r} is a WSGI application: use tmpguard.client(app), which is not async"
            )
        guards, others, transports = split_options(options, httpx.AsyncClient)
        guard = self._guard(guards)
        with _needing_anyio():
            from .asgi_client import running_transport
        opened = running_transport(cast(ASGIApp, app), guard, lambda: self._start(guard), **transports)
        async with opened as transport, httpx.AsyncClient(transport=transport, **others) as client:
            yield client
