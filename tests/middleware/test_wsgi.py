"""tmpguard.wsgi: steps of a body, its close, its length, and the end of an invocation (PEP 3333, C4.3)."""

from __future__ import annotations

import contextvars
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults

import flask
import httpx
import pytest
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper
from werkzeug.wsgi import FileWrapper as WerkzeugFileWrapper

import tmpguard
from tests.support import listed
from tmpguard.wsgi import TmpGuardMiddleware

Ended = Callable[[], list[tmpguard.Report]]


def call(app: Any, **environ: Any) -> Any:
    """Call a WSGI application as a server does; returns its body."""
    setup_testing_defaults(environ)
    return app(environ, lambda status, headers, exc_info=None: None)


def answering(body: Callable[[], Any]) -> Any:
    """The WSGI application whose body is what ``body()`` returns."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body()

    return app


def bound() -> bool:
    return tmpguard.current() is not None


# --- what a request sees -------------------------------------------------------------------------------


def test_each_request_has_an_empty_tmp_of_its_own(options: dict[str, Any], ended: Ended) -> None:
    app = flask.Flask(__name__)
    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/")
    def index() -> str:
        there = listed()
        Path("/tmp/same.txt").write_text("text")
        return f"{there} {Path('/tmp/same.txt').read_text()}"

    for _ in range(2):
        with app.test_client().get("/") as response:
            assert response.text == "[] text"
    assert [(report.files, report.used_bytes) for report in ended()] == [(1, 4096)] * 2
    assert tmpguard.current() is None


def test_a_write_outside_is_refused_and_reported_with_the_views_line(
    options: dict[str, Any], ended: Ended
) -> None:
    app = flask.Flask(__name__)
    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/")
    def index() -> str:
        try:
            open("file.txt", "w")
        except OSError as exc:
            return str(exc)
        return "written"

    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as http:
        assert http.get("/").text == "[Errno 30] Read-only file system: 'file.txt'"
    [report] = ended()
    [violation] = report.violations
    assert violation.location is not None
    assert (violation.location.file, violation.path) == (__file__, "file.txt")


def test_a_request_that_touches_no_file_makes_no_directory(guard: tmpguard.Guard, scratch: Path) -> None:
    app = TmpGuardMiddleware(answering(lambda: [str(bound()).encode()]), guard=guard)
    body = call(app)
    assert list(body) == [b"True"]
    body.close()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"storage_size": "256"}, {"storage_size": True}, {"storage": 1}, {"guard": "a guard"}]
)
def test_a_wrong_option_is_refused_when_the_middleware_is_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match=next(iter(wrong))):
        TmpGuardMiddleware(answering(list), **wrong)


def test_a_guard_and_options_together_are_refused(guard: tmpguard.Guard) -> None:
    with pytest.raises(tmpguard.ConfigurationError, match="plan"):
        TmpGuardMiddleware(answering(list), guard=guard, plan="pro")


# --- the body ------------------------------------------------------------------------------------------


class Recording:
    """A body that writes down for each of its calls whether it was bound."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def __iter__(self) -> Iterator[bytes]:
        self.seen.append(("iter", bound()))
        return self

    def __next__(self) -> bytes:
        self.seen.append(("next", bound()))
        if len(self.seen) > 3:
            raise StopIteration
        return b"part"

    def close(self) -> None:
        self.seen.append(("close", bound()))


def test_every_step_of_the_body_is_bound_and_nothing_between_them(guard: tmpguard.Guard) -> None:
    body = Recording()
    for part in (guarded := call(TmpGuardMiddleware(answering(lambda: body), guard=guard))):
        assert (part, bound()) == (b"part", False)
    guarded.close()
    assert not bound()
    assert body.seen == [(step, True) for step in ("iter", "next", "next", "next", "close")]


