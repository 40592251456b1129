"""Where HTTP/1.1 messages begin and end. httptools parses; this module refuses what is not clearly framed.

Two parties that disagree about the end of a request are what request smuggling is made of (RFC 9112, 11.2). A
request is therefore only passed on if there is one way to read it, and it is written anew: the application
never sees the bytes of the client's head, nor its chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import httptools

Head = TypeVar("Head")
Headers = list[tuple[bytes, bytes]]
#: The names of headers in lower case, in the same order.
Names = list[bytes]

#: The most bytes of a message's head, or of the trailers of its body; as many as uvicorn allows.
HEAD_BYTES: Final = 65_536
#: The most header lines in a head.
HEAD_LINES: Final = 256

#: Meaningful for one connection only (RFC 9110, 7.6.1): never passed on.
_ONE_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)
#: The heads of one connection that are remembered, and the bytes of the longest: clients and servers send the
#: same head again and again, byte for byte.
_REMEMBERED: Final = 32
_LONGEST_REMEMBERED: Final = 4096
_NO_TRAILERS: Final = frozenset((b"content-length", b"host"))
#: A ``Connection`` header cannot remove these.
_KEPT: Final = frozenset((b"host", b"content-length", b"cookie", b"authorization"))


class Refused(Exception):
    """A message that is not passed on: the status for the client, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class RequestHead:
    """The head of a request that is clearly framed."""

    method: bytes
    target: bytes
    #: ``1.0`` or ``1.1``.
    version: str
    headers: Headers
    names: Names
    #: The bytes of the body. None if it is chunked.
    length: int | None
    keep_alive: bool
    #: The protocol that the client wants to switch to, in lower case; b"" for none.
    upgrade: bytes
    expects_continue: bool
    #: As the application gets it, once that was made.
    written: bytes = b""


@dataclass(slots=True)
class ResponseHead:
    """The head of a response."""

    status: int
    reason: bytes
    headers: Headers
    names: Names
    #: The bytes of the body. None if they are not known beforehand.
    length: int | None
    #: Whether the body ends with the connection.
    until_close: bool
    keep_alive: bool
    #: As clients get it, in the variants that were made.
    written: dict[object, bytes] = field(default_factory=dict)


class RequestSink(Protocol):
    """What a :class:`RequestReader` calls."""

    def on_request(self, head: RequestHead) -> None: ...

    def on_request_body(self, data: bytes) -> None: ...

    def on_request_end(self, trailers: Headers) -> None: ...

    def on_request_refused(self, refused: Refused) -> None:
        """The rest of the connection cannot be read any more."""
        ...


class ResponseSink(Protocol):
    """What a :class:`ResponseReader` calls."""

    def on_interim(self, status: int, reason: bytes, headers: Headers) -> None: ...

    def on_response(self, head: ResponseHead) -> None: ...

    def on_response_body(self, data: bytes) -> None: ...

    def on_response_end(self, trailers: Headers) -> None: ...


_MORE: Final = "the application sent more than it was asked for"


def _is_head(data: bytes, lines: int) -> bool:
    """Whether ``data`` is one head with so many header lines, and all parsers agree where its lines end."""
    ends = data.count(b"\n")
    return (
        len(data) <= _LONGEST_REMEMBERED
        and data.endswith(b"\r\n\r\n")
        and ends == lines + 2
        and data.count(b"\r\n") == ends
    )


def _remember(heads: dict[bytes, Head], data: bytes, head: Head) -> None:
    if len(heads) >= _REMEMBERED:
        heads.clear()
    heads[data] = head


