"""The heads that the application and the client get: written anew from what was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from .framing import Headers, RequestHead, ResponseHead, end_to_end, lower_names, written

_REASONS: Final = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


_NONE: Final[frozenset[bytes]] = frozenset()
_LENGTH: Final = frozenset((b"content-length",))
_FORWARDED: Final = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
)


class Peer(NamedTuple):
    """The two ends of a client's connection."""

    address: bytes
    #: The proxy's own.
    host: bytes
    port: bytes


def to_application(head: RequestHead, peer: Peer) -> bytes:
    """The head of a request as the application gets it.

    ``X-Forwarded-For`` gets the client's address at its end. ``-Proto``, ``-Host`` and ``-Port`` are set
    unless another proxy in front of this one has done so. The same head always comes from the same ``peer``.
    """
    if not head.written:
        head.written = _to_application(head, peer)
    return head.written


def _to_application(head: RequestHead, peer: Peer) -> bytes:
    headers = end_to_end(head.headers, head.names)
    if b"host" in head.names:
        host = head.headers[head.names.index(b"host")][1]
    else:  # HTTP/1.0
        host = b"%s:%s" % (peer.host, peer.port)
        headers.append((b"Host", host))
    if _FORWARDED.isdisjoint(head.names):
        headers.append((b"X-Forwarded-For", peer.address))
        seen = _NONE
    else:
        headers = _appended(headers, peer.address)
        seen = frozenset(head.names)
    for name, lower, value in (
        (b"X-Forwarded-Proto", b"x-forwarded-proto", b"http"),
        (b"X-Forwarded-Host", b"x-forwarded-host", host),
        (b"X-Forwarded-Port", b"x-forwarded-port", peer.port),
    ):
        if lower not in seen:
            headers.append((name, value))
    if head.length is None:
        headers.append((b"Transfer-Encoding", b"chunked"))
    if head.upgrade:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", head.upgrade)]
    return written(b"%s %s HTTP/1.1" % (head.method, head.target), headers)


def _appended(headers: Headers, address: bytes) -> Headers:
    """``headers`` with one ``X-Forwarded-For``, at whose end is ``address``."""
    addresses = [value for name, value in headers if name.lower() == b"x-forwarded-for"]
    others = [one for one in headers if one[0].lower() != b"x-forwarded-for"]
    return [*others, (b"X-Forwarded-For", b", ".join([*addresses, address]))]


def to_client(head: ResponseHead, *, chunked: bool, close: bool, version: str) -> bytes:
    """The head of a response as the client gets it."""
    variant = chunked, close, version
    written = head.written.get(variant)
    if written is None:
        written = head.written[variant] = _to_client(head, chunked, close, version)
    return written


def _to_client(head: ResponseHead, chunked: bool, close: bool, version: str) -> bytes:
    unwanted = _LENGTH if chunked or head.status == 204 else _NONE
    headers = end_to_end(head.headers, head.names, unwanted)
    if head.status == 426:
        headers += [one for one in head.headers if one[0].lower() == b"upgrade"]
    if chunked:
        headers.append((b"Transfer-Encoding", b"chunked"))
    if close:
        headers.append((b"Connection", b"close"))
    elif version == "1.0":
        headers.append((b"Connection", b"keep-alive"))
    return written(b"HTTP/1.1 %d %s" % (head.status, head.reason), headers)


def interim(status: int, reason: bytes, headers: Headers) -> bytes:
    """The head of a response that another one follows, or of the switch to another protocol."""
    kept = end_to_end(headers, lower_names(headers))
    if status == 101:
        kept += [one for one in headers if one[0].lower() == b"upgrade"]
        kept.append((b"Connection", b"Upgrade"))
    return written(b"HTTP/1.1 %d %s" % (status, reason), kept)


def own(
    status: int,
    text: str,
    *,
    close: bool,
    content_type: str = "text/plain; charset=utf-8",
    more: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """A whole response of tmpguard's own."""
    body = text.encode()
    headers: Headers = [
        (b"Content-Type", content_type.encode()),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"Server", b"tmpguard"),
        *more,
    ]
    if status == 503:
        headers.append((b"Retry-After", b"1"))
    if close:
        headers.append((b"Connection", b"close"))
    reason = _REASONS.get(status, b"OK")
    return written(b"HTTP/1.1 %d %s" % (status, reason), headers) + body
