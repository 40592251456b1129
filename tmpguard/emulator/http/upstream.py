"""A connection to the application in an instance."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Final, Protocol, cast

from .framing import Headers, Refused, ResponseHead, ResponseReader

#: Of a broken connection: more than what a socket buffers.
_MOST_READS: Final = 200


class Receiver(Protocol):
    """Who sent the request that a connection is serving."""

    def on_interim(self, status: int, reason: bytes, headers: Headers) -> None: ...

    def on_response(self, head: ResponseHead) -> None: ...

    def on_response_body(self, data: bytes) -> None: ...

    def on_response_end(self, trailers: Headers) -> None: ...

    def on_upgraded(self) -> None:
        """The protocol was switched: all further bytes come by :meth:`on_tunnel`."""
        ...

    def on_tunnel(self, data: bytes) -> None: ...

    def on_fed(self) -> None:
        """All bytes of one read have been handled: a moment to write what they gave."""
        ...

    def on_broken(self, reason: str) -> None:
        """The connection has ended, or cannot be read any further, in the middle of the exchange."""
        ...

    def pause_request(self) -> None: ...

    def resume_request(self) -> None: ...


class Upstream(asyncio.Protocol):
    """One connection, which serves one exchange after another.

    ``idle_since`` is the time at which the last one ended. It is what tells whether the application's server
    may be about to close the connection.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.served = 0
        self.idle_since = 0.0
        self._receiver: Receiver | None = None
        self._reader = ResponseReader(self)
        self._tunnel = False
        self._reusable = True

    # --- for the exchange ---

    def begin(self, receiver: Receiver, method: bytes, *, upgrading: bool) -> None:
        """The next bytes that are written are a request of ``receiver``'s."""
        self._receiver = receiver
        self._reader.expect(method, upgrading=upgrading)
        self._reusable = True
        self.served += 1

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.closed:
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            with suppress(OSError):
                self.transport.write_eof()

    def pause_reading(self) -> None:
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.closed and not self.transport.is_closing():
            self.transport.resume_reading()

    def end_exchange(self, now: float) -> bool:
        """The exchange is over. Returns True if the connection can serve another; else it is closed."""
        self._receiver = None
        self.idle_since = now
        assert self.transport is not None
        if not self._reusable or self._tunnel or self.closed or self.transport.is_closing():
            self.abort()
            return False
        self.transport.resume_reading()
        return True

    def abort(self) -> None:
        """Close the connection at once, whatever is left to write."""
        self._receiver = None
        if self.transport is not None and not self.closed:
            self.transport.abort()

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self.abort()  # nobody asked for anything
            return
        if self._tunnel:
            receiver.on_tunnel(data)
        else:
            try:
                rest = self._reader.feed(data)
            except Refused as exc:
                # What was wrong may be what follows a whole response, which has been delivered then.
                self._reusable = False
                if self._receiver is receiver and not self._reader.is_complete:
                    self._break(exc.reason)
            else:
                if rest is not None:
                    self._tunnel = True
                    receiver.on_upgraded()
                    if rest:
                        receiver.on_tunnel(rest)
        receiver.on_fed()

    def _break(self, reason: str) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_broken(reason)

    def eof_received(self) -> bool:
        """The transport closes itself, and :meth:`connection_lost` follows."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if exc is not None and self._receiver is not None:
            self._read_rest()
        receiver = self._receiver
        if receiver is None:
            return
        if not self._tunnel and self._reader.end():
            receiver.on_fed()  # the response ended with the connection
            return
        self._receiver = None
        receiver.on_broken("the application closed the connection")

    def _read_rest(self) -> None:
        """Read what came before the connection broke.

        A server that answers an upload early and closes the connection breaks it for who still sends; asyncio
        gives up reading as soon as it cannot write.
        """
        assert self.transport is not None
        descriptor = self.transport.get_extra_info("socket").fileno()
        with suppress(OSError):
            for _ in range(_MOST_READS):
                data = os.read(descriptor, 65_536) if descriptor >= 0 else b""
                if not data or self._receiver is None:
                    break
                self.data_received(data)

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_request()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_request()

    # --- called by the reader ---

    def on_interim(self, status: int, reason: bytes, headers: Headers) -> None:
        if self._receiver is not None:
            self._receiver.on_interim(status, reason, headers)

    def on_response(self, head: ResponseHead) -> None:
        self._reusable = head.keep_alive and not head.until_close
        if self._receiver is not None:
            self._receiver.on_response(head)

    def on_response_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.on_response_body(data)

    def on_response_end(self, trailers: Headers) -> None:
        if self._receiver is not None:
            self._receiver.on_response_end(trailers)