def test_the_steps_may_be_taken_in_different_contexts(guard: tmpguard.Guard, ended: Ended) -> None:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            Path("/tmp/body.txt").write_text(str(number))
            yield Path("/tmp/body.txt").read_bytes()

    body = contextvars.Context().run(call, TmpGuardMiddleware(answering(parts), guard=guard))
    iterator = contextvars.Context().run(iter, body)
    assert [contextvars.Context().run(next, iterator) for _ in range(3)] == [b"0", b"1", b"2"]
    assert ended() == []
    contextvars.Context().run(body.close)
    assert [report.files for report in ended()] == [1]


def test_requests_whose_steps_alternate_do_not_mix(guard: tmpguard.Guard) -> None:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            with open("/tmp/same.txt", "a") as file:
                file.write(str(number))
            yield Path("/tmp/same.txt").read_bytes()

    bodies = [call(TmpGuardMiddleware(answering(parts), guard=guard)) for _ in range(3)]
    assert [list(step) for step in zip(*bodies, strict=True)] == [[b"0"] * 3, [b"01"] * 3, [b"012"] * 3]
    for body in bodies:
        body.close()


def test_a_server_may_take_steps_without_asking_for_an_iterator(guard: tmpguard.Guard) -> None:
    body = call(TmpGuardMiddleware(answering(lambda: [b"a", b"b"]), guard=guard))
    assert [next(body), next(body), next(body, None)] == [b"a", b"b", None]
    body.close()
    assert next(body, None) is None


@pytest.mark.parametrize(
    ("make", "length"), [(lambda: [b"a", b"b"], 2), (lambda: (b"a",), 1), (lambda: iter([b"a"]), None)]
)
def test_a_body_has_a_length_where_the_applications_has_one(
    guard: tmpguard.Guard, make: Callable[[], Iterable[bytes]], length: int | None
) -> None:
    body = call(TmpGuardMiddleware(answering(make), guard=guard))
    assert hasattr(body, "__len__") is (length is not None)
    if length is not None:
        assert len(body) == length
    body.close()


def test_the_body_goes_on_where_it_was_when_it_is_asked_for_its_iterator_again(guard: tmpguard.Guard) -> None:
    """As an iterator does. httpx reads the first part in one loop and the rest in another."""
    for make in (lambda: [b"a", b"b"], lambda: iter([b"a", b"b"])):
        body = call(TmpGuardMiddleware(answering(make), guard=guard))
        for part in body:
            assert part == b"a"
            break
        assert list(body) == [b"b"]
        body.close()
    transport = httpx.WSGITransport(TmpGuardMiddleware(answering(lambda: [b"a", b"b"]), guard=guard))
    with httpx.Client(transport=transport, base_url="http://testserver") as client:
        assert client.get("/").text == "ab"


def test_a_body_at_its_end_stays_there_until_it_is_iterated_anew(guard: tmpguard.Guard) -> None:
    body = call(TmpGuardMiddleware(answering(lambda: [b"a"]), guard=guard))
    iterator = iter(body)
    assert list(iterator) == [b"a"]
    assert next(iterator, None) is None
    assert list(body) == [b"a"]
    assert [next(body), next(body, None), next(body, None)] == [b"a", None, None]
    assert list(body) == [b"a"]
    body.close()
    assert list(body) == []


def test_a_server_still_derives_the_content_length(guard: tmpguard.Guard, tmp_path: Path) -> None:
    with open(tmp_path / "answer", "w+b") as answer:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        handler = SimpleHandler(None, answer, None, environ)  # type: ignore[arg-type]
        handler.run(TmpGuardMiddleware(answering(lambda: [b"sixty"]), guard=guard))
        answer.seek(0)
        assert b"Content-Length: 5\r\n" in answer.read()


def test_the_write_callable_works(guard: tmpguard.Guard) -> None:
    written = []

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        Path("/tmp/body.txt").write_text("by write")
        write(Path("/tmp/body.txt").read_bytes())
        return []

    body = TmpGuardMiddleware(app, guard=guard)({}, lambda status, headers: written.append)
    assert list(body) == []
    body.close()  # type: ignore[attr-defined]
    assert written == [b"by write"]


