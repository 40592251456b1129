"""``tmpguard.live(app)``: a real server in the test's process, for browsers and other clients."""

from __future__ import annotations

import re
import textwrap

import django.test
import httpcore
import pytest
import uvicorn
import werkzeug.serving

import tmpguard.testing.live_asgi
import tmpguard.testing.live_wsgi
from tests.reporting.test_page import CHROMIUM, in_a_browser
from tests.support import PROJECT, Run, set_up_django
from tests.testing.conftest import ARGUMENTS

pytest_plugins = ["pytester"]

# What the runs import is imported here, as each of them forgets what it was the first to import.
IMPORTED = (
    django.test,
    httpcore,
    uvicorn,
    werkzeug.serving,
    tmpguard.testing.live_asgi,
    tmpguard.testing.live_wsgi,
)

set_up_django()


def test_each_request_to_either_kind_of_application_is_an_invocation(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import os
        import httpx
        import pytest
        from app import asgi, wsgi

        @pytest.mark.parametrize("app", [asgi, wsgi])
        def test_requests(tmpguard, app):
            with tmpguard.live(app, storage_size=2) as server:
                assert server.url == f"http://127.0.0.1:{server.port}"
                assert httpx.get(f"{server.url}/store?bytes=5000").text == "stored"
                assert httpx.get(f"{server.url}/listed").text == ""
                assert [report.peak_bytes for report in tmpguard.reports] == [8192, 0]
                assert tmpguard.last.quota_bytes == 2 << 20
            assert not os.path.exists("/tmp/stored.bin")
            with pytest.raises(httpx.ConnectError):
                httpx.get(server.url)
            server.close()

        @pytest.mark.parametrize("app", [asgi, wsgi])
        def test_violation(tmpguard, app):
            server = tmpguard.live(app)
            assert httpx.get(f"{server.url}/swallow").text == "swallowed"

        @pytest.mark.parametrize("app", [asgi, wsgi])
        def test_an_exception_is_a_500(tmpguard, app):
            tmpguard.allow("EROFS")
            server = tmpguard.live(app)
            assert httpx.get(f"{server.url}/raise").status_code == 500
            assert httpx.get(f"{server.url}/hello").text == "hello"
            assert [violation.path for violation in tmpguard.violations] == ["new.txt"]
        """
    )
    result = run()
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["*tmpguard: EROFS open 'new.txt' at app.py:12 in act", "*GET /swallow*"])
    assert not (pytester.path / "new.txt").exists()


def test_the_requests_of_many_connections_at_once_are_apart(pytester: pytest.Pytester, run: Run) -> None:
    """As a browser makes them: several connections, each kept for further requests."""
    pytester.makepyfile(
        """
        import os
        import threading
        from concurrent.futures import ThreadPoolExecutor
        import flask
        import httpx
        import pytest
        from fastapi import FastAPI, Request

        CLIENTS, EACH = 6, 5
        together = threading.Barrier(CLIENTS)

        def work(name, data):
            with open("/tmp/same.txt", "wb") as file:
                file.write(data)
            together.wait()  # the file of each request is there
            seen = [os.path.getsize("/tmp/same.txt"), os.listdir("/tmp").count("same.txt")]
            together.wait()
            return {"name": name, "seen": seen}

        asynchronous = FastAPI()

        @asynchronous.post("/{name}")
        def posted(name: str, request: Request, size: int):
            return work(name, bytes(size))

        synchronous = flask.Flask(__name__)

        @synchronous.post("/<name>")
        def posted_too(name):
            return work(name, flask.request.files["file"].read())

        @pytest.mark.parametrize("app", [asynchronous, synchronous])
        def test_at_once(tmpguard, app):
            server = tmpguard.live(app)

            def browser(number):
                size = number * 1000
                with httpx.Client(base_url=server.url) as client:
                    for _ in range(EACH):
                        response = client.post(
                            f"/{number}", params={"size": size}, files={"file": ("name", bytes(size))}
                        )
                        assert response.json() == {"name": str(number), "seen": [size, 1]}

            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(browser, range(CLIENTS)))
            assert len(tmpguard.reports) == CLIENTS * EACH
            # 0, 1, 1, 1, 1 and 2 pages of each client.
            assert sum(report.peak_bytes for report in tmpguard.reports) == 6 * 4096 * EACH
        """
    )
    run().assert_outcomes(passed=2)


def test_an_idle_connection_does_not_delay_the_end_and_a_request_in_progress_is_finished(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import threading
        import time
        import flask
        import httpx
        import pytest
        from fastapi import FastAPI
        from starlette.responses import StreamingResponse
        from tmpguard.testing import live

        go = threading.Event()

        def lines():
            with open("/tmp/lines.txt", "w+") as file:
                file.write("first second")
                file.flush()
                yield "first "
                go.wait()
                file.seek(6)
                yield file.read()

        asynchronous = FastAPI()
        asynchronous.get("/")(lambda: StreamingResponse(lines()))
        synchronous = flask.Flask(__name__)
        synchronous.get("/")(lambda: flask.Response(lines()))

        @pytest.mark.parametrize("app", [asynchronous, synchronous])
        def test_end(tmpguard, app, monkeypatch):
            go.clear()
            monkeypatch.setattr(live, "PATIENCE", 60)
            server = tmpguard.live(app)
            idle = httpx.Client()
            with httpx.Client() as client, client.stream("GET", server.url) as response:
                parts = response.iter_text()
                assert next(parts) == "first "
                assert idle.get(f"{server.url}/nowhere").status_code == 404
                closing = threading.Thread(target=server.close)
                closing.start()
                go.set()
                assert "".join(parts) == "second"
            before = time.monotonic()
            closing.join()
            assert time.monotonic() - before < live.PATIENCE, "it has waited for the idle connection"
            idle.close()
            assert tmpguard.reports[0].peak_bytes == 4096
        """
    )
    run().assert_outcomes(passed=2)


