"""``--tmpguard``: each test client's requests are guarded, with no change to application or tests."""

from __future__ import annotations

import json
from typing import Any

import django
import django.test
import fastapi
import flask
import pytest
import starlette.testclient

import tmpguard.django
from tests.support import Run, set_up_django

pytest_plugins = ["pytester"]

# What the runs import is imported here, as each of them forgets what it was the first to import.
IMPORTED = (fastapi, flask, starlette.testclient, django.test, tmpguard.django)

set_up_django()


def reported(pytester: pytest.Pytester, run: Run, *arguments: str, **outcomes: int) -> Any:
    """Run the tests with the option, and give the report."""
    result = run("--tmpguard", "--tmpguard-report=report", *arguments)
    result.assert_outcomes(**outcomes)
    return json.loads((pytester.path / "report.json").read_text())


def requests_of(report: Any) -> dict[str, tuple[int, int, int]]:
    """Requests, violations and peak bytes of each route."""
    return {row["route"]: (row["requests"], row["violations"], row["peak_bytes"]) for row in report["routes"]}


def test_starlette_s_test_client(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        app="""
        from fastapi import APIRouter, FastAPI, WebSocket
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Mount, Route

        def part(request):
            open("/tmp/part", "w").close()
            return PlainTextResponse("part")

        app = FastAPI()
        router = APIRouter(prefix="/items")

        @router.get("/{name}")
        def item(name: str):
            try:
                open(f"{name}.txt", "w")
            except OSError:
                pass

        @router.post("/{name}")
        async def store(name: str):
            with open("/tmp/file", "wb") as file:
                file.write(bytes(5000))

        @app.websocket("/socket")
        async def socket(websocket: WebSocket):
            await websocket.accept()
            with open("/tmp/file", "wb") as file:
                file.write(bytes(10000))
            await websocket.send_text("done")
            await websocket.close()

        app.include_router(router)
        app.mount("/parts", Starlette(routes=[Route("/{number}", part)]))
        """
    )
    pytester.makepyfile(
        """
        from starlette.testclient import TestClient
        from app import app

        client = TestClient(app)

        def test_violation():
            assert client.get("/items/one").status_code == 200
            assert client.get("/items/two").status_code == 200

        def test_others():
            with TestClient(app) as entered:
                assert entered.app is app
                entered.post("/items/one")
                entered.get("/parts/7")
                entered.get("/nowhere")
                with entered.websocket_connect("/socket") as socket:
                    assert socket.receive_text() == "done"
        """
    )
    report = reported(pytester, run, passed=1, failed=1)
    assert requests_of(report) == {
        "GET /items/{name}": (2, 2, 0),
        "POST /items/{name}": (1, 0, 8192),
        "GET /parts/{number}": (1, 0, 0),
        "GET /nowhere": (1, 0, 0),
        "WS /socket": (1, 0, 12288),
    }
    assert not (pytester.path / "one.txt").exists()


def test_flask_s_test_client(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import os
        import flask
        import pytest

        app = flask.Flask(__name__)

        @app.route("/<name>")
        def item(name):
            try:
                open(f"{name}.txt", "w")
            except OSError:
                return "no"

        @app.route("/streamed", methods=["POST"])
        def streamed():
            with open("/tmp/streamed", "wb") as file:
                file.write(bytes(4096))
            return flask.send_file("/tmp/streamed")

        @pytest.fixture
        def client():
            return app.test_client()

        def test_violation(client):
            assert client.get("/one").text == "no"

        def test_kept_response(client):
            global response
            response = client.post("/streamed")
            assert len(response.data) == 4096

        def test_the_request_has_ended_with_its_test():
            assert not os.path.exists("/tmp/streamed")
            response.close()
        """
    )
    report = reported(pytester, run, passed=2, failed=1)
    assert requests_of(report) == {"GET /<name>": (1, 1, 0), "POST /streamed": (1, 0, 4096)}
    assert [row["files_left"] for row in report["routes"]] == [1, 0]


def test_django_s_test_clients(pytester: pytest.Pytester, urls: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import os
        import pytest
        from django.test import AsyncClient, Client, SimpleTestCase, override_settings

        @pytest.fixture(autouse=True)
        def settings():
            with override_settings(ROOT_URLCONF="urls", MIDDLEWARE=[]):
                yield

        def test_violation():
            assert Client().get("/items/one").content == b"no"

        def test_streamed():
            assert len(b"".join(Client().get("/streamed/"))) == 4096

        def test_violation_of_the_async_client():
            async def request():
                assert (await AsyncClient().get("/items/one")).content == b"no"
            asyncio.run(request())

        class TestCase(SimpleTestCase):
            def test_violation(self):
                assert self.client.get("/items/one").content == b"no"

        def test_no_route():
            assert Client().get("/nowhere").status_code == 404
        """
    )
    report = reported(pytester, run, passed=2, failed=3)
    assert requests_of(report) == {
        "GET /items/<str:name>": (3, 3, 0),
        "GET /streamed/$": (1, 0, 4096),
        "GET /nowhere": (1, 0, 0),
    }


