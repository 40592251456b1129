"""The fixture ``tmpguard``: clients of ASGI and WSGI applications, their lifespan, and what is reported."""

from __future__ import annotations

import pytest

from tests.support import Run
from tests.testing.conftest import ARGUMENTS

pytest_plugins = ["pytester"]


def test_requests_to_both_kinds_of_application_are_invocations(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest
        from app import asgi, wsgi

        @pytest.mark.parametrize("app", [asgi, wsgi])
        def test_requests(tmpguard, app):
            client = tmpguard.client(app)
            with pytest.raises(LookupError, match="no guarded request yet"):
                tmpguard.last
            assert client.get("/store?bytes=5000").text == "stored"
            assert client.get("/listed").text == ""
            assert [report.peak_bytes for report in tmpguard.reports] == [8192, 0]
            assert tmpguard.last is tmpguard.reports[-1]
            assert tmpguard.violations == []
            assert not os.path.exists("/tmp/stored.bin")

        def test_options(tmpguard):
            client = tmpguard.client(wsgi, storage_size=2, headers={"x-name": "value"}, base_url="http://other")
            assert client.get("/store?bytes=0").request.url.host == "other"
            assert client.headers["x-name"] == "value"
            assert tmpguard.last.quota_bytes == 2 * 1024 * 1024

        def test_an_exception_of_the_application_is_raised(tmpguard):
            tmpguard.allow("EROFS")
            for app in asgi, wsgi:
                with pytest.raises(OSError, match="Read-only"):
                    tmpguard.client(app).get("/raise")
            assert tmpguard.client(asgi, raise_app_exceptions=False).get("/raise").status_code == 500
            (violation, *_) = tmpguard.violations
            assert (violation.operation, violation.path) == ("open", "new.txt")
            assert len(tmpguard.violations) == 3
        """
    )
    run().assert_outcomes(passed=4)


def test_the_lifespan_runs_around_the_requests(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import app

        def test_start_up_and_shutdown(tmpguard):
            del app.asgi.log[:]
            client = tmpguard.client(app.asgi)
            assert app.asgi.log == ["up"]
            assert client.get("/state").text == "{'from': 'start-up'}"
            assert app.asgi.log == ["up"]

        def test_the_shutdown_came_at_the_end_of_the_test(tmpguard):
            assert app.asgi.log == ["up", "down"]
            with tmpguard.client(app.asgi):
                pass
            assert app.asgi.log == ["up", "down"] * 2
        """
    )
    run().assert_outcomes(passed=2)


