"""A Django application in one file. Each request gets its own /tmp.

Start it:   python examples/django_app.py        (wsgiref on http://127.0.0.1:8000; set PORT to change it)
or:         gunicorn --chdir examples --workers 2 django_app:application
or:         uvicorn --app-dir examples django_app:asgi_application
Try it:     curl 'http://127.0.0.1:8000/write?text=hello'; curl http://127.0.0.1:8000/read
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    INSTALLED_APPS=["tmpguard.django"],
    MIDDLEWARE=["tmpguard.django.TmpGuardMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "of the example"),
    TMPGUARD={"storage_size": 1, "bundle": Path(__file__).parent},
)
django.setup()


def write(request: HttpRequest) -> HttpResponse:
    size = Path("/tmp/note.txt").write_text(request.GET.get("text", "hello"))
    held = sorted(os.listdir("/tmp"))
    return HttpResponse(f"wrote {size} bytes to /tmp/note.txt; /tmp holds {held}\n", "text/plain")


def read(request: HttpRequest) -> HttpResponse:
    there_before = os.path.exists("/tmp/note.txt")
    Path("/tmp/note.txt").write_text("written by this request")
    text = Path("/tmp/note.txt").read_text()
    return HttpResponse(f"a note of another request: {there_before}; of this one: {text}\n", "text/plain")


def outside(request: HttpRequest) -> HttpResponse:
    try:
        with open("file.txt", "w") as file:
            file.write("this is not /tmp")
    except OSError as exc:
        return HttpResponse("\n".join([str(exc), *exc.__notes__, ""]), "text/plain", 500)
    return HttpResponse("wrote file.txt\n", "text/plain")


def overfill(request: HttpRequest) -> HttpResponse:
    fitted = 0
    with open("/tmp/big.bin", "wb", buffering=0) as file:
        try:
            while True:
                fitted += file.write(bytes(100_000))
        except OSError as exc:
            return HttpResponse(f"{fitted} bytes fitted, then: {exc}\n", "text/plain")


def bundled(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Path("/tmp/package/greeting.txt").read_text(), "text/plain")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        with open("/tmp/lines.txt") as file:
            yield from file

    lines = int(request.GET.get("lines", "1000"))
    Path("/tmp/lines.txt").write_text("".join(f"line {number}\n" for number in range(lines)))
    return StreamingHttpResponse(body(), content_type="text/plain")


urlpatterns = [path(view.__name__, view) for view in (write, read, outside, overfill, bundled, stream)]
application = get_wsgi_application()
asgi_application = get_asgi_application()

if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application).serve_forever()