def test_what_does_not_end_by_itself_is_ended_with_the_server(pytester: pytest.Pytester, run: Run) -> None:
    """Such as a page's stream of events, in a browser that is closed after the server."""
    pytester.makepyfile(
        """
        import time
        import flask
        import httpx
        import pytest
        from fastapi import FastAPI
        from starlette.responses import StreamingResponse
        from tmpguard.testing import live

        def events():
            while True:
                time.sleep(0.01)
                yield "data: tick\\n\\n"

        asynchronous = FastAPI()
        asynchronous.get("/")(lambda: StreamingResponse(events(), media_type="text/event-stream"))
        synchronous = flask.Flask(__name__)
        synchronous.get("/")(lambda: flask.Response(events(), mimetype="text/event-stream"))

        @pytest.mark.parametrize("app", [asynchronous, synchronous])
        def test_events(tmpguard, app, monkeypatch):
            monkeypatch.setattr(live, "PATIENCE", 1)
            server = tmpguard.live(app)
            with httpx.Client() as client, client.stream("GET", server.url) as response:
                assert next(response.iter_lines()) == "data: tick"
                server.close()
        """
    )
    run().assert_outcomes(passed=2)


def test_the_lifespan_runs_around_the_server_and_its_failures_are_raised(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import threading
        import httpx
        import pytest
        import app

        async def failing(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        async def failing_to_stop(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            raise LookupError("no end")

        def test_start_up_and_shutdown(tmpguard):
            server = tmpguard.live(app.asgi)
            assert app.asgi.log == ["up"]
            assert httpx.get(f"{server.url}/state").text == "{'from': 'start-up'}"
            assert app.asgi.log == ["up"]

        def test_the_shutdown_came_at_the_end_of_the_test():
            assert app.asgi.log == ["up", "down"]

        def test_failing(tmpguard):
            threads = threading.active_count()
            with pytest.raises(RuntimeError, match="no database"):
                tmpguard.live(failing)
            assert threading.active_count() == threads

        def test_failing_at_the_end(tmpguard):
            server = tmpguard.live(failing_to_stop)
            with pytest.raises(LookupError, match="no end"):
                server.close()
        """
    )
    run().assert_outcomes(passed=4)


def test_a_start_up_is_guarded_where_imports_are(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import contextlib
        from fastapi import FastAPI

        @contextlib.asynccontextmanager
        async def lifespan(app):
            open("started.txt", "w").close()
            yield

        def test_start_up(tmpguard):
            try:
                tmpguard.live(FastAPI(lifespan=lifespan))
            except OSError:
                pass
        """
    )
    result = run("--tmpguard-import")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*EROFS open 'started.txt'*"])


def test_the_server_belongs_to_no_invocation_even_if_the_body_is_one(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import os
        import httpx
        import pytest
        from app import asgi, wsgi

        @pytest.mark.tmpguard(storage_size=3)
        @pytest.mark.parametrize("app", [asgi, wsgi])
        def test_body(tmpguard, app):
            open("/tmp/body.bin", "w").close()
            server = tmpguard.live(app)
            with httpx.Client(base_url=server.url) as client:
                assert client.get("/listed").text == ""
                assert client.get("/store?bytes=1").text == "stored"
            assert sorted(name for name in os.listdir("/tmp") if name.endswith(".bin")) == ["body.bin"]
            assert tmpguard.last.quota_bytes == 3 << 20
            server.close()
            assert len(tmpguard.reports) == 3  # the body and two requests
        """
    )
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_test_is_a_client_like_any_other(
    pytester: pytest.Pytester, app: None, run: Run, backend: str
) -> None:
    pytester.makepyfile(
        f"""
        import app
        import httpx
        import pytest

        @pytest.fixture
        def anyio_backend():
            return {backend!r}

        @pytest.mark.anyio
        async def test_requests(tmpguard):
            server = tmpguard.live(app.asgi)
            async with httpx.AsyncClient(base_url=server.url) as client:
                assert (await client.get("/store?bytes=1")).text == "stored"
            assert tmpguard.last.peak_bytes == 4096
        """
    )
    run().assert_outcomes(passed=1)


def test_mistakes_say_what_to_do(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest
        from app import wsgi

        @pytest.mark.parametrize("options, message", [
            ({"storage_sise": 1}, "storage_sise= is not an option of tmpguard: did you mean storage_size="),
            ({"storage_size": 0}, "storage_size=0 is not a storage size"),
            ({"headers": {}}, "headers= is not an option"),
            ({"interface": "cgi"}, "interface='cgi' is neither"),
        ])
        def test_options(tmpguard, options, message):
            with pytest.raises(ValueError, match=message):
                tmpguard.live(wsgi, **options)

        @pytest.mark.parametrize("app", ["app:wsgi", None, object])
        def test_no_application(tmpguard, app):
            with pytest.raises(ValueError, match="is not an application: give an ASGI or a WSGI application"):
                tmpguard.live(app)
        """
    )
    run().assert_outcomes(passed=7)


def test_a_missing_server_is_named(pytester: pytest.Pytester, app: None) -> None:
    pytester.makeconftest(
        """
        import sys

        class Missing:
            names = {"werkzeug", "uvicorn", "anyio"}

            def find_spec(self, name, path=None, target=None):
                if name in self.names:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        """
    )
    pytester.makepyfile(
        """
        import pytest
        from app import asgi, wsgi
        from conftest import Missing

        def test_wsgi(tmpguard):
            with pytest.raises(ValueError, match="WSGI applications needs werkzeug: pip install werkz"):
                tmpguard.live(wsgi)

        def test_asgi(tmpguard, monkeypatch):
            with pytest.raises(ValueError, match="ASGI applications needs uvicorn: pip install uvicorn"):
                tmpguard.live(asgi)
            monkeypatch.setattr(Missing, "names", {"anyio"})
            with pytest.raises(ValueError, match="ASGI applications needs anyio: pip install anyio"):
                tmpguard.live(asgi)
        """
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS, "-p", "no:anyio")
    result.assert_outcomes(passed=2)


def test_django_s_live_server(pytester: pytest.Pytester, urls: None, run: Run) -> None:
    """Which pytest-django's fixture uses, too. One of them may serve several tests."""
    pytester.makepyfile(
        """
        import os
        import httpx
        import pytest
        from django.core.asgi import get_asgi_application
        from django.core.wsgi import get_wsgi_application
        from django.test import LiveServerTestCase, override_settings

        SETTINGS = override_settings(
            ROOT_URLCONF="urls", MIDDLEWARE=[], STATIC_URL="/static/", MEDIA_URL="/media/"
        )

        @SETTINGS
        class TestPages(LiveServerTestCase):
            databases = ()
            host = "127.0.0.1"  # some containers do not resolve "localhost"

            def test_violation(self):
                assert httpx.get(f"{self.live_server_url}/items/one").text == "no"

            def test_sent(self):
                assert len(httpx.get(f"{self.live_server_url}/sent/").content) == 4096
                assert not os.path.exists("/tmp/stored")

        @pytest.mark.parametrize("make", [get_asgi_application, get_wsgi_application])
        def test_the_applications(tmpguard, make):
            with SETTINGS:
                server = tmpguard.live(make())
                assert httpx.get(f"{server.url}/stored/5000").text == "stored"
                assert tmpguard.last.peak_bytes == 8192
        """
    )
    result = run("--tmpguard", "-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*EROFS open 'one.txt' at urls.py:6 in item",
            "GET /stored/<int:number> * 8 KB *",
            "GET /sent/ * 4 KB *",
            "GET /items/<str:name> *",
        ]
    )
    assert not (pytester.path / "one.txt").exists()


@in_a_browser
def test_the_example_with_playwright_works(pytester: pytest.Pytester) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed")
    page = (PROJECT / "docs" / "pytest.md").read_text()
    (example,) = [one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "page.goto" in one]
    pytester.makeconftest(
        f"""
        import pytest
        from playwright.sync_api import sync_playwright

        @pytest.fixture
        def page():
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path={CHROMIUM!r}, args=["--no-sandbox", "--disable-gpu"]
                )
                yield browser.new_page()
                browser.close()
        """
    )
    application = """
        import flask

        app = flask.Flask(__name__)
        FORM = '<form method="post" enctype="multipart/form-data">' \\
            '<label>File <input type="file" name="file"></label><button>Send</button></form>'

        @app.route("/upload", methods=["GET", "POST"])
        def upload():
            if flask.request.method == "GET":
                return FORM
            flask.request.files["file"].save("/tmp/upload.jpg")
            return "<p>Thank you</p>"
    """
    (pytester.path / "test_example.py").write_text(textwrap.dedent(application) + example)
    (pytester.path / "photo.jpg").write_bytes(bytes(50_000))
    result = pytester.runpytest_subprocess(*ARGUMENTS, "--tmpguard")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["POST /upload * 52 KB *"])