def test_a_failing_start_up_is_raised_and_a_missing_one_is_none(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import threading
        import pytest

        async def without(scope, receive, send):
            assert scope["type"] == "http", "no lifespan"
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async def raising(scope, receive, send):
            await receive()
            raise LookupError("no settings")

        async def failing(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        async def failing_to_stop(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            raise LookupError("no end")

        def test_none(tmpguard):
            assert tmpguard.client(without).get("/").status_code == 204

        @pytest.mark.parametrize("app, error", [(raising, "no settings"), (failing, "no database")])
        def test_failing(tmpguard, app, error):
            threads = threading.active_count()
            with pytest.raises((LookupError, RuntimeError), match=error):
                tmpguard.client(app)
            assert threading.active_count() == threads

        def test_failing_at_the_end(tmpguard):
            client = tmpguard.client(failing_to_stop)
            with pytest.raises(LookupError, match="no end"):
                client.close()
        """
    )
    run().assert_outcomes(passed=4)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_tests_have_a_client_in_their_own_loop(
    pytester: pytest.Pytester, app: None, run: Run, backend: str
) -> None:
    pytester.makepyfile(
        f"""
        import app
        import pytest

        @pytest.fixture
        def anyio_backend():
            return {backend!r}

        @pytest.fixture
        async def client(tmpguard):
            async with tmpguard.async_client(app.asgi, storage_size=3) as client:
                yield client

        @pytest.mark.anyio
        async def test_requests(tmpguard, client):
            assert (await client.get("/store?bytes=1")).text == "stored"
            assert (await client.get("/state")).text == "{{'from': 'start-up'}}"
            assert tmpguard.reports[0].peak_bytes == 4096
            assert tmpguard.last.quota_bytes == 3 << 20

        @pytest.mark.anyio
        async def test_wsgi(tmpguard):
            with pytest.raises(ValueError, match="is a WSGI application: use tmpguard.client"):
                async with tmpguard.async_client(app.wsgi):
                    pass
        """
    )
    run().assert_outcomes(passed=2)


def test_wrong_options_are_named(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest
        from app import wsgi

        @pytest.mark.parametrize("options, message", [
            ({"storage_sise": 1}, "storage_sise= is not an option of tmpguard: did you mean storage_size="),
            ({"storage_size": 0}, "storage_size=0 is not a storage size"),
            ({"transport": None}, "transport= is not an option"),
            ({"interface": "cgi"}, "interface='cgi' is neither"),
            ({"writable": "/srv", "writable_tmp_path": True}, "writable='/srv' is not a list"),
        ])
        def test_options(tmpguard, options, message):
            with pytest.raises(ValueError, match=message):
                tmpguard.client(wsgi, **options)

        def test_allow(tmpguard):
            for wrong, message in (("ENOWHERE", "no such errno"), (99999, "no such errno"), ("", "neither"),
                                   (True, "neither")):
                with pytest.raises(ValueError, match=message):
                    tmpguard.allow(wrong)
        """
    )
    run().assert_outcomes(passed=6)


def test_a_body_from_an_iterator_and_an_upload_are_sent(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        async def echo(scope, receive, send):
            assert scope["type"] == "http", "no lifespan"
            body = b""
            while True:
                message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        def test_bodies(tmpguard):
            client = tmpguard.client(echo)
            assert client.post("/", content=iter([b"one", b"two"])).content == b"onetwo"
            assert b"the file" in client.post("/", files={"name": b"the file"}).content
        """
    )
    run().assert_outcomes(passed=1)


def test_a_session_without_the_option_leaves_other_tests_alone(
    pytester: pytest.Pytester, app: None, run: Run
) -> None:
    """The plugin works, since one test takes the fixture; the others' requests stay as they are."""
    pytester.makepyfile(
        """
        import pathlib
        import httpx
        import app

        def test_with(tmpguard):
            tmpguard.client(app.wsgi).get("/hello")

        def test_without():
            client = httpx.Client(transport=httpx.WSGITransport(app.wsgi), base_url="http://testserver")
            client.get("/swallow?name=real.txt")
            assert pathlib.Path("real.txt").read_text() == "text"
        """
    )
    run().assert_outcomes(passed=2)


def test_a_wait_that_is_interrupted_ends_the_request(pytester: pytest.Pytester, run: Run) -> None:
    """By Ctrl-C, or by a plugin for timeouts; the client's shutdown does not wait for the request either."""
    pytester.makepyfile(
        """
        import asyncio
        import signal
        import pytest

        ended = []

        async def app(scope, receive, send):
            assert scope["type"] == "http", "no lifespan"
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        def interrupt(number, frame):
            raise TimeoutError("too slow")

        def test_slow(tmpguard):
            client = tmpguard.client(app)
            before = signal.signal(signal.SIGALRM, interrupt)
            try:
                with pytest.raises(TimeoutError, match="too slow"):
                    signal.setitimer(signal.ITIMER_REAL, 0.2)
                    client.get("/")
            finally:
                signal.signal(signal.SIGALRM, before)

        def test_it_has_ended():
            assert ended == [True]
        """
    )
    run().assert_outcomes(passed=2)


def test_an_exit_of_the_application_leaves_the_client_usable(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        async def app(scope, receive, send):
            assert scope["type"] == "http", "no lifespan"
            if scope["path"] == "/exit":
                raise SystemExit("over")
            if scope["path"] == "/skip":
                pytest.skip("not here")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        def test_exit(tmpguard):
            client = tmpguard.client(app)
            with pytest.raises(SystemExit, match="over"):
                client.get("/exit")
            assert client.get("/").status_code == 204
            client.get("/skip")
        """
    )
    run().assert_outcomes(skipped=1)


def test_a_flask_project_needs_neither_anyio_nor_httpx(pytester: pytest.Pytester) -> None:
    """But for the clients: httpx for each, and anyio for those of ASGI applications."""
    pytester.makeconftest(
        """
        import sys

        class Missing:
            names = {"anyio", "httpx", "httpx2"}

            def find_spec(self, name, path=None, target=None):
                if name in self.names:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        """
    )
    pytester.makepyfile(
        """
        import flask
        import pytest
        from conftest import Missing

        app = flask.Flask(__name__)

        @app.get("/")
        def index():
            with open("/tmp/file", "wb") as file:
                file.write(bytes(5000))
            return "done"

        async def asgi(scope, receive, send):
            raise AssertionError

        def test_the_framework_s_own_client(tmpguard):
            assert tmpguard.reports == []
            assert app.test_client().get("/").text == "done"
            assert tmpguard.violations == []
            assert tmpguard.last.peak_bytes == 8192

        def test_without_httpx(tmpguard):
            with pytest.raises(ValueError, match=r"need httpx: pip install 'tmpguard\\[testing\\]'"):
                tmpguard.client(app)

        def test_without_anyio(tmpguard, monkeypatch):
            monkeypatch.setattr(Missing, "names", {"anyio"})
            assert tmpguard.client(app).get("/").text == "done"
            with pytest.raises(ValueError, match=r"need anyio: pip install 'tmpguard\\[testing\\]'"):
                tmpguard.client(asgi)
        """
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS, "-p", "no:anyio", "--tmpguard")
    result.assert_outcomes(passed=3)


def test_mistakes_with_the_fixture_say_what_to_do(pytester: pytest.Pytester, app: None, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest
        from app import asgi

        def test_a_client_that_is_not_entered(tmpguard):
            client = tmpguard.async_client(asgi)
            with pytest.raises(AttributeError) as caught:
                client.get("/")
            said = "the client has no 'get' yet: async with tmpguard.async_client(app) as client: ..."
            assert str(caught.value) == said

        def test_a_name_of_the_module_that_the_fixture_hides(tmpguard):
            with pytest.raises(AttributeError, match="the fixture and hides the module; import tmpguard as"):
                tmpguard.Guard
            with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
                tmpguard.nothing
        """
    )
    run().assert_outcomes(passed=2)


def test_an_error_about_the_ini_file_spells_options_as_it_does(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini("[pytest]\ntmpguard = true\ntmpguard_storage_size = 256\n")
    pytester.makepyfile("def test(): pass")
    result = run()
    result.stderr.fnmatch_lines(
        [
            "ERROR: tmpguard: tmpguard_storage_size = 256: 256 MB is over the free plan's 128 MB; "
            "tmpguard_plan = pro allows 512, or give tmpguard_storage_size = 128"
        ]
    )
