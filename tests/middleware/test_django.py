"""tmpguard.django: settings and their check, sync and async stacks, and the end of an invocation (C4.3)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import django
import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from gunicorn.http.wsgi import FileWrapper

import tmpguard
from tests.support import eventually, listed, set_up_django
from tmpguard.django import TmpGuardMiddleware, check_settings

set_up_django()

listens = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="since 5.0 Django listens for a client that goes away"
)

Ended = Callable[[], list[tmpguard.Report]]
Serve = Callable[..., None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def serve(options: dict[str, Any]) -> Iterator[Serve]:
    """Makes its argument the view of "/", behind the guard and the middlewares given."""
    overrides = []

    def serve(view: Callable[..., Any], *middlewares: str, **changes: Any) -> None:
        class Urls:
            urlpatterns = (path("", view),)

        override = override_settings(
            ROOT_URLCONF=Urls,
            MIDDLEWARE=["tmpguard.django.TmpGuardMiddleware", *middlewares],
            TMPGUARD=options,
            **changes,
        )
        override.enable()
        overrides.append(override)

    yield serve
    for override in reversed(overrides):
        override.disable()


def bound() -> bool:
    return tmpguard.current() is not None


# --- what a request sees -------------------------------------------------------------------------------


def write_and_read(request: Any) -> HttpResponse:
    there = listed()
    Path("/tmp/same.txt").write_text("text")
    return HttpResponse(f"{there} {Path('/tmp/same.txt').read_text()}")


async def write_and_read_async(request: Any) -> HttpResponse:
    await asyncio.sleep(0)
    return await sync_to_async(write_and_read)(request)


@pytest.mark.parametrize("view", [write_and_read, write_and_read_async])
def test_each_request_of_the_client_has_a_tmp_of_its_own(serve: Serve, view: Any, ended: Ended) -> None:
    serve(view)
    client = Client()
    for _ in range(2):
        assert client.get("/").content == b"[] text"
    assert [(report.files, report.used_bytes) for report in ended()] == [(1, 4096)] * 2
    assert not bound()


@pytest.mark.anyio
@pytest.mark.parametrize("view", [write_and_read, write_and_read_async])
async def test_each_request_of_the_async_client_has_a_tmp_of_its_own(
    serve: Serve, view: Any, ended: Ended
) -> None:
    serve(view)
    client = AsyncClient()
    for _ in range(2):
        assert (await client.get("/")).content == b"[] text"
    assert [(report.files, report.used_bytes) for report in ended()] == [(1, 4096)] * 2
    assert not bound()


def test_a_write_outside_is_refused_and_reported_with_the_views_line(serve: Serve, ended: Ended) -> None:
    def view(request: Any) -> HttpResponse:
        try:
            open("file.txt", "w")
        except OSError as exc:
            return HttpResponse(str(exc))
        return HttpResponse("written")

    serve(view)
    assert Client().get("/").content == b"[Errno 30] Read-only file system: 'file.txt'"
    [report] = ended()
    [violation] = report.violations
    assert violation.location is not None
    assert (violation.location.file, violation.path) == (__file__, "file.txt")


def test_a_request_that_touches_no_file_makes_no_directory(serve: Serve, scratch: Path) -> None:
    serve(lambda request: HttpResponse(str(bound())))
    assert Client().get("/").content == b"True"
    assert list(scratch.iterdir()) == []


def noting_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def middleware(request: Any) -> Any:
        Path("/tmp/same.txt").write_text("of the middleware")
        response = get_response(request)
        response["X-Files"] = " ".join(listed())
        return response

    return middleware


def test_the_other_middlewares_are_guarded_too(serve: Serve, ended: Ended) -> None:
    def view(request: Any) -> HttpResponse:
        Path("/tmp/body.txt").touch()
        return HttpResponse(Path("/tmp/same.txt").read_text())

    serve(view, f"{__name__}.noting_middleware")
    response = Client().get("/")
    assert (response.content, response["X-Files"]) == (b"of the middleware", "body.txt same.txt")
    assert [report.files for report in ended()] == [2]


@pytest.mark.parametrize(
    "response", [HttpResponse("x"), JsonResponse({}), StreamingHttpResponse([b"x"]), FileResponse([b"x"])]
)
def test_a_response_stays_of_its_class(serve: Serve, response: Any) -> None:
    kind = type(response)
    guarded = TmpGuardMiddleware(lambda request: response)(object())
    assert guarded is response
    assert type(guarded) is kind
    guarded.close()
    assert guarded.closed


# --- settings ------------------------------------------------------------------------------------------


def make() -> tmpguard.Guard:
    return TmpGuardMiddleware(lambda request: HttpResponse()).guard


FIRST = "tmpguard.django.TmpGuardMiddleware"


def test_without_settings_the_defaults_hold() -> None:
    assert (make().storage_size, make().plan, make().enforce) == (128, "free", True)
    with override_settings(MIDDLEWARE=[FIRST, "django.middleware.common.CommonMiddleware"]):
        assert check_settings() == []


def warnings_with(**changes: Any) -> dict[str, str]:
    """The warnings of the checks by their ids, with their hints."""
    with override_settings(**changes):
        return {str(one.id): str(one.hint) for one in run_checks() if str(one.id).startswith("tmpguard.W")}


def test_a_middleware_without_effect_is_a_warning() -> None:
    hint = warnings_with(MIDDLEWARE=["django.middleware.common.CommonMiddleware"])["tmpguard.W001"]
    assert hint.startswith(f'No request is guarded. Put "{FIRST}" first in MIDDLEWARE')
    hint = warnings_with(MIDDLEWARE=["django.middleware.common.CommonMiddleware", FIRST])["tmpguard.W002"]
    assert hint == f"The middlewares before it are not guarded. Put '{FIRST}' first."
    assert warnings_with(MIDDLEWARE=[FIRST]) == {}


def test_a_misspelled_setting_is_a_warning(options: dict[str, Any]) -> None:
    found = warnings_with(MIDDLEWARE=[FIRST], TMP_GUARD=options)
    assert found == {"tmpguard.W003": "The setting is named TMPGUARD."}
    with override_settings(TMPGUARD={"STORAGE_SIZE": 64}):
        (error,) = [one for one in run_checks() if one.id == "tmpguard.E001"]
    assert "did you mean storage_size=?" in error.msg


def test_the_settings_are_the_guards_options(options: dict[str, Any]) -> None:
    with override_settings(TMPGUARD=options | {"storage_size": 300, "plan": "pro", "max_files": 7}):
        assert (make().storage_size, make().plan, make().max_files) == (300, "pro", 7)


def test_a_guard_may_be_given(guard: tmpguard.Guard) -> None:
    with override_settings(TMPGUARD={"guard": guard}):
        assert make() is guard


def test_middlewares_share_one_guard_while_the_settings_are_the_same(options: dict[str, Any]) -> None:
    with override_settings(TMPGUARD=options):
        first = make()
        assert make() is first
    with override_settings(TMPGUARD=options | {"storage_size": 2}):
        assert make() is not first


WRONG = [
    ({"storage_size": 0}, "storage_size=0"),
    ({"storage_size": True}, "storage_size=True"),
    ({"storage": 1}, "storage= is not an option"),
    ({"guard": "a guard"}, "guard='a guard'"),
    (["storage_size"], "TMPGUARD=['storage_size']"),
    ({1: 2}, "TMPGUARD={1: 2}"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_a_wrong_setting_is_an_error_of_the_system_check(wrong: Any, told: str) -> None:
    with override_settings(TMPGUARD={"storage_size": 1}):
        assert make().storage_size == 1  # True is 1, and no storage size all the same
    with override_settings(TMPGUARD=wrong):
        [error] = [error for error in run_checks() if error.id == "tmpguard.E001"]
    assert told in error.msg


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_a_wrong_setting_stops_the_middleware(wrong: Any, told: str) -> None:
    with override_settings(TMPGUARD=wrong), pytest.raises(ImproperlyConfigured, match=re.escape(told)):
        make()


@pytest.mark.parametrize("app", ["tmpguard", "tmpguard.django"])
def test_as_an_installed_app_it_registers_its_check(app: str) -> None:
    code = (
        "import django; from django.conf import settings; from django.core.management import call_command\n"
        f"settings.configure(INSTALLED_APPS=[{app!r}], TMPGUARD={{'storage_size': -1}})\n"
        "django.setup(); call_command('check')"
    )
    project = Path(tmpguard.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project)
    assert done.returncode != 0
    assert "(tmpguard.E001) settings.TMPGUARD: storage_size=-1" in done.stderr


# --- streaming -----------------------------------------------------------------------------------------


def lines() -> Iterator[str]:
    assert bound()
    with open("/tmp/body.txt") as file:
        for line in file:
            assert bound()
            yield line


async def async_lines() -> AsyncIterator[str]:
    for number in (1, 2):
        await asyncio.sleep(0)
        assert bound()
        yield Path("/tmp/body.txt").read_text().splitlines(keepends=True)[number - 1]


def streaming(body: Callable[[], Any]) -> Callable[[Any], StreamingHttpResponse]:
    def view(request: Any) -> StreamingHttpResponse:
        Path("/tmp/body.txt").write_text("one\ntwo\n")
        return StreamingHttpResponse(body())

    return view


def test_a_generator_streams_from_tmp(serve: Serve, ended: Ended) -> None:
    serve(streaming(lines))
    response: Any = Client().get("/")
    parts = iter(response)
    assert next(parts) == b"one\n"
    assert (bound(), ended()) == (False, [])
    assert list(parts) == [b"two\n"]
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


@pytest.mark.anyio
async def test_an_async_generator_streams_from_tmp(serve: Serve, ended: Ended) -> None:
    serve(streaming(async_lines))
    response: Any = await AsyncClient().get("/")
    parts = aiter(response)
    assert await anext(parts) == b"one\n"
    assert (bound(), ended()) == (False, [])
    assert [part async for part in parts] == [b"two\n"]
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_an_async_generator_streams_from_tmp_on_a_sync_server(serve: Serve, ended: Ended) -> None:
    serve(streaming(async_lines))
    body = wsgi_get()
    assert b"".join(body) == b"one\ntwo\n"
    body.close()
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
async def test_a_generator_streams_from_tmp_on_an_async_server(serve: Serve, ended: Ended) -> None:
    serve(streaming(lines))
    assert await asgi_get() == b"one\ntwo\n"
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


def send_file(request: Any) -> FileResponse:
    Path("/tmp/body.txt").write_bytes(bytes(10_000))
    return FileResponse(open("/tmp/body.txt", "rb"), as_attachment=True)


def test_a_file_response_sends_a_file_of_tmp(serve: Serve, ended: Ended) -> None:
    serve(send_file)
    response: Any = Client().get("/")
    assert response["Content-Disposition"] == 'attachment; filename="body.txt"'
    assert response["Content-Length"] == "10000"
    assert b"".join(response) == bytes(10_000)
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


def test_a_file_response_goes_through_the_servers_file_wrapper(serve: Serve, ended: Ended) -> None:
    serve(send_file)
    body = wsgi_get(**{"wsgi.file_wrapper": FileWrapper})
    gc.collect()  # the response lives on in nothing but the file's close
    assert isinstance(body, FileWrapper)
    assert sum(map(len, body)) == 10_000
    assert ended() == []
    body.close()  # type: ignore[attr-defined]
    assert body.filelike.closed
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
async def test_a_file_response_sends_a_file_of_tmp_on_an_async_server(serve: Serve, ended: Ended) -> None:
    serve(send_file)
    assert await asgi_get() == bytes(10_000)
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


# --- the end of an invocation --------------------------------------------------------------------------


def wsgi_get(**environ: Any) -> Any:
    """The body of "/" as a WSGI server gets it."""
    setup_testing_defaults(environ)
    return get_wsgi_application()(environ, lambda *args: None)


HTTP = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}


async def asgi_get(receive: Callable[[], Awaitable[Any]] | None = None, send: Any = None) -> bytes:
    """The body of "/" as an ASGI server gets it, whose client stays until it has read all of it."""
    parts = []
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def stay() -> Any:
        return incoming.pop() if incoming else await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        parts.append(message.get("body", b""))

    await get_asgi_application()(dict(HTTP), receive or stay, send or keep)
    return b"".join(parts)


def test_the_invocation_ends_after_djangos_own_closers(serve: Serve, ended: Ended) -> None:
    seen = []

    def view(request: Any) -> HttpResponse:
        def closer() -> None:
            seen.append((bound(), Path("/tmp/callback.txt").read_text(), ended()[:]))
            os.remove("/tmp/callback.txt")

        Path("/tmp/callback.txt").write_text("here")
        response = HttpResponse("x")
        response._resource_closers.append(closer)
        return response

    serve(view)
    Client().get("/")
    assert seen == [(True, "here", [])]
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


def test_close_works_once_more(serve: Serve, ended: Ended) -> None:
    serve(write_and_read)
    response = Client().get("/")
    response.close()
    assert len(ended()) == 1
    assert response.closed


def test_a_file_that_was_uploaded_to_disk_is_removed_in_time(serve: Serve, ended: Ended) -> None:
    def view(request: Any) -> HttpResponse:
        upload = request.FILES["file"]
        assert os.path.dirname(upload.temporary_file_path()) == "/tmp"
        return HttpResponse(f"{os.path.basename(upload.temporary_file_path()) in os.listdir('/tmp')}")

    serve(view, FILE_UPLOAD_MAX_MEMORY_SIZE=1000)
    response = Client().post("/", {"file": SimpleUploadedFile("a.bin", bytes(10_000))})
    assert response.content == b"True"
    [report] = ended()
    assert (report.files, report.peak_bytes >= 10_000, report.late_writes) == (0, True, ())


class ViewError(Exception):
    """The view's own."""


