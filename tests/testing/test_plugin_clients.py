"""``--tmpguard`` with the test clients of frameworks that are not installed with the extra ``dev``."""

from __future__ import annotations

import json
import logging.config
import warnings
from typing import Any

import asgiref.testing
import pytest

from tests.support import Run

pytest_plugins = ["pytester"]

# What the runs import is imported here, as each of them forgets what it was the first to import.
IMPORTED = (asgiref.testing, logging.config)


def need(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those about what webtest imports
        pytest.importorskip(name, reason=f"{name} is not installed")


def reported(pytester: pytest.Pytester, run: Run, **outcomes: int) -> dict[str, tuple[int, int]]:
    """Run the tests with the option; requests and violations of each route."""
    result = run("--tmpguard", "--tmpguard-report=report")
    result.assert_outcomes(**outcomes)
    report: Any = json.loads((pytester.path / "report.json").read_text())
    assert not (pytester.path / "new.txt").exists()
    return {row["route"]: (row["requests"], row["violations"]) for row in report["routes"]}


@pytest.fixture(autouse=True)
def work(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        work="""
        def work():
            with open("/tmp/file", "w") as file:
                file.write("text")
            try:
                open("new.txt", "w")
            except OSError:
                return "refused"
        """
    )


def test_litestar(pytester: pytest.Pytester, run: Run) -> None:
    need("litestar.testing")
    pytester.makepyfile(
        """
        import os
        from litestar import Litestar, WebSocket, get, websocket
        from litestar.params import FromPath
        from litestar.testing import AsyncTestClient, TestClient
        from work import work

        @get("/items/{name:str}", sync_to_thread=True)
        def index(name: FromPath[str]) -> str:
            return work()

        @websocket("/socket")
        async def socket(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_text(work())
            await socket.close()

        app = Litestar([index, socket])

        def test_index():
            with TestClient(app) as client:
                assert client.get("/items/one").text == "refused"
                assert client.app is app

        def test_socket():
            with TestClient(app) as client, client.websocket_connect("/socket") as connection:
                assert connection.receive_text() == "refused"
        """
    )
    assert reported(pytester, run, failed=2) == {"GET /items/{name}": (1, 1), "WS /socket": (1, 1)}


def test_quart(pytester: pytest.Pytester, run: Run) -> None:
    need("quart")
    pytester.makepyfile(
        """
        import asyncio
        from quart import Quart, websocket
        from work import work

        app = Quart(__name__)
        app.get("/items/<name>")(lambda name: work())

        @app.websocket("/socket")
        async def socket():
            await websocket.send(work())

        def test_index():
            async def main():
                client = app.test_client()
                response = await client.get("/items/one")
                assert await response.get_data(as_text=True) == "refused"
            asyncio.run(main())

        def test_socket():
            async def main():
                async with app.test_client().websocket("/socket") as connection:
                    assert await connection.receive() == "refused"
            asyncio.run(main())
        """
    )
    assert reported(pytester, run, failed=2) == {"GET /items/one": (1, 1), "WS /socket": (1, 1)}


def test_falcon(pytester: pytest.Pytester, run: Run) -> None:
    need("falcon.testing")
    pytester.makepyfile(
        """
        import asyncio
        import falcon.asgi
        import falcon.testing
        from work import work

        class Index:
            def on_get(self, req, resp):
                resp.text = work()

        class AsyncIndex:
            async def on_get(self, req, resp):
                resp.text = work()

            async def on_websocket(self, req, socket):
                await socket.accept()
                await socket.send_text(work())

        synchronous, asynchronous = falcon.App(), falcon.asgi.App()
        synchronous.add_route("/sync", Index())
        asynchronous.add_route("/async", AsyncIndex())

        def test_synchronous():
            assert falcon.testing.TestClient(synchronous).simulate_get("/sync").text == "refused"
            assert falcon.testing.simulate_get(synchronous, "/sync").text == "refused"
            assert falcon.testing.simulate_request(synchronous, "GET", "/sync").text == "refused"

        def test_nothing_stays_patched(pytestconfig):
            def check():
                import sys
                for name in ("falcon.testing", "falcon.testing.client"):
                    assert not hasattr(sys.modules[name].simulate_request, "__wrapped__"), name
            pytestconfig.add_cleanup(check)

        def test_asynchronous():
            assert falcon.testing.TestClient(asynchronous).simulate_get("/async").text == "refused"

        def test_conductor():
            async def main():
                async with falcon.testing.ASGIConductor(asynchronous) as conductor:
                    assert (await conductor.simulate_get("/async")).text == "refused"
                    async with conductor.simulate_ws("/async") as socket:
                        assert await socket.receive_text() == "refused"
            asyncio.run(main())
        """
    )
    expected = {"GET /sync": (3, 3), "GET /async": (2, 2), "WS /async": (1, 1)}
    assert reported(pytester, run, passed=1, failed=3) == expected


def test_webtest(pytester: pytest.Pytester, run: Run) -> None:
    """Which is Pyramid's and Bottle's usual client."""
    need("webtest")
    need("bottle")
    pytester.makepyfile(
        """
        import bottle
        import webtest
        from work import work

        app = bottle.Bottle()
        app.get("/items/<name>")(lambda name: work())

        def test_index():
            client = webtest.TestApp(app)
            assert client.get("/items/one").text == "refused"
            assert client.app is app
        """
    )
    assert reported(pytester, run, failed=1) == {"GET /items/<name>": (1, 1)}


def test_the_communicator_of_asgiref(pytester: pytest.Pytester, run: Run) -> None:
    """Which the clients of Django Channels are made of."""
    pytester.makepyfile(
        """
        import asyncio
        from asgiref.testing import ApplicationCommunicator
        from work import work

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": work().encode()})

        def test_index():
            async def main():
                scope = {"type": "http", "method": "GET", "path": "/"}
                communicator = ApplicationCommunicator(app, scope)
                assert (await communicator.receive_output())["status"] == 200
                assert (await communicator.receive_output())["body"] == b"refused"
                await communicator.wait()
            asyncio.run(main())
        """
    )
    assert reported(pytester, run, failed=1) == {"GET /": (1, 1)}


def test_the_handlers_of_lambda_adapters(pytester: pytest.Pytester, run: Run) -> None:
    need("mangum")
    need("serverless_wsgi")
    pytester.makepyfile(
        """
        import asyncio
        import flask
        import pytest
        import serverless_wsgi
        from fastapi import FastAPI
        from mangum import Mangum
        from tests.frameworks.test_lambda_adapters import event
        from work import work

        asynchronous = FastAPI()
        asynchronous.get("/async")(work)
        synchronous = flask.Flask(__name__)
        synchronous.get("/sync")(work)

        @pytest.fixture
        def loop():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            yield
            asyncio.set_event_loop(None)
            loop.close()

        def test_mangum(loop):
            assert Mangum(asynchronous)(event("/async"), None)["body"] == '"refused"'

        def test_serverless_wsgi():
            assert serverless_wsgi.handle_request(synchronous, event("/sync"), None)["body"] == "refused"
        """
    )
    assert reported(pytester, run, failed=2) == {"GET /async": (1, 1), "GET /sync": (1, 1)}
