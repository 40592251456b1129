"""C2.5: with ``enforce=False`` an application sees what it sees without tmpguard."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.from_thread
import flask
import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse as DjangoResponse
from django.test import override_settings
from django.urls import path
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import tmpguard
from tests.support import set_up_django
from tmpguard.asgi import TmpGuardMiddleware as AsgiMiddleware
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

set_up_django()

# --- what an application does --------------------------------------------------------------------------


class Actions:
    """What the requests of an application do: in ``tmp``, a directory in the real /tmp, and in ``project``.

    Each answers with what the application has seen. Random names and numbers are left out.
    """

    def __init__(self, tmp: Path, project: Path) -> None:
        self.tmp = tmp
        self.project = project

    def write(self) -> Any:
        shared = self.tmp / "shared.txt"
        return [
            shared.exists(),
            shared.write_text("of the first request"),
            os.getcwd(),
            os.path.getsize(shared),
        ]

    def read(self) -> Any:
        """What an earlier request and the start-up left, here and in a child process."""
        shared = str(self.tmp / "shared.txt")
        child = subprocess.run(["cat", shared], capture_output=True, check=False)
        with open(shared) as file:
            return [file.read(), file.name, child.stdout.decode(), sorted(os.listdir(self.tmp))]

    def descriptors(self) -> Any:
        descriptor = os.open(self.tmp, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.mkdir("by-descriptor", dir_fd=descriptor)
            made = os.open("by-descriptor/a.bin", os.O_RDWR | os.O_CREAT, 0o640, dir_fd=descriptor)
            written = os.write(made, b"some bytes"), os.pwrite(made, b"B", 5), os.lseek(made, 0, os.SEEK_SET)
            told = os.read(made, 100).decode(), os.readlink(f"/proc/self/fd/{made}"), os.fstat(made).st_mode
            copied = os.dup(made)
            os.close(made)
            os.ftruncate(copied, 4)
            size = os.fstat(copied).st_size
            os.close(copied)
            return [written, told, size, os.listdir("/proc/self/fd") != []]
        finally:
            os.close(descriptor)

    def temporary(self) -> Any:
        with tempfile.NamedTemporaryFile("w+", suffix=".txt") as named, tempfile.TemporaryFile() as unnamed:
            unnamed.write(b"unnamed")
            named.write("named")
            named.flush()
            there = os.path.exists(named.name), os.path.dirname(named.name)
        with tempfile.TemporaryDirectory(dir=self.tmp) as directory:
            Path(directory, "inside.txt").write_text("inside")
            inside = os.listdir(directory)
        return [there, os.path.exists(named.name), inside, os.path.exists(directory), tempfile.gettempdir()]

    def trees(self) -> Any:
        source = self.tmp / "tree"
        (source / "below").mkdir(parents=True)
        (source / "below" / "file.txt").write_text("in a tree")
        (source / "link").symlink_to("below/file.txt")
        shutil.copytree(source, self.project / "tree", symlinks=True)
        shutil.make_archive(str(self.tmp / "archive"), "gztar", source)
        shutil.move(source / "below", self.tmp / "moved")
        walked = [(path, sorted(names), sorted(files)) for path, names, files in os.walk(self.tmp / "moved")]
        shutil.rmtree(source)
        return [walked, (self.project / "tree" / "link").read_text(), sorted(os.listdir(self.tmp))]

    def database(self) -> Any:
        found = []
        for directory in (self.tmp, self.project):
            with contextlib.closing(sqlite3.connect(directory / "data.db")) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
                connection.execute("INSERT INTO t VALUES (?)", ("row",))
                connection.commit()
                rows = connection.execute("SELECT * FROM t").fetchall()
                listed = connection.execute("PRAGMA database_list").fetchall()
                found.append([rows, listed, connection.total_changes, type(connection) is sqlite3.Connection])
        return found

    def project_files(self) -> Any:
        Path("relative.txt").write_text("relative")
        os.rename("relative.txt", "renamed.txt")
        with open(self.project / "log.txt", "a") as log:
            log.write("line\n")
        os.chmod("renamed.txt", 0o600)
        return [sorted(os.listdir()), log.name, oct(os.stat("renamed.txt").st_mode), os.path.realpath(".")]

    def errors(self) -> Any:
        told = []
        for call in (
            lambda: open(self.tmp / "missing" / "a.txt", "w"),
            lambda: open("missing.txt"),
            lambda: os.mkdir(self.tmp),
            lambda: os.rmdir(self.project),
            lambda: os.unlink("/tmp/no/such/file"),
            lambda: open("/proc/self/mem/x"),
            lambda: os.rename("missing", "/tmp/elsewhere"),
            lambda: sqlite3.connect("missing/data.db"),
            lambda: open(self.tmp / "a.txt", "q"),
        ):
            try:
                call()
            except Exception as exc:
                notes = getattr(exc, "__notes__", None)
                told.append([type(exc).__name__, str(exc), str(getattr(exc, "filename", None)), notes])
        return told

    def sizes(self) -> Any:
        """Much more than the quota fits."""
        large = self.tmp / "large.bin"
        large.write_bytes(bytes(5 << 20))
        return [large.stat().st_size, shutil.disk_usage("/tmp").total]

    def handed_on(self) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self._note("thread")))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(self._note, "pool").result())
        return found

    def _note(self, name: str) -> Any:
        made = self.tmp / f"{name}.txt"
        return [made.write_text(name), made.read_text(), os.getcwd()]

    def imports(self) -> Any:
        """A module in /tmp, whose bytecode is written."""
        (self.tmp / "plugin_of_tmp.py").write_text("ANSWER = 42\n")
        sys.path.insert(0, str(self.tmp))
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
        try:
            import plugin_of_tmp  # type: ignore[import-not-found]

            return [plugin_of_tmp.ANSWER, os.listdir(os.path.dirname(plugin_of_tmp.__spec__.cached))]
        finally:
            sys.dont_write_bytecode = before
            sys.path.remove(str(self.tmp))
            sys.modules.pop("plugin_of_tmp", None)


NAMES = [name for name in vars(Actions) if not name.startswith("_")]

#: What a client asks for, in this order.
ORDER = ["write", "read", *(name for name in NAMES if name not in ("write", "read")), "read", "database"]


def answers_of(told: Any) -> Any:
    return json.loads(json.dumps(told))


# --- the frameworks ------------------------------------------------------------------------------------

Client = Callable[[str], Any]


@contextlib.contextmanager
def starlette(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[Client]:
    """With a lifespan that writes a file, handlers in threads, and a background task."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        (actions.tmp / "start.txt").write_text("of the start-up")
        yield

    def handle(request: Request) -> JSONResponse:
        told = getattr(actions, request.path_params["name"])()
        note = BackgroundTask((actions.tmp / "background.txt").write_text, "of a background task")
        extensions = sorted(request.scope.get("extensions", {}))
        return JSONResponse([told, extensions, (actions.tmp / "start.txt").read_text()], background=note)

    application: Any = Starlette(routes=[Route("/{name}", handle)], lifespan=lifespan)
    if guard is not None:
        application = AsgiMiddleware(application, guard=guard, lifespan=True)
    with anyio.from_thread.start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(_alive(application)):
            yield lambda name: portal.call(_get, _sending_paths(application), name)