def test_httpx_s_transports(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import httpx
        import pytest
        from app import asgi, wsgi

        BASE = "http://testserver"

        def test_wsgi():
            transport = httpx.WSGITransport(wsgi)
            with httpx.Client(transport=transport, base_url=BASE) as client:
                assert client.get("/swallow").text == "swallowed"
            assert transport.app is wsgi

        def test_asgi():
            async def request():
                async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url=BASE) as client:
                    assert (await client.get("/store?bytes=1")).text == "stored"
                    assert (await client.get("/swallow")).text == "swallowed"
            asyncio.run(request())

        def test_the_fixture_guards_once(tmpguard):
            assert tmpguard.client(wsgi, storage_size=2).get("/store?bytes=1").text == "stored"
            assert tmpguard.client(asgi, storage_size=2).get("/store?bytes=1").text == "stored"
            assert [report.quota_bytes for report in tmpguard.reports] == [2 << 20] * 2
        """
    )
    report = reported(pytester, run, passed=1, failed=2)
    assert requests_of(report) == {"GET /swallow": (2, 2, 0), "GET /store": (3, 0, 4096)}


def test_an_application_s_own_guard_is_the_only_one(pytester: pytest.Pytester, run: Run) -> None:
    """Its options hold, and its violations fail the test; also where nothing else is guarded."""
    pytester.makepyfile(
        guarded="""
        import fastapi
        import flask
        from django.http import HttpResponse
        from django.urls import path
        from tmpguard.asgi import TmpGuardMiddleware
        from tmpguard.wsgi import TmpGuardMiddleware as WSGIMiddleware

        def act(name):
            with open("/tmp/file", "wb") as file:
                file.write(bytes(4096))
            try:
                open(name, "w")
            except OSError:
                pass
            return "done"

        api = fastapi.FastAPI()
        api.add_middleware(TmpGuardMiddleware, storage_size=3)
        api.get("/{name}")(act)

        site = flask.Flask(__name__)
        site.wsgi_app = WSGIMiddleware(site.wsgi_app, storage_size=3)
        site.route("/<name>")(act)

        urlpatterns = [path("<str:name>", lambda request, name: HttpResponse(act(name)))]
        """
    )
    pytester.makepyfile(
        """
        import asyncio
        import pytest
        from django.test import AsyncClient, Client, override_settings
        from starlette.testclient import TestClient
        from guarded import api, site

        SETTINGS = dict(ROOT_URLCONF="guarded", TMPGUARD={"storage_size": 3},
                        MIDDLEWARE=["tmpguard.django.TmpGuardMiddleware"])

        def starlette():
            TestClient(api).get("/one")

        def flask():
            site.test_client().get("/one").close()

        def django():
            with override_settings(**SETTINGS):
                Client().get("/one")

        def django_async():
            async def request():
                await AsyncClient().get("/one")
            with override_settings(**SETTINGS):
                asyncio.run(request())

        @pytest.mark.parametrize("request_by", [starlette, flask, django, django_async])
        def test_own(tmpguard, request_by):
            request_by()
            (report,) = tmpguard.reports
            assert (report.quota_bytes, report.files) == (3 << 20, 1)
            assert [violation.path for violation in tmpguard.violations] == ["one"]
        """
    )
    for option in ("--tmpguard", "--strict-markers"):
        result = run(option)
        result.assert_outcomes(failed=4)
        result.stdout.fnmatch_lines(["*tmpguard: EROFS open 'one' at guarded.py:12 in act"] * 4)
        result.stdout.fnmatch_lines(["4 requests to 3 routes by 4 tests: 4 violations,*4 KB of 3 MB used"])


def test_the_options_of_the_ini_file_hold(pytester: pytest.Pytester, app: None, run: Run) -> None:
    (pytester.path / "srv").mkdir()
    (pytester.path / "project" / "allowed").mkdir(parents=True)
    pytester.makeini(
        """
        [pytest]
        tmpguard = true
        tmpguard_storage_size = 2
        tmpguard_plan = pro
        tmpguard_platform = genezio
        tmpguard_bundle = project
        tmpguard_writable = srv
        tmpguard_max_files = 5
        tmpguard_allow =
            */project/allowed/*
            ENOSPC
        """
    )
    pytester.makepyfile(
        """
        import httpx, os
        from app import wsgi

        seen = []

        def asking(environ, start_response):
            import tmpguard
            guard = tmpguard.current().guard
            seen.append((guard.storage_size, guard.plan, guard.max_files, os.getcwd(), guard.writable))
            return wsgi(environ, start_response)

        def client():
            return httpx.Client(transport=httpx.WSGITransport(asking), base_url="http://testserver")

        def test_options():
            here = os.getcwd()
            client().get("/hello")
            assert seen == [(2, "pro", 5, here + "/project", (here + "/srv",))]

        def test_allowed():
            client().get(f"/swallow?name=allowed/name&name={os.getcwd()}/srv/name")
            assert os.path.exists("srv/name")

        def test_not_allowed():
            client().get("/swallow")
        """
    )
    result = run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["3 requests*: 1 violation (and 1 allowed),*"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tmpguard_storage_size = 0", "tmpguard_storage_size = 0 is not a storage size*"),
        ("tmpguard_storage_size = many", "tmpguard_storage_size = many is not a storage size*"),
        ("tmpguard_bundle = nowhere", "tmpguard_bundle = *nowhere does not exist*"),
        ("tmpguard_children = forbid", "tmpguard_children = forbid is not one of*"),
        (
            "tmpguard_allow = ENOWHERE",
            "tmpguard_allow = ENOWHERE: there is no such errno: give the name or the*",
        ),
        ("tmpguard_late_writes = maybe", "tmpguard_late_writes = 'maybe' is neither report nor fail"),
    ],
)
def test_a_wrong_option_ends_the_run_with_its_message(
    pytester: pytest.Pytester, run: Run, line: str, message: str
) -> None:
    pytester.makeini(f"[pytest]\ntmpguard = true\n{line}\n")
    pytester.makepyfile("def test(): pass")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *tmpguard: {message}"])


def test_an_instance_of_tmp_is_one_test_s(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makeini("[pytest]\ntmpguard = true\ntmpguard_lifetime = instance\n")
    pytester.makepyfile(
        """
        import httpx
        import pytest
        from app import wsgi

        @pytest.mark.parametrize("number", [1, 2])
        def test_requests(number):
            with httpx.Client(transport=httpx.WSGITransport(wsgi), base_url="http://testserver") as client:
                assert client.get("/listed").text == ""
                client.get("/store?bytes=1")
                assert client.get("/listed").text == "stored.bin"
        """
    )
    run().assert_outcomes(passed=2)


def test_a_framework_that_is_imported_in_a_test_is_patched_then(pytester: pytest.Pytester) -> None:
    """And none is imported for it. In a process of its own, where none is imported yet."""
    pytester.makepyfile(
        app="""
        async def app(scope, receive, send):
            try:
                open("new.txt", "w")
            except OSError:
                pass
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        """
    )
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_imported():
            assert not {"httpx", "starlette", "werkzeug", "django", "flask"} & set(sys.modules)

        def test_import():
            from app import app
            import httpx, asyncio
            async def request():
                async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
                    await client.get("http://testserver/")
            asyncio.run(request())
            assert "Transport" in repr(httpx.__loader__.get_source("httpx"))
        """
    )
    result = pytester.runpytest_subprocess(
        *("--tmpguard", "-p", "no:randomly", "-p", "no:anyio", "-p", "no:hypothesispytest"),
        *("-p", "no:asyncio", "-W", "error"),
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*tmpguard: EROFS open 'new.txt' at app.py:3 in app"])


def test_a_warning_of_a_framework_names_the_line_that_imports_it(pytester: pytest.Pytester, run: Run) -> None:
    """Though its import goes through the plugin, so that filters by module mean what they always mean."""
    pytester.makepyfile(
        httpx2="""
        import warnings

        warnings.warn("httpx2 is old", UserWarning, stacklevel=2)

        class ASGITransport:
            def handle_async_request(self): pass

        class WSGITransport:
            def handle_request(self): pass
        """
    )
    pytester.makepyfile(
        """
        import sys
        import pytest

        def test_import(monkeypatch):
            monkeypatch.delitem(sys.modules, "httpx2", raising=False)
            with pytest.warns(UserWarning, match="httpx2 is old") as caught:
                import httpx2
            assert hasattr(httpx2.WSGITransport.handle_request, "__wrapped__")
            assert caught[0].filename == __file__
        """
    )
    run("--tmpguard").assert_outcomes(passed=1)
