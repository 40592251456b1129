"""What people try first: each mistake gets an error that says what to do instead."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastapi
import flask
import pytest
import starlette.applications

import tmpguard
import tmpguard.asgi
import tmpguard.wsgi
from tests.support import PROJECT, case


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(tmpguard.ConfigurationError) as caught:
        call()
    return str(caught.value)


# --- the wrong middleware --------------------------------------------------------------------------------


def test_the_middleware_of_wsgi_on_an_asgi_application() -> None:
    async def plain(scope: object, receive: object, send: object) -> None: ...

    for app in (fastapi.FastAPI(), starlette.applications.Starlette(), plain):
        with case(app):
            said = refused(lambda app=app: tmpguard.wsgi.TmpGuardMiddleware(app))  # type: ignore[misc]
            assert said.endswith(
                "is an ASGI application, which tmpguard.wsgi cannot wrap: "
                "from tmpguard.asgi import TmpGuardMiddleware"
            )


def test_the_middleware_of_asgi_on_a_wsgi_application() -> None:
    def plain(environ: object, start_response: object) -> list[bytes]:
        return []

    app = flask.Flask("app")
    for wsgi in (app, app.wsgi_app, plain):
        with case(wsgi):
            said = refused(lambda wsgi=wsgi: tmpguard.asgi.TmpGuardMiddleware(wsgi))  # type: ignore[misc]
            assert said.endswith(
                "is a WSGI application, which tmpguard.asgi cannot wrap: "
                "from tmpguard.wsgi import TmpGuardMiddleware"
            )


def test_the_middleware_around_mangum() -> None:
    class Mangum:
        __module__ = "mangum.adapter"

        def __call__(self, event: object, context: object) -> object: ...

    Mangum.__qualname__ = "Mangum"
    said = refused(lambda: tmpguard.asgi.TmpGuardMiddleware(Mangum()))  # type: ignore[arg-type]
    assert said == (
        "Mangum is the handler of a Lambda function: wrap the application inside it, "
        "Mangum(TmpGuardMiddleware(app)) with tmpguard.asgi's"
    )


def test_another_middleware_in_django_s_list() -> None:
    def get_response(request: object) -> object: ...

    for module in (tmpguard.asgi, tmpguard.wsgi):
        said = refused(lambda module=module: module.TmpGuardMiddleware(get_response))  # type: ignore[misc]
        assert said.endswith('put "tmpguard.django.TmpGuardMiddleware" there')


def test_applications_of_an_unknown_kind_are_wrapped() -> None:
    """Only what is clearly of the other kind is refused."""

    class Anything:
        def __call__(self, *args: object, **kwargs: object) -> Any: ...

    for middleware in (tmpguard.asgi.TmpGuardMiddleware, tmpguard.wsgi.TmpGuardMiddleware):
        for app in (Anything(), lambda *args: None):
            middleware(app, bundle=None)


def test_the_middleware_in_the_place_of_the_application() -> None:
    app = flask.Flask("app")
    wrapped: Any = tmpguard.wsgi.TmpGuardMiddleware(app, bundle=None)
    with pytest.raises(AttributeError) as caught:
        wrapped.test_client()
    assert str(caught.value) == (
        "'TmpGuardMiddleware' object has no attribute 'test_client', which the application has: do not "
        "replace the application, set app.wsgi_app = TmpGuardMiddleware(app.wsgi_app)"
    )
    outer: Any = tmpguard.asgi.TmpGuardMiddleware(fastapi.FastAPI(), bundle=None)
    with pytest.raises(AttributeError, match=r"call app.add_middleware\(TmpGuardMiddleware\)"):
        outer.get("/")
    for middleware in (wrapped, outer):
        assert not hasattr(middleware, "nothing")
        with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
            middleware.nothing  # noqa: B018


# --- names that are not there ----------------------------------------------------------------------------


def test_there_is_no_middleware_without_an_interface() -> None:
    with pytest.raises(ImportError, match=r"import TmpGuardMiddleware from tmpguard.asgi \(FastAPI"):
        exec("from tmpguard import TmpGuardMiddleware")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tmpguard.nothing  # noqa: B018
    assert not hasattr(tmpguard, "nothing")


@pytest.mark.parametrize(("name", "right"), [("fastapi", "asgi"), ("starlette", "asgi"), ("flask", "wsgi")])
def test_there_is_no_module_for_a_framework(name: str, right: str) -> None:
    for _ in range(2):
        with pytest.raises(ImportError, match=f"so from tmpguard.{right} import TmpGuardMiddleware"):
            importlib.import_module(f"tmpguard.{name}")


# --- a decorator, and async with -------------------------------------------------------------------------


def write() -> list[str]:
    assert tmpguard.current() is not None
    open(f"/tmp/{len(os.listdir('/tmp'))}", "w").close()
    return os.listdir("/tmp")


def test_a_function_can_be_decorated(scratch_root: Path) -> None:
    """Each call is an invocation of its own, with its own empty /tmp."""

    @tmpguard.invocation(scratch_root=scratch_root, bundle=None)
    def work(argument: int, *, keyword: str = "") -> tuple[int, str, list[str]]:
        """Documented."""
        return argument, keyword, write()

    assert work.__name__ == "work"
    assert work.__doc__ == "Documented."
    for _ in range(2):
        assert work(1, keyword="x") == (1, "x", ["0"])
    assert tmpguard.current() is None


def test_a_coroutine_function_can_be_decorated(scratch_root: Path) -> None:
    @tmpguard.invocation(scratch_root=scratch_root, bundle=None)
    async def work() -> list[str]:
        await asyncio.sleep(0)
        return write()

    async def main() -> list[list[str]]:
        return await asyncio.gather(work(), work(), work())

    assert asyncio.run(main()) == [["0"]] * 3


def test_a_decorated_function_raises_what_it_raises(scratch_root: Path) -> None:
    @tmpguard.invocation(scratch_root=scratch_root, bundle=None)
    def work() -> None:
        open("/etc/new", "w")

    with pytest.raises(OSError, match="Read-only file system"):
        work()
    assert tmpguard.current() is None


def test_a_start_can_decorate(guard: tmpguard.Guard) -> None:
    @tmpguard.cold_start(guard=guard)
    def start() -> bool:
        invocation = tmpguard.current()
        return invocation is not None and invocation.report.cold_start

    assert start()


def test_invocations_of_an_instance_can_decorate(scratch_root: Path) -> None:
    guard = tmpguard.Guard(lifetime="instance", scratch_root=scratch_root, bundle=None)
    work = guard.invocation()(write)
    assert work() == ["0"]
    assert sorted(work()) == ["0", "1"]
    guard.end_instance()
    assert work() == ["0"]
    guard.end_instance()


def test_async_with(scratch_root: Path) -> None:
    async def main() -> tmpguard.Invocation:
        async with tmpguard.invocation(scratch_root=scratch_root, bundle=None) as invocation:
            assert tmpguard.current() is invocation
            await asyncio.sleep(0)
            assert write() == ["0"]
        assert tmpguard.current() is None
        return invocation

    assert asyncio.run(main()).report.files == 1


# --- no temporary directory ------------------------------------------------------------------------------


def test_a_machine_without_a_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert refused(lambda: tmpguard.Guard(bundle=None)) == (
        "No usable temporary directory found in ['/tmp', '/var/tmp']: give scratch_root=, a writable "
        "directory for the files of requests"
    )


# --- metrics ---------------------------------------------------------------------------------------------


def test_metrics_without_opentelemetry_say_so_once() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
sys.modules["opentelemetry"] = None
from tmpguard import metrics
for _ in range(2):
    metrics.record(None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        0,
        "tmpguard: metrics.record does nothing, it needs OpenTelemetry: pip install opentelemetry-api\n",
    )
