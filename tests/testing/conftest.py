"""Runs of pytest within a test: the plugin is tried on small projects, most of them in this process."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import pkgutil
from collections.abc import Iterator
from contextlib import suppress

# What the runs import is imported here, as each of them forgets what it was the first to import. Of tmpguard,
# a second copy of a module would come about, which the functions that are in use do not belong to.
import anyio.pytest_plugin
import httpx
import pytest
import trio

import tmpguard
from tests.support import Run
from tmpguard.testing import patches, records

IMPORTED = (anyio.pytest_plugin, httpx, trio)
for found in pkgutil.walk_packages(tmpguard.__path__, "tmpguard."):
    with suppress(ImportError):  # of an extra that is not installed
        importlib.import_module(found.name)

#: What the runs have in common: nothing of this project's own options.
ARGUMENTS = (
    *("-p", "no:randomly", "-p", "no:hypothesispytest", "-p", "no:asyncio", "-p", "no:cacheprovider"),
    *("-W", "error", "--strict-markers", "--strict-config"),
)


@pytest.fixture(autouse=True)
def installed() -> None:
    """pytest knows of the plugin by the metadata of the installed project."""
    if not importlib.metadata.entry_points(group="pytest11", name="tmpguard"):
        pytest.skip("installed before there was the plugin: pip install -e '.[dev]' again")


@pytest.fixture(autouse=True)
def at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest prints more where these say that nobody is there to ask for it."""
    for name in ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def leaves_no_log_handlers() -> Iterator[None]:
    """The log file of an application that ran in this process is gone in the next test."""
    handlers = _log_handlers()
    yield
    for logger, handler in _log_handlers() - handlers:
        logger.removeHandler(handler)
        handler.close()


def _log_handlers() -> set[tuple[logging.Logger, logging.Handler]]:
    root = logging.getLogger()
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return {(logger, handler) for logger in [root, *loggers] for handler in logger.handlers}


@pytest.fixture
def run(pytester: pytest.Pytester) -> Iterator[Run]:
    """Runs pytest in the directory of ``pytester``, in this process, and leaves nothing patched."""

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*ARGUMENTS, *arguments)

    yield run
    assert not records._at_work
    assert not patches._changes


@pytest.fixture
def app(pytester: pytest.Pytester) -> None:
    """The module ``app``: an ASGI and a WSGI application that do what the path says."""
    pytester.makepyfile(
        app='''
import os
from urllib.parse import parse_qs


def act(path, query):
    """Do what ``path`` says, and tell the outcome."""
    if path == "/hello":
        return "hello"
    if path == "/swallow":
        for name in query.get("name", ["new.txt"]):
            try:
                with open(name, "w") as file:  # the line
                    file.write("text")
            except OSError:
                pass
        return "swallowed"
    if path == "/raise":
        open("new.txt", "w")
    if path == "/store":
        with open("/tmp/stored.bin", "wb") as file:
            file.write(bytes(int(query["bytes"][0])))
        return "stored"
    if path == "/listed":
        return ",".join(sorted(name for name in os.listdir("/tmp") if name.endswith(".bin")))
    return "?"


class Asgi:
    def __init__(self):
        self.log = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            self.log.append("up")
            scope["state"]["from"] = "start-up"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.log.append("down")
            await send({"type": "lifespan.shutdown.complete"})
            return
        text = act(scope["path"], parse_qs(scope["query_string"].decode()))
        if scope["path"] == "/state":
            text = str(scope.get("state"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})


def wsgi(environ, start_response):
    text = act(environ["PATH_INFO"], parse_qs(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


asgi = Asgi()
'''
    )


@pytest.fixture
def urls(pytester: pytest.Pytester) -> None:
    """The module ``urls`` of a Django project: views that are refused, that stream and that store."""
    pytester.makepyfile(
        urls="""
        from django.http import HttpResponse, StreamingHttpResponse
        from django.urls import path, re_path

        def item(request, name):
            try:
                open(f"{name}.txt", "w")
            except OSError:
                return HttpResponse("no")

        def stored(request, number):
            with open("/tmp/stored", "wb") as file:
                file.write(bytes(number))
            return HttpResponse("stored")

        async def streamed(request):
            stored(request, 4096)
            def parts():
                with open("/tmp/stored", "rb") as file:
                    yield file.read()
            return StreamingHttpResponse(parts())

        def sent(request):
            stored(request, 4096)
            return StreamingHttpResponse(open("/tmp/stored", "rb"))

        urlpatterns = [
            path("items/<str:name>", item),
            path("stored/<int:number>", stored),
            re_path(r"^streamed/$", streamed),
            path("sent/", sent),
        ]
        """
    )
