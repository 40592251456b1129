"""Starts the FastAPI example on a free port, sends it real requests, prints the responses and stops it.

python examples/demo.py
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

STEPS = (
    ("/tmp is writable:", "/write?text=hello", 200, "wrote 5 bytes to /tmp/note.txt"),
    ("Each request has its own /tmp:", "/read", 200, "a note of another request: False"),
    ("Everything else is read-only:", "/outside", 500, "[Errno 30] Read-only file system: 'file.txt'"),
    ("/tmp is limited, here to 1 MB:", "/overfill", 200, "[Errno 28] No space left on device"),
    ("The project's files are below /tmp/package:", "/bundled", 200, ""),
)


# Ignores proxies from the environment: the server is on this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    failed = False
    log: list[str] = []
    with server(log) as address:
        for title, path, wanted_status, wanted_text in STEPS:
            status, text = get(address + path)
            print(f"{title}\n  GET {path}  ->  {status}")
            for line in text.splitlines():
                print(f"    {line}")
            print()
            failed = failed or status != wanted_status or wanted_text not in text
    print("The server's log:")
    for line in log:
        print(f"    {line}")
    if failed:
        print("a response differed from the expected one", file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def server(log: list[str]) -> Iterator[str]:
    """Run uvicorn in a separate process and yield its address. At the end, its output is added to ``log``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "fastapi_app:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        if not answers(address, process):
            raise SystemExit("the server did not start: run `python examples/fastapi_app.py` to see why")
        yield address
    finally:
        process.terminate()
        log += process.communicate()[1].splitlines()


def answers(address: str, process: subprocess.Popen[str]) -> bool:
    """Wait until the server answers. Returns False if it has exited, or does not answer within a minute."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            get(address + "/bundled")
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return True
    return False


def get(url: str) -> tuple[int, str]:
    try:
        with OPENER.open(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


if __name__ == "__main__":
    raise SystemExit(main())
