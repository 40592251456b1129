"""The WSGI half of :mod:`tmpguard.testing.live`. Needs werkzeug."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from tmpguard.guard import Guard

from .applications import GuardedWSGI

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

#: Seconds in which the server's thread sees that it is to stop.
_POLL = 0.05


class Server(ThreadedWSGIServer):
    """A server with a thread for each connection. It runs between entry and exit."""

    def __init__(self, host: str, app: WSGIApplication, guard: Guard, patience: float) -> None:
        self._connections: set[Any] = set()
        self._closed = threading.Condition()
        self._patience = patience
        super().__init__(host, 0, GuardedWSGI(app, lambda test: guard), handler=_Handler)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL,), name="tmpguard-live", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        with self._closed:
            # A browser's idle connections would last for minutes. What has been sent is still read.
            self._shut(socket.SHUT_RD)
            if not self._closed.wait_for(lambda: not self._connections, self._patience):
                self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        for connection in self._connections:
            with suppress(OSError):  # the client is gone
                connection.shutdown(how)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._closed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection's thread is done."""
        super().shutdown_request(request)
        with self._closed:
            self._connections.discard(request)
            self._closed.notify_all()


class _Handler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log no requests: the output of a failed test has only errors."""
