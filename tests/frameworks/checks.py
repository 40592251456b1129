"""What an application of any framework has to do. It has these routes:

=====================  ====================================================================================
``GET /write/NAME``    writes NAME to ``same.txt``, and responds with its text and the names in ``/tmp``
``GET /thread``        has a thread write ``same.txt``, and responds with its text
``GET /outside``       opens ``outside.txt`` for writing, and responds with the error
``POST /upload``       saves the file ``file`` of a form as ``upload.txt``, and responds with its size
``GET /stream``        streams lines from ``body.txt``, which it has written before
``GET /file``          the same by the framework's own response for files
=====================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import httpx

import tmpguard
from tests.support import MB, listed

LINES = "".join(f"line {number}\n" for number in range(2000))


class Response(Protocol):
    status_code: int

    @property
    def text(self) -> str: ...


class Client(Protocol):
    """A client of httpx, or of a framework that is built like one."""

    def get(self, url: str) -> Response: ...

    def post(self, url: str, *, files: object) -> Response: ...


Ended = Callable[[], list[tmpguard.Report]]

# --- what the handlers do ------------------------------------------------------------------------------


def write(name: str) -> str:
    with open("/tmp/same.txt", "w") as file:
        file.write(name)
    return f"{Path('/tmp/same.txt').read_text()} in {','.join(listed())}"


def write_in_thread() -> str:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write, "thread").result()
    return Path("/tmp/same.txt").read_text()


def outside() -> str:
    try:
        open("outside.txt", "w")
    except OSError as exc:
        return str(exc)
    return "written"


def write_lines() -> str:
    """The path of a file with :data:`LINES`."""
    Path("/tmp/body.txt").write_text(LINES)
    return "/tmp/body.txt"


def lines() -> Iterator[str]:
    with open("/tmp/body.txt") as file:
        yield from file


# --- what their clients see ----------------------------------------------------------------------------


def check(client: Client, ended: Ended) -> None:
    """Make requests to all routes; each is an invocation of a guard of 1 MB."""
    assert client.get("/write/one").text == "one in same.txt"
    assert client.get("/thread").text == "thread"
    assert client.get("/outside").text == "[Errno 30] Read-only file system: 'outside.txt'"
    assert client.get("/stream").text == LINES
    assert client.get("/file").text == LINES
    assert client.post("/upload", files={"file": ("a.bin", bytes(5000))}).text == "5000"

    written, thread, refused, streamed, file, uploaded = ended()
    assert written.peak_bytes == thread.peak_bytes == 4096
    (violation,) = refused.violations
    assert (violation.operation, violation.path) == ("open", "outside.txt")
    assert violation.location is not None
    assert (violation.location.file, violation.location.function) == (__file__, "outside")
    assert streamed.peak_bytes == file.peak_bytes == (len(LINES) + 4095) // 4096 * 4096
    assert uploaded.peak_bytes >= 8192
    assert [report.violation_count for report in ended()] == [0, 0, 1, 0, 0, 0]
    assert [report.late_writes for report in ended()] == [()] * 6


def check_large_upload(client: Client, ended: Ended) -> None:
    """An upload that does not fit fails, and the next request has all of its ``/tmp``."""
    response = client.post("/upload", files={"file": ("a.bin", bytes(2 * MB))})
    assert response.status_code >= 400, response.text
    assert client.post("/upload", files={"file": ("a.bin", bytes(300_000))}).text == "300000"
    large, small = ended()
    assert (large.peak_bytes, large.used_bytes <= MB) == (MB, True)
    assert small.peak_bytes >= 300_000


def wsgi_client(app: object) -> httpx.Client:
    transport = httpx.WSGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    return httpx.Client(transport=transport, base_url="http://testserver")