class RequestReader:
    """Reads the requests of one connection, however many one read of the socket brings."""

    def __init__(self, sink: RequestSink) -> None:
        self._sink = sink
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        self._in_head = False
        #: Whether the parser is in the middle of a request.
        self._open = False
        #: The header lines of the head that was read last, -1 if none was in the present bytes.
        self._lines = -1
        self._remembered: dict[bytes, RequestHead] = {}
        self._muted = False
        self._done = False
        #: What followed a request that asks for another protocol, while that is undecided; else None.
        self.rest: bytes | None = None

    def _begin(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._names: Names = []
        self._size = 0
        self._fed = 0

    def feed(self, data: bytes) -> None:
        """Read ``data`` and call the sink for all that it completes."""
        if self.rest is not None:
            self.rest += data
            return
        if self._done:
            return
        between = not self._open
        if between and (known := self._remembered.get(data)) is not None:
            self._sink.on_request(known)
            self._sink.on_request_end([])
            return
        self._lines = -1
        self._fed = self._fed + len(data) if self._in_head else 0
        try:
            self._parser.feed_data(data)
            if self._in_head and self._fed > HEAD_BYTES:
                raise Refused(431, f"the head of the request has more than {HEAD_BYTES:,} bytes")
            if between and not self._open and self._lines >= 0:
                self._remember(data)
        except httptools.HttpParserUpgrade as exc:
            self._upgrade(data[exc.args[0] :])
        except httptools.HttpParserCallbackError as exc:
            cause = exc.__context__
            if not isinstance(cause, Refused):
                raise
            self._refuse(cause)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(Refused(501, "the method of the request is not known"))
        except httptools.HttpParserError as exc:
            self._refuse(Refused(400, f"the request is not valid HTTP/1.1: {exc}"))
        except Refused as exc:
            self._refuse(exc)

    def _remember(self, data: bytes) -> None:
        """All of ``data`` has been read: if it is one request without a body, it need not be parsed again."""
        head = self._head
        if head.length == 0 and head.keep_alive and not head.upgrade and _is_head(data, self._lines):
            _remember(self._remembered, data, head)

    def _refuse(self, refused: Refused) -> None:
        if not self._done:  # what follows the last request of a connection is of no interest
            self._done = True
            self._sink.on_request_refused(refused)

    def _upgrade(self, rest: bytes) -> None:
        """The parser stops at a request for another protocol, and skips the body that it may have."""
        head = self._head
        if head.upgrade:
            self.rest = rest
            return
        self.resume(rest, head if head.length != 0 else None)

    def resume(self, rest: bytes, within: RequestHead | None = None) -> None:
        """Read on in HTTP: no protocol was switched. ``within`` is the request whose body comes first."""
        self.rest = None
        self._parser = httptools.HttpRequestParser(self)
        if within is not None:
            framing = (
                b"Transfer-Encoding: chunked"
                if within.length is None
                else b"Content-Length: %d" % within.length
            )
            self._muted = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: -\r\n%s\r\n\r\n" % framing)
            self._muted = False
        if rest:
            self.feed(rest)

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        if self._done:
            raise Refused(400, "there is more after the last request of the connection")
        self._begin()
        self._in_head = self._open = True

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > HEAD_BYTES:
            raise Refused(414, f"the target of the request has more than {HEAD_BYTES:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value.strip(b" \t")))
        self._names.append(name.lower())
        self._size += len(name) + len(value) + 4
        if self._size + len(self._target) > HEAD_BYTES or len(self._headers) > HEAD_LINES:
            raise Refused(
                431, f"the head of the request has more than {HEAD_BYTES:,} bytes or {HEAD_LINES} lines"
            )

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._muted:
            self._headers = []
            return
        parser = self._parser
        self._head = head = request_head(
            parser.get_method(),
            self._target,
            parser.get_http_version(),
            self._headers,
            self._names,
            parser.should_keep_alive(),
            parser.should_upgrade(),
        )
        self._lines = len(self._headers)
        self._headers = []  # the trailers
        self._names = []
        self._size = 0
        self._sink.on_request(head)

    def on_body(self, data: bytes) -> None:
        self._sink.on_request_body(data)

    def on_message_complete(self) -> None:
        # The parser ends a request for another protocol at its head. It goes on if that has a body.
        self._open = False
        head = self._head
        if self._parser.should_upgrade() and not head.upgrade and head.length != 0:
            return
        self._done = not head.keep_alive
        self._sink.on_request_end(self._headers)


def request_head(
    method: bytes,
    target: bytes,
    version: str,
    headers: Headers,
    names: Names,
    keep_alive: bool,
    upgrade: bool,
) -> RequestHead:
    """The head of a request. Raises Refused where there is more than one way to read it."""
    if version not in ("1.1", "1.0"):
        raise Refused(505, f"HTTP/{version} is not supported")
    if method == b"CONNECT":
        raise Refused(405, "CONNECT is for proxies")
    length = _length(version, headers, names)
    hosts = names.count(b"host")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise Refused(400, "there is not exactly one Host")
    if hosts and _NO_HOST.search(headers[names.index(b"host")][1]):
        raise Refused(400, "Host is not a host")
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        target, headers, names = _origin_form(target, headers, names)
    wanted = b""
    if upgrade and length == 0 and version == "1.1":
        wanted = headers[names.index(b"upgrade")][1].lower()
        if wanted == b"h2c":
            wanted = b""  # HTTP/2 on the same connection would be requests that nobody counts
    expects = b"expect" in names and headers[names.index(b"expect")][1].lower() == b"100-continue"
    return RequestHead(
        method, target, version, headers, names, length, keep_alive, wanted, expects and version == "1.1"
    )


#: What no host name or address contains.
_NO_HOST: Final = re.compile(rb"[ \t,/\\@?#]")


def _length(version: str, headers: Headers, names: Names) -> int | None:
    """The bytes of a request's body; None if it is chunked."""
    lengths, codings = names.count(b"content-length"), names.count(b"transfer-encoding")
    if lengths + codings > 1:
        raise Refused(400, "the length of the body is given more than once")
    if lengths:
        value = headers[names.index(b"content-length")][1]
        if not value.isdigit():
            raise Refused(400, "Content-Length is not a number")
        return int(value)
    if codings:
        if headers[names.index(b"transfer-encoding")][1].lower() != b"chunked":
            raise Refused(400, "Transfer-Encoding is not just `chunked`")
        if version == "1.0":
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        return None
    return 0


def _origin_form(target: bytes, headers: Headers, names: Names) -> tuple[bytes, Headers, Names]:
    """``http://host/path`` as ``/path``, with the host as Host: it wins (RFC 9112, 3.2.2)."""
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() != b"http" or not rest:
        raise Refused(400, "the target of the request is neither a path nor an address")
    end = min((at for at in map(rest.find, (b"/", b"?")) if at >= 0), default=len(rest))
    host, path = rest[:end], rest[end:]
    if not host or b"@" in host:
        raise Refused(400, "the target of the request has no valid host")
    at = names.index(b"host") if b"host" in names else len(names)
    headers, names = [*headers], [*names]
    headers[at : at + 1], names[at : at + 1] = [(b"Host", host)], [b"host"]
    return path if path.startswith(b"/") else b"/" + path, headers, names


class ResponseReader:
    """Reads the responses of one connection to the application."""

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self._parser = httptools.HttpResponseParser(self)
        self._without_body = False
        self._bodiless = False
        self._upgrading = False
        self._ended = True
        self._head: ResponseHead | None = None
        #: Whether the parser is in the middle of a response, and the header lines of the last head.
        self._open = False
        self._lines = 0
        self._remembered: dict[bytes, ResponseHead] = {}
        #: The bytes that a body lacks whose head was remembered; None while the parser reads.
        self._lacking: int | None = None
        self._interim = False

    def expect(self, method: bytes, *, upgrading: bool) -> None:
        """A request with ``method`` has been sent: its response comes next."""
        self._without_body = method == b"HEAD"
        self._upgrading = upgrading
        self._ended = False
        self._head = None
        self._size = 0

    def feed(self, data: bytes) -> bytes | None:
        """Read ``data`` and call the sink for what it completes.

        Returns None, or the bytes of another protocol from where it begins. Raises Refused with the status
        502 if it is not one clearly framed response.
        """
        if self._lacking is not None:
            self._feed_body(data, self._lacking)
            return None
        end = -1
        self._interim = False
        if not (self._open or self._ended or self._without_body or self._upgrading):
            end = data.find(b"\r\n\r\n") + 4
            known = self._remembered.get(data[:end])
            if known is not None and known.length is not None:
                self._head = known
                self._sink.on_response(known)
                self._feed_body(data[end:], known.length)
                return None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            if not self._upgrading:
                raise Refused(502, "the application switched to a protocol that nobody asked for") from None
            return data[exc.args[0] :]
        except httptools.HttpParserCallbackError as exc:
            if isinstance(exc.__context__, Refused):
                raise exc.__context__ from None
            raise
        except httptools.HttpParserError as exc:
            raise Refused(502, f"the application's response is not valid HTTP/1.1: {exc}") from None
        if end > 3 and not self._interim:
            self._remember(data[:end])
        if self._head is None and not self._ended:
            self._size += len(data)
            if self._size > 4 * HEAD_BYTES:
                raise Refused(502, "the head of the application's response is too long")
        if self._bodiless and self._ended:
            # The parser may not know that no body follows, and wait for one.
            self._bodiless = False
            self._parser = httptools.HttpResponseParser(self)
        return None

    def _feed_body(self, data: bytes, lacking: int) -> None:
        """Read on after a head that was remembered: as many bytes as that says."""
        body = data[:lacking]
        self._lacking = lacking - len(body)
        if body:
            self._sink.on_response_body(body)
        if not self._lacking:
            self._lacking = None
            self._finish([])
        if len(data) > lacking:
            raise Refused(502, _MORE)

    def _remember(self, start: bytes) -> None:
        """``start`` has been read: a head that tells the length of its body need not be parsed again."""
        head = self._head
        if head is None or head.length is None or not head.keep_alive or head.status in (204, 304):
            return
        if _is_head(start, self._lines):
            _remember(self._remembered, start, head)

    @property
    def is_complete(self) -> bool:
        """Whether the response that was expected has been read to its end."""
        return self._ended

    def end(self) -> bool:
        """The connection has ended. Returns False if that was in the middle of a response."""
        if not self._ended and self._head is not None and self._head.until_close:
            self._finish([])
        return self._ended

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        if self._ended:
            raise Refused(502, _MORE)
        self._open = True
        self._headers: Headers = []
        self._names: Names = []
        self._reason = b""

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value.strip(b" \t")))
        self._names.append(name.lower())

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        names, self._names = self._names, []
        self._lines = len(headers)
        if 100 <= status < 200:
            self._interim = True
            if status != 101 or self._upgrading:  # others are refused as the parser stops there
                self._sink.on_interim(status, self._reason, headers)
            return
        self._bodiless = bodiless = self._without_body or status in (204, 304)
        length, until_close = _body_of(headers, names)
        self._head = ResponseHead(
            status,
            self._reason,
            headers,
            names,
            0 if bodiless else length,
            until_close and not bodiless,
            _keeps_alive(self._parser, headers) if bodiless else self._parser.should_keep_alive(),
        )
        self._sink.on_response(self._head)
        if bodiless:
            self._finish([])

    def on_body(self, data: bytes) -> None:
        if self._ended:
            raise Refused(502, _MORE)
        self._sink.on_response_body(data)

    def on_message_complete(self) -> None:
        self._open = False
        if self._head is not None and not self._ended:  # not after an interim response
            self._finish(self._headers)

    def _finish(self, trailers: Headers) -> None:
        self._ended = True
        self._sink.on_response_end(trailers)


