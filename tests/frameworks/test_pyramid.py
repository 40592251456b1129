"""Pyramid."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those about what it imports
    pyramid: Any = pytest.importorskip("pyramid", reason="pyramid is not installed")

    from pyramid.config import Configurator
    from pyramid.response import FileResponse, Response

import tmpguard
from tmpguard.wsgi import TmpGuardMiddleware

from . import checks


def text(request: Any) -> Response:
    """The views that respond with text."""
    name = request.matchdict.get("name")
    if name:
        return Response(checks.write(name))
    return Response({"/thread": checks.write_in_thread, "/outside": checks.outside}[request.path]())


def upload(request: Any) -> Response:
    with open("/tmp/upload.txt", "wb") as file:
        shutil.copyfileobj(request.POST["file"].file, file)
    return Response(str(Path("/tmp/upload.txt").stat().st_size))


def stream(request: Any) -> Response:
    checks.write_lines()
    return Response(app_iter=(line.encode() for line in checks.lines()))


def full(error: OSError, request: Any) -> Response:
    """The view of an OSError. Without one, Pyramid raises it to the server."""
    return Response(str(error), status=507)


def file(request: Any) -> Response:
    return FileResponse(checks.write_lines(), request=request)


VIEWS = {
    "/write/{name}": text,
    "/thread": text,
    "/outside": text,
    "/upload": upload,
    "/stream": stream,
    "/file": file,
}


@pytest.fixture
def app(guard: tmpguard.Guard) -> Any:
    with Configurator() as config:
        for path, view in VIEWS.items():
            config.add_route(path, path)
            config.add_view(view, route_name=path)
        config.add_exception_view(full, context=OSError)
        return TmpGuardMiddleware(config.make_wsgi_app(), guard=guard)


def test_each_request_is_an_invocation(app: Any, ended: checks.Ended) -> None:
    with checks.wsgi_client(app) as client:
        checks.check(client, ended)


def test_a_large_upload(app: Any, ended: checks.Ended) -> None:
    with checks.wsgi_client(app) as client:
        checks.check_large_upload(client, ended)