def failing(request: Any) -> HttpResponse:
    Path("/tmp/same.txt").touch()
    raise ViewError


async def failing_async(request: Any) -> HttpResponse:
    return await sync_to_async(failing)(request)


@pytest.mark.parametrize("view", [failing, failing_async])
def test_an_exception_in_a_view_ends_the_invocation(serve: Serve, view: Any, ended: Ended) -> None:
    serve(view)
    with pytest.raises(ViewError):
        Client().get("/")
    gc.collect()
    assert Client(raise_request_exception=False).get("/").status_code == 500
    assert [report.files for report in ended()] == [1, 1]
    assert not bound()


@pytest.mark.anyio
@pytest.mark.parametrize("view", [failing, failing_async])
async def test_an_exception_in_a_view_ends_the_invocation_async(
    serve: Serve, view: Any, ended: Ended
) -> None:
    serve(view)
    assert (await AsyncClient(raise_request_exception=False).get("/")).status_code == 500
    assert [report.files for report in ended()] == [1]
    assert not bound()


def test_an_exception_that_passes_the_middleware_ends_the_invocation(
    options: dict[str, Any], ended: Ended
) -> None:
    async def failing(request: Any) -> Any:
        raise ViewError

    with override_settings(TMPGUARD=options):
        sync = TmpGuardMiddleware(lambda request: 1 / 0)
        other = TmpGuardMiddleware(failing)
    with pytest.raises(ZeroDivisionError):
        sync(object())
    with pytest.raises(ViewError):
        asyncio.run(other(object()))
    assert len(ended()) == 2
    assert not bound()