def test_an_application_that_is_a_generator_starts_the_response_in_its_first_step(
    guard: tmpguard.Guard,
) -> None:
    started = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        Path("/tmp/body.txt").write_text("first")
        start_response("200 OK", [])
        yield Path("/tmp/body.txt").read_bytes()

    body = TmpGuardMiddleware(app, guard=guard)({}, lambda *args: started.append(args))
    assert started == []
    assert list(body) == [b"first"]
    assert started == [("200 OK", [])]
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrapper", [FileWrapper, GunicornFileWrapper, WerkzeugFileWrapper])
def test_a_file_wrapper_of_the_server_is_read_and_closed(
    guard: tmpguard.Guard, wrapper: Any, ended: Ended
) -> None:
    files = []

    def app(environ: Any, start_response: Any) -> Any:
        Path("/tmp/body.txt").write_bytes(bytes(10_000))
        files.append(open("/tmp/body.txt", "rb"))
        return environ["wsgi.file_wrapper"](files[0], 4096)

    body = call(TmpGuardMiddleware(app, guard=guard), **{"wsgi.file_wrapper": wrapper})
    assert [len(part) for part in body] == [4096, 4096, 1808]
    assert not files[0].closed
    body.close()
    assert files[0].closed
    assert len(ended()) == 1


# --- the end of an invocation --------------------------------------------------------------------------


def test_close_runs_the_applications_own_first_and_only_once(guard: tmpguard.Guard, ended: Ended) -> None:
    class Body(Recording):
        def close(self) -> None:
            super().close()
            os.remove("/tmp/callback.txt")

    def make() -> Body:
        Path("/tmp/callback.txt").touch()
        return made

    made = Body()
    body = call(TmpGuardMiddleware(answering(make), guard=guard))
    body.close()
    body.close()
    del body
    assert made.seen == [("close", True)]
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


