"""Stands in for AWS's runtime interface emulator: ``python rie.py PORT COMMAND ...``.

It takes events where the emulator takes them, and hands them to the command by the API of Lambda's runtimes.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INVOCATIONS = "/2015-03-31/functions/function/invocations"
API = "/2018-06-01/runtime/invocation/"

events: queue.Queue[bytes] = queue.Queue()
answers: queue.Queue[bytes] = queue.Queue()
one_at_a_time = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Both sides: a POST to the address of invocations is an event, all else is the runtime's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert self.path == f"{API}next"
        headers = {
            "Content-Type": "application/json",  # the client ends with a segmentation fault without it
            "Lambda-Runtime-Aws-Request-Id": "1",
            "Lambda-Runtime-Deadline-Ms": "9999999999999",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:local:000000000000:function:test_function",
        }
        self.answer(200, events.get(), **headers)

    def do_POST(self) -> None:
        body = self.body()
        if self.path == INVOCATIONS:
            with one_at_a_time:
                events.put(body)
                self.answer(200, answers.get())
        else:
            assert self.path in (f"{API}1/response", f"{API}1/error")
            answers.put(body)
            self.answer(202, b'{"status": "OK"}')

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    environment = {
        **os.environ,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "test_function",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008",
    }
    print(server.server_port, flush=True)
    with subprocess.Popen(sys.argv[2:], env=environment) as command:
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        command.terminate()


if __name__ == "__main__":
    main()
