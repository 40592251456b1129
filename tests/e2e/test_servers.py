"""The examples on real servers; and what servers that are killed or stopped leave on the disk (C4.6)."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import httpx
import pytest
from gunicorn.config import KNOWN_SETTINGS

from tests.support import eventually

Start = Callable[..., Any]

UVICORN = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "PORT")
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "5")
if any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS):
    GUNICORN += ("--no-control-socket",)
SYNC = (*GUNICORN, "--workers", "2")
GTHREAD = (*GUNICORN, "--worker-class", "gthread", "--workers", "2", "--threads", "8")

HYPERCORN = ("-m", "hypercorn", "--bind", "127.0.0.1:PORT")
GRANIAN = ("-m", "granian", "--host", "127.0.0.1", "--port", "PORT", "--no-ws")
WAITRESS = ("-m", "waitress", "--listen", "127.0.0.1:PORT")
DAPHNE = ("-m", "daphne", "--bind", "127.0.0.1", "--port", "PORT")

#: Servers that are not installed with the extra ``dev``.
FURTHER = {
    "fastapi on hypercorn": (*HYPERCORN, "fastapi_app:app"),
    "flask on hypercorn": (*HYPERCORN, "wsgi:flask_app:app"),
    "fastapi on granian": (*GRANIAN, "--interface", "asgi", "fastapi_app:app"),
    "flask on granian": (*GRANIAN, "--interface", "wsgi", "--blocking-threads", "8", "flask_app:app"),
    "flask on waitress": (*WAITRESS, "--threads", "8", "flask_app:app"),
    "django on waitress": (*WAITRESS, "--threads", "8", "django_app:application"),
    "django on daphne": (*DAPHNE, "django_app:asgi_application"),
    "fastapi on daphne": (*DAPHNE, "fastapi_app:app"),
}

EXAMPLES = {
    "fastapi on uvicorn": (*UVICORN, "fastapi_app:app"),
    "fastapi by its own command": ("fastapi_app.py",),
    "flask on gunicorn sync": (*SYNC, "flask_app:app"),
    "flask on gunicorn gthread": (*GTHREAD, "flask_app:app"),
    "flask by its own command": ("flask_app.py",),
    "django on gunicorn sync": (*SYNC, "django_app:application"),
    "django on gunicorn gthread": (*GTHREAD, "django_app:application"),
    "django on uvicorn": (*UVICORN, "django_app:asgi_application"),
    "django by its own command": ("django_app.py",),
}


@pytest.fixture(params=[*EXAMPLES, *FURTHER])
def example(request: pytest.FixtureRequest, start: Start) -> Any:
    if request.param in EXAMPLES:
        return start(*EXAMPLES[request.param])
    command = FURTHER[request.param]
    need(command[1])
    return start(*command)


def need(server: str) -> None:
    """Skip the test if the server is not installed."""
    for found in (
        find_spec("hypercorn"),
        find_spec("granian"),
        find_spec("waitress"),
        find_spec("daphne"),
    ):
        if found is not None and found.name == server:
            return
    pytest.skip(f"{server} is not installed")


def test_an_example_does_what_its_readme_says(example: Any) -> None:
    written, _, held = example.get("/write?text=hello").text.partition("; /tmp holds ")
    assert written == "wrote 5 bytes to /tmp/note.txt"
    assert {"note.txt", "package"} <= set(ast.literal_eval(held))
    read = "a note of another request: False; of this one: written by this request\n"
    assert example.get("/read").text == read
    outside = example.get("/outside")
    assert outside.status_code == 500
    assert outside.text == (
        "[Errno 30] Read-only file system: 'file.txt'\n"
        "tmpguard: only /tmp is writable; write to /tmp/file.txt\n"
    )
    assert example.get("/overfill").text == (
        "1048576 bytes fitted, then: [Errno 28] No space left on device\n"
    )
    assert example.get("/bundled").text == "Hello from the bundle.\n"
    assert example.get("/stream?lines=5000").text == "".join(f"line {number}\n" for number in range(5000))

    # Each request on its own, many at a time.
    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(lambda _: example.get("/read").text, range(40))) == {read}
    assert eventually(lambda: list(example.scratch.iterdir()) == [])

    # The development servers of the frameworks know Ctrl+C only.
    by_itself = example.process.args[1].endswith("_app.py")
    log = example.stop(signal.SIGINT if by_itself else signal.SIGTERM)
    assert list(example.scratch.iterdir()) == [], log


def test_the_requests_of_one_connection_do_not_share_their_files(
    example: Any, request: pytest.FixtureRequest
) -> None:
    with httpx.Client(base_url=example.url, timeout=60) as client:
        for _ in range(3):
            assert client.get("/write").text.startswith("wrote 5 bytes")
            assert "a note of another request: False" in client.get("/read").text
        # A client that goes away in mid-stream, with more left than a socket buffers.
        with client.stream("GET", "/stream?lines=60000") as response:
            assert next(response.iter_lines()) == "line 0"
    if request.node.callspec.params["example"] == "flask on hypercorn":
        return  # it reads the body to its end all the same, line by line
    assert eventually(lambda: example.scratch_directories() == [])


# --- servers that die ----------------------------------------------------------------------------------

HOLDING = {
    "uvicorn": (*UVICORN, "tests.e2e.streaming_apps:asgi"),
    "gunicorn sync": (*SYNC, "tests.e2e.streaming_apps:wsgi"),
    "gunicorn gthread": (*GTHREAD, "tests.e2e.streaming_apps:wsgi"),
}


def hold(server: Any, until: ExitStack) -> int:
    """Start a request that stays unfinished; returns the number of the process that serves it."""
    client = until.enter_context(httpx.Client(base_url=server.url, timeout=60))
    response = until.enter_context(client.stream("GET", "/hold"))
    lines = response.iter_lines()
    until.callback(lines.close)  # the connection lasts as long as its iterator
    return int(next(lines))


@pytest.mark.parametrize("command", HOLDING)
def test_what_a_killed_server_leaves_is_removed_by_the_next_one(start: Start, command: str) -> None:
    with ExitStack() as until:
        first = start(*HOLDING[command])
        hold(first, until)
        [left] = first.scratch_directories()
        first.kill()
        assert first.scratch_directories() == [left]

        second = start(*HOLDING[command])
        assert eventually(lambda: second.scratch_directories() == [])
        assert second.get("/").text.endswith(" False")
        assert os.path.isdir("/etc")  # the request had left a link to it
        second.stop()
    assert list(second.scratch.iterdir()) == []


@pytest.mark.parametrize("command", HOLDING)
def test_a_living_neighbours_scratch_directory_is_left_alone(start: Start, command: str) -> None:
    with ExitStack() as until:
        living = start(*HOLDING[command])
        hold(living, until)
        killed = start(*HOLDING[command])
        hold(killed, until)
        assert len(living.scratch_directories()) == 2
        killed.kill()

        third = start(*HOLDING[command])
        third.get("/")
        assert eventually(lambda: len(third.scratch_directories()) == 1)
        held = third.scratch / third.scratch_directories()[0] / "held/deep/file.txt"
        assert held.read_text() == "held"
        third.stop()
        assert held.read_text() == "held"


@pytest.mark.parametrize("command", ["gunicorn sync", "gunicorn gthread"])
def test_a_worker_that_takes_a_killed_ones_place_leaves_the_other_workers_alone(
    start: Start, command: str
) -> None:
    with ExitStack() as until:
        server = start(*HOLDING[command])
        survivor = hold(server, until)
        os.kill(survivor, signal.SIGSTOP)  # the other worker gets the next request
        try:
            victim = hold(server, until)
        finally:
            os.kill(survivor, signal.SIGCONT)
        assert victim != survivor
        os.kill(victim, signal.SIGKILL)

        def replaced() -> bool:
            try:
                return int(server.get("/").text.split()[0]) not in (victim, survivor)
            except httpx.TransportError:
                return False  # the connection had been the victim's

        def processes() -> set[str]:
            return {directory.partition("/")[0] for directory in server.scratch_directories()}

        assert eventually(replaced)
        assert eventually(lambda: len(processes()) == 1)
        for directory in server.scratch_directories():
            assert (server.scratch / directory / "held/deep/file.txt").read_text() == "held"


KEEPING = {
    "uvicorn": (*UVICORN, "tests.e2e.instance_apps:asgi"),
    "gunicorn gthread": (*GTHREAD, "tests.e2e.instance_apps:wsgi"),
}


@pytest.mark.parametrize("command", KEEPING)
def test_each_worker_keeps_its_instance_s_tmp_until_it_is_stopped(start: Start, command: str) -> None:
    server = start(*KEEPING[command])
    there: dict[int, list[int]] = {}
    for _ in range(12):
        process, count = server.get("/").json()
        there.setdefault(process, []).append(count)
    for counts in there.values():
        assert counts == list(range(counts[0], counts[0] + len(counts)))
    assert len(server.scratch_directories()) >= len(there)
    log = server.stop()
    assert list(server.scratch.iterdir()) == [], log


@pytest.mark.parametrize("command", HOLDING)
def test_a_server_that_is_stopped_leaves_nothing(start: Start, command: str) -> None:
    with ExitStack() as until:
        server = start(*HOLDING[command])
        hold(server, until)
        assert len(server.scratch_directories()) == 1
        until.close()  # the client goes
        server.get("/")
        log = server.stop()
    assert list(server.scratch.iterdir()) == [], log
