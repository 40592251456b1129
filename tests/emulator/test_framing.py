"""Where messages begin and end; what can be read in two ways is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpguard.emulator.http.framing import HEAD_BYTES, Headers, Refused, RequestHead, RequestReader


class Sink:
    """Notes what a reader says. Bodies are joined, however they come."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_request(self, head: RequestHead) -> None:
        self.events.append(head)

    def on_request_body(self, data: bytes) -> None:
        if self.events and isinstance(self.events[-1], bytes):
            data = self.events.pop() + data
        self.events.append(data)

    def on_request_end(self, trailers: Headers) -> None:
        self.events.append(("end", trailers))

    def on_request_refused(self, refused: Refused) -> None:
        self.events.append(("refused", refused.status))


def read(*parts: bytes) -> list[Any]:
    sink = Sink()
    reader = RequestReader(sink)
    for part in parts:
        reader.feed(part)
    return sink.events


def test_a_request_with_a_body_of_known_length() -> None:
    [head, body, end] = read(b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A:  b \r\n\r\nabc")
    assert (head.method, head.target, head.version, head.length) == (b"POST", b"/a?b=c", "1.1", 3)
    assert head.headers == [(b"Host", b"h"), (b"Content-Length", b"3"), (b"X-A", b"b")]
    assert head.keep_alive
    assert (body, end) == (b"abc", ("end", []))


def test_a_chunked_request_with_trailers() -> None:
    [head, body, end, second, _] = read(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: u\r\n\r\n"
        b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert head.length is None
    assert (body, end) == (b"abcd", ("end", [(b"T", b"u")]))
    assert second.target == b"/2"


AMBIGUOUS = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    "both lengths, the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3",
    "a list of lengths": b"Content-Length: 3, 3",
    "a signed length": b"Content-Length: +3",
    "a negative length": b"Content-Length: -3",
    "a hexadecimal length": b"Content-Length: 0x3",
    "an empty length": b"Content-Length: ",
    "a length too large to count": b"Content-Length: 99999999999999999999999",
    "another coding": b"Transfer-Encoding: gzip, chunked",
    "an unknown coding": b"Transfer-Encoding: xchunked",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunked and another coding": b"Transfer-Encoding: chunked, identity",
    "identity": b"Transfer-Encoding: identity",
    "a quoted coding": b'Transfer-Encoding: "chunked"',
    "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked",
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Content-Length\t: 3",
    "a folded line": b"Transfer-Encoding:\r\n chunked",
    "a name that begins with a space": b" Transfer-Encoding: chunked",
    "a line that ends with LF alone": b"X-A: b\nTransfer-Encoding: chunked",
    "a carriage return in a value": b"X-A: b\rTransfer-Encoding: chunked",
    "a NUL in a value": b"X-A: b\0c",
    "a NUL in a name": b"X-A\0: b",
    "a name without a colon": b"X-A",
    "two hosts": b"Host: other",
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(lines: bytes) -> None:
    request = (
        b"POST / HTTP/1.1\r\nHost: h\r\n"
        + lines
        + b"\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert read(request) == [("refused", 400)]
    assert read(*(bytes([one]) for one in request)) == [("refused", 400)]


REFUSED = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a host that is a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a host with a user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "HTTP/1.0 with chunks": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 501),
    "an unknown method": (b"FROB / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "CONNECT": (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    "a target that is none": (b"GET foo HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a target of another scheme": (b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a long head": (b"GET / HTTP/1.1\r\nHost: h\r\nX-A: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
    "many lines": (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431),
    "a long target": (b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_is_refused(request_: bytes, status: int) -> None:
    assert read(request_) == [("refused", status)]


def test_a_head_without_an_end_is_refused_in_time() -> None:
    events = read(b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ", *[b"a" * 10_000] * 8)
    assert events == [("refused", 431)]
    trailers = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert read(trailers, *[b"T: %s\r\n" % (b"a" * 10_000)] * 8)[-1] == ("refused", 431)


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"g\r\n",
    ],
)
def test_chunks_that_are_not_valid_are_refused(body: bytes) -> None:
    events = read(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert events[-1] == ("refused", 400)
    assert ("end", []) not in events


def test_what_follows_the_last_request_is_not_read() -> None:
    events = read(
        b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert [one.target for one in events if isinstance(one, RequestHead)] == [b"/1"]
    assert ("refused", 400) not in events
    events = read(b"GET /1 HTTP/1.0\r\n\r\n", b"GET /2 HTTP/1.0\r\n\r\n")
    assert [one.target for one in events if isinstance(one, RequestHead)] == [b"/1"]


def test_an_address_as_target_is_its_path_on_its_host() -> None:
    [head, _] = read(b"GET http://inner:80/a?b HTTP/1.1\r\nHost: outer\r\n\r\n")
    assert (head.target, head.headers) == (b"/a?b", [(b"Host", b"inner:80")])
    [head, _] = read(b"GET http://inner?b HTTP/1.1\r\nHost: outer\r\n\r\n")
    assert head.target == b"/?b"
    [head, _] = read(b"OPTIONS * HTTP/1.1\r\nHost: outer\r\n\r\n")
    assert head.target == b"*"


# --- other protocols -----------------------------------------------------------------------------------

UPGRADE = b"Host: h\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"


def test_after_a_request_for_another_protocol_nothing_is_read() -> None:
    sink = Sink()
    reader = RequestReader(sink)
    reader.feed(b"GET / HTTP/1.1\r\n" + UPGRADE % b"WebSocket" + b"\r\nGET /2 HTTP/1.1\r\n")
    reader.feed(b"Host: h\r\n\r\n")
    [head, end] = sink.events
    assert (head.upgrade, end) == (b"websocket", ("end", []))
    assert reader.rest == b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    # The application did not switch.
    reader.resume(reader.rest)
    assert [one.target for one in sink.events if isinstance(one, RequestHead)] == [b"/", b"/2"]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_a_request_for_another_protocol_with_a_body_is_read_as_any_other(protocol: bytes) -> None:
    second = b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
    for framed in (
        b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ):
        first = b"POST / HTTP/1.1\r\n" + UPGRADE % protocol + framed
        for parts in ([first + second], [bytes([one]) for one in first + second]):
            [head, body, end, other, last] = read(*parts)
            assert (head.upgrade, body, end, other.target, last) == (
                b"",
                b"abc",
                ("end", []),
                b"/2",
                ("end", []),
            )


def test_http_2_on_the_same_connection_is_not_offered() -> None:
    events = read(b"GET / HTTP/1.1\r\n" + UPGRADE % b"h2c" + b"\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [one.target for one in events if isinstance(one, RequestHead)] == [b"/", b"/2"]
    assert all(one.upgrade == b"" for one in events if isinstance(one, RequestHead))


# --- how the bytes come --------------------------------------------------------------------------------

MESSAGES = (
    b"GET /1 HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n",
    b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab\r\nc",
    b"PUT /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n0\r\n\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"POST /4 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
    b"HEAD /5 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    b"POST /6 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.data())
def test_it_does_not_matter_how_the_bytes_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [event for message in messages for event in read(message)]
    if ("refused", 400) in expected:
        expected = expected[: expected.index(("refused", 400)) + 1]
    assert read(*parts) == expected
