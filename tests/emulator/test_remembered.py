"""Heads that come again, byte for byte, are not parsed again; what is read from them stays the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.test_framing import Sink
from tmpguard.emulator.http import framing
from tmpguard.emulator.http.framing import (
    Headers,
    Refused,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)


class Responses:
    """Notes what a reader of responses says."""

    def __init__(self) -> None:
        self.heads: list[ResponseHead] = []
        self.interims: list[int] = []
        self.body: list[bytes] = []

    def on_interim(self, status: int, reason: bytes, headers: Headers) -> None:
        self.interims.append(status)

    def on_response(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_response_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_response_end(self, trailers: Headers) -> None:
        assert trailers == []


def heads_of(sink: Sink) -> list[bytes]:
    """The targets of the requests, each of which has ended."""
    heads = [event for event in sink.events if isinstance(event, RequestHead)]
    assert sum(event == ("end", []) for event in sink.events) == len(heads)
    return [head.target for head in heads]


def test_a_head_that_comes_again_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it came as a whole, alone, and left nothing to read."""
    parsed: list[bytes] = []
    make = framing.request_head

    def noted(method: bytes, target: bytes, *more: Any) -> RequestHead:
        parsed.append(target)
        return make(method, target, *more)

    monkeypatch.setattr(framing, "request_head", noted)
    sink = Sink()
    reader = RequestReader(sink)
    plain = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    for data in (plain, plain, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n", plain, plain[:9], plain[9:], plain):
        reader.feed(data)
    assert heads_of(sink) == [b"/a", b"/a", b"/b", b"/a", b"/a", b"/a"]
    assert parsed == [b"/a", b"/b", b"/a"]


@pytest.mark.parametrize(
    "data",
    [
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTT",
    ],
)
def test_what_is_more_than_a_head_is_read_each_time(data: bytes) -> None:
    sink = Sink()
    reader = RequestReader(sink)
    rest = b"P/1.1\r\nHost: a\r\n\r\n" if data.endswith(b"HTT") else b""
    for _ in range(3):
        reader.feed(data)
        reader.feed(rest)
    each = 2 if data.count(b"GET") == 2 else 1
    assert heads_of(sink) == [b"/a"] * 3 * each
    bodies = [event for event in sink.events if isinstance(event, bytes)]
    assert bodies == [b"hi"] * (3 if data.endswith(b"hi") else 0)


def test_the_last_request_of_a_connection_is_the_last_one_every_time() -> None:
    last = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    sink = Sink()
    reader = RequestReader(sink)
    reader.feed(last)
    reader.feed(last)
    assert heads_of(sink) == [b"/a"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("cut", [len(HEAD) - 3, len(HEAD), len(HEAD) + 2, len(HEAD) + 5])
def test_a_response_whose_head_is_known_is_read_however_it_is_cut(cut: int) -> None:
    sink = Responses()
    reader = ResponseReader(sink)
    for number in range(4):
        reader.expect(b"GET", upgrading=False)
        body = b"body%d" % number
        whole = HEAD + body
        reader.feed(whole[:cut])
        assert reader.is_complete is (cut == len(whole))
        if cut < len(whole):
            reader.feed(whole[cut:])
        assert reader.is_complete
        assert b"".join(sink.body) == body
        sink.body.clear()
    assert [head.status for head in sink.heads] == [200] * 4


def test_a_known_head_promises_no_more_than_it_says() -> None:
    sink = Responses()
    reader = ResponseReader(sink)
    reader.expect(b"GET", upgrading=False)
    reader.feed(HEAD + b"hello")
    reader.expect(b"GET", upgrading=False)
    reader.feed(HEAD + b"he")
    assert not reader.end()
    reader = ResponseReader(sink)
    reader.expect(b"GET", upgrading=False)
    reader.feed(HEAD + b"hello")
    reader.expect(b"GET", upgrading=False)
    with pytest.raises(Refused, match="more than it was asked for"):
        reader.feed(HEAD + b"hello, and more")
    assert reader.is_complete
    assert b"".join(sink.body) == b"hellohehellohello"


def test_a_known_head_has_no_body_where_the_request_says_so() -> None:
    """The same bytes after GET, HEAD and GET."""
    sink = Responses()
    reader = ResponseReader(sink)
    for method, body in ((b"GET", b"hello"), (b"HEAD", b""), (b"GET", b"again")):
        reader.expect(method, upgrading=False)
        reader.feed(HEAD + body)
        assert reader.is_complete
    assert [(head.status, head.length) for head in sink.heads] == [(200, 5), (200, 0), (200, 5)]
    assert b"".join(sink.body) == b"helloagain"


def test_an_interim_head_is_not_taken_for_the_head_that_followed_it() -> None:
    sink = Responses()
    reader = ResponseReader(sink)
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nX-A: b\r\n\r\n"
    for _ in range(2):
        reader.expect(b"GET", upgrading=False)
        reader.feed(hint + HEAD + b"hello")
        assert reader.is_complete
    reader.expect(b"GET", upgrading=False)
    reader.feed(hint)
    assert not reader.is_complete
    reader.feed(HEAD + b"hello")
    assert reader.is_complete
    assert [head.status for head in sink.heads] == [200] * 3
    assert sink.interims == [103] * 3
