"""README.md and the pages that it leads to say what is the case."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextvars
import importlib.metadata
import inspect
import multiprocessing
import multiprocessing.pool
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.benchmarks.__main__ import bound_of
from tests.benchmarks.rows import ROWS
from tests.docs import surface as surface_doc

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


TROUBLESHOOTING = page("troubleshooting")
WORDS = " ".join(TROUBLESHOOTING.split())
"""The text without its line breaks, in which quoted messages are looked for."""


def section(text: str, name: str) -> list[list[str]]:
    """The cells of the table between two comments of that name, without its head."""
    table = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


# --- options and interface -----------------------------------------------------------------------------


def test_the_table_of_options_has_the_names_and_defaults_of_the_guard() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in section(page("options"), "options")}
    parameters = inspect.signature(tmpguard.Guard).parameters.values()
    actual = {p.name: repr(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert documented == actual


def test_the_attributes_of_the_report_are_those_that_it_has() -> None:
    with tmpguard.invocation(bundle=None) as invocation:
        for name in (
            "quota_bytes",
            "used_bytes",
            "peak_bytes",
            "files",
            "violations",
            "late_writes",
            "leftovers",
            "lookups",
            "elsewhere",
            "unguarded_children",
            "cold_start",
            "route",
            "wipe_seconds",
        ):
            assert f"`{name}`" in page("report")
            assert getattr(invocation.report, name) is not None
    for name in tmpguard.Violation._fields:
        assert f"`{name}`" in page("report")


def test_the_versions_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["hatch"]["version"]["path"] == "tmpguard/core/version.py"
    assert importlib.metadata.version("tmpguard") == tmpguard.__version__
    assert f"## [{tmpguard.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_list_of_intercepted_callables_is_the_table_in_the_code() -> None:
    assert surface_doc.PAGE.read_text() == surface_doc.page(), "run python -m tests.docs.surface"


# --- commands ------------------------------------------------------------------------------------------


def test_the_checks_run_the_very_command_for_the_tests() -> None:
    commands = [command.strip() for command in blocks(README, "sh")]
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)
    tests = commands[1].rpartition("&& .venv/bin/")[2]
    assert tests == "python -m pytest -n auto"
    assert f"\n{tests}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_benchmarks_are_those_that_are_measured() -> None:
    documented = {row[0]: row[4] for row in section(page("costs"), "benchmarks") if len(row) == 6}
    assert documented == {row.name: bound_of(row) for row in ROWS}


def test_the_command_that_measures_them_begins_without_tmpguard() -> None:
    """Its plain sides are forked from it."""
    script = "import sys, tests.benchmarks.__main__; sys.exit('tmpguard' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# --- the code blocks -----------------------------------------------------------------------------------


def block_with(text: str, page: str, **given: object) -> dict[str, Any]:
    """Run the one Python block of ``page`` that has ``text`` in it, with the names ``given``; its names."""
    (source,) = [block for block in blocks(page, "python") if text in block]
    names: dict[str, Any] = {"__name__": "readme", **given}
    exec(compile(source, "page.md", "exec"), names)
    return names


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("text", [README, page("fastapi")], ids=["README", "fastapi"])
def test_the_fastapi_lines_guard_an_application(text: str) -> None:
    from starlette.testclient import TestClient

    app = block_with("FastAPI()", text)["app"]

    @app.get("/")
    def disk() -> int:
        return shutil.disk_usage("/tmp").total

    with TestClient(app) as client:
        assert client.get("/").json() == 64 * 1_048_576


@pytest.mark.parametrize("text", [README, page("flask")], ids=["README", "flask"])
def test_the_flask_lines_guard_an_application(text: str) -> None:
    app = block_with("Flask(", text)["app"]

    @app.get("/")
    def disk() -> str:
        return str(shutil.disk_usage("/tmp").total)

    with app.test_client().get("/") as response:
        assert response.text == str(64 * 1_048_576)


@pytest.mark.parametrize("text", [README, page("django")], ids=["README", "django"])
def test_the_django_settings_are_right(text: str) -> None:
    settings = block_with("TMPGUARD = ", text, INSTALLED_APPS=[], MIDDLEWARE=[])
    script = "\n".join(
        [
            "import django, tmpguard.django",
            "from django.conf import settings",
            "from django.core.management import call_command",
            f"settings.configure(**{ {name: settings[name] for name in settings if name.isupper()} })",
            "django.setup()",
            "call_command('check')",
        ]
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


def test_the_plain_block_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    block_with("gone after the block", README)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["[Errno 30] Read-only file system: 'report.txt'", "4096"]
    assert printed[2].startswith("page.md:7 ")
    block_with("gone after the block", page("first-steps"))
    assert capsys.readouterr().out.splitlines() == printed[:2]


def test_the_handler_of_lambda_is_guarded() -> None:
    handler = block_with("def handler", page("aws-lambda"))["handler"]
    assert handler({}, None) == {"statusCode": 200}
    assert not os.path.exists("/tmp/result.json")


def test_the_cold_start_prints_its_findings(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = [block for block in blocks(page("first-steps"), "python") if "cold_start" in block]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:  # since nothing is refused
        source = source.replace("import json.tool", f"open('{directory}/new', 'w').close()")
        exec(compile(source, "first-steps.md", "exec"), {})
    assert "only /tmp is writable, and what the start writes there is gone" in capsys.readouterr().out


# --- work that is handed on ----------------------------------------------------------------------------


def inside(_: object = None) -> bool:
    """Is the caller in an invocation?"""
    return tmpguard.current() is not None


def in_a_thread(make: Callable[[Callable[[], None]], threading.Thread]) -> bool:
    seen: list[bool] = []
    thread = make(lambda: seen.append(inside()))
    thread.start()
    thread.join()
    return seen == [True]


def in_asyncio(body: Callable[[asyncio.AbstractEventLoop], Any]) -> bool:
    async def main() -> bool:
        return bool(await body(asyncio.get_running_loop()))

    return asyncio.run(main())


def called_by(schedule: str) -> bool:
    def ask(loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
        future = loop.create_future()
        delay = (0,) if schedule == "call_later" else ()
        getattr(loop, schedule)(*delay, lambda: future.set_result(inside()))
        return future

    return in_asyncio(ask)


async def asynchronously() -> bool:
    return inside()


def in_tasks() -> bool:
    async def gathered(_: object) -> bool:
        return all(await asyncio.gather(asynchronously(), asyncio.create_task(asynchronously())))

    return in_asyncio(gathered) and called_by("call_soon") and called_by("call_later")


def in_anyio() -> bool:
    import anyio.to_thread

    return in_asyncio(lambda _: anyio.to_thread.run_sync(inside))


def in_asgiref() -> bool:
    from asgiref.sync import async_to_sync, sync_to_async

    return async_to_sync(asynchronously)() and in_asyncio(lambda _: sync_to_async(inside)())


def in_aiofiles() -> bool:
    import aiofiles

    async def write(_: object) -> bool:
        async with aiofiles.open("/tmp/aiofiles.txt", "w") as file:
            await file.write("text")
        return os.path.getsize("/tmp/aiofiles.txt") == 4

    return in_asyncio(write)


def in_gevent() -> bool:
    import gevent

    return bool(gevent.spawn(inside).get() and gevent.get_hub().threadpool.spawn(inside).get())


def in_a_bare_thread() -> bool:
    seen: list[bool] = []
    done = threading.Event()

    def ask() -> None:
        seen.append(inside())
        done.set()

    _thread.start_new_thread(ask, ())
    assert done.wait(60)
    return seen == [True]


def in_a_child() -> bool:
    Path("/tmp/of-the-request").write_text("")
    return subprocess.run(["test", "-e", "/tmp/of-the-request"], check=False).returncode == 0


def in_a_fork() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if inside() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


Pool = concurrent.futures.ThreadPoolExecutor
Pools = tuple[Pool, multiprocessing.pool.ThreadPool, Any]

#: A row of the table, by the text that it starts with, and a question of which it gives the answer. Each is
#: handed a thread pool of either kind and a pool of processes, which were made before.
HANDED_ON: dict[str, Callable[[Pools], bool]] = {
    "tasks": lambda _: in_tasks(),
    "`asyncio.to_thread`": lambda _: in_asyncio(lambda _: asyncio.to_thread(inside)),
    "`loop.run_in_executor`": lambda _: in_asyncio(lambda loop: loop.run_in_executor(None, inside)),
    "`anyio": lambda _: in_anyio(),
    "`asgiref": lambda _: in_asgiref(),
    "`aiofiles`": lambda _: in_aiofiles(),
    "`ThreadPoolExecutor": lambda pools: all(
        pool.submit(inside).result() and all(pool.map(inside, [1, 2])) for pool in (pools[0], Pool(1))
    ),
    "`threading.Thread`": lambda _: (
        in_a_thread(lambda job: threading.Thread(target=job))
        and in_a_thread(lambda job: threading.Timer(0, job))
    ),
    "`multiprocessing.pool.ThreadPool`, made in": lambda _: in_new_pool(),
    "`multiprocessing.pool.ThreadPool`, made before": lambda pools: pools[1].apply(inside),
    "`_thread": lambda _: in_a_bare_thread(),
    "`gevent": lambda _: in_gevent(),
    "`os.fork`": lambda _: in_a_fork(),
    "a pool of processes": lambda pools: bool(pools[2].submit(inside).result()),
    "`subprocess`": lambda _: in_a_child(),
    "a new context": lambda _: in_a_new_context(),
    "`InterpreterPoolExecutor": lambda _: in_a_subinterpreter(),
}


def in_a_new_context() -> bool:
    async def ask() -> bool:
        return inside()

    async def main() -> bool:
        return await asyncio.create_task(ask(), context=contextvars.Context())

    return contextvars.Context().run(inside) or asyncio.run(main())


def in_a_subinterpreter() -> bool:
    if sys.version_info < (3, 14):
        pytest.skip("only Python 3.14 has these pools")
    Path("/tmp/only-in-the-request").touch()
    with concurrent.futures.InterpreterPoolExecutor(1) as interpreters:
        return interpreters.submit(os.path.exists, "/tmp/only-in-the-request").result()


def in_new_pool() -> bool:
    with multiprocessing.pool.ThreadPool(1) as pool:
        return pool.apply(inside)


def test_each_row_of_the_table_of_handed_on_work_is_tried() -> None:
    for (how, _), start in zip(section(page("coverage"), "handed on"), HANDED_ON, strict=True):
        assert how.startswith(start)


@pytest.mark.parametrize("start", HANDED_ON)
def test_handed_on_work_belongs_to_the_request_where_the_table_says_so(start: str) -> None:
    (answer,) = [answer for how, answer in section(page("coverage"), "handed on") if how.startswith(start)]
    assert answer in ("the request's", "**the real one**")
    if start == "`gevent":
        pytest.importorskip("gevent")  # before the first invocation, as a server does
    guard = tmpguard.Guard(bundle=None)
    spawn = multiprocessing.get_context("spawn")
    with (
        Pool(1) as threads,
        multiprocessing.pool.ThreadPool(1) as other_threads,
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as processes,
    ):
        threads.submit(inside).result()
        with guard.invocation():
            assert HANDED_ON[start]((threads, other_threads, processes)) is (answer == "the request's")


# --- messages ------------------------------------------------------------------------------------------


def message_of(call: Callable[[], object]) -> list[str]:
    with pytest.raises((OSError, ValueError, sqlite3.Error)) as caught:
        call()
    return [str(caught.value), *getattr(caught.value, "__notes__", [])]


def test_the_quoted_refusals_are_those_that_are_raised() -> None:
    with tmpguard.invocation(storage_size=1, bundle=ROOT / "examples"):
        messages = [
            *message_of(lambda: open("file.txt", "w")),
            message_of(lambda: open("/tmp/package/greeting.txt", "w"))[0],
            *message_of(lambda: Path("/tmp/big").write_bytes(bytes(2_000_000))),
        ]
    for message in messages:
        assert message in WORDS


def test_the_quoted_messages_of_sqlite_are_those_that_it_gives(tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    connection = sqlite3.connect(there)
    connection.execute("create table t (a)")
    connection.close()

    def run(path: object, statement: str) -> None:
        connection = sqlite3.connect(path)  # type: ignore[arg-type]
        try:
            for _ in range(1000):
                connection.execute(statement)
        finally:
            connection.close()

    def fill() -> None:
        connection = sqlite3.connect("/tmp/full.db")
        try:
            connection.execute("create table t (a)")
            while True:
                connection.execute("insert into t values (zeroblob(100000))")
        finally:
            connection.close()

    # As the bundle it can be read, though it lies below the real /tmp.
    with tmpguard.invocation(storage_size=1, bundle=tmp_path):
        for call in (
            lambda: run(there, "insert into t values (1)"),
            lambda: run(tmp_path / "new.db", "create table t (a)"),
            fill,
            lambda: run(":memory:", "attach '/other.db' as other"),
            lambda: run("/tmp/full.db", "vacuum into '/other.db'"),
        ):
            message = message_of(call)[0]
            assert message.partition(": /")[0] in WORDS


def test_a_file_moves_between_tmp_and_a_writable_directory_by_copy_alone(tmp_path: Path) -> None:
    with tmpguard.invocation(bundle=None, writable=[tmp_path]):
        Path("/tmp/file.txt").write_text("text")
        message = message_of(lambda: os.rename("/tmp/file.txt", tmp_path / "file.txt"))[0]
        assert message.partition(":")[0] in WORDS
        shutil.move("/tmp/file.txt", tmp_path / "file.txt")
    assert (tmp_path / "file.txt").read_text() == "text"


@pytest.mark.parametrize(
    "options",
    [
        {"storage_size": 256},
        {"storage_size": "256"},
        {"plan": "gold"},
        {"bundle": "/nowhere"},
        {"writable": "/srv"},
    ],
    ids=str,
)
def test_the_quoted_configuration_errors_are_those_that_are_raised(options: dict[str, Any]) -> None:
    assert f"- `{message_of(lambda: tmpguard.Guard(**options))[0]}`" in TROUBLESHOOTING
