"""Requests to a server as fast as it answers: by wrk, or by a client of our own where there is none.

``python -m tests.benchmarks.load PORT PATH CONNECTIONS SECONDS`` is the client; it prints the number of
requests a second.
"""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from typing import Final

CONNECTIONS: Final = 8
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def program() -> str:
    """What makes the requests, as the table names it."""
    return "wrk" if shutil.which("wrk") else "the client of tests/benchmarks/load.py"


def put(port: int, path: str, seconds: int, core: int | None) -> float:
    """Requests a second that the server on ``port`` answers, asked for so many ``seconds`` from ``core``.

    Raises AssertionError if an answer was not one of success.
    """
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"]
    else:
        command = [sys.executable, "-m", __name__, str(port), path, str(CONNECTIONS), str(seconds)]
    if core is not None and (taskset := shutil.which("taskset")):
        command = [taskset, "-c", str(core), *command]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not re.search("Non-2xx|Socket errors", output), output
    found = re.search(r"Requests/sec: *([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


class Connection:
    """One connection that asks for the same path again and again."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._received = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self) -> None:
        self._socket.sendall(self._request)

    def is_answered(self) -> bool:
        """Read what there is; is it the whole answer? Raises AssertionError for another than 200."""
        data = self._socket.recv(1 << 16)
        assert data, "the server has closed the connection"
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        assert head.startswith(b"HTTP/1.1 200"), head
        length = _LENGTH.search(head)
        assert length is not None, head
        if len(body) < int(length[1]):
            return False
        self._received = b""
        return True

    def close(self) -> None:
        self._socket.close()


def requests_per_second(port: int, path: str, connections: int, seconds: float) -> float:
    """Ask over so many ``connections`` at once; the next request goes out with the answer to the last."""
    answered = 0
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            connection = stack.enter_context(closing(Connection(port, path)))
            selector.register(connection, selectors.EVENT_READ, connection)
            connection.ask()
        begin = time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds:
            for key, _ in selector.select(seconds - passed):
                if key.data.is_answered():
                    answered += 1
                    key.data.ask()
    return answered / passed


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:]
    rate = requests_per_second(int(port), path, int(connections), float(seconds))
    print(f"Requests/sec: {rate:.2f}")
