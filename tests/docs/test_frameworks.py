"""Each framework's block in docs/frameworks.md is an application whose requests are guarded."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import tmpguard
from tests.docs.blocks import block
from tests.e2e import test_servers
from tests.frameworks.test_lambda_adapters import event
from tests.support import PROJECT

Load = Callable[[str], ModuleType]


def need(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports the block below a heading."""

    def load(heading: str) -> ModuleType:
        path = tmp_path / "of_the_page.py"
        path.write_text(block("frameworks", heading))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        monkeypatch.setattr(sys, "path", sys.path.copy())  # what Pyramid imports adds to it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those about what the frameworks import
            spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(autouse=True)
def wiped() -> Iterator[None]:
    """Nothing of a request is in the real ``/tmp``."""
    yield
    assert not os.path.exists("/tmp/index.txt")


async def get(app: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        return await client.get("/")


@pytest.mark.parametrize("heading", ["Litestar", "Quart", "Falcon (ASGI)"])
def test_asgi(heading: str, load: Load) -> None:
    if heading == "Litestar":
        need("litestar")
    elif heading == "Quart":
        need("quart")
    else:
        need("falcon")
    module = load(heading)
    assert asyncio.run(get(getattr(module, "application", module.app))).text == "written"


@pytest.mark.parametrize("heading", ["Falcon (WSGI)", "Bottle", "Pyramid", "a2wsgi"])
def test_wsgi(heading: str, load: Load) -> None:
    if heading == "Falcon (WSGI)":
        need("falcon")
    elif heading == "Bottle":
        need("bottle")
    elif heading == "Pyramid":
        need("pyramid")
    else:
        need("a2wsgi")
    application = load(heading).application
    with httpx.Client(transport=httpx.WSGITransport(application), base_url="http://testserver") as client:
        assert client.get("/").text.strip('"') == "written"
    if heading == "a2wsgi":
        application.loop.call_soon_threadsafe(application.loop.stop)


def test_aiohttp(load: Load) -> None:
    need("aiohttp")
    from aiohttp.test_utils import TestClient, TestServer

    async def main() -> str:
        async with TestClient(TestServer(load("aiohttp").app)) as client:
            return await (await client.get("/")).text()

    assert asyncio.run(main()) == "text"


@pytest.mark.parametrize("heading", ["Mangum", "serverless-wsgi"])
def test_functions(heading: str, load: Load) -> None:
    if heading == "Mangum":
        need("mangum")
    else:
        need("serverless_wsgi")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        answer = load(heading).handler(event("/"), None)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert (answer["statusCode"], answer["body"].strip('"')) == (200, "written")
    assert tmpguard.drain(30)


def test_the_servers_are_those_that_the_examples_run_on() -> None:
    page = (PROJECT / "docs" / "frameworks.md").read_text()
    table = page.partition("<!-- servers -->\n")[2].partition("<!-- /servers -->")[0]
    documented = {
        command.removeprefix("waitress-serve").split(" ")[0] or "waitress"
        for command in re.findall(r"`([^`]+)`", table)
    }
    commands = [*test_servers.EXAMPLES.values(), *test_servers.FURTHER.values()]
    assert documented == {command[1] for command in commands if command[0] == "-m"}
    run = {" ".join(command) for command in commands}
    for flags in ("--interface asgi", "--interface wsgi", "wsgi:"):
        assert flags in table
        assert any(flags in command for command in run)
