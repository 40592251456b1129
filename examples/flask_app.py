"""A Flask application. Each request gets its own /tmp.

Start it:   python examples/flask_app.py         (werkzeug on http://127.0.0.1:8000; set PORT to change it)
or:         gunicorn --chdir examples --workers 2 flask_app:app
Try it:     curl 'http://127.0.0.1:8000/write?text=hello'; curl http://127.0.0.1:8000/read
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, request

from tmpguard.wsgi import TmpGuardMiddleware

app = Flask(__name__)
app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, storage_size=1, bundle=Path(__file__).parent)


@app.get("/write")
def write() -> str:
    size = Path("/tmp/note.txt").write_text(request.args.get("text", "hello"))
    return f"wrote {size} bytes to /tmp/note.txt; /tmp holds {sorted(os.listdir('/tmp'))}\n"


@app.get("/read")
def read() -> str:
    there_before = os.path.exists("/tmp/note.txt")
    Path("/tmp/note.txt").write_text("written by this request")
    return f"a note of another request: {there_before}; of this one: {Path('/tmp/note.txt').read_text()}\n"


@app.get("/outside")
def outside() -> tuple[str, int]:
    try:
        with open("file.txt", "w") as file:
            file.write("this is not /tmp")
    except OSError as exc:
        return "\n".join([str(exc), *exc.__notes__, ""]), 500
    return "wrote file.txt\n", 200


@app.get("/overfill")
def overfill() -> str:
    fitted = 0
    with open("/tmp/big.bin", "wb", buffering=0) as file:
        try:
            while True:
                fitted += file.write(bytes(100_000))
        except OSError as exc:
            return f"{fitted} bytes fitted, then: {exc}\n"


@app.get("/bundled")
def bundled() -> str:
    return Path("/tmp/package/greeting.txt").read_text()


@app.get("/stream")
def stream() -> Response:
    def body() -> Iterator[str]:
        with open("/tmp/lines.txt") as file:
            yield from file

    lines = request.args.get("lines", 1000, type=int)
    Path("/tmp/lines.txt").write_text("".join(f"line {number}\n" for number in range(lines)))
    return Response(body(), mimetype="text/plain")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
