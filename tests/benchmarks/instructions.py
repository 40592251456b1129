"""What a request executes, in instructions: ``python -m tests.benchmarks instructions``.

The applications of :mod:`.served` are called in this process's children, without a server, under valgrind's
callgrind, which counts the instructions of the process. A row is the difference of two runs of different
length, for one request: plain, guarded, and guarded without the C extension. Other work on the machine does
not change the figures. What the kernel does is not in them.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Final

from tests.support import PROJECT

from .served import PATHS, set_up

#: How many requests the two runs make.
_FEW: Final = 200
_MANY: Final = 600

#: The rows that are counted. Starlette reads a static file in another thread, and valgrind runs one thread at
#: a time, each for so long that a request takes minutes.
_ROWS: Final = {row: path for row, path in PATHS.items() if "static" not in path}

_VARIANTS: Final = {
    "plain": {"BENCHMARK_GUARDED": "0"},
    "guarded": {"BENCHMARK_GUARDED": "1"},
    "without the extension": {"BENCHMARK_GUARDED": "1", "TMPGUARD_NO_EXTENSION": "1"},
}

_CALLERS: Final = {
    "Starlette": """
import asyncio, sys
from tests.benchmarks.served import asgi
app, path, count = asgi(), sys.argv[1], int(sys.argv[2])

async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}

async def run():
    for _ in range(count):
        statuses = []
        async def send(message):
            statuses.append(message.get("status"))
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 4000), "scheme": "http", "method": "GET",
            "root_path": "", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [],
        }
        await asyncio.create_task(app(scope, receive, send))
        assert statuses[0] == 200

asyncio.run(run())
""",
    "Flask": """
import io, sys
from tests.benchmarks.served import wsgi
app, path, count = wsgi(), sys.argv[1], int(sys.argv[2])
for _ in range(count):
    statuses = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    body = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    for part in body:
        pass
    body.close()
    assert statuses == ["200 OK"]
""",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks instructions", description=__doc__)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="only frameworks or rows that contain TEXT"
    )
    options = parser.parse_args(arguments)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("the count needs valgrind: apt install valgrind", file=sys.stderr)
        return 69
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    print(f"| framework | request | {' | '.join(_VARIANTS)} | more | without the extension |")
    print("|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir="/var/tmp") as directory:
        for framework, caller in _CALLERS.items():
            for row, path in _ROWS.items():
                if options.only in framework or options.only in row:
                    print(_line(framework, row, [valgrind, caller, path], directory), flush=True)
    return 0


def _line(framework: str, row: str, request: list[str], directory: str) -> str:
    counts = []
    for variant, changes in _VARIANTS.items():
        place = os.path.join(directory, variant)
        if not os.path.isdir(place):
            os.mkdir(place)
            set_up(place)
        environment = {**os.environ, **changes, "BENCHMARK_PLACE": place, "PYTHONHASHSEED": "0"}
        _run([sys.executable, "-c", *request[1:], "1"], environment)  # writes the bytecode
        few, many = (_count(request, number, environment) for number in (_FEW, _MANY))
        counts.append((many - few) // (_MANY - _FEW))
    plain, guarded, pure = counts
    shown = " | ".join(f"{count:,}" for count in counts)
    return f"| {framework} | {row} | {shown} | {guarded - plain:,} | {pure - plain:,} |"


def _count(request: list[str], number: int, environment: dict[str, str]) -> int:
    """The instructions of a process that makes that many requests."""
    valgrind, caller, path = request
    options = ("--tool=callgrind", "--callgrind-out-file=/dev/null")
    errors = _run([valgrind, *options, sys.executable, "-c", caller, path, str(number)], environment)
    counted = re.search(r"Collected *: *(\d+)", errors)
    if counted is None:
        raise RuntimeError(f"valgrind counted nothing:\n{errors}")
    return int(counted[1])


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run the command in the project. Returns its standard error."""
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stderr}")
    return done.stderr
