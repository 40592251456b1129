"""Imports and start-up guarded as an invocation of their own: what breaks before the first request."""

from __future__ import annotations

import contextlib
import importlib
import os
import py_compile
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from errno import EROFS, ESTALE
from pathlib import Path
from typing import Any

import anyio
import pytest

import tmpguard
from tests.support import run_python
from tmpguard.asgi import TmpGuardMiddleware

pytestmark = pytest.mark.usefixtures("uninstalled")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bundle, from which modules can be imported; those that were are forgotten again."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    before = set(sys.modules)
    yield directory
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


@pytest.fixture
def options(project: Path, scratch_root: Path) -> dict[str, Any]:
    return {"bundle": project, "scratch_root": scratch_root}


def test_what_an_import_does_is_found_with_its_line(project: Path, options: dict[str, Any]) -> None:
    (project / "shop_models.py").write_text(
        "import os\n\nMODELS = 'models'\ntry:\n    os.makedirs(MODELS)\nexcept OSError:\n    pass\n"
    )
    with tmpguard.cold_start(**options) as start:
        importlib.import_module("shop_models")
    (violation,) = start.report.violations
    assert (violation.operation, violation.path, violation.errno) == ("os.mkdir", "models", EROFS)
    assert violation.location == tmpguard.Location(str(project / "shop_models.py"), 5, "<module>")
    assert not (project / "models").exists()
    assert start.report.cold_start


def test_the_remedy_is_one_for_a_start(project: Path, options: dict[str, Any]) -> None:
    """A request does not see what the start wrote, so "write to /tmp" would be no help."""
    with tmpguard.cold_start(**options) as start:
        with pytest.raises(OSError, match="Read-only") as caught:
            os.mkdir(project / "models")
    (violation,) = start.report.violations
    assert violation.remedy == (
        "only /tmp is writable, and what the start writes there is gone before the first request: "
        "create models during a request (/tmp/models), or ship it with the project"
    )
    assert caught.value.__notes__ == [f"tmpguard: {violation.remedy}"]


def test_a_request_sees_nothing_of_what_the_start_wrote(options: dict[str, Any]) -> None:
    """C4.1: its /tmp is its own, limited and gone afterwards."""
    guard = tmpguard.Guard(**options, storage_size=1)
    with tmpguard.cold_start(guard=guard) as start:
        assert start.guard is guard
        assert tmpguard.current() is start
        Path("/tmp/cache.txt").write_text("text")
        with pytest.raises(OSError, match="No space"):
            Path("/tmp/model.bin").write_bytes(bytes(2 << 20))
    assert not os.path.exists("/tmp/cache.txt")
    with guard.invocation() as request:
        assert not os.path.exists("/tmp/cache.txt")
    assert (start.report.cold_start, request.report.cold_start) == (True, False)
    assert start.report.peak_bytes == 1 << 20


# --- bytecode ------------------------------------------------------------------------------------------

IMPORTS = """
import os, sys
sys.dont_write_bytecode = False
sys.path.insert(0, sys.argv[1])
import tmpguard
with tmpguard.cold_start(bundle=sys.argv[1], scratch_root=sys.argv[2], enforce=sys.argv[3] == "on") as start:
    import shop_plain
print(shop_plain.ANSWER, [violation.path for violation in start.report.violations])
print(sorted(name for name in os.listdir(sys.argv[1])))
"""


@pytest.mark.parametrize(("mode", "cache"), [("on", []), ("off", ["__pycache__"])])
def test_the_interpreter_s_bytecode_is_no_finding(
    project: Path, scratch_root: Path, mode: str, cache: list[str]
) -> None:
    """It does without where it may not write, and writes as ever where the guard only watches (C2.5)."""
    (project / "shop_plain.py").write_text("ANSWER = 42\n")
    assert run_python(IMPORTS, project, scratch_root, mode).splitlines() == [
        "42 []",
        str(sorted([*cache, "shop_plain.py"])),
    ]