def cleaning_up() -> Iterator[bytes]:
    Path("/tmp/callback.txt").write_text("here")
    try:
        while True:
            yield Path("/tmp/callback.txt").read_bytes()
    finally:
        os.remove("/tmp/callback.txt")


async def cleaning_up_async() -> AsyncIterator[bytes]:
    Path("/tmp/callback.txt").write_text("here")
    try:
        while True:
            await asyncio.sleep(0)
            yield Path("/tmp/callback.txt").read_bytes()
    finally:
        await asyncio.sleep(0)
        os.remove("/tmp/callback.txt")


def test_a_client_that_goes_away_in_mid_stream_closes_the_generator(serve: Serve, ended: Ended) -> None:
    serve(lambda request: StreamingHttpResponse(cleaning_up()))
    body = wsgi_get()
    assert next(iter(body)) == b"here"
    body.close()
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


@listens
@pytest.mark.anyio
async def test_a_client_that_goes_away_in_mid_stream_closes_the_async_generator(
    serve: Serve, ended: Ended
) -> None:
    serve(lambda request: StreamingHttpResponse(cleaning_up_async()))
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message.get("body"):
            assert message["body"] == b"here"
            gone.set()
            await asyncio.Event().wait()

    await asgi_get(receive, send)
    assert await asyncio.to_thread(has_ended, ended)
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