def _sending_paths(application: Any) -> Any:
    """The server offers to send files by their paths."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await application({**scope, "extensions": {"http.response.pathsend": {}}}, receive, send)

    return served


@asynccontextmanager
async def _alive(application: Any) -> AsyncIterator[None]:
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(application({"type": "lifespan"}, received.get, sent.put))
    for phase in ("startup", "shutdown"):
        await received.put({"type": f"lifespan.{phase}"})
        assert (await sent.get())["type"] == f"lifespan.{phase}.complete"
        if phase == "startup":
            yield
    await task


async def _get(application: Any, name: str) -> Any:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get(f"/{name}")).json()


@contextlib.contextmanager
def flask_application(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[Client]:
    """With a body that is streamed, and a callback at its end."""
    application = flask.Flask("watched")

    @application.get("/<name>")
    def handle(name: str) -> flask.Response:
        def body() -> Iterator[str]:
            yield json.dumps(getattr(actions, name)())

        response = flask.Response(body(), mimetype="application/json")
        response.call_on_close(lambda: (actions.tmp / "callback.txt").write_text("of the end"))
        return response

    if guard is not None:
        application.wsgi_app = WsgiMiddleware(application.wsgi_app, guard=guard)  # type: ignore[method-assign]

    def get(name: str) -> Any:
        with application.test_client().get(f"/{name}") as response:
            return response.json

    yield get


def _django_view(actions: Actions) -> Any:
    def view(_: Any, name: str) -> DjangoResponse:
        return DjangoResponse(getattr(actions, name)(), safe=False)

    class Urls:
        urlpatterns = (path("<name>", view),)

    return Urls


@contextlib.contextmanager
def _django(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[None]:
    middleware = [] if guard is None else ["tmpguard.django.TmpGuardMiddleware"]
    urls, given = _django_view(actions), {"guard": guard}
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=middleware, TMPGUARD=given):
        yield


@contextlib.contextmanager
def django_wsgi(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[Client]:
    with _django(actions, guard):
        transport = httpx.WSGITransport(get_wsgi_application())
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            yield lambda name: client.get(f"/{name}").json()


@contextlib.contextmanager
def django_asgi(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[Client]:
    with _django(actions, guard):
        application = get_asgi_application()
        with anyio.from_thread.start_blocking_portal() as portal:
            yield lambda name: portal.call(_get, application, name)


@contextlib.contextmanager
def decorated(actions: Actions, guard: tmpguard.Guard | None) -> Iterator[Client]:
    """A function handler."""

    def handle(name: str) -> Any:
        return answers_of(getattr(actions, name)())

    yield handle if guard is None else guard(handle)


KINDS = [starlette, flask_application, django_wsgi, django_asgi, decorated]


@pytest.fixture
def actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Actions]:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    directory = Path("/tmp", f"watched-{uuid.uuid4().hex}")
    yield Actions(directory, project)
    shutil.rmtree(directory, ignore_errors=True)


def tree(directory: Path) -> list[Any]:
    """All that is there: names, modes, and contents but for archives' and databases' times."""
    found = []
    for entry in sorted(directory.rglob("*")):
        status = entry.lstat()
        content = entry.read_bytes() if entry.suffix in (".txt", ".bin") and entry.is_file() else b""
        found.append([str(entry.relative_to(directory)), oct(status.st_mode), content])
    return found


def begin_anew(actions: Actions) -> None:
    for directory in (actions.tmp, actions.project):
        if directory.exists():
            for entry in directory.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    actions.tmp.mkdir(exist_ok=True)


@pytest.fixture
def watching(actions: Actions, options: dict[str, Any]) -> tmpguard.Guard:
    return tmpguard.Guard(**{**options, "bundle": actions.project, "enforce": False, "max_files": 5})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_watched_application_sees_what_it_sees_by_itself(
    kind: Any, actions: Actions, watching: tmpguard.Guard, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = []
    for guard in (None, watching):
        begin_anew(actions)
        with kind(actions, guard) as get:
            told = [get(name) for name in ORDER]
        outcomes.append((told, tree(actions.tmp), tree(actions.project)))
    plain, watched = outcomes
    assert dict(zip(ORDER, watched[0], strict=True)) == dict(zip(ORDER, plain[0], strict=True))
    assert watched == plain
    tmpguard.drain(30)
    assert list(scratch.iterdir()) == []
    assert "could not judge" not in caplog.text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_reports_have_what_would_be_refused(
    kind: Any, actions: Actions, watching: tmpguard.Guard, ended: Callable[[], list[tmpguard.Report]]
) -> None:
    begin_anew(actions)
    with kind(actions, watching) as get:
        for name in ("write", "read", "project_files", "sizes", "handed_on"):
            get(name)
    reports = [report for report in ended() if not report.cold_start]
    written, read, changed, large, handed_on = reports
    assert written.violations == ()
    assert written.files >= 1
    (lookup,) = [one for one in read.elsewhere if one.path.endswith("shared.txt")]
    assert (lookup.errno, lookup.location and lookup.location.function) == (errno.ENOENT, "Actions.read")
    assert lookup.remedy.startswith(f"{lookup.path} was made by another request")
    assert [child.program for child in read.unguarded_children] == ["cat"]
    assert [(one.operation, one.path) for one in changed.violations] == [
        ("open", "relative.txt"),
        ("os.rename", "relative.txt"),
        ("open", str(actions.project / "log.txt")),
        ("os.chmod", "renamed.txt"),
    ]
    assert {one.errno for one in changed.violations} == {errno.EROFS}
    assert {one.location and one.location.function for one in changed.violations} == {"Actions.project_files"}
    assert all("only /tmp is writable" in one.remedy for one in changed.violations)
    (full,) = large.violations
    assert (full.errno, full.location and full.location.function) == (errno.ENOSPC, "Actions.sizes")
    assert large.peak_bytes >= 5 << 20
    assert handed_on.violations == ()
    assert handed_on.files >= 2


def test_what_a_guarded_start_up_made(
    actions: Actions, watching: tmpguard.Guard, ended: Callable[[], list[tmpguard.Report]]
) -> None:
    begin_anew(actions)
    with starlette(actions, watching) as get:
        get("write")
    request, start = ended()
    assert start.cold_start
    assert start.files == 1
    (lookup,) = [one for one in request.elsewhere if one.path.endswith("start.txt")]
    assert "was made by the start-up" in lookup.remedy
