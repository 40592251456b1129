"""``--tmpguard-import``: the imports of test modules and conftest files, and start-ups, are guarded, too."""

from __future__ import annotations

import json

import fastapi
import pytest
import starlette.testclient

from tests.support import Run

pytest_plugins = ["pytester"]

IMPORTED = (fastapi, starlette.testclient)

AT_IMPORT = """
    import os

    try:
        os.mkdir("models")
    except OSError:
        pass
"""


def test_a_violation_at_import_fails_the_module(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(loading=AT_IMPORT)
    pytester.makepyfile(test_loading="import loading\ndef test(): pass", test_other="def test(): pass")
    result = run("--tmpguard-import", "--continue-on-collection-errors", "--tmpguard-report=report")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_loading.py*",
            "tmpguard: EROFS os.mkdir 'models' at loading.py:4 in <module>",
            "  in:      (import)",
            "    >     4 |     os.mkdir(*",
            "  remedy:  *",
            "To allow expected violations at import, in the ini file: tmpguard_allow = *",
            "0 requests to 0 routes by 0 tests, 1 import: 1 violation, *",
        ]
    )
    result.stdout.no_fnmatch_line("*@pytest.mark.tmpguard*")  # which could not allow it
    assert not (pytester.path / "models").exists()
    (row,) = json.loads((pytester.path / "report.json").read_text())["tests"]
    assert (row["test"], row["kind"], row["violations"]) == ("test_loading.py", "start", 1)