def has_ended(ended: Ended) -> bool:
    return bool(eventually(ended))


@listens
@pytest.mark.anyio
async def test_a_client_that_goes_away_cancels_the_view_and_ends_the_invocation(
    serve: Serve, ended: Ended
) -> None:
    started = asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def view(request: Any) -> HttpResponse:
        Path("/tmp/same.txt").touch()
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await started.wait()
        return {"type": "http.disconnect"}

    serve(view)
    assert await asgi_get(receive) == b""
    assert [report.files for report in ended()] == [1]


def test_a_streaming_response_that_is_never_closed_ends_at_garbage_collection(
    serve: Serve, guard: tmpguard.Guard, ended: Ended
) -> None:
    serve(lambda request: StreamingHttpResponse(cleaning_up()))
    response = wsgi_get()
    assert next(iter(response)) == b"here"
    with guard.invocation() as other:  # it is collected while another request runs
        del response
        gc.collect()
        assert tmpguard.current() is other
    assert sorted((report.files, report.late_writes, report.peak_bytes) for report in ended()) == [
        (0, (), 0),
        (0, (), 4096),
    ]


def test_djangos_client_that_never_reads_or_closes_ends_at_garbage_collection(
    serve: Serve, ended: Ended
) -> None:
    serve(streaming(lines))
    response = Client().get("/")
    assert ended() == []
    del response
    gc.collect()
    assert [report.files for report in ended()] == [1]


