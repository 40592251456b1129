"""What the proxy passes on, both ways, between real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc

import h11
import pytest

from tests.emulator.support import PATIENCE, Call, Handler, echo, hello, run, stage, until
from tmpguard.emulator.http import client as client_module
from tmpguard.emulator.http import exchange as exchange_module
from tmpguard.emulator.http.local import Local

MB = 1_048_576


# --- requests and responses ----------------------------------------------------------------------------


def test_a_request_and_its_response_are_passed_on() -> None:
    seen: list[Call] = []

    async def handler(call: Call) -> None:
        seen.append(call)
        await call.answer(b"made", 201, x_a="b", set_cookie="c=d", connection="keep-alive, x-b", x_b="gone")

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(
                b"POST /a?b=c HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\nX-Own: 1\r\n"
                b"Connection: x-hop\r\nX-Hop: gone\r\nTE: gzip\r\nKeep-Alive: 5\r\nCookie: e=f\r\n\r\nbody"
            )
            answer = await peer.answer()
            assert (answer.status, answer.body) == (201, b"made")
            assert answer.headers["X-A"] == "b"
            assert answer.headers["Set-Cookie"] == "c=d"
            assert not {"Connection", "X-B"} & set(answer.headers)
            [call] = seen
            assert (call.method, call.target) == ("POST", "/a?b=c")
            assert (call.headers["host"], call.headers["cookie"]) == ("example.org", "e=f")
            assert not {"connection", "x-hop", "te", "keep-alive"} & set(call.headers)
            assert call.headers["x-forwarded-for"] == "127.0.0.1"
            assert call.headers["x-forwarded-proto"] == "http"
            assert call.headers["x-forwarded-host"] == "example.org"
            assert call.headers["x-forwarded-port"] == str(one.port)
            [done] = one.done
            assert (done.method, done.target, done.status, done.trouble) == ("POST", "/a?b=c", 201, "")
            assert (done.request_bytes, done.response_bytes, done.number) == (4, 4, 0)
            peer.close()

    run(main())


def test_another_proxy_in_front_is_believed() -> None:
    async def handler(call: Call) -> None:
        names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
        await call.answer(", ".join(call.headers[name] for name in names).encode())

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n"
                b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n"
            )
            assert (await peer.answer()).body == b"10.0.0.1, 10.0.0.2, 127.0.0.1, https, b"
            peer.close()

    run(main())


def test_a_connection_serves_one_request_after_another() -> None:
    async def main() -> None:
        async with stage(echo) as one:
            peer = await one.connect()
            for number in range(20):
                body = str(number).encode()
                peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                answer = await peer.answer()
                assert answer.body == body
                assert answer.headers["Transfer-Encoding"] == "chunked"
            [instance] = one.made
            assert instance.connections == 1
            assert instance.calls == ["begin", "finish"] * 20
            assert len(one.done) == 20
            peer.close()

    run(main())


def test_requests_that_come_at_once_are_answered_in_turn() -> None:
    async def echoing(call: Call) -> None:
        body = await call.body()
        await call.begin(content_length=str(len(body) + len(call.target)))
        await call.part(call.target.encode() + body)
        await call.end()

    async def main() -> None:
        async with stage(echoing, instances=3, concurrency=2) as one:
            peer = await one.connect()
            requests = [
                b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % number
                for number in range(50)
            ]
            peer.send(b"".join(requests))
            for number in range(50):
                assert (await peer.answer()).body == b"/%dabc" % number
            peer.close()

    run(main())


def test_requests_that_tmpguard_answers_itself_may_come_at_once_too() -> None:
    def handle(local: Local) -> None:
        local.respond(200, "text/plain", local.head.target.decode())

    async def main() -> None:
        async with stage(local=handle) as one:
            peer = await one.connect()
            targets = [b"/__tmpguard__/%d" % number if number % 100 else b"/" for number in range(3000)]
            peer.send(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target for target in targets))
            for target in targets:
                assert (await peer.answer()).body == (b"hello" if target == b"/" else target)
            peer.close()

    run(main())


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304)])
def test_responses_without_a_body(method: str, status: int) -> None:
    async def handler(call: Call) -> None:
        await call.body()
        await call.begin(status, **({"content_length": "5"} if status != 204 else {}), etag='"a"')
        await call.end()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            for _ in range(3):
                peer.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                answer = await peer.answer(method)
                assert (answer.status, answer.body, answer.headers["Etag"]) == (status, b"", '"a"')
                assert answer.headers.get("Content-Length") == (None if status == 204 else "5")
            assert one.made[0].connections == 1
            peer.close()

    run(main())


def test_a_body_that_no_head_response_has_does_not_become_the_next_response() -> None:
    async def handler(call: Call) -> None:
        if call.method == "HEAD":
            body = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            call.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await call.writer.drain()
            await asyncio.sleep(60)
        await call.answer(b"good")

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await peer.answer("HEAD")).status == 200
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await peer.answer()).body == b"good"
            assert one.made[0].connections == 2
            peer.close()

    run(main())


RESPONSES = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;a=b\r\nabc\r\n3\r\ndef\r\n0\r\nT: u\r\n\r\n",
    "until the end of the connection": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nabcdef",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nabcdef",
    "of HTTP/1.0, with its length": b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
    "after hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
    "without a reason": b"HTTP/1.1 200 \r\nContent-Length: 6\r\n\r\nabcdef",
    "more than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdefGARBAGE",
}


def scripted(response: bytes, *, slowly: bool = False) -> Handler:
    async def handler(call: Call) -> None:
        await call.body()
        for part in [bytes([one]) for one in response] if slowly else [response]:
            call.writer.write(part)
            await call.writer.drain()
            if slowly:
                await asyncio.sleep(0)
        call.writer.close()
        raise ConnectionError

    return handler


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_a_response_however_it_is_framed(response: bytes, slowly: bool, version: str) -> None:
    async def main() -> None:
        async with stage(scripted(response, slowly=slowly)) as one:
            peer = await one.connect()
            peer.send(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode())
            answer = await peer.answer()
            assert (answer.status, answer.body) == (200, b"abcdef")
            if version == "1.0":
                assert "Transfer-Encoding" not in answer.headers
                assert await peer.is_closed()
            else:
                peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await peer.answer()).body == b"abcdef"
            peer.close()

    run(main())


UNCLEAR = {
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\nabcdef",
    "no HTTP": b"hello\r\n\r\n",
    "a switch that nobody asked for": b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nX: ",
    "nothing": b"",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * MB,
}


@pytest.mark.parametrize("response", UNCLEAR.values(), ids=UNCLEAR)
def test_a_response_that_cannot_be_read_is_answered_502(response: bytes) -> None:
    async def main() -> None:
        async with stage(scripted(response)) as one:
            answer = await one.get()
            assert answer.status == 502
            assert answer.body.startswith(b"tmpguard: the ")
            assert one.done[0].trouble
            assert one.pool.busy == 0

    run(main())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
    ],
)
def test_a_response_that_breaks_off_is_seen_to_be_incomplete(response: bytes) -> None:
    async def main() -> None:
        async with stage(scripted(response)) as one:
            with pytest.raises(h11.RemoteProtocolError):
                await one.get()
            await until(lambda: one.done)
            assert "in the middle of the response" in one.done[0].trouble
            assert one.pool.busy == 0

    run(main())


def test_an_ambiguous_request_is_answered_400_and_not_passed_on() -> None:
    targets: list[str] = []

    async def handler(call: Call) -> None:
        targets.append(call.target)
        await call.answer()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            peer.send(
                b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            assert (await peer.answer()).status == 200
            answer = await peer.answer()
            assert (answer.status, answer.headers["Connection"]) == (400, "close")
            assert answer.body.startswith(b"tmpguard: the request is not valid")
            assert await peer.is_closed()
            assert targets == ["/1"]
            assert [one.status for one in one.refused] == [400]
            peer.close()

    run(main())


def test_a_body_that_turns_out_not_to_be_valid_ends_the_request() -> None:
    async def main() -> None:
        async with stage(echo) as one:
            peer = await one.connect()
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await peer.head()
            assert await peer.part() == b"abc"
            peer.send(b"xyz\r\n")
            with pytest.raises(h11.RemoteProtocolError):
                await peer.part()
            await until(lambda: one.done)
            assert one.pool.busy == 0
            assert (await one.get(method="POST", body=b"next")).body == b"next"
            peer.close()

    run(main())


# --- streams -------------------------------------------------------------------------------------------


def test_both_directions_are_streams() -> None:
    async def main() -> None:
        async with stage(echo) as one:
            peer = await one.connect()
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            await peer.head()
            for number in range(10):
                peer.send(b"1\r\n%d\r\n" % number)
                assert await peer.part() == b"%d" % number
            peer.send(b"0\r\n\r\n")
            assert await peer.part() == b""
            peer.close()

    run(main())


def test_events_arrive_one_by_one_and_end_when_nobody_listens() -> None:
    sent = 0
    gone = asyncio.Event()

    async def handler(call: Call) -> None:
        nonlocal sent
        await call.body()
        await call.begin(content_type="text/event-stream; charset=utf-8")
        try:
            while True:
                sent += 1
                await call.part(b"data: %d\n\n" % sent)
                await asyncio.sleep(0.005)
        except ConnectionError:
            gone.set()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await peer.head()
            for number in range(1, 4):
                assert await peer.part() == b"data: %d\n\n" % number
            peer.writer.transport.abort()
            await gone.wait()
            await until(lambda: one.done)
            assert (one.done[0].status, one.pool.busy) == (499, 0)

    run(main())


def test_the_application_says_when_a_body_may_come() -> None:
    async def handler(call: Call) -> None:
        if call.target == "/no":
            await call.begin(413, content_length="0")
            await call.end()
        else:
            await call.answer(b"got it")

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            head = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            peer.send(head % b"/yes")
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
            peer.send(b"abc")
            assert (await peer.answer()).body == b"got it"
            peer.send(head % b"/no")
            assert (await peer.answer()).status == 413
            assert await peer.is_closed()
            peer.close()

    run(main())


def test_a_client_that_did_not_ask_whether_it_may_send_is_not_told_so() -> None:
    response = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )

    async def main() -> None:
        async with stage(scripted(response)) as one:
            peer = await one.connect()
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await peer.reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            peer.close()

    run(main())


def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    async def handler(call: Call) -> None:
        await call.begin(413, content_length="3", connection="close")
        await call.part(b"big")
        await call.end()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (8 * MB) + bytes(2 * MB))
            assert (await peer.answer()).status == 413
            assert await peer.is_closed()
            assert one.pool.busy == 0
            peer.close()

    run(main())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_larger_than_what_may_be_held(framing: str) -> None:
    """The peak of what Python allocates stays far below the body, with a reader that is slow at first."""
    size, block = 40 * MB, bytes(range(256)) * 1024
    digest = hashlib.sha256()

    async def handler(call: Call) -> None:
        total = 0
        async for part in call.chunks():
            if not total:
                await asyncio.sleep(0.2)
            digest.update(part)
            total += len(part)
        await call.begin(content_length=str(len(str(total))))
        await call.part(str(total).encode())
        await call.end()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            if framing == "length":
                peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            else:
                peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            tracemalloc.start()
            try:
                for _ in range(size // len(block)):
                    peer.send(block if framing == "length" else b"%x\r\n%s\r\n" % (len(block), block))
                    await peer.writer.drain()
                peer.send(b"" if framing == "length" else b"0\r\n\r\n")
                assert (await peer.answer()).body == str(size).encode()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 6 * MB
            assert digest.digest() == hashlib.sha256(block * (size // len(block))).digest()
            peer.close()

    run(main())


def test_a_download_that_nobody_reads_waits_in_the_application() -> None:
    sent = 0

    async def handler(call: Call) -> None:
        nonlocal sent
        await call.body()
        await call.begin()
        for _ in range(400):
            await call.part(bytes(65_536))
            sent += 65_536
        await call.end()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: sent)
            before = -1
            while before != sent:  # it does not move any more
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 400 * 65_536
            assert len((await peer.answer()).body) == 400 * 65_536
            peer.close()

    run(main())


def test_a_body_that_waits_for_an_instance_is_not_read_into_memory() -> None:
    release = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.target == "/first":
            await release.wait()
        size = len(await call.body())
        await call.begin(content_length=str(len(str(size))))
        await call.part(str(size).encode())
        await call.end()

    async def main() -> None:
        async with stage(handler) as one:
            first = asyncio.ensure_future(one.get("/first"))
            await until(lambda: one.pool.busy)
            peer = await one.connect()
            size = 20 * MB
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            tracemalloc.start()
            try:
                peer.writer.transport.set_write_buffer_limits(high=0)
                sending = asyncio.ensure_future(write_all(peer.writer, size))
                await asyncio.sleep(0.3)
                assert not sending.done()
                assert tracemalloc.get_traced_memory()[1] < 4 * MB
            finally:
                tracemalloc.stop()
            release.set()
            assert (await first).body == b"0"
            await sending
            assert (await peer.answer()).body == str(size).encode()
            peer.close()

    run(main())


async def write_all(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // 65_536):
        writer.write(bytes(65_536))
        await writer.drain()


# --- other protocols -----------------------------------------------------------------------------------


async def upper(call: Call) -> None:
    """Switches to a protocol that gives everything back in upper case, until ``bye``."""
    await call.body()
    await call.send(
        h11.InformationalResponse(status_code=101, headers=[("Connection", "upgrade"), ("Upgrade", "upper")])
    )
    data = call._connection.trailing_data[0]
    while data != b"bye":
        call.writer.write(data.upper())
        data = await call.reader.read(65_536)
        if not data:
            break
    call.writer.write(b"END")
    raise ConnectionError


SWITCH = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: upper\r\n\r\n"


def test_another_protocol_is_a_tunnel() -> None:
    async def main() -> None:
        async with stage(upper) as one:
            peer = await one.connect()
            peer.send(SWITCH + b"early")
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nConnection: Upgrade\r\n" in head
            assert b"upgrade: upper\r\n" in head.lower()
            assert await peer.reader.readexactly(5) == b"EARLY"
            for word in (b"abc", b"GET / HTTP/1.1\r\n\r\n", bytes(200_000)):
                peer.send(word)
                assert await peer.reader.readexactly(len(word)) == word.upper()
            assert (one.pool.busy, one.done) == (1, [])
            peer.send(b"bye")
            assert await peer.reader.read() == b"END"
            await until(lambda: one.done)
            assert (one.done[0].status, one.pool.busy) == (101, 0)
            peer.close()

    run(main())


@pytest.mark.parametrize("how", ["eof", "abort"])
def test_a_tunnel_ends_with_its_client(how: str) -> None:
    async def main() -> None:
        async with stage(upper) as one:
            peer = await one.connect()
            peer.send(SWITCH + b"a")
            await peer.reader.readuntil(b"A")
            if how == "eof":
                peer.writer.write_eof()
                assert await peer.reader.read() == b"END"
            else:
                peer.writer.transport.abort()
            await until(lambda: one.done)
            assert one.pool.busy == 0
            peer.close()

    run(main())


def test_where_the_application_does_not_switch_http_goes_on() -> None:
    async def main() -> None:
        async with stage(hello) as one:
            peer = await one.connect()
            peer.send(SWITCH + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(2):
                assert (await peer.answer()).body == b"hello"
            peer.close()

    run(main())


# --- clients that go away ------------------------------------------------------------------------------


def test_a_request_whose_client_is_gone_keeps_its_place_until_it_is_done() -> None:
    release = asyncio.Event()

    async def handler(call: Call) -> None:
        if call.target == "/slow":
            await release.wait()
        await call.answer()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: one.pool.busy)
            peer.writer.transport.abort()
            await until(lambda: not one.proxy.clients)
            second = asyncio.ensure_future(one.get())
            await until(lambda: one.pool.waiting)
            assert (one.pool.busy, one.done) == (1, [])
            release.set()
            assert (await second).status == 200
            assert [(done.target, done.status) for done in one.done] == [("/slow", 499), ("/", 200)]
            assert one.made[0].calls == ["begin", "finish"] * 2

    run(main())


def test_what_nobody_waits_for_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "DRAIN", 0.2)

    async def handler(call: Call) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: one.pool.busy)
            peer.writer.transport.abort()
            await until(lambda: one.done)
            assert (one.done[0].trouble, one.pool.busy) == ("the client went away", 0)

    run(main())


def test_a_response_that_nobody_reads_any_more_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(call: Call) -> None:
        await call.body()
        await call.begin()
        for _ in range(100):
            await call.part(bytes(65_536))
        await call.end()

    async def main(limit: int) -> None:
        monkeypatch.setattr(exchange_module, "DRAIN_BYTES", limit)
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await peer.reader.read(1)
            peer.writer.transport.abort()
            await until(lambda: one.done)
            assert (one.done[0].response_bytes == 100 * 65_536) is (limit > MB)
            assert one.pool.busy == 0

    run(main(1 << 30))
    run(main(MB))


def test_half_a_request_ends_with_its_client() -> None:
    got = asyncio.Event()

    async def handler(call: Call) -> None:
        try:
            await call.body()
        finally:
            got.set()

    async def main() -> None:
        async with stage(handler) as one:
            peer = await one.connect()
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            await until(lambda: one.pool.busy)
            peer.close()
            await got.wait()
            await until(lambda: one.done)
            assert one.pool.busy == 0

    run(main())


def test_a_request_that_waits_goes_with_its_client() -> None:
    release = asyncio.Event()
    targets: list[str] = []

    async def handler(call: Call) -> None:
        targets.append(call.target)
        await release.wait()
        await call.answer()

    async def main() -> None:
        async with stage(handler) as one:
            first = asyncio.ensure_future(one.get("/1"))
            await until(lambda: one.pool.busy)
            peer = await one.connect()
            peer.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: one.pool.waiting)
            peer.writer.transport.abort()
            await until(lambda: not one.pool.waiting)
            release.set()
            await first
            assert targets == ["/1"]

    run(main())


def test_silent_clients_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CLIENT_IDLE", 0.2)

    async def main() -> None:
        async with stage() as one:
            silent, half, served = [await one.connect() for _ in range(3)]
            half.send(b"GET / HTTP/1.1\r\nHos")
            served.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await served.answer()).status == 200
            for peer in (silent, half, served):
                assert await peer.is_closed()
                peer.close()

    run(main())


# --- applications that fail ----------------------------------------------------------------------------


def test_a_crash_is_answered_502_and_said_so() -> None:
    async def main() -> None:
        async def handler(call: Call) -> None:
            if call.target == "/crash":
                one.made[0].crash(-9)
            await call.answer(b"fine")

        async with stage(handler) as one:
            answer = await one.get("/crash")
            assert answer.status == 502
            assert answer.body.startswith(
                b"tmpguard: the application crashed while it served this request: it was killed by SIGKILL"
            )
            assert (await one.get()).body == b"fine"
            assert [ended[::2] for ended in one.log.ended] == [(0, True)]
            assert len(one.made) == 2
            assert one.pool.restarts == 1

    run(main())


def test_a_connection_that_was_closed_while_idle_costs_no_request() -> None:
    async def main() -> None:
        async with stage() as one:
            assert (await one.get()).body == b"hello"
            [instance] = one.made
            # The server closes it at the moment at which the next request comes.
            for writer in list(instance._writers):
                writer.transport.abort()
            assert (await one.get()).body == b"hello"
            assert instance.connections == 2

    run(main())


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "KEPT", 0.0)

    async def main() -> None:
        async with stage() as one:
            for _ in range(3):
                assert (await one.get()).body == b"hello"
            assert one.made[0].connections == 3

    run(main())


def test_a_request_that_takes_too_long_is_answered_504_and_its_instance_replaced() -> None:
    async def handler(call: Call) -> None:
        if call.target == "/slow":
            await asyncio.sleep(60)
        await call.answer()

    async def main() -> None:
        async with stage(handler, request_timeout=0.1) as one:
            answer = await one.get("/slow")
            assert (answer.status, answer.body) == (504, b"tmpguard: it took longer than 0.1 s\n")
            assert (await one.get()).status == 200
            assert len(one.made) == 2
            await until(lambda: one.log.ended)
            assert one.log.ended[0][2] is False

    run(main())


# --- the end -------------------------------------------------------------------------------------------


def test_what_was_sent_before_the_end_is_answered() -> None:
    """A request whose bytes nobody has read yet, and the first one of a connection that was just made."""

    async def main() -> None:
        async with stage(instances=2) as one:
            kept, new, later, idle = [await one.connect() for _ in range(4)]
            for peer in (kept, idle):
                peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await peer.answer()).status == 200
            for peer in (kept, new):
                peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            draining = asyncio.ensure_future(one.proxy.drain(PATIENCE))
            assert await idle.is_closed()
            later.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for peer in (kept, new, later):
                answer = await peer.answer()
                assert (answer.status, answer.headers["Connection"]) == (200, "close")
                assert await peer.is_closed()
                peer.close()
            await draining
            idle.close()

    run(main())


def test_what_cannot_be_answered_before_the_end_is_refused() -> None:
    """Without a reset, even while the client still sends."""

    async def handler(call: Call) -> None:
        await asyncio.sleep(PATIENCE)

    async def main() -> None:
        async with stage(handler) as one:
            running, waiting, late = [await one.connect() for _ in range(3)]
            running.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + bytes(4_000_000))
            await until(lambda: one.pool.busy)
            waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: one.pool.waiting)
            await one.proxy.drain(0.1)
            ending = asyncio.ensure_future(one.pool.stop())
            await until(lambda: not one.pool.waiting)
            late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await ending
            closing = asyncio.ensure_future(one.proxy.close())
            for peer in (running, waiting, late):
                answer = await peer.answer()
                assert (answer.status, answer.body) == (503, b"tmpguard: tmpguard is ending\n")
                peer.close()
            await closing
            assert [done.status for done in one.done] == [503] * 3

    run(main())


# --- tmpguard's own answers ----------------------------------------------------------------------------


def test_what_is_below_the_prefix_is_answered_by_tmpguard() -> None:
    streams: list[Local] = []
    gone = asyncio.Event()

    def handle(local: Local) -> None:
        if local.head.target.endswith(b"stream"):
            streams.append(local)
            local.on_gone = gone.set
            local.stream("text/event-stream")
            local.send(b"data: 1\n\n")
        else:
            local.respond(200, "text/html", "<p>é</p>")

    async def main() -> None:
        async with stage(local=handle) as one:
            peer = await one.connect()
            for body in (b"", b"abc"):
                peer.send(
                    b"POST /__tmpguard__/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
                answer = await peer.answer()
                assert (answer.body.decode(), answer.headers["Content-Type"]) == ("<p>é</p>", "text/html")
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await peer.answer()).body == b"hello"
            peer.send(b"GET /__tmpguard__/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await peer.reader.readuntil(b"data: 1\n\n")
            streams[0].send(b"data: 2\n\n")
            assert await peer.reader.readuntil(b"\n\n") == b"data: 2\n\n"
            peer.close()
            await gone.wait()
            assert [done.target for done in one.done] == ["/"]

    run(main())
