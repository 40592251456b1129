"""The benchmark of whole requests: it runs, and its own client counts what a server answers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks import load

BODY: Final = b"x" * 4096


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with BODY, but those for /missing, and counts them."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Answers.count = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_client_counts_the_answers(port: int) -> None:
    rate = load.requests_per_second(port, "/", 2, 0.2)
    # Each of the two connections may have had a last answer on its way.
    assert 0 < Answers.count - 2 <= rate * 0.3


def test_the_client_takes_no_other_answer_for_a_success(port: int) -> None:
    with pytest.raises(AssertionError, match="404"):
        load.requests_per_second(port, "/missing", 1, 0.2)


def test_the_command_prints_a_row_for_each_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load.shutil, "which", lambda name: None)  # by its own client
    assert command.main(["servers", "--starts", "1", "--rounds", "1", "--only", "no file"]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if "| no file |" in line]
    assert [row.split("|")[1].strip() for row in rows] == ["uvicorn, Starlette", "gunicorn gthread, Flask"]