def test_a_plain_response_that_is_never_closed_is_collected_without_the_collector(
    options: dict[str, Any], ended: Ended
) -> None:
    with override_settings(TMPGUARD=options):
        middleware = TmpGuardMiddleware(write_and_read)
    gc.disable()
    try:
        response = middleware(object())
        assert ended() == []
        del response
        assert [report.files for report in ended()] == [1]
    finally:
        gc.enable()


@pytest.mark.anyio
async def test_an_async_response_that_is_never_closed_ends_at_garbage_collection(
    serve: Serve, ended: Ended
) -> None:
    serve(lambda request: StreamingHttpResponse(cleaning_up_async()))
    request: Any = object()
    response = await contextvars.Context().run(asyncio.create_task, middleware_call(request))
    assert await anext(aiter(response)) == b"here"
    del response
    gc.collect()
    assert await asyncio.to_thread(has_ended, ended)
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


async def middleware_call(request: Any) -> Any:
    async def view(request: Any) -> Any:
        return StreamingHttpResponse(cleaning_up_async())

    return await TmpGuardMiddleware(view)(request)


@pytest.mark.anyio
async def test_an_async_generator_that_raises_when_it_is_closed_ends_all_the_same(
    options: dict[str, Any], ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"part"
        finally:
            raise ViewError

    async def view(request: Any) -> Any:
        return StreamingHttpResponse(body())

    with override_settings(TMPGUARD=options):
        response = await TmpGuardMiddleware(view)(object())
    assert await anext(response._iterator) == b"part"
    response.close()
    assert await asyncio.to_thread(has_ended, ended)
    [record] = [record for record in caplog.records if record.name == "tmpguard"]
    assert record.exc_info is not None
    assert record.exc_info[0] is ViewError


def test_an_async_response_outlived_by_its_event_loop_ends_when_it_is_closed(
    options: dict[str, Any], ended: Ended
) -> None:
    async def first_part() -> Any:
        response = await middleware_call(object())
        assert await anext(response._iterator) == b"here"
        return response

    with override_settings(TMPGUARD=options):
        response = asyncio.run(first_part())
    response.close()
    assert len(ended()) == 1
