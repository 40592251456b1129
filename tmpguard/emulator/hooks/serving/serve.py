"""Serves one Python object over HTTP, in an instance: an ASGI or WSGI application, or a handler of events.

``python serve.py PORT MODULE:NAME``, with the project as the working directory. It uses nothing of tmpguard
and, but for uvicorn where the application is ASGI, only the standard library: the project's own Python, which
may have no tmpguard, runs it as a file. It lies in a directory of its own because that gets on ``sys.path``.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import socketserver
import sys
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

_HOST = "127.0.0.1"


def main() -> None:
    """Import the object and serve it until the process is ended."""
    port, target = int(sys.argv[1]), sys.argv[2]
    sys.path[0] = os.getcwd()  # instead of this file's directory
    found = load(target)
    kind = kind_of(found)
    if kind == "asgi":
        _serve_asgi(found, port)
    elif kind == "wsgi":
        make_server(_HOST, port, found, _ThreadingServer, WSGIRequestHandler).serve_forever()
    else:
        _Handler.handle_event = staticmethod(found)
        HTTPServer((_HOST, port), _Handler).serve_forever()


def load(target: str) -> Any:
    """``module:name``, or ``path/to/file.py:name``."""
    place, _, name = target.rpartition(":")
    if place.endswith(".py"):
        sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        specification = importlib.util.spec_from_file_location(
            os.path.basename(place)[:-3].replace("-", "_"), os.path.abspath(place)
        )
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module
        specification.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise SystemExit(
                f"{target}: {place} has no {name!r}: give the name of a function or an application"
            )
        found = getattr(found, part)
    return found


def kind_of(found: Any) -> str:
    """``asgi``, ``wsgi`` or ``handler``: a plain function whose first argument is an event."""
    call = found if inspect.isroutine(found) else getattr(found, "__call__", found)  # noqa: B004
    try:
        names = [one.name for one in inspect.signature(call).parameters.values()]
    except (TypeError, ValueError):
        names = []
    if inspect.iscoroutinefunction(call) and len(names) >= 3:
        return "asgi"
    if inspect.isfunction(found) and names[1:2] != ["start_response"]:
        return "handler"
    return "wsgi"


def _serve_asgi(application: Any, port: int) -> None:
    try:
        import uvicorn
    except ImportError:
        sys.exit("an ASGI application needs a server: pip install uvicorn")
    uvicorn.run(application, host=_HOST, port=port, log_level="warning")


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Calls the handler with the request's body as its event."""

    handle_event: Any = None

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        try:
            status, body = 200, json.dumps(call_handler(type(self).handle_event, event))
        except BaseException:
            traceback.print_exc()
            status, body = 500, json.dumps(traceback.format_exc(limit=0).strip())
        self.send_response(status)
        data = body.encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Context:
    """What AWS Lambda gives a handler as its second argument, as far as it can be said here."""

    function_name = "tmpguard-invoke"
    function_version = "$LATEST"
    memory_limit_in_mb = "128"
    aws_request_id = "00000000-0000-0000-0000-000000000000"
    invoked_function_arn = "arn:aws:lambda:local:000000000000:function:tmpguard-invoke"
    log_group_name = log_stream_name = "tmpguard"

    def get_remaining_time_in_millis(self) -> int:
        """As if it had just begun."""
        return 30_000


def call_handler(handler: Any, event: Any) -> Any:
    """``handler(event)``, or ``handler(event, context)`` if it takes two arguments."""
    arguments: tuple[Any, ...] = (event,)
    try:
        inspect.signature(handler).bind(event)
    except TypeError:
        arguments = (event, Context())
    result = handler(*arguments)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result


if __name__ == "__main__":
    main()
