"""A client's connection."""

from __future__ import annotations

import asyncio
import fcntl
import termios
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from . import forwarding
from .forwarding import Peer
from .framing import Headers, Refused, RequestHead, RequestReader
from .turns import HIGH_WATER, Turn

#: Requests of one connection that are read ahead.
PIPELINED: Final = 8
#: Seconds that a client may be silent between requests, or in the middle of a head.
CLIENT_IDLE: Final = 75.0
#: Seconds for a client to notice that its connection ends before all of its request was read.
LINGER: Final = 2.0


class Hub(Protocol):
    """What the connections of one port share."""

    clients: set[Client]
    closing: bool
    on_refused: Callable[[Refused], None]

    def turn(self, client: Client, head: RequestHead) -> Turn:
        """Who answers a request."""
        ...


class Client(asyncio.Protocol):
    """One connection from a client. Its requests are answered one after the other."""

    transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._reader = RequestReader(self)
        #: The requests that are not answered yet, and the one of them that has been started.
        self._turns: deque[Turn] = deque()
        self._started: Turn | None = None
        self._out: list[bytes] = []
        self._refused: Refused | None = None
        #: Whether what is written is kept until :meth:`flush`.
        self._busy = False
        self._paused = False
        self._ended = False
        self._lingering = False
        #: Whether there was a request.
        self._used = False
        #: Whether the client may still be sending a request that is answered already.
        self._still_sends = False
        #: When it is closed: while it is idle, or lingering.
        self._deadline = time.monotonic() + CLIENT_IDLE
        self.gone = False

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.peer = Peer(str(peer[0]).encode(), str(own[0]).encode(), b"%d" % own[1])
        self._hub.clients.add(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        turns = self._turns
        if turns and turns[0].tunnel(data):
            return
        self._busy = True
        try:
            self._reader.feed(data)
        finally:
            self._busy = False
        self._advance()

    def eof_received(self) -> bool:
        turns = self._turns
        if not turns or self._ended:
            return False
        if turns[0].tunnel(b""):
            turns[0].end_tunnel()
            return True
        # It may only have shut down its side; but nearly always it is gone, and most servers take it so.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._hub.clients.discard(self)
        turns, self._turns = self._turns, deque()
        for turn in turns:
            turn.client_gone()

    def pause_writing(self) -> None:
        if self._turns:
            self._turns[0].pause_response()

    def resume_writing(self) -> None:
        if self._turns:
            self._turns[0].resume_response()

    # --- called by the reader ---

    def on_request(self, head: RequestHead) -> None:
        self._used = True
        self._turns.append(self._hub.turn(self, head))

    def on_request_body(self, data: bytes) -> None:
        if self._turns and not self._turns[-1].complete:
            self._turns[-1].add_body(data)

    def on_request_end(self, trailers: Headers) -> None:
        if self._turns and not self._turns[-1].complete:
            self._turns[-1].end_body(trailers)

    def on_request_refused(self, refused: Refused) -> None:
        self._refused = refused
        if self._turns and not self._turns[-1].complete:
            self._turns[-1].refuse_rest(refused)

    # --- one request after the other ---

    def _advance(self) -> None:
        """Start the next request if its turn has come, and write what there is to write."""
        if self._busy:
            return
        self._busy = True
        turns = self._turns
        while not self._ended and not self.gone:
            if turns:
                if turns[0] is self._started:
                    turns[0].flush()
                    break
                self._started = turns[0]
                turns[0].start()
            elif self._refused is not None:
                self._refuse(self._refused)
            elif self._reader.rest is not None:
                self._reader.resume(self._reader.rest)  # no other protocol, then
            else:
                break
        self._busy = False
        self.flush()
        self.update_reading()

    def _refuse(self, refused: Refused) -> None:
        self._hub.on_refused(refused)
        self._still_sends = True
        self.gather(forwarding.own(refused.status, f"tmpguard: {refused.reason}\n", close=True))
        self.end()

    def turn_over(self, turn: Turn) -> None:
        """``turn`` has been answered."""
        if self.gone or not self._turns or self._turns[0] is not turn:
            return
        self._turns.popleft()
        self._deadline = time.monotonic() + CLIENT_IDLE
        if not turn.complete or not turn.keep_alive:
            self._still_sends = not turn.complete
            self.end()
        else:
            self._advance()

    # --- for the turns ---

    def gather(self, data: bytes) -> None:
        """Write ``data`` at the next :meth:`flush`."""
        self._out.append(data)

    def flush(self) -> None:
        out = self._out
        if out and not self.gone:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.transport.write(data)

    def update_reading(self) -> None:
        """Read on, or stop reading, by what is waiting."""
        if self.gone or self._ended or self.transport.is_closing():
            return
        turns = self._turns
        rest = self._reader.rest
        pause = bool(turns) and (
            turns[-1].blocked
            or turns[0].blocked
            or len(turns) > PIPELINED
            or (rest is not None and len(rest) > HIGH_WATER)
        )
        if pause is not self._paused:
            self._paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def take_rest(self) -> bytes:
        """What the client sent after its request for another protocol."""
        rest, self._reader.rest = self._reader.rest, b""
        return rest or b""

    def end(self) -> None:
        """Close the connection when all is written, without a reset for what the client still sends."""
        if self.gone or self._ended:
            return
        self.flush()
        self._ended = True
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self._lingering = True
        self._deadline = time.monotonic() + LINGER
        with suppress(OSError):  # the client has reset the connection
            self.transport.write_eof()
        if self._paused:
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close the connection in the middle of a response, so that it is seen to be incomplete."""
        self.flush()
        if not self.gone:
            self._ended = True
            self.transport.close()

    def sweep(self, now: float) -> None:
        """Close the connection if it was silent for too long."""
        if now >= self._deadline and (self._lingering or not self._turns) and not self.gone:
            self.transport.abort()

    # --- when everything ends ---

    def end_if_idle(self, *, patient: bool) -> bool:
        """Close the connection unless a request is on its way. Returns whether one is.

        The bytes of one may wait in the socket. While ``patient``, that is also assumed of a connection that
        has not had any: clients connect to send something.
        """
        if self._turns or self.gone or self._ended:
            return False
        if (patient and not self._used) or self._unread():
            return True
        self.end()
        return False

    def _unread(self) -> int:
        """The bytes that have arrived and were not read."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return 0
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), "little")

    def is_unfinished(self) -> bool:
        """Whether the client would miss a part of its response if the connection were closed now."""
        return not self.gone and (self._still_sends or self.transport.get_write_buffer_size() > 0)