HOOK = """
import importlib.abc, importlib.machinery, importlib.util, os

REFUSED = []

class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        try:
            open(os.path.join(os.path.dirname(self.path), "__pycache__", "shop_hooked.rewritten.pyc"), "wb")
        except OSError as exc:
            REFUSED.append(exc.errno)
        super().exec_module(module)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        file = os.path.join(os.path.dirname(__file__), "shop_hooked.py")
        if name == "shop_hooked":
            return importlib.util.spec_from_file_location(name, file, loader=Loader(name, file))
"""


def test_the_bytecode_of_an_import_hook_is_no_finding(
    project: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pytest's, it writes by the functions of os. What the module itself does there is a finding."""
    (project / "shop_hook.py").write_text(HOOK)
    (project / "shop_hooked.py").write_text(
        "import os\ntry:\n    os.mkdir('__pycache__/kernels')\nexcept OSError:\n    pass\n"
    )
    (project / "__pycache__").mkdir()
    hook = importlib.import_module("shop_hook")
    monkeypatch.setattr(sys, "meta_path", [hook.Finder(), *sys.meta_path])
    with tmpguard.cold_start(**options) as start:
        importlib.import_module("shop_hooked")
    assert hook.REFUSED == [EROFS]
    assert [violation.path for violation in start.report.violations] == ["__pycache__/kernels"]


def test_bytecode_that_the_application_compiles_itself_is_a_finding(
    project: Path, options: dict[str, Any]
) -> None:
    (project / "shop_plain.py").write_text("ANSWER = 42\n")
    (project / "__pycache__").mkdir()
    with tmpguard.cold_start(**options) as start:
        with pytest.raises(OSError, match="Read-only"):
            py_compile.compile(str(project / "shop_plain.py"), str(project / "__pycache__" / "x.pyc"))
    (violation,) = start.report.violations
    assert violation.location is not None
    assert violation.location.file == __file__


# --- what is left behind -------------------------------------------------------------------------------


def test_references_that_modules_take_within_are_given_back(project: Path, options: dict[str, Any]) -> None:
    """C7.3, C6.1: within a request they are guarded, uninstalled they are the originals."""
    (project / "shop_captured.py").write_text("from os import mkdir\nfrom builtins import open as opened\n")
    guard = tmpguard.Guard(**options)
    with tmpguard.cold_start(guard=guard):
        captured = importlib.import_module("shop_captured")
    with guard.invocation() as request:
        for call in (lambda: captured.mkdir("new"), lambda: captured.opened("new.txt", "w")):
            with pytest.raises(OSError, match="Read-only"):
                call()
    assert len(request.report.violations) == 2
    tmpguard.uninstall()
    assert (captured.mkdir, captured.opened) == (os.mkdir, open)


def test_an_application_may_build_its_own_guard_within(project: Path, options: dict[str, Any]) -> None:
    (project / "shop_app.py").write_text(
        "from tmpguard.wsgi import TmpGuardMiddleware\n"
        "def plain(environ, start_response):\n"
        "    open('/tmp/file.txt', 'w').close()\n"
        "    start_response('200 OK', [])\n"
        "    return [b'']\n"
        "app = TmpGuardMiddleware(plain, storage_size=2)\n"
    )
    with tmpguard.cold_start(**options) as start:
        app = importlib.import_module("shop_app").app
    assert start.report.violations == ()
    assert app.guard.storage_size == 2
    app({}, lambda status, headers: None).close()


def test_a_thread_that_is_left_behind_is_the_start_s(project: Path, options: dict[str, Any]) -> None:
    """C4.5: what it does after the end is told as late."""
    (project / "shop_thread.py").write_text(
        "import threading\n"
        "go, errors = threading.Event(), []\n"
        "def work():\n"
        "    go.wait(30)\n"
        "    try:\n"
        "        open('/tmp/metrics.txt', 'w')\n"
        "    except OSError as exc:\n"
        "        errors.append(exc.errno)\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
    )
    with tmpguard.cold_start(**options) as start:
        module = importlib.import_module("shop_thread")
    module.go.set()
    module.thread.join()
    assert module.errors == [ESTALE]
    (late,) = start.report.late_writes
    assert late.location is not None
    assert late.location.line == 6
    assert late.remedy == "the invocation that this code runs for has ended"


def test_either_a_guard_or_options(options: dict[str, Any]) -> None:
    guard = tmpguard.Guard(**options)
    with pytest.raises(tmpguard.ConfigurationError, match="storage_size= are both given"):
        tmpguard.cold_start(guard=guard, storage_size=1)
    with pytest.raises(tmpguard.ConfigurationError, match=r"is not a tmpguard\.Guard"):
        tmpguard.cold_start(guard="guard")  # type: ignore[arg-type]
    with pytest.raises(tmpguard.ConfigurationError, match="storage_size=0"):
        tmpguard.cold_start(storage_size=0)


# --- the lifespan of an ASGI application ---------------------------------------------------------------


async def live(app: Any, between: Callable[[], Any] = lambda: None) -> list[str]:
    """Run the lifespan of ``app``; the types of the messages that it sent."""
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        kind = next(incoming)
        if kind == "lifespan.shutdown":
            between()
        return {"type": kind}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent


def starlette(lifespan: Any) -> Any:
    from starlette.applications import Starlette

    return Starlette(lifespan=contextlib.asynccontextmanager(lifespan))


def test_the_middleware_guards_the_lifespan_on_demand(options: dict[str, Any], project: Path) -> None:
    reports: list[tmpguard.Report] = []

    async def lifespan(app: object) -> AsyncIterator[None]:
        with contextlib.suppress(OSError):
            os.mkdir("models")
        Path("/tmp/started.txt").write_text("text")
        yield
        assert Path("/tmp/started.txt").read_text() == "text"
        with contextlib.suppress(OSError):
            os.unlink("lock")

    app = TmpGuardMiddleware(starlette(lifespan), lifespan=True, **options, on_report=reports.append)

    def between() -> None:
        with app.guard.invocation():
            assert not os.path.exists("/tmp/started.txt")

    assert anyio.run(live, app, between) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert tmpguard.drain(30)
    (start,) = [report for report in reports if report.cold_start]
    assert [violation.path for violation in start.violations] == ["models", "lock"]
    assert start.used_bytes == 4096
    assert not (project / "models").exists()


def test_tasks_and_threads_of_the_start_go_on_until_the_shutdown(options: dict[str, Any]) -> None:
    written = threading.Event()

    async def lifespan(app: object) -> AsyncIterator[None]:
        go = threading.Event()

        def work() -> None:
            go.wait(30)
            Path("/tmp/metrics.txt").write_text("text")
            written.set()

        thread = threading.Thread(target=work)
        thread.start()
        yield
        go.set()
        thread.join()

    anyio.run(live, TmpGuardMiddleware(starlette(lifespan), lifespan=True, **options))
    assert written.is_set()


def test_a_lifespan_that_fails_ends_its_invocation(options: dict[str, Any]) -> None:
    reports: list[tmpguard.Report] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        open("/tmp/file.txt", "w").close()
        raise NotImplementedError("no lifespan")

    guarded = TmpGuardMiddleware(app, lifespan=True, **options, on_report=reports.append)
    with pytest.raises(NotImplementedError):
        anyio.run(live, guarded)
    assert tmpguard.drain(30)
    assert [(report.cold_start, report.files) for report in reports] == [(True, 1)]


@pytest.mark.parametrize("value", [1, None, "on"])
def test_what_is_no_answer_to_lifespan_is_refused(value: Any, options: dict[str, Any]) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=r"lifespan=.* is neither True nor False"):
        TmpGuardMiddleware(starlette(None), lifespan=value, **options)
