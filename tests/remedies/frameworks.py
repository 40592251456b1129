"""Django, Flask, Starlette and Jinja2, as the tests have them installed."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import Any

import flask
import jinja2
from django.core.cache.backends.filebased import FileBasedCache
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.core.mail import EmailMessage
from django.core.mail.backends.filebased import EmailBackend
from django.core.management import call_command
from django.db.utils import ConnectionHandler
from django.test import override_settings
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from werkzeug.datastructures import FileStorage
from werkzeug.formparser import parse_form_data

from tests.support import set_up_django

from .provoke import Places, Step, provokes

set_up_django()

LARGE = 3 << 20
"""Bytes: more than the storage of the tests' guard."""


def form(size: int) -> tuple[bytes, dict[str, str]]:
    """The body of an upload, and its headers."""
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
    body = head + bytes(size) + b"\r\n--x--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=x", "content-length": str(len(body))}


# --- Django --------------------------------------------------------------------------------------------


@provokes("Django: collected static files")
def static_files(places: Places) -> Step:
    (places.project / "assets").mkdir()
    (places.project / "assets/site.css").write_text("body {}")

    def step() -> None:
        with override_settings(
            INSTALLED_APPS=["django.contrib.staticfiles"],
            STATICFILES_DIRS=[places.project / "assets"],
            STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
            STATIC_ROOT=places.project / "static",
            STATIC_URL="/static/",
        ):
            call_command("collectstatic", interactive=False, verbosity=0)

    return step


@provokes("Django: uploaded media")
def media(places: Places) -> Step:
    storage = FileSystemStorage(location=places.project / "media")
    return lambda: storage.save("avatars/me.png", ContentFile(b"image"))


@provokes("Django: uploads being received")
def receiving(places: Places) -> Step:
    def step() -> None:
        with override_settings(FILE_UPLOAD_TEMP_DIR=str(places.project)):
            TemporaryFileUploadHandler().new_file("f", "f.bin", "text/plain", LARGE)

    return step


@provokes("Django: file-based cache")
def file_cache(places: Places) -> Step:
    cache = FileBasedCache(str(places.project / "cache"), {})
    return lambda: cache.set("key", "value")


@provokes("Django: file-based sessions")
def sessions(places: Places) -> Step:
    def step() -> None:
        with override_settings(SESSION_FILE_PATH=str(places.project)):
            from django.contrib.sessions.backends.file import SessionStore

            store = SessionStore()
            store["user"] = 1
            store.save()

    return step


@provokes("Django: mails to files")
def mails(places: Places) -> Step:
    backend_path = str(places.project / "mails")
    return lambda: EmailBackend(file_path=backend_path).send_messages(
        [EmailMessage("Hello", "Text", "a@example.org", ["b@example.org"])]
    )


@provokes("Django: migrations")
def migrations(places: Places) -> Step:
    module = places.library(
        "django_shop.models",
        "from django.db import models\n"
        "class Item(models.Model):\n"
        "    class Meta:\n"
        "        app_label = 'django_shop'\n",
    )
    assert module.Item
    changes = {"INSTALLED_APPS": ["django_shop"], "DEFAULT_AUTO_FIELD": "django.db.models.AutoField"}

    def step() -> None:
        with override_settings(**changes):
            call_command("makemigrations", "django_shop", verbosity=0)

    return step


@provokes("Django: SQLite")
def django_database(places: Places) -> Step:
    connections = ConnectionHandler(
        {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": places.project / "app.db"}}
    )
    return lambda: connections["default"].cursor()


@provokes("an upload that is spooled: Django")
def django_upload(places: Places) -> Step:
    def step() -> None:
        handler = TemporaryFileUploadHandler()
        handler.new_file("f", "f.bin", "text/plain", LARGE)
        handler.receive_data_chunk(bytes(LARGE), 0)

    return step


# --- Flask, Werkzeug, Jinja2 ---------------------------------------------------------------------------


@provokes("Flask, Werkzeug: uploads (UPLOAD_FOLDER)")
def upload_folder(places: Places) -> Step:
    upload = FileStorage(io.BytesIO(b"image"), filename="me.png")
    return lambda: upload.save("me.png")


@provokes("Flask: the instance folder")
def instance_folder(places: Places) -> Step:
    app = flask.Flask("shop", root_path=str(places.project), instance_path=str(places.project / "instance"))
    return lambda: os.makedirs(app.instance_path, exist_ok=True)


@provokes("an upload that is spooled: Flask")
def flask_upload(places: Places) -> Step:
    body, headers = form(LARGE)
    environ: dict[str, Any] = {
        "wsgi.input": io.BytesIO(body),
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": headers["content-type"],
        "CONTENT_LENGTH": headers["content-length"],
    }
    return lambda: parse_form_data(environ)


@provokes("Jinja2: compiled templates")
def templates(places: Places) -> Step:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": "text"}), bytecode_cache=jinja2.FileSystemBytecodeCache(".")
    )
    return lambda: environment.get_template("page")


# --- Starlette -----------------------------------------------------------------------------------------


@provokes("an upload that is spooled: Starlette, FastAPI")
def starlette_upload(places: Places) -> Step:
    body, headers = form(LARGE)

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    return lambda: asyncio.run(parsed(MultiPartParser(Headers(headers), stream())))


async def parsed(parser: MultiPartParser) -> None:
    await (await parser.parse()).close()