def _body_of(headers: Headers, names: Names) -> tuple[int | None, bool]:
    """The bytes of a response's body, None if unknown; and whether it ends with the connection."""
    if b"transfer-encoding" in names:
        return None, False
    if b"content-length" in names:
        return int(headers[names.index(b"content-length")][1]), False
    return None, True


def _keeps_alive(parser: httptools.HttpResponseParser, headers: Headers) -> bool:
    """Asked of a response without a body, which the parser may take for one that ends with the connection."""
    tokens = connection_tokens(headers)
    return b"close" not in tokens and (parser.get_http_version() == "1.1" or b"keep-alive" in tokens)


# --- writing -------------------------------------------------------------------------------------------


def connection_tokens(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """What the ``Connection`` headers name, in lower case."""
    tokens: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            tokens.update(token.strip().lower() for token in value.split(b","))
    return tokens


def end_to_end(headers: Headers, names: Names, more: frozenset[bytes] = frozenset()) -> Headers:
    """The headers that are passed on: neither those for one connection, nor ``more``, in lower case."""
    if _ONE_HOP.isdisjoint(names) and more.isdisjoint(names):
        return headers[:]
    left_out = _ONE_HOP | more
    if b"connection" in names:
        left_out |= connection_tokens(headers) - _KEPT
    return [one for one, name in zip(headers, names, strict=True) if name not in left_out]


def lower_names(headers: Headers) -> Names:
    """The names of ``headers`` in lower case."""
    return [name.lower() for name, _ in headers]


def written(first: bytes, headers: Headers) -> bytes:
    """A head: its first line and its headers."""
    return b"\r\n".join([first, *map(b": ".join, headers), b"", b""])


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body."""
    return (
        written(b"0", end_to_end(trailers, lower_names(trailers), _NO_TRAILERS)) if trailers else b"0\r\n\r\n"
    )