@in_a_browser
def test_a_page_in_a_browser(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        f"""
        import subprocess
        import flask

        CHROMIUM = {CHROMIUM!r}
        PAGE = '''
        <!DOCTYPE html><title>page</title><ul></ul><script>
        Promise.all([1, 2, 3, 4, 5, 6].map(async (number) => {{{{
            const answer = await fetch("/count/" + number, {{{{method: "POST"}}}});
            document.querySelector("ul").append(Object.assign(
                document.createElement("li"), {{{{innerText: await answer.text()}}}}));
        }}}}));
        </script>
        '''.format()
        app = flask.Flask(__name__)

        @app.get("/")
        def page():
            return PAGE

        @app.post("/count/<int:number>")
        def count(number):
            with open("/tmp/count.txt", "a") as file:
                file.write("one line\\n")
            with open("/tmp/count.txt") as file:
                return f"{{number}}: {{len(file.readlines())}}"

        def test_page(tmpguard, tmp_path):
            server = tmpguard.live(app)
            quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
            done = subprocess.run(
                [
                    *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet),
                    *("--disable-component-update", f"--user-data-dir={{tmp_path}}/profile"),
                    *("--virtual-time-budget=5000", "--dump-dom", server.url),
                ],
                capture_output=True, text=True, check=True,
            )
            items = sorted(part.partition("<")[0] for part in done.stdout.split("<li>")[1:])
            assert items == [f"{{number}}: 1" for number in range(1, 7)]
            assert sum(report.peak_bytes for report in tmpguard.reports) == 6 * 4096
        """
    )
    run("--tmpguard").assert_outcomes(passed=1)
