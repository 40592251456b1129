"""The page at ``/__tmpguard__/``: what a run does, live by server-sent events."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from collections import deque
from collections.abc import Callable
from importlib import resources
from itertools import islice
from typing import Any, Final, NamedTuple

from tmpguard.core.version import __version__

from .http.local import Local
from .http.turns import Done
from .ledger import Ledger
from .protocols import Span

Data = dict[str, Any]

PREFIX: Final = b"/__tmpguard__/"

#: The requests and findings that are shown, and the pages that may be open at one time.
REQUESTS: Final = 200
FINDINGS: Final = 50
LISTENERS: Final = 16
#: Seconds between two messages to a page.
PAUSE: Final = 0.25
#: Seconds between two lists of findings, which take longer to make.
FINDINGS_PAUSE: Final = 1.0
#: Seconds after which a page is told that it is still connected.
ALIVE: Final = 15.0

_FILES: Final = {
    "": ("dashboard.html", "text/html; charset=utf-8"),
    "dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
}
_HEADERS: Final = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
)


class About(NamedTuple):
    """What does not change during a run."""

    name: str
    storage_size: int
    instances: int
    concurrency: int


class Dashboard:
    """The page of one function. ``instances`` gives what its pool looks like, as plain data."""

    def __init__(self, about: About, ledger: Ledger, status: Callable[[], Data]) -> None:
        self._about = about
        self._ledger = ledger
        self._status = status
        self._requests: deque[tuple[Done, float]] = deque(maxlen=REQUESTS)
        self._count = 0
        #: Each open page, and the number of requests that it has been told of.
        self._listeners: dict[Local, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._found = 0
        self._told_found = -1
        self._findings_at = 0.0
        self._told_status: Data = {}
        self._told_at = 0.0

    # --- what happens ---

    def add_request(self, done: Done, when: float) -> None:
        """A request is over."""
        self._count += 1
        self._found += len(done.span.violations)
        self._requests.append((done, when))

    def add_findings(self, span: Span | None = None, late: int = 0) -> None:
        """There are findings that belong to no request's line."""
        self._found += late + (len(span.violations) if span is not None else 0)

    # --- pages ---

    def handle(self, local: Local) -> None:
        """Answer a request for the page, or for a part of it."""
        name = local.head.target[len(PREFIX) :].partition(b"?")[0].decode("latin-1")
        if not _is_local(local):
            local.respond(403, "text/plain; charset=utf-8", "tmpguard: this page is for this machine only\n")
        elif local.head.method not in (b"GET", b"HEAD"):
            local.respond(405, "text/plain; charset=utf-8", "tmpguard: this page is read only\n")
        elif name == "events":
            self._listen(local)
        elif name in _FILES:
            file, content_type = _FILES[name]
            local.respond(200, content_type, _file(file), _HEADERS)
        else:
            local.respond(404, "text/plain; charset=utf-8", "tmpguard: there is no such page\n")

    def _listen(self, local: Local) -> None:
        if len(self._listeners) >= LISTENERS:
            local.respond(503, "text/plain; charset=utf-8", "tmpguard: too many pages are open\n")
            return
        local.on_gone = lambda: self._forget(local)
        local.stream("text/event-stream; charset=utf-8")
        first = {
            "about": {**self._about._asdict(), "tmpguard": __version__, "now": round(time.time(), 3)},
            "requests": self._last(len(self._requests)),
            "status": self._status(),
            "findings": self._findings(),
        }
        self._listeners[local] = self._count
        _send(local, first)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._tell)

    def _forget(self, local: Local) -> None:
        self._listeners.pop(local, None)

    def _findings(self) -> list[Data]:
        data = self._ledger.data()
        late = [{**one, "late": True} for one in data["late_writes"]]
        return [*data["violations"], *late][:FINDINGS]

    def _last(self, count: int) -> list[Data]:
        """The last requests as plain data."""
        skipped = len(self._requests) - count
        return [_request_data(*one) for one in islice(self._requests, skipped, None)]

    def _tell(self) -> None:
        """Tell all pages what is new."""
        self._timer = None
        if not self._listeners:
            return
        message: Data = {}
        status = self._status()
        if status != self._told_status:
            message["status"] = self._told_status = status
        now = time.monotonic()
        if self._found != self._told_found and now - self._findings_at >= FINDINGS_PAUSE:
            self._told_found, self._findings_at = self._found, now
            message["findings"] = self._findings()
        for local, told in list(self._listeners.items()):
            if local.blocked:
                continue  # it catches up with what is still there later
            fresh = min(self._count - told, len(self._requests))
            self._listeners[local] = self._count
            if fresh or message:
                _send(local, {**message, "requests": self._last(fresh)})
                self._told_at = now
            elif now - self._told_at > ALIVE:
                local.send(b": alive\n\n")
        if now - self._told_at > ALIVE:
            self._told_at = now
        self._timer = asyncio.get_running_loop().call_later(PAUSE, self._tell)

    def close(self) -> None:
        """The run has ended."""
        if self._timer is not None:
            self._timer.cancel()


def _request_data(done: Done, when: float) -> Data:
    return {
        "time": round(when, 3),
        "method": done.method,
        "target": done.target[:300],
        "status": done.status,
        "seconds": round(done.seconds, 6),
        "waited": round(done.waited, 6),
        "instance": done.number,
        "peak": done.span.peak_bytes,
        "files": done.span.files,
        "findings": len(done.span.violations),
        "shared": done.shared,
        "trouble": done.trouble,
    }


def _send(local: Local, message: Data) -> None:
    local.send(b"data: %s\n\n" % json.dumps(message, ensure_ascii=True).encode())


def _file(name: str) -> str:
    text = resources.files("tmpguard.emulator").joinpath("page", name).read_text(encoding="utf-8")
    if name == "dashboard.css":
        shared = resources.files("tmpguard.reporting").joinpath("page.css").read_text(encoding="utf-8")
        return shared + text
    return text


def _is_local(local: Local) -> bool:
    """Whether the page is asked for by an address, or by the name of this machine.

    Any other name may be that of a page elsewhere that was made to lead here, to read what is shown.
    """
    value = next((value for name, value in local.head.headers if name.lower() == b"host"), b"").decode(
        "latin-1"
    )
    host = value.rpartition(":")[0] if value.rpartition(":")[2].isdigit() else value
    host = host.strip("[]").lower()
    if host in ("localhost", os.uname().nodename.lower()) or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
