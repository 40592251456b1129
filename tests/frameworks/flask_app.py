"""The application of :mod:`.checks` in Flask, for what calls WSGI applications."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flask

from . import checks


def flask_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.get("/write/<name>")(checks.write)
    app.get("/thread")(checks.write_in_thread)
    app.get("/outside")(checks.outside)
    app.get("/file")(lambda: flask.send_file(checks.write_lines()))

    @app.get("/stream")
    def stream() -> Iterator[str]:
        checks.write_lines()
        return checks.lines()

    @app.post("/upload")
    def upload() -> str:
        flask.request.files["file"].save("/tmp/upload.txt")
        return str(Path("/tmp/upload.txt").stat().st_size)

    return app
