"""A request to the application, and its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from ..protocols import Span
from . import forwarding
from .client import Client
from .framing import Headers, Refused, RequestHead, ResponseHead, chunk, last_chunk
from .pool import Member, Pool, ending
from .turns import HIGH_WATER, Done
from .upstream import Upstream

#: Seconds and bytes for which the response is read that a client did not wait for.
DRAIN: Final = 10.0
DRAIN_BYTES: Final = 64 * 1_048_576
#: A connection to the application that was idle for longer may be about to be closed by its server, the most
#: impatient of which (gunicorn) waits two seconds. It is not used any more.
KEPT: Final = 1.0
#: Seconds until it is known whether a connection ended because the whole application did.
VERDICT: Final = 0.25

_REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_NO_SPAN: Final = Span(0, 0, 0, (), ())
_EVENT_STREAM: Final = b"text/event-stream"


class Hub(Protocol):
    """What the exchanges of one port share."""

    pool: Pool
    active: set[Exchange]
    closing: bool
    on_done: Callable[[Done], None]

    def connect(self, exchange: Exchange) -> None:
        """Make a new connection for ``exchange``."""
        ...

    def hold(self, exchange: Exchange) -> None:
        """Have ``exchange`` release the head of its response in a moment."""
        ...


class Exchange:
    """A request to the application, and its response."""

    __slots__ = (
        "_body_bytes",
        "_chunked",
        "_drained",
        "_finished",
        "_holds",
        "_hub",
        "_is_event_stream",
        "_may_hold",
        "_out",
        "_out_size",
        "_overlaps",
        "_paused",
        "_replay",
        "_shared",
        "_timer",
        "_upgraded",
        "began",
        "blocked",
        "client",
        "complete",
        "dispatched",
        "drain_until",
        "ended",
        "head",
        "keep_alive",
        "member",
        "response_bytes",
        "status",
        "trouble",
        "upstream",
    )

    def __init__(self, hub: Hub, client: Client, head: RequestHead) -> None:
        self._hub = hub
        self.client: Client | None = client
        self.head = head
        self.keep_alive = head.keep_alive
        self.blocked = False
        self.complete = False
        self.ended = False
        self.member: Member | None = None
        self.upstream: Upstream | None = None
        self.status = 0
        self.response_bytes = 0
        self.trouble = ""
        self.began = time.monotonic()
        self.dispatched = 0.0
        self.drain_until = 0.0
        first = forwarding.to_application(head, client.peer)
        #: What the application has not got yet.
        self._out: list[bytes] = [first]
        self._out_size = 0
        self._body_bytes = 0
        #: All of the request, if it may be sent once more over another connection.
        self._replay = first if head.method in _REPEATABLE and head.length == 0 and not head.upgrade else None
        self._chunked = False
        self._finished = False
        self._is_event_stream = False
        self._upgraded = False
        self._shared = False
        self._overlaps = 0
        self._paused = False
        self._drained = 0
        self._may_hold = self._holds = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the request ---

    def start(self) -> None:
        self._hub.pool.submit(self)

    def add_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self.ended or self._finished:
            return  # answered before it was read
        self._out.append(chunk(data) if self.head.length is None else data)
        self._out_size += len(data)
        if self.upstream is None and self._out_size > HIGH_WATER:
            self.blocked = True

    def end_body(self, trailers: Headers) -> None:
        self.complete = True
        if self.head.length is None and not self.ended:
            self._out.append(last_chunk(trailers))

    def flush(self) -> None:
        if self.upstream is not None and self._out:
            out = self._out
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_size = 0
            self.upstream.write(data)

    def dispatch(self, member: Member) -> None:
        self.member = member
        self._shared = member.running > 1
        self._overlaps = member.overlaps
        self.dispatched = now = time.monotonic()
        self._hub.active.add(self)
        connections = member.connections
        while connections:
            upstream = connections.pop()
            if not upstream.closed and now - upstream.idle_since < KEPT:
                self.attach(upstream)
                return
            upstream.abort()
        self._hub.connect(self)

    def attach(self, upstream: Upstream) -> None:
        """Send the request over ``upstream``."""
        self.upstream = upstream
        upstream.begin(self, self.head.method, upgrading=bool(self.head.upgrade))
        self.flush()
        if self.blocked:
            self.resume_request()

    def not_connected(self, reason: str) -> None:
        """There is no connection to the application to be had."""
        self._answer_broken(reason)

    def pause_request(self) -> None:
        self.blocked = True
        if self.client is not None:
            self.client.update_reading()

    def resume_request(self) -> None:
        self.blocked = False
        if self.client is not None:
            self.client.update_reading()

    def refuse_rest(self, refused: Refused) -> None:
        self.trouble = refused.reason
        if self.status == 0 and self.client is not None:
            self._answer(refused.status, refused.reason)
        self.give_up()

    # --- the response ---

    def on_interim(self, status: int, reason: bytes, headers: Headers) -> None:
        if self.client is None or self.head.version == "1.0":
            return
        if status != 100 or self.head.expects_continue:
            self.client.gather(forwarding.interim(status, reason, headers))

    def on_response(self, head: ResponseHead) -> None:
        self.status = head.status
        if head.length is None and b"content-type" in head.names:
            value = head.headers[head.names.index(b"content-type")][1]
            self._is_event_stream = value.lower().startswith(_EVENT_STREAM)
        client = self.client
        if client is None:
            return
        version = self.head.version
        self._chunked = head.length is None and version == "1.1"
        close = not self.keep_alive or self._hub.closing or (head.length is None and not self._chunked)
        self.keep_alive = not close
        self._may_hold = head.length is not None and 0 < head.length <= HIGH_WATER
        client.gather(forwarding.to_client(head, chunked=self._chunked, close=close, version=version))

    def on_response_body(self, data: bytes) -> None:
        self.response_bytes += len(data)
        self._may_hold = False
        if self.client is not None:
            self.client.gather(chunk(data) if self._chunked else data)
        else:
            self._drained += len(data)

    def on_response_end(self, trailers: Headers) -> None:
        self._finished = True
        if self._chunked and self.client is not None:
            self.client.gather(last_chunk(trailers))

    def on_upgraded(self) -> None:
        self._upgraded = True
        self.status = 101
        self.keep_alive = False
        if self.client is not None:
            self.client.flush()
            self._out.append(self.client.take_rest())
            self.flush()

    def on_tunnel(self, data: bytes) -> None:
        self.response_bytes += len(data)
        if self.client is not None:
            self.client.gather(data)

    def tunnel(self, data: bytes) -> bool:
        if self._upgraded and self.upstream is not None:
            self._body_bytes += len(data)
            self.upstream.write(data)
        return self._upgraded

    def end_tunnel(self) -> None:
        if self.upstream is not None:
            self.upstream.write_eof()

    def on_fed(self) -> None:
        if self._may_hold:
            # Many servers send the head and the body in two parts, of which the second comes at once.
            self._may_hold = False
            self._holds = True
            self._hub.hold(self)
            return
        self._holds = False
        if self.client is not None:
            self.client.flush()
        if self._finished:
            self._finish()
        elif self._drained > DRAIN_BYTES:
            self.give_up()

    def release_head(self) -> None:
        """The body takes its time."""
        if self._holds and self.client is not None:
            self.client.flush()
        self._holds = False

    def pause_response(self) -> None:
        self._paused = True
        if self.upstream is not None:
            self.upstream.pause_reading()

    def resume_response(self) -> None:
        if self._paused:
            self._paused = False
            if self.upstream is not None:
                self.upstream.resume_reading()

    # --- ends of all kinds ---

    def refuse(self, reason: str) -> None:
        """The pool has no instance for it."""
        self.trouble = reason
        self._answer(503, reason)
        self._close_books(_NO_SPAN)

    def client_gone(self) -> None:
        self.client = None
        if self.ended:
            return
        self.trouble = self.trouble or "the client went away"
        if self.member is None:
            self._hub.pool.cancel(self)
            self._close_books(_NO_SPAN)
            return
        if self.upstream is None or self._upgraded or self._is_event_stream:
            self.give_up()  # not sent yet; or it would go on for as long as somebody listens
            return
        self.drain_until = time.monotonic() + DRAIN
        self.resume_response()
        if not self.complete:
            self.upstream.write_eof()

    def on_broken(self, reason: str) -> None:
        upstream, self.upstream = self.upstream, None
        if self.ended:
            return
        if self._upgraded or self.client is None:
            self._finish()
            return
        if self.status:
            self.trouble = f"{reason} in the middle of the response"
            self.client.abort()
            self._finish()
        elif self._replay is not None and upstream is not None and upstream.served > 1 and upstream.closed:
            # The server closed a connection that had been idle, at the moment at which it was used again.
            self._out = [self._replay]
            self._replay = None
            self._hub.connect(self)
        else:
            self._timer = asyncio.get_running_loop().call_later(VERDICT, self._answer_broken, reason)

    def _answer_broken(self, reason: str) -> None:
        if self.ended:
            return
        assert self.member is not None
        ended = self.member.instance.ended
        if ended.done() and not ended.cancelled():
            self.trouble = f"the application crashed while it served this request: {ending(ended.result())}"
        else:
            self.trouble = f"{reason} without a response" if self._body_sent() else reason
        if self.client is not None:
            self._answer(502, self.trouble)
        self._finish()

    def _body_sent(self) -> bool:
        return not self._out

    def time_out(self, seconds: float) -> None:
        """It took longer than it may. What still runs for it keeps nobody else waiting."""
        member = self.member
        self.cut_off(f"it took longer than {seconds:g} s", 504)
        if member is not None:
            self._hub.pool.retire(member, f"a request {self.trouble}")

    def cut_off(self, reason: str, status: int = 503) -> None:
        """Answer with ``status``, or break off the answer that has begun."""
        self.trouble = reason
        if self.client is not None:
            if self.status:
                self.client.abort()
            else:
                self._answer(status, reason)
        self.give_up()

    def _answer(self, status: int, reason: str) -> None:
        """Answer in the application's place."""
        self.status = status
        client = self.client
        if client is None:
            return
        if not self.complete:
            self.keep_alive = False
        text = "" if self.head.method == b"HEAD" else f"tmpguard: {reason}\n"
        client.gather(forwarding.own(status, text, close=not self.keep_alive))

    def give_up(self) -> None:
        """End the request although the application has not answered it."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()
        self._finish()

    def _finish(self) -> None:
        """The request is over as far as the instance is concerned."""
        if self.ended:
            return
        member, upstream = self.member, self.upstream
        self.upstream = None
        now = time.monotonic()
        span = _NO_SPAN
        if member is not None:
            if upstream is not None:
                if not self.complete:
                    upstream.abort()
                elif upstream.end_exchange(now):
                    member.connections.append(upstream)
            self._shared = self._shared or member.overlaps != self._overlaps
            self.ended = True
            span = self._hub.pool.release(member)
        self._close_books(span)

    def _close_books(self, span: Span) -> None:
        self.ended = True
        self.blocked = False
        self._out.clear()
        self._holds = False
        if self._timer is not None:
            self._timer.cancel()
        self._hub.active.discard(self)
        client = self.client
        self._hub.on_done(self._done(span))
        if client is not None:
            client.turn_over(self)

    def _done(self, span: Span) -> Done:
        now = time.monotonic()
        member = self.member
        return Done(
            self.head.method.decode("latin-1"),
            self.head.target.decode("latin-1"),
            self.status if self.client is not None or self._upgraded else 499,
            now - self.began,
            (self.dispatched or now) - self.began,
            self._body_bytes,
            self.response_bytes,
            None if member is None else member.number,
            span,
            self.trouble,
            self._shared,
        )