def test_the_invocation_ends_even_if_the_applications_close_raises(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    class Body(Recording):
        def close(self) -> None:
            raise RuntimeError("in close")

    def make() -> Body:
        Path("/tmp/callback.txt").touch()
        return Body()

    body = call(TmpGuardMiddleware(answering(make), guard=guard))
    with pytest.raises(RuntimeError, match="in close"):
        body.close()
    assert [report.files for report in ended()] == [1]
    assert not bound()
    body.close()


def test_an_exception_of_the_application_ends_the_invocation(guard: tmpguard.Guard, ended: Ended) -> None:
    def make() -> Any:
        Path("/tmp/same.txt").touch()
        raise RuntimeError("the application's own")

    with pytest.raises(RuntimeError, match="the application's own"):
        call(TmpGuardMiddleware(answering(make), guard=guard))
    assert [report.files for report in ended()] == [1]
    assert not bound()


def test_an_exception_in_a_step_leaves_the_end_to_the_server(guard: tmpguard.Guard, ended: Ended) -> None:
    def parts() -> Iterator[bytes]:
        yield b"part"
        raise RuntimeError("in mid-stream")

    body = call(TmpGuardMiddleware(answering(parts), guard=guard))
    assert next(body) == b"part"
    with pytest.raises(RuntimeError, match="in mid-stream"):
        next(body)
    assert (bound(), ended()) == (False, [])
    body.close()
    assert len(ended()) == 1


def cleaning_up() -> Iterator[bytes]:
    Path("/tmp/callback.txt").write_text("here")
    try:
        while True:
            yield Path("/tmp/callback.txt").read_bytes()
    finally:
        os.remove("/tmp/callback.txt")


def test_a_client_that_goes_away_in_mid_stream_closes_the_generator(
    guard: tmpguard.Guard, ended: Ended
) -> None:
    body = call(TmpGuardMiddleware(answering(cleaning_up), guard=guard))
    assert next(iter(body)) == b"here"
    body.close()
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


def test_a_body_that_is_never_closed_ends_at_garbage_collection(guard: tmpguard.Guard, ended: Ended) -> None:
    body = call(TmpGuardMiddleware(answering(cleaning_up), guard=guard))
    assert next(iter(body)) == b"here"
    with guard.invocation() as other:  # it is collected while another request runs
        del body
        gc.collect()
        assert tmpguard.current() is other
    first, second = ended()
    assert {(report.files, report.late_writes, report.peak_bytes) for report in (first, second)} == {
        (0, (), 0),
        (0, (), 4096),
    }


def test_a_server_that_keeps_only_the_iterator_keeps_the_files(guard: tmpguard.Guard, ended: Ended) -> None:
    iterator = iter(call(TmpGuardMiddleware(answering(cleaning_up), guard=guard)))
    gc.collect()
    assert [next(iterator), next(iterator)] == [b"here", b"here"]
    assert ended() == []
    del iterator
    gc.collect()
    assert len(ended()) == 1


# --- Flask ---------------------------------------------------------------------------------------------


@pytest.fixture
def app(options: dict[str, Any]) -> flask.Flask:
    app = flask.Flask(__name__)
    app.testing = True
    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            with open("/tmp/body.txt") as file:
                yield from file

        Path("/tmp/body.txt").write_text("one\ntwo\n")
        return flask.Response(parts())

    @app.get("/context")
    def with_context() -> flask.Response:
        def parts() -> Iterator[str]:
            yield flask.request.path
            yield Path("/tmp/body.txt").read_text()

        Path("/tmp/body.txt").write_text(" with context")
        return flask.Response(flask.stream_with_context(parts()))

    @app.get("/file")
    def file() -> flask.Response:
        Path("/tmp/body.txt").write_bytes(bytes(100_000))
        return flask.send_file("/tmp/body.txt")

    @app.get("/callback")
    def callback() -> flask.Response:
        Path("/tmp/callback.txt").write_text("here")
        response = flask.Response(iter([Path("/tmp/callback.txt").read_bytes()]))
        response.call_on_close(lambda: os.remove("/tmp/callback.txt"))
        return response

    @app.get("/error")
    def error() -> str:
        Path("/tmp/same.txt").touch()
        raise LookupError("the view's own")

    return app


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/stream", b"one\ntwo\n"), ("/context", b"/context with context"), ("/file", bytes(100_000))],
)
def test_flask_streams_from_tmp(app: flask.Flask, path: str, expected: bytes, ended: Ended) -> None:
    with app.test_client().get(path) as response:
        assert response.data == expected
        assert ended() == []
    assert [(report.files, report.late_writes) for report in ended()] == [(1, ())]


def test_flasks_call_on_close_removes_its_file(app: flask.Flask, ended: Ended) -> None:
    with app.test_client().get("/callback") as response:
        assert response.data == b"here"
    assert [(report.files, report.late_writes) for report in ended()] == [(0, ())]


def test_flasks_client_that_never_closes_ends_at_garbage_collection(app: flask.Flask, ended: Ended) -> None:
    response = app.test_client().get("/stream")
    assert next(response.iter_encoded()) == b"one\n"
    assert ended() == []
    del response
    gc.collect()
    assert [report.files for report in ended()] == [1]


def test_an_exception_in_a_flask_view_ends_the_invocation(app: flask.Flask, ended: Ended) -> None:
    with pytest.raises(LookupError, match="the view's own"):
        app.test_client().get("/error")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with app.test_client().get("/error") as response:
        assert response.status_code == 500
    assert [report.files for report in ended()] == [1, 1]


def test_a_flask_upload_is_spooled_into_the_requests_tmp(options: dict[str, Any], ended: Ended) -> None:
    app = flask.Flask(__name__)
    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.post("/")
    def upload() -> str:
        flask.request.files["file"].save("/tmp/upload.txt")
        return str(os.stat("/tmp/upload.txt").st_size)

    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://test") as http:
        assert http.post("/", files={"file": ("a.bin", bytes(520_000))}).text == "520000"
    [report] = ended()
    assert (report.files, report.used_bytes) == (1, 520_192)
    assert report.peak_bytes >= 2 * 520_192  # the spooled upload and its copy
