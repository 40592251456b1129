"""What a client's connection knows of the requests on it, and what is said of one that is over."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from ..protocols import Span
from .framing import Headers, Refused

#: Bytes that may wait in one direction before no more are read.
HIGH_WATER: Final = 65_536


class Done(NamedTuple):
    """A request that is over."""

    method: str
    target: str
    #: What the client got; 499 if it did not wait for it.
    status: int
    #: From the request's head to the response's end, and the part of it in the queue.
    seconds: float
    waited: float
    request_bytes: int
    response_bytes: int
    #: The instance; None if it did not get to one.
    number: int | None
    span: Span
    #: What went wrong, "" if nothing did.
    trouble: str
    #: Whether other requests ran in the instance at the same time, so that what happened may be theirs.
    shared: bool


class Turn(Protocol):
    """A request of a client, in the order in which they are answered."""

    #: Whether no more of the client's bytes can be taken now.
    blocked: bool
    keep_alive: bool
    #: Whether the request has been read to its end.
    complete: bool

    def start(self) -> None:
        """All requests before it have been answered."""
        ...

    def add_body(self, data: bytes) -> None: ...

    def end_body(self, trailers: Headers) -> None: ...

    def flush(self) -> None:
        """All bytes of one read have been handled."""
        ...

    def tunnel(self, data: bytes) -> bool:
        """Bytes of another protocol; False if it was not switched to one."""
        ...

    def end_tunnel(self) -> None:
        """The client will send no more."""
        ...

    def refuse_rest(self, refused: Refused) -> None:
        """The body is not valid."""
        ...

    def pause_response(self) -> None: ...

    def resume_response(self) -> None: ...

    def client_gone(self) -> None: ...
