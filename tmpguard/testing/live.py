"""A real server for an application, in threads of the test's process: each request is an invocation.

uvicorn serves ASGI applications, werkzeug WSGI ones. They are imported only when they are needed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from tmpguard.asgi import ASGIApp
from tmpguard.config.interface import checked_interface
from tmpguard.config.options import unknown_option
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation
from tmpguard.guard import Guard

from .settings import GUARD_OPTIONS

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

HOST: Final = "127.0.0.1"

#: Seconds that :meth:`LiveServer.close` waits for requests that are in progress.
PATIENCE: Final = 5


class LiveServer:
    """A running server. Close it with :meth:`close` or ``with``; otherwise the fixture does."""

    def __init__(self, port: int, opened: ExitStack) -> None:
        #: The port on the loopback interface, and the URL without a slash at its end.
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._opened = opened

    def close(self) -> None:
        """Stop the server after the requests in progress, for which it waits 5 seconds at most. Idempotent.

        An ASGI application is shut down. Raises what its shutdown raises.
        """
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"


class LiveServers:
    """Starts a test's servers.

    ``guard`` makes a guard from options; ``start`` makes the invocation for a start-up.
    """

    def __init__(self, guard: Callable[[dict[str, Any]], Guard], start: Callable[[Guard], Invocation | None]):
        self._guard = guard
        self._start = start

    def serve(self, app: object, options: dict[str, Any]) -> LiveServer:
        """Serve an ASGI or WSGI application on a free port of the loopback interface."""
        given = dict(options)
        interface = checked_interface(given.pop("interface", None), app)
        for name in given:
            if name not in GUARD_OPTIONS:
                raise ConfigurationError(unknown_option(name, (*GUARD_OPTIONS, "interface")))
        guard = self._guard(given)
        # An empty context: the threads belong to no invocation, even if the test's body is one.
        if interface == "wsgi":
            return Context().run(_serve_wsgi, cast("WSGIApplication", app), guard)
        return Context().run(_serve_asgi, cast(ASGIApp, app), guard, lambda: self._start(guard))


def _serve_wsgi(app: WSGIApplication, guard: Guard) -> LiveServer:
    with _needing("werkzeug", "WSGI"):
        from .live_wsgi import Server
    with ExitStack() as stack:
        server = stack.enter_context(Server(HOST, app, guard, PATIENCE))
        return LiveServer(server.port, stack.pop_all())


def _serve_asgi(app: ASGIApp, guard: Guard, start: Callable[[], Invocation | None]) -> LiveServer:
    with _needing("uvicorn", "ASGI"), _needing("anyio", "ASGI"):
        from .live_asgi import serving
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((HOST, 0)))
        stack.enter_context(serving(app, guard, start, listening, PATIENCE))
        return LiveServer(listening.getsockname()[1], stack.pop_all())


@contextmanager
def _needing(package: str, interface: str) -> Iterator[None]:
    """Report a missing ``package``."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name != package:
            raise
        raise ConfigurationError(
            f"tmpguard.live() of {interface} applications needs {package}: pip install {package}"
        ) from exc
