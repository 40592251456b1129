"""The applications of ``python -m tests.benchmarks servers``: one for each server, with the same routes.

The environment says how they are set up: ``BENCHMARK_GUARDED`` (``1`` or nothing) and ``BENCHMARK_PLACE``, an
empty directory of this server's own on the real disk, in which its project and its temporary files lie.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

DATA = b"x" * 4096
TEMPLATE = "<h1>{{ title }}</h1>{% for number in numbers %}<p>{{ number }}</p>{% endfor %}\n"

#: The path of each row's request.
PATHS = {
    "no file": "/hello",
    "4 KiB written and read in `/tmp`, against `TemporaryDirectory` by hand": "/written",
    "a Jinja template with auto reload": "/template",
    "one file of the project opened and read": "/read",
    "a static file of 4 KiB": "/static/data.txt",
}

_GUARDED = os.environ.get("BENCHMARK_GUARDED") == "1"
_PLACE = os.environ.get("BENCHMARK_PLACE", "")
_PROJECT = _PLACE + "/project"
_SCRATCH = _PLACE + "/scratch"  # beside the project: a path through a scratch root is walked each time
_STATIC = _PROJECT + "/static"
_TEMPLATES = _PROJECT + "/templates"
_OPTIONS: dict[str, Any] = {"scratch_root": _SCRATCH, "bundle": _PROJECT, "storage_size": 64}


def set_up(place: str) -> None:
    """Make the project below ``place``."""
    project = place + "/project"
    for name, content in (
        ("static/data.txt", DATA),
        ("templates/page.html", TEMPLATE.encode()),
        ("settings.txt", DATA),
    ):
        path = f"{project}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    os.mkdir(place + "/scratch")


def _written_by_hand() -> int:
    with tempfile.TemporaryDirectory() as directory:
        return _write_and_read(directory)


def _written() -> int:
    return _write_and_read("/tmp") if _GUARDED else _written_by_hand()


def _write_and_read(directory: str) -> int:
    path = directory + "/data.bin"
    with open(path, "wb") as file:
        file.write(DATA)
    with open(path, "rb") as file:
        return len(file.read())


def _read() -> int:
    with open(_PROJECT + "/settings.txt", "rb") as file:
        return len(file.read())


def asgi() -> Any:
    """Starlette."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
    from starlette.templating import Jinja2Templates

    templates = Jinja2Templates(directory=_TEMPLATES)
    templates.env.auto_reload = True

    async def hello(request: Request) -> Response:
        return JSONResponse({"hello": "world"})

    async def template(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html", {"title": "Page", "numbers": range(10)})

    def answering(work: Callable[[], int]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            return JSONResponse({"answer": work()})

        return answer

    app = Starlette(
        routes=[
            Route("/hello", hello),
            Route("/written", answering(_written)),
            Route("/template", template),
            Route("/read", answering(_read)),
            Route("/process", answering(os.getpid)),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
    )
    if _GUARDED:
        from tmpguard.asgi import TmpGuardMiddleware

        app.add_middleware(TmpGuardMiddleware, **_OPTIONS)
    return _checked(app)


def wsgi() -> Any:
    """Flask."""
    import flask

    app = flask.Flask("benchmark", static_folder=_STATIC, template_folder=_TEMPLATES)
    app.jinja_env.auto_reload = True

    @app.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/template")
    def template() -> str:
        return flask.render_template("page.html", title="Page", numbers=range(10))

    def answer(path: str, work: Callable[[], int]) -> None:
        app.add_url_rule(path, path, lambda: {"answer": work()})

    answer("/written", _written)
    answer("/read", _read)
    answer("/process", os.getpid)
    if _GUARDED:
        from tmpguard.wsgi import TmpGuardMiddleware

        app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, **_OPTIONS)  # type: ignore[method-assign]
    return _checked(app)


def _checked(app: Any) -> Any:
    """``app``, for which a plain server must not have imported what it is compared with."""
    if not _GUARDED:
        tempfile.tempdir = _SCRATCH
        assert "tmpguard" not in sys.modules
    return app
