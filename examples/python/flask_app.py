"""tmpguard run --storage-size 1 -- gunicorn flask_app:app"""

from __future__ import annotations

import actions
from flask import Flask, Response, request

app = Flask(__name__)


@app.errorhandler(OSError)
def failed(exc: OSError) -> Response:
    return Response(f"{exc}\n", 500, mimetype="text/plain")


@app.get("/write")
def write() -> Response:
    return Response(actions.write(request.args.get("text", "hello")), mimetype="text/plain")


@app.get("/<name>")
def other(name: str) -> Response:
    known = {"read", "outside", "overfill", "bundled", "native", "child"}
    if name not in known:
        return Response("", 404)
    return Response(getattr(actions, name)(), mimetype="text/plain")
