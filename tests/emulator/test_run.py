"""``tmpguard run`` from the command line: real servers, unchanged, in instances of the kernel's."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.emulator.command_line import PATIENCE, run_command
from tests.support import PROJECT, eventually, free_port

MB = 1_048_576

#: What each application does with a path, in plain functions.
ACTIONS = """
import os, time

def act(path):
    try:
        if path == "/write":
            with open("/tmp/note.txt", "w") as file:
                file.write("hello")
            return " ".join(sorted(set(os.listdir("/tmp")) - {"package"}))
        if path == "/outside":
            open("out.txt", "w")
        if path == "/overfill":
            with open("/tmp/big", "wb", buffering=0) as file:
                while file.write(bytes(65536)):
                    pass
        if path.startswith("/crash"):
            os._exit(3)
        if path == "/slow":
            print("slow", flush=True)
            time.sleep(0.2)
    except OSError as exc:
        return str(exc)
    return path
"""

WSGI = """
from actions import act

def app(environ, start_response):
    body = act(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
from actions import act

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        return
    assert scope["type"] == "http"
    body = act(scope["path"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

FLASK = """
from flask import Flask, request
from actions import act
app = Flask(__name__)

@app.get("/<path>")
def view(path):
    return act(request.path)
"""

DJANGO = """
import sys
import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import re_path
from actions import act

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="-", DEBUG=True)
urlpatterns = [re_path("", lambda request: HttpResponse(act(request.path)))]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""

NODE = """
const fs = require("fs"), http = require("http");
function act(path) {
  try {
    if (path === "/write") {
      fs.writeFileSync("/tmp/note.txt", "hello");
      return fs.readdirSync("/tmp").filter((name) => name !== "package").join(" ");
    }
    if (path === "/outside") fs.writeFileSync("out.txt", "x");
    if (path === "/overfill") fs.writeFileSync("/tmp/big", Buffer.alloc(4 << 20));
    if (path.startsWith("/crash")) process.exit(3);
  } catch (error) {
    return error.message;
  }
  return path;
}
http.createServer((request, response) => response.end(act(request.url))).listen(3000);
"""

FILES = {
    "actions.py": ACTIONS,
    "wsgi_app.py": WSGI,
    "asgi_app.py": ASGI,
    "flask_app.py": FLASK,
    "django_app.py": DJANGO,
    "server.js": NODE,
}

SERVERS = {
    "uvicorn": ("python", "-m", "uvicorn", "asgi_app:app", "--lifespan", "off"),
    "uvicorn with workers": (
        "python",
        "-m",
        "uvicorn",
        "asgi_app:app",
        "--lifespan",
        "off",
        "--workers",
        "2",
    ),
    "gunicorn": ("python", "-m", "gunicorn", "wsgi_app:app"),
    "gunicorn with threads": ("python", "-m", "gunicorn", "wsgi_app:app", "-k", "gthread", "--threads", "4"),
    "hypercorn": ("python", "-m", "hypercorn", "asgi_app:app"),
    "Flask": ("python", "-m", "flask", "--app", "flask_app", "run"),
    "Django": ("python", "django_app.py", "runserver", "--noreload"),
    "Node": ("node", "server.js"),
}


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        for name, text in FILES.items():
            (Path(directory) / name).write_text(text)
        yield Path(directory)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that does not lie below /tmp, where it would be seen (C1.5)."""
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        yield Path(directory)


def needs(name: str) -> tuple[str, ...]:
    """The command of a server; skips where it is not installed."""
    command = SERVERS[name]
    if command[0] == "node" and shutil.which("node") is None:
        pytest.skip("there is no node")
    if name == "hypercorn":
        pytest.importorskip("hypercorn")
    return command


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_runs_unchanged(name: str, project: Path) -> None:
    command = needs(name)
    port = free_port()
    arguments = ("--storage-size", "1", "--instances", "2", "--port", port)
    with run_command(*arguments, "--", *command, directory=project) as one:
        one.listen()
        assert one.url == f"http://127.0.0.1:{port}"
        for _ in range(2):
            assert one.get("/write").text == "note.txt"
        assert "note.txt" not in one.get("/other").text
        assert "ead-only file system" in one.get("/outside").text
        assert "o space left on device" in one.get("/overfill").text

        # Many at a time, each with a /tmp of its own.
        with ThreadPoolExecutor(8) as clients:
            assert set(clients.map(lambda _: one.get("/write").text, range(24))) == {"note.txt"}
        report = one.end()
        rows = {row["route"]: row for row in report["routes"]}
        assert rows["GET /write"]["requests"] == 26
        assert rows["GET /write"]["peak_bytes"] == 4096
        assert rows["GET /overfill"]["peak_bytes"] == MB
        assert rows["GET /outside"]["violations"] == 1
        found = {(group["error"], group["paths"][0]): group for group in report["violations"]}
        assert {("EROFS", "out.txt"), ("ENOSPC", "/tmp/big")} <= set(found)
        source = "server.js" if name == "Node" else "actions.py"
        group = found["EROFS", "out.txt"]
        assert group["location"]["file"] == source
        assert "out.txt" in next(
            row["text"] for row in group["source"] if row["line"] == group["location"]["line"]
        )
        assert group["remedy"] == "only /tmp is writable; write to /tmp/out.txt"


def test_the_proxy_takes_the_application_s_own_port(project: Path) -> None:
    port = free_port()
    command = ("python", "-m", "uvicorn", "asgi_app:app", "--lifespan", "off", "--port", port)
    with run_command("--", *command, directory=project) as one:
        one.listen()
        assert one.url == f"http://127.0.0.1:{port}"
        assert one.get("/a").text == "/a"


def test_a_crash_costs_the_request_that_made_it_and_no_other(project: Path) -> None:
    command = needs("uvicorn")
    with run_command("--port", free_port(), "--", *command, directory=project) as one:
        one.listen()
        answer = one.get("/crash")
        assert answer.status_code == 502
        assert "it ended with status 3" in answer.text
        assert one.get("/a").text == "/a"
        assert one.wait_for("ended", crashed=True)["reason"] == "it ended with status 3"
        assert one.end()["run"]["restarts"] == 1


def test_requests_share_an_instance_only_where_they_may(project: Path) -> None:
    arguments = ("--instances", "2", "--concurrency", "3", "--port", free_port())
    with run_command(*arguments, "--", *needs("gunicorn with threads"), directory=project) as one:
        one.listen()
        with ThreadPoolExecutor(12) as clients:
            list(clients.map(lambda _: one.get("/slow"), range(24)))
        requests = [one.wait_for("request") for _ in range(24)]
        assert {request["instance"] for request in requests} <= {0, 1}
        assert any(request["shared"] for request in requests)


def test_the_report_is_the_testing_kit_s(project: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ("--port", free_port(), "--report", str(report))
    # Newer versions of gunicorn make ~/.gunicorn at the start, which would be a second violation.
    with run_command(*arguments, "--", *needs("gunicorn"), directory=project, HOME="/tmp") as one:
        one.listen()
        one.get("/outside")
        assert one.end()["totals"]["violations"] == 1
        [_, written] = [event["written"] for event in one.events if event["event"] == "summary"] * 2
        assert written == [str(report), str(report.with_suffix(".html"))]
    data = json.loads(report.read_text())
    assert data["totals"]["requests"] == 1
    assert data["run"]["name"].endswith("gunicorn wsgi_app:app")
    page = report.with_suffix(".html").read_text()
    assert "1 file operation</span> would be refused in production" in page
    assert "No request was guarded" not in page


def test_a_changed_project_is_started_anew(project: Path, tmp_path: Path) -> None:
    for name in ("actions.py", "wsgi_app.py"):
        shutil.copy(project / name, tmp_path)
    arguments = ("--reload", "--port", free_port())
    with run_command(*arguments, "--", *needs("gunicorn"), directory=tmp_path) as one:
        one.listen()
        assert one.get("/a").text == "/a"
        path = tmp_path / "actions.py"
        path.write_text(path.read_text().replace("return path", "return 'new'"))
        assert "actions.py has changed" in one.wait_for("message")["text"]
        one.wait_for("ended")
        assert one.get("/a").text == "new"


def test_a_second_signal_ends_it_at_once(project: Path) -> None:
    with run_command("--port", free_port(), "--", *needs("gunicorn"), directory=project) as one:
        one.listen()
        with ThreadPoolExecutor(1) as clients:
            clients.submit(lambda: httpx.get(one.url + "/slow", timeout=PATIENCE))
            one.process.send_signal(signal.SIGTERM)
            one.wait_for("message", text="ending; once more ends it at once")
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(PATIENCE) in (0, 130)


def test_what_still_runs_is_answered_at_the_end(project: Path) -> None:
    with run_command("--port", free_port(), "--", *needs("gunicorn"), directory=project) as one:
        one.listen()
        with ThreadPoolExecutor(1) as clients:
            request = clients.submit(one.get, "/slow")
            one.wait_for("output", line="slow")
            report = one.end()
            assert request.result().text == "/slow"
            assert report["totals"]["requests"] == 1


def test_what_was_sent_when_the_signal_came_is_answered(project: Path) -> None:
    """Read or not, and whether the connection was accepted or not."""
    with run_command("--port", free_port(), "--", *needs("gunicorn"), directory=project) as one:
        one.listen()
        place = one.url.removeprefix("http://").split(":")

        def connection() -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(place[0], int(place[1]), timeout=PATIENCE)
            made.connect()
            return made

        with closing(connection()) as kept, closing(connection()) as fresh:
            kept.request("GET", "/b")
            assert kept.getresponse().read() == b"/b"
            one.process.send_signal(signal.SIGSTOP)
            with closing(connection()) as unaccepted:
                for each in (kept, fresh, unaccepted):
                    each.request("GET", "/a")
                one.process.send_signal(signal.SIGINT)
                one.process.send_signal(signal.SIGCONT)
                for each in (kept, fresh, unaccepted):
                    assert each.getresponse().read() == b"/a"
        assert one.wait_for("summary")["report"]["totals"]["requests"] == 4
        assert one.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("victim", ["launcher", "janitor", "application"])
def test_an_instance_of_which_a_process_is_killed_is_replaced(project: Path, victim: str) -> None:
    """While it serves a request, which is told so. Nothing of it is left, and the next one is clean."""
    with run_command("--port", free_port(), "--", *needs("gunicorn"), directory=project) as one:
        one.listen()
        assert one.get("/write").text == "note.txt"
        processes = one.processes()
        killed = dict(zip(("launcher", "janitor", "application"), processes, strict=False))[victim]
        with ThreadPoolExecutor(1) as clients:
            request = clients.submit(one.get, "/slow")
            one.wait_for("output", line="slow")
            os.kill(killed, signal.SIGKILL)
            answer = request.result()
        assert answer.status_code == 502
        assert "SIGKILL" in answer.text
        assert eventually(lambda: not any(os.path.exists(f"/proc/{process}") for process in processes))
        assert one.get("/write").text == "note.txt"
        report = one.end()
        assert report["run"]["restarts"] == 1


def test_a_run_that_is_killed_leaves_nothing(project: Path) -> None:
    arguments = ("--port", free_port(), "--", *needs("gunicorn"))
    with run_command(*arguments, directory=project) as one:
        one.listen()
        with ThreadPoolExecutor(1) as clients:
            request = clients.submit(one.get, "/slow")
            one.wait_for("output", line="slow")
            processes = one.processes()
            one.process.kill()
            with pytest.raises(httpx.HTTPError):
                request.result()
        assert eventually(lambda: not any(os.path.exists(f"/proc/{process}") for process in processes))
        assert str(project) not in Path("/proc/self/mounts").read_text()
        assert {path.name for path in project.iterdir()} <= {*FILES, "__pycache__"}
    with run_command(*arguments, directory=project) as one:
        one.listen()
        assert one.get("/write").text == "note.txt"


# --- refusals to start ---------------------------------------------------------------------------------


def refused(*arguments: str, directory: Path) -> dict[str, object]:
    """What a run says that does not start."""
    with run_command(*arguments, directory=directory) as one:
        failed = one.wait_for("start failed")
        assert one.process.wait(PATIENCE) == 1
        return failed


def test_a_command_that_is_not_found(project: Path) -> None:
    failed = refused("--", "frobnicate", directory=project)
    assert (failed["step"], failed["reason"]) == ("exec", "frobnicate: No such file or directory")
    assert failed["way_out"]


def test_a_command_that_ends_at_once_has_its_words_shown(project: Path) -> None:
    failed = refused("--", "python", "-c", "raise SystemExit('no configuration')", directory=project)
    assert failed["reason"] == "the command ended with exit status 1 before it listened on a TCP port"
    assert failed["output"] == "no configuration"


def test_a_server_that_never_listens(project: Path) -> None:
    failed = refused(
        "--start-timeout", "0.5", "--", "python", "-c", "import time; time.sleep(60)", directory=project
    )
    assert failed["reason"] == "the command did not listen on a TCP port within 0.5 s"


def test_a_port_that_is_taken(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = refused("--port", str(port), "--", *needs("gunicorn"), directory=project)
        assert failed["reason"] == f"127.0.0.1:{port}: Address already in use"
        assert failed["way_out"] == "give another port with --port"


def test_a_port_that_another_process_takes_meanwhile(project: Path) -> None:
    """Two may have it bound at the same time, and the first that listens has it."""
    source = "print('starting', flush=True); import time; time.sleep(1); from http.server import *; "
    source += "HTTPServer(('127.0.0.1', 8000), BaseHTTPRequestHandler).serve_forever()"
    port = free_port()
    with run_command("--port", port, "--", "python", "-c", source, directory=project) as one:
        one.wait_for("output", line="starting")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", int(port)))
            other.listen()
            failed = one.wait_for("start failed")
    assert failed["reason"] == f"127.0.0.1:{port}: Address already in use"
    assert failed["way_out"] == "give another port with --port"


def printed(*arguments: str, directory: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tmpguard", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr


def test_wrong_options_are_refused_as_everywhere(project: Path, tmp_path: Path) -> None:
    status, text = printed("run", "--storage-size", "256", "--", "true", directory=project)
    assert status == 1
    assert "256 MB is over the free plan's 128 MB" in text
    status, text = printed("run", directory=tmp_path)
    assert status == 1
    assert f"there is no genezio.yaml in {tmp_path}" in text
    status, text = printed("run", "--project", "/nonexistent", "--", "true", directory=project)
    assert status == 1
    assert "does not exist" in text


def test_without_httptools_the_other_commands_work(project: Path) -> None:
    code = "import sys; sys.modules['httptools'] = None; from tmpguard.__main__ import main; main()"
    for arguments, status, text in (
        (("run", "--", "true"), 1, "tmpguard run needs httptools: pip install 'tmpguard[run]'"),
        (("check", "--help"), 0, "before deployment"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, text in done.stdout + done.stderr) == (status, True), done.stderr


# --- genezio.yaml --------------------------------------------------------------------------------------

GENEZIO = """
name: shop
yamlVersion: 2
backend:
  path: server
  language: {name: python}
  functions:
    - {name: web, path: ., entry: wsgi_app.py, handler: app, type: httpServer, storageSize: 2}
    - {name: live, path: ., entry: asgi_app.py, handler: app, type: httpServer,
       maxConcurrentRequestsPerInstance: 5, maxConcurrentInstances: 2, cooldownTime: 7}
    - {name: job, path: ., entry: actions.py, handler: act}
"""


def test_the_functions_of_a_project_are_served_each_on_its_own_port(project: Path, place: Path) -> None:
    (place / "genezio.yaml").write_text(GENEZIO)
    (place / "server").mkdir()
    for name in ("actions.py", "wsgi_app.py", "asgi_app.py"):
        shutil.copy(project / name, place / "server")
    with run_command("--port", free_port(2), directory=place) as one:
        note = one.wait_for("message")["text"]
        assert note == "job is no server: run it once by tmpguard invoke actions.py:act"
        urls = {
            event["function"]: event["address"] for event in (one.wait_for("listening") for _ in range(2))
        }
        assert set(urls) == {"web", "live"}
        for url in urls.values():
            assert httpx.get(url + "/write", timeout=PATIENCE).text == "note.txt"
        one.process.send_signal(signal.SIGTERM)
        reports = [one.wait_for("summary")["report"] for _ in range(2)]
        assert {report["run"]["name"] for report in reports} == {"web", "live"}
        assert {report["totals"]["quota_bytes"] for report in reports} == {2 * MB, 128 * MB}
        assert one.process.wait(PATIENCE) == 0


# --- other protocols -----------------------------------------------------------------------------------

WEBSOCKET = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            with open("/tmp/last", "w") as file:
                file.write(event["text"])
            await send({"type": "websocket.send", "text": event["text"].upper()})
"""


def test_a_websocket_is_passed_on(place: Path) -> None:
    websockets = pytest.importorskip("websockets")
    (place / "chat.py").write_text(WEBSOCKET)
    command = ("python", "-m", "uvicorn", "chat:app", "--lifespan", "off")

    async def talk(url: str) -> list[str]:
        async with websockets.connect(url.replace("http:", "ws:")) as connection:
            answers = []
            for word in ("one", "two", "x" * 100_000):
                await connection.send(word)
                answers.append(await connection.recv())
            return answers

    with run_command("--port", free_port(), "--", *command, directory=place) as one:
        one.listen()
        assert asyncio.run(talk(one.url)) == ["ONE", "TWO", "X" * 100_000]
        assert one.wait_for("request")["status"] == 101


# --- one call of a handler -----------------------------------------------------------------------------

HANDLER = """
import os

def handler(event):
    print("called")
    with open("/tmp/x", "w") as file:
        file.write("x" * 10000)
    return {"got": event, "there": sorted(set(os.listdir("/tmp")) - {"package"})}

def with_context(event, context):
    return [context.function_name, context.get_remaining_time_in_millis() > 0]

async def later(event):
    return "later"

def refused(event):
    try:
        open("out.txt", "w")
    except OSError:
        return "swallowed"

def failing(event):
    raise ValueError("no")
"""


@pytest.fixture
def handlers(place: Path, project: Path) -> Path:
    (place / "jobs.py").write_text(HANDLER)
    status, text = printed("invoke", "jobs:later", directory=place)
    if "unshare" in text:
        pytest.skip(f"this machine permits no namespaces: {text}")
    assert (status, text.splitlines()[0]) == (0, '"later"')
    return place


def test_a_handler_is_called_once(handlers: Path) -> None:
    (handlers / "event.json").write_text('{"a": 1}')
    status, text = printed("invoke", "jobs.py:handler", "--event", "event.json", "--json", directory=handlers)
    called, _, answer = text.partition("\n")
    data = json.loads(answer if called == "called" else text.replace("called\n", ""))
    assert status == 0
    assert data["result"] == {"got": {"a": 1}, "there": ["x"]}
    assert data["report"]["totals"]["peak_bytes"] == 12288
    status, text = printed("invoke", "jobs:with_context", directory=handlers)
    assert text.startswith('["tmpguard-invoke", true]')


def test_a_finding_or_an_exception_is_an_exit_status(handlers: Path) -> None:
    status, text = printed("invoke", "jobs:refused", directory=handlers)
    assert status == 1
    assert text.startswith('"swallowed"')
    assert "jobs.py:18 in refused: open EROFS (1x)" in text
    status, text = printed("invoke", "jobs:failing", directory=handlers)
    assert status == 1
    assert "ValueError: no" in text
    status, text = printed("invoke", "jobs:nothing", directory=handlers)
    assert status == 1
    assert "jobs has no 'nothing': give the name of a function or an application" in text
