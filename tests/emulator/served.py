"""A server that does what it is asked to: the body of a request is Python, its ``result`` is the answer.

``python served.py PORT``. Standard library only: it runs under any Python and user.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names: dict[str, Any] = {}
        try:
            exec(compile(code, "/application.py", "exec"), names)
            result = names.get("result")
        except OSError as exc:
            result = [exc.errno, exc.filename]
        body = json.dumps(result).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        print(format % args, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
