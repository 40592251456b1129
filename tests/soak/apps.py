"""The applications of the soak: ``/NAME?seed=N&body=KIND`` does the operation of that name.

The answer is ``ok``, or what got in the way of it. What is wrong is a line in the file ``SOAK_PROBLEMS``. A
timer's signal handler touches files all the time.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import posix
import resource
import signal
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from random import Random
from typing import Any
from urllib.parse import parse_qs

import tmpguard
from tests.soak import operations
from tests.soak.claims import Claims, pages
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

#: What may get in the way of any operation: no descriptors, and no room on the real disk.
HINDRANCES = (errno.EMFILE, errno.ENOSPC)

#: Seconds between two signals.
TICK = 0.02

#: The size of a streamed body, and of its parts.
BODY, PART = 400_000, 20_000


class Log:
    """Appends to a file that it holds open: forked processes do, too, and it needs no descriptor."""

    def __init__(self, variable: str) -> None:
        self._descriptor = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, text: str) -> None:
        posix.write(self._descriptor, text.encode())  # late work complains, too


PROBLEMS, REPORTS = Log("SOAK_PROBLEMS"), Log("SOAK_REPORTS")
_answered = 0
_ticks = itertools.count()


def complain(text: str) -> None:
    PROBLEMS.write(json.dumps(text) + "\n")


def check(report: tmpguard.Report) -> None:
    """A report is final."""
    claims = getattr(report, "claims", None)
    # Without a descriptor nobody can tell what a wiped directory held.
    if claims is not None and not operations.were_short(claims):
        wrong = claims.wrong(report, "afterwards")
        if wrong:
            complain(wrong)
    REPORTS.write(".")


GUARD = tmpguard.Guard(storage_size=1, bundle=None, on_report=check)

resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["SOAK_DESCRIPTORS"]), 4096))


# --- signals -------------------------------------------------------------------------------------------


def on_tick(number: int, frame: object) -> None:
    if operations.interruptible:
        operations.interruptible = False
        raise operations.Interrupted
    invocation = tmpguard.current()
    # What a thread does for the request at the same time is not to see the file.
    if invocation is not None and not hasattr(invocation, "is_in_thread"):
        path = f"/tmp/.tick-{next(_ticks)}"  # a handler may interrupt itself
        try:
            with open(path, "w"):
                os.stat(path)
            os.unlink(path)
        except OSError as exc:
            if exc.errno not in (*HINDRANCES, errno.ESTALE):
                complain("".join(traceback.format_exception(exc)))


def tick() -> None:
    """Begin to send signals to this process, unless it is a request's child: a timer outlives exec."""
    if tmpguard.current() is None:
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)


if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGALRM, on_tick)
    tick()
    os.register_at_fork(after_in_child=tick)


# --- requests ------------------------------------------------------------------------------------------


def answer(path: str, query: str) -> Iterable[bytes]:
    """Do what is asked for and return the body."""
    global _answered
    _answered += 1
    options = {name: values[0] for name, values in parse_qs(query).items()}
    name, seed, kind = path.strip("/"), int(options.get("seed", 0)), options.get("body", "")
    if name == "stats":
        return [json.dumps(stats()).encode()]
    invocation = tmpguard.current()
    if invocation is None:
        complain("no invocation is current")
        return [b"ok"]
    mark_thread(threading.current_thread() is not threading.main_thread())
    report = invocation.report
    claims = Claims(name)
    report.claims = claims  # type: ignore[attr-defined]
    try:
        if found := os.listdir("/tmp"):
            complain(f"{name} began with {found} in /tmp")
        operations.BY_NAME[name](Random(seed), claims, complain)
        if kind == "stream":
            return streamed(claims)
        if wrong := claims.wrong(report, "at its end"):
            complain(wrong)
    except OSError as exc:
        claims.void(str(exc))
        if exc.errno not in HINDRANCES:
            raise
        return [b"hindered"]
    return [b"ok"]


def mark_thread(is_in_thread: bool) -> None:
    """Note that the invocation's work is done by another thread than the one that gets the signals."""
    if is_in_thread:
        vars(tmpguard.current())["is_in_thread"] = True


def streamed(claims: Claims) -> Iterator[bytes]:
    """A body that is read from a file in /tmp; clients go away in the middle."""
    body = open("/tmp/body.bin", "w+b")
    body.write(b"x" * BODY)
    body.seek(0)
    for name in ("used", "peak"):
        before = getattr(claims, name)
        if before is not None:
            setattr(claims, name, before + pages(BODY))
    claims.peak = None
    if claims.files is not None:
        claims.files += 1

    def parts() -> Iterator[bytes]:
        with body:
            while part := body.read(PART):
                yield part

    return parts()


def stats() -> dict[str, int]:
    """Of this process."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * resource.getpagesize()
    return {
        "process": os.getpid(),
        "answered": _answered,
        "memory": resident,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def failed(exc: BaseException) -> bytes:
    if not (isinstance(exc, OSError) and exc.errno in HINDRANCES):
        complain("".join(traceback.format_exception(exc)))
    return b"failed"


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    try:
        body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    except Exception as exc:
        body = [failed(exc)]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body


Message = dict[str, Any]


async def asgi_app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    query = scope["query_string"].decode()
    try:
        # Half of the requests in the event loop's own thread, where the signals arrive.
        if "place=thread" in query:
            mark_thread(True)
            body = await asyncio.to_thread(answer, scope["path"], query)
        else:
            body = answer(scope["path"], query)
    except Exception as exc:
        body = [failed(exc)]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for part in body:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


asgi = TmpGuardMiddleware(asgi_app, guard=GUARD)
wsgi = WsgiMiddleware(wsgi_app, guard=GUARD)  # type: ignore[arg-type]