def test_an_import_that_fails_by_it_says_so_too(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(test_loading="import os\nos.mkdir('models')")
    result = run("--tmpguard-import")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E   OSError: ?Errno 30? Read-only file system: 'models'", "*- tmpguard -*"])
    result.stdout.no_fnmatch_line("*interpose*")  # the traceback ends at the line that asked for it


def test_a_conftest_file_s_violation_ends_the_run(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(loading=AT_IMPORT)
    pytester.makeconftest("import loading")
    pytester.makepyfile(test_nothing="def test(): pass")
    result = run("--tmpguard-import")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: tmpguard: EROFS os.mkdir 'models' at loading.py:4 in <module>"])


def test_what_other_plugins_write_at_the_start_is_no_finding(pytester: pytest.Pytester, run: Run) -> None:
    """pytest-cov removes its old file when pytest is about to load the conftest files."""
    pytester.makepyfile(
        loud="""
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_load_initial_conftests():
            open("first.txt", "w").close()

        class Second:
            def pytest_load_initial_conftests(self):
                open("second.txt", "w").close()

        class Last:
            @pytest.hookimpl(trylast=True)
            def pytest_load_initial_conftests(self):
                open("last.txt", "w").close()

        def pytest_addoption(parser, pluginmanager):
            pluginmanager.register(Second())
            pluginmanager.register(Last())
        """
    )
    pytester.makeconftest("import os\nassert os.access('.', os.W_OK) is False")
    pytester.makepyfile(test_nothing="def test(): pass")
    pytester.syspathinsert()
    run("-p", "loud", "--tmpguard-import").assert_outcomes(passed=1)
    assert sorted(path.name for path in pytester.path.glob("*.txt")) == [
        "first.txt",
        "last.txt",
        "second.txt",
    ]


def test_what_is_expected_at_import_is_allowed_in_the_ini_file(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(loading=AT_IMPORT)
    pytester.makeconftest("import loading")
    pytester.makeini("[pytest]\ntmpguard_import = true\ntmpguard_allow = models\n")
    pytester.makepyfile(test_nothing="def test(): pass")
    run().assert_outcomes(passed=1)


def test_imports_without_a_finding_change_nothing(pytester: pytest.Pytester, run: Run) -> None:
    """Bytecode is written, output is captured, and what is imported works after its import."""
    pytester.makeconftest("import tempfile\nprint('to the captured output')\n")
    pytester.makepyfile(helper="VALUE = 1")
    pytester.makepyfile(
        test_it="""
        import helper
        print("at import")

        def test(capfd, tmp_path):
            (tmp_path / "file").write_text("text")
            print("in the test")
            assert capfd.readouterr().out.endswith("in the test\\n")
            assert helper.VALUE == 1
        """
    )
    result = run("--tmpguard-import")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*= tmpguard =*")


def test_start_ups_are_guarded(pytester: pytest.Pytester, run: Run) -> None:
    """Of the fixture's clients and of Starlette's, up to the end of the start-up."""
    pytester.makepyfile(
        app="""
        import contextlib
        import pathlib
        import fastapi

        def write(name):
            try:
                pathlib.Path(name).write_text("text")
            except OSError:
                pass

        @contextlib.asynccontextmanager
        async def lifespan(app):
            write("up.txt")
            yield
            write("down.txt")

        app = fastapi.FastAPI(lifespan=lifespan)
        app.get("/")(lambda: None)
        """
    )
    pytester.makepyfile(
        """
        import os
        import pytest
        from starlette.testclient import TestClient
        from app import app

        def test_fixture(tmpguard):
            assert tmpguard.client(app).get("/").status_code == 200

        def test_starlette():
            with TestClient(app) as client:
                assert client.get("/").status_code == 200

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_async(tmpguard, anyio_backend):
            async with tmpguard.async_client(app) as client:
                assert (await client.get("/")).status_code == 200

        def test_of_the_shutdown_nothing_is_guarded():
            assert os.path.exists("down.txt")
            assert not os.path.exists("up.txt")
        """
    )
    result = run("--tmpguard-import")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["  in:      (start-up)", "  by:      app.py:7 in write"] * 3)


def test_a_start_up_that_the_application_guards_itself_is_reported(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        from tmpguard.asgi import TmpGuardMiddleware

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                try:
                    open("up.txt", "w")
                except OSError:
                    pass
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})

        def test_it(tmpguard):
            tmpguard.client(TmpGuardMiddleware(app, lifespan=True))
        """
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["tmpguard: EROFS open 'up.txt' at *", "  in:      (start-up)"])


# --- lifetime="instance" ---------------------------------------------------------------------------------

INSTANCE = """
    [pytest]
    tmpguard = true
    tmpguard_import = true
    tmpguard_lifetime = instance
    tmpguard_storage_size = 1
    tmpguard_platform = none
"""


def test_each_test_begins_with_what_the_imports_left(pytester: pytest.Pytester, run: Run) -> None:
    """As each instance of the platform has imported the application."""
    pytester.makeini(INSTANCE)
    pytester.makeconftest("open('/tmp/of-conftest', 'w').close()")
    pytester.makepyfile(
        app="""
        import os
        import shutil

        os.makedirs("/tmp/cache/new")
        os.symlink("/tmp/cache", "/tmp/link")
        with open("/tmp/cache/model.bin", "wb") as file:
            file.write(bytes(8192))

        def app(environ, start_response):
            found = sorted(os.listdir("/tmp")), shutil.disk_usage("/tmp").used
            with open("/tmp/link/new/result", "w") as file:
                file.write("x")
            with open("/tmp/cache/model.bin", "wb") as file:
                file.write(b"changed")
            os.remove("/tmp/of-conftest")
            start_response("200 OK", [])
            return [repr(found).encode()]
        """,
        test_it="""
        import pytest
        from app import app

        @pytest.mark.parametrize("number", range(3))
        def test_each(tmpguard, number):
            client = tmpguard.client(app)
            assert client.get("/").text == "(['cache', 'link', 'of-conftest'], 8192)"
            assert tmpguard.last.violations == ()

        @pytest.mark.tmpguard(storage_size=2, body=False)
        def test_other_options(tmpguard):
            assert tmpguard.client(app).get("/").text == "(['cache', 'link', 'of-conftest'], 8192)"
        """,
    )
    run().assert_outcomes(passed=4)


def test_what_an_import_keeps_open_can_be_written_in_each_test(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini(INSTANCE + "    tmpguard_late_writes = fail\n")
    pytester.makepyfile(
        app="""
        LOG = open("/tmp/app.log", "w")

        def app(environ, start_response):
            LOG.write("request\\n")
            LOG.flush()
            start_response("200 OK", [])
            return [b""]
        """,
        test_it="""
        import pytest
        from app import LOG, app

        @pytest.mark.parametrize("number", range(2))
        def test_each(tmpguard, number):
            assert tmpguard.client(app).get("/").status_code == 200
            assert not tmpguard.last.late_writes

        def test_close():
            LOG.close()
        """,
    )
    run().assert_outcomes(passed=3)


def test_the_directory_to_which_an_import_goes_is_that_of_each_test(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeini(INSTANCE)
    pytester.makepyfile(
        app="""
        import os

        os.mkdir("/tmp/work")
        os.chdir("/tmp/work")

        def app(environ, start_response):
            start_response("200 OK", [])
            return [os.getcwd().encode()]
        """,
        test_it="""
        import pytest
        from app import app

        @pytest.mark.parametrize("number", range(2))
        def test_each(tmpguard, number):
            assert tmpguard.client(app).get("/").text == "/tmp/work"
        """,
    )
    run().assert_outcomes(passed=2)
