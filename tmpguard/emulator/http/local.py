"""A request that tmpguard answers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from . import forwarding
from .client import Client
from .framing import Headers, Refused, RequestHead, ResponseHead


class Local:
    """A request that tmpguard answers itself."""

    def __init__(self, client: Client, head: RequestHead, handle: Callable[[Local], None]) -> None:
        self.client: Client | None = client
        self.head = head
        self.keep_alive = head.keep_alive
        self.blocked = False
        self.complete = False
        #: Called when the client has gone away.
        self.on_gone: Callable[[], None] = lambda: None
        self._handle = handle
        self._answered = False

    def respond(
        self, status: int, content_type: str, text: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Answer with ``text`` as a whole."""
        self._answered = True
        if self.client is not None:
            response = forwarding.own(
                status, text, close=not self.keep_alive, content_type=content_type, more=headers
            )
            if self.head.method == b"HEAD":
                response = response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            self.client.gather(response)
            if self.complete:
                self.client.turn_over(self)

    def stream(self, content_type: str) -> None:
        """Begin an answer of unknown length: :meth:`send` goes on with it until the client goes away."""
        self.keep_alive = False
        if self.client is not None:
            head = ResponseHead(
                200,
                b"OK",
                [(b"Content-Type", content_type.encode()), (b"Cache-Control", b"no-store")],
                [b"content-type", b"cache-control"],
                None,
                True,
                False,
            )
            self.client.gather(forwarding.to_client(head, chunked=False, close=True, version="1.1"))
            self.client.flush()

    def send(self, data: bytes) -> None:
        """Go on with the answer; nothing happens if the client does not keep up."""
        if self.client is not None and not self.blocked:
            self.client.gather(data)
            self.client.flush()

    def start(self) -> None:
        self._handle(self)

    def add_body(self, data: bytes) -> None:
        pass

    def end_body(self, trailers: Headers) -> None:
        self.complete = True
        if self._answered and self.client is not None:
            self.client.turn_over(self)

    def flush(self) -> None:
        pass

    def tunnel(self, data: bytes) -> bool:
        return False

    def end_tunnel(self) -> None:
        pass

    def refuse_rest(self, refused: Refused) -> None:
        if self.client is not None:
            self.client.end()

    def pause_response(self) -> None:
        self.blocked = True

    def resume_response(self) -> None:
        self.blocked = False

    def client_gone(self) -> None:
        self.client = None
        self.on_gone()
