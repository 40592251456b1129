"""The table of libraries and patterns with a known remedy (C2.4).

A row recognises a refusal by the modules between the call and the application's line, by the path, by the
operation, or by several of these. It names the setting that moves the file. The first matching row wins:
libraries come before patterns that many of them share. The table is consulted only for a refusal.

docs/remedies.md shows the table, and a test triggers every row.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from errno import ENOSPC, EROFS, EXDEV
from typing import Final, NamedTuple

from tmpguard.core.layout import is_below


class Row(NamedTuple):
    """One known cause of refusals, and its remedy.

    ``name`` is a title for people. ``say`` is the remedy; it may contain ``{to}``, a path below ``/tmp`` with
    the same file name. The other fields are conditions, and all that are given must hold:

    ``modules``: one of them, or something in it, is between the call and the application's line, or contains
    the call. ``path``: a regular expression found in the absolute path, in which ``~`` is the home directory
    unless the project contains the path. ``operations``: the operation's name starts with one of them.
    ``errnos``: the refusal has one of them. ``direct``: the application made the call, and no installed
    package. An operation that removes a file, or changes its mode or times, only matches a row that has
    ``modules`` or ``operations``.
    """

    name: str
    say: str
    modules: tuple[str, ...] = ()
    path: str = ""
    operations: tuple[str, ...] = ()
    errnos: tuple[int, ...] = (EROFS, EXDEV)
    direct: bool = False


_SHIP: Final = "or ship the files with the project"
_SERVER: Final = "keep data that must last in a database server"

#: Only this many characters of a path are searched, so that a regular expression is always quick.
_LONGEST: Final = 4096

TABLE: Final[tuple[Row, ...]] = (
    # --- science and models ---
    Row(
        "matplotlib: configuration and font cache",
        "set MPLCONFIGDIR=/tmp/matplotlib before matplotlib is imported",
        modules=("matplotlib",),
        path=r"/matplotlib(/|$)|^~(/|$)",
    ),
    Row(
        "Numba: compiled functions (cache=True)",
        f"set NUMBA_CACHE_DIR=/tmp/numba before numba is imported, {_SHIP} and set NUMBA_CACHE_DIR to them",
        modules=("numba",),
    ),
    Row(
        "NLTK: corpora and models",
        f"nltk.download(..., download_dir='/tmp/nltk_data') with NLTK_DATA=/tmp/nltk_data, {_SHIP} and set "
        "NLTK_DATA to them",
        modules=("nltk",),
    ),
    Row(
        "tiktoken: encodings",
        f"set TIKTOKEN_CACHE_DIR=/tmp/tiktoken, {_SHIP} and set TIKTOKEN_CACHE_DIR to them",
        modules=("tiktoken",),
    ),
    Row(
        "Sentence Transformers: models",
        f"set SENTENCE_TRANSFORMERS_HOME=/tmp/sentence-transformers, {_SHIP} and load the model by its path",
        modules=("sentence_transformers",),
    ),
    Row(
        "Hugging Face: models and datasets",
        f"set HF_HOME=/tmp/huggingface, {_SHIP}, set HF_HOME to them and HF_HUB_OFFLINE=1",
        modules=("huggingface_hub", "transformers", "datasets", "diffusers"),
    ),
    Row(
        "PyTorch: hub models",
        f"set TORCH_HOME=/tmp/torch, {_SHIP} and set TORCH_HOME to them",
        modules=("torch.hub", "torchvision"),
    ),
    Row(
        "Triton: compiled kernels",
        "set TRITON_CACHE_DIR=/tmp/triton",
        modules=("triton",),
    ),
    Row(
        "Keras: models and datasets",
        f"set KERAS_HOME=/tmp/keras before keras is imported, {_SHIP} and set KERAS_HOME to them",
        path=r"^~/\.keras(/|$)",
    ),
    Row(
        "scikit-learn: datasets",
        f"set SCIKIT_LEARN_DATA=/tmp/scikit_learn_data, {_SHIP} and set SCIKIT_LEARN_DATA to them",
        modules=("sklearn.datasets",),
    ),
    Row(
        "seaborn: datasets",
        f"set SEABORN_DATA=/tmp/seaborn-data, {_SHIP} and set SEABORN_DATA to them",
        modules=("seaborn",),
    ),
    Row(
        "gensim: models and datasets",
        f"set GENSIM_DATA_DIR=/tmp/gensim-data, {_SHIP} and set GENSIM_DATA_DIR to them",
        path=r"/gensim-data(/|$)",
    ),
    Row(
        "rembg: models",
        f"set U2NET_HOME=/tmp/u2net, {_SHIP} and set U2NET_HOME to them",
        path=r"^~/\.u2net(/|$)",
    ),
    Row(
        "EasyOCR: models",
        f"set EASYOCR_MODULE_PATH=/tmp/easyocr, {_SHIP} and set EASYOCR_MODULE_PATH to them",
        path=r"/\.EasyOCR(/|$)",
    ),
    Row(
        "Ultralytics: settings and models",
        "set YOLO_CONFIG_DIR=/tmp/ultralytics, and load the model from the path where it is shipped",
        modules=("ultralytics",),
    ),
    Row(
        "DeepFace: models",
        f"set DEEPFACE_HOME=/tmp/deepface, {_SHIP} and set DEEPFACE_HOME to them",
        path=r"/\.deepface(/|$)",
    ),
    Row(
        "Stanza: models",
        f"set STANZA_RESOURCES_DIR=/tmp/stanza, {_SHIP} and set STANZA_RESOURCES_DIR to them",
        path=r"/stanza_resources(/|$)",
    ),
    Row(
        "joblib: Memory and memory maps",
        "make joblib.Memory with a directory below /tmp in each request, and set JOBLIB_TEMP_FOLDER=/tmp",
        modules=("joblib.memory", "joblib._store_backends", "joblib._memmapping_reducer", "joblib.disk"),
    ),
    Row(
        "pooch: downloaded data (SciPy, scikit-image and others)",
        f"set XDG_CACHE_HOME=/tmp/.cache, {_SHIP} and give their path",
        modules=("pooch",),
    ),
    Row(
        "yfinance: time zones and cookies",
        "yfinance.set_tz_cache_location('/tmp/yfinance')",
        modules=("yfinance",),
    ),
    # --- caches and locks ---
    Row(
        "tldextract: the list of suffixes",
        "set TLDEXTRACT_CACHE=/tmp/tldextract",
        modules=("tldextract",),
    ),
    Row(
        "diskcache: the cache's directory",
        "make diskcache.Cache('/tmp/cache') in each request: it is empty there, and an object that is made "
        "once keeps a directory that is gone; a cache that must last needs a server",
        modules=("diskcache",),
    ),
    Row(
        "cachelib, Flask-Caching, Flask-Session: files",
        "set CACHE_DIR or SESSION_FILE_DIR to a directory below /tmp; it is empty in each request, and a "
        "FileSystemCache has to be made in each one; sessions and caches that must last need a server "
        "(RedisCache)",
        modules=("cachelib", "flask_caching", "flask_session"),
    ),
    Row(
        "webassets: bundles and their cache",
        "build the assets before deployment and set ASSETS_AUTO_BUILD=False (Environment.auto_build), or set "
        "Environment.cache and .directory below /tmp",
        modules=("webassets", "flask_assets"),
    ),
    Row(
        "Jinja2: compiled templates",
        "jinja2.FileSystemBytecodeCache('/tmp')",
        modules=("jinja2.bccache",),
    ),
    Row(
        "lock files (filelock, fasteners, portalocker)",
        "put the lock below /tmp: {to}; it only excludes code in the same request",
        modules=("filelock", "fasteners", "portalocker"),
    ),
    # --- documents ---
    Row(
        "XlsxWriter: a workbook",
        "give xlsxwriter.Workbook an io.BytesIO() and the option in_memory, or a name below /tmp",
        modules=("xlsxwriter",),
    ),
    # --- logs ---
    Row(
        "logging: a file",
        "log to stderr (logging.StreamHandler), which the platform collects; a file below /tmp is gone after "
        "the request",
        modules=("logging",),
    ),
    Row(
        "Loguru: a file",
        "logger.add(sys.stderr), which the platform collects; a file below /tmp is gone after the request",
        modules=("loguru",),
    ),
    # --- Django ---
    Row(
        "Django: collected static files",
        "run collectstatic before deployment; STATIC_ROOT is read-only afterwards",
        modules=("django.contrib.staticfiles",),
    ),
    Row(
        "Django: uploaded media",
        "keep media in object storage (STORAGES), or set MEDIA_ROOT=/tmp/media for data that may be gone "
        "after the request",
        modules=("django.core.files.storage", "django.core.files.move"),
    ),
    Row(
        "Django: uploads being received",
        "set FILE_UPLOAD_TEMP_DIR=None, or to a directory below /tmp",
        modules=("django.core.files.uploadedfile", "django.core.files.uploadhandler"),
    ),
    Row(
        "Django: file-based cache",
        "set LOCATION in CACHES to a directory below /tmp, or use a cache server",
        modules=("django.core.cache.backends.filebased",),
    ),
    Row(
        "Django: file-based sessions",
        "set SESSION_ENGINE to the database's or the cache's; files (SESSION_FILE_PATH) do not last",
        modules=("django.contrib.sessions.backends.file",),
    ),
    Row(
        "Django: mails to files",
        "set EMAIL_FILE_PATH=/tmp/mails, or EMAIL_BACKEND to one that sends them",
        modules=("django.core.mail.backends.filebased",),
    ),
    Row(
        "Django: migrations",
        "make migrations before deployment",
        modules=("django.core.management.commands.makemigrations",),
    ),
    Row(
        "Django: SQLite",
        f"{_SERVER} (DATABASES), or set NAME in DATABASES to a file below /tmp for data that may be "
        "gone after the request",
        modules=("django.db",),
        operations=("sqlite3",),
    ),
    # --- Flask, SQLAlchemy ---
    Row(
        "Flask-SQLAlchemy: SQLite in the instance folder",
        f"{_SERVER}, or SQLALCHEMY_DATABASE_URI='sqlite:////tmp/app.db', with poolclass=NullPool in "
        "SQLALCHEMY_ENGINE_OPTIONS, for data that may be gone after the request",
        modules=("flask_sqlalchemy",),
    ),
    Row(
        "SQLAlchemy: SQLite",
        f"{_SERVER}, or create_engine('sqlite:////tmp/app.db', poolclass=NullPool) for data that "
        "may be gone after the request",
        modules=("sqlalchemy",),
        operations=("sqlite3",),
    ),
    Row(
        "SQLite",
        f"{_SERVER}; for data that may be gone after the request copy the database to {{to}} first, or "
        "create it there",
        operations=("sqlite3",),
    ),
    Row(
        "Flask, Werkzeug: uploads (UPLOAD_FOLDER)",
        "set UPLOAD_FOLDER (what FileStorage.save() gets) to a directory below /tmp, and keep data that "
        "must last in object storage",
        modules=("werkzeug.datastructures",),
    ),
    Row(
        "Flask: the instance folder",
        "Flask(__name__, instance_path='/tmp/instance'); it is empty in each request, keep data that must "
        "last in a database server",
        path=r"/instance(/|$)|/var/[^/]+-instance(/|$)",
    ),
    # --- the standard library ---
    Row(
        "urllib: urlretrieve",
        "urlretrieve(url, '{to}'), or ship the file with the project",
        modules=("urllib.request",),
        operations=("open",),
    ),
    Row(
        "tempfile: a directory other than /tmp",
        "leave out dir= of tempfile, and unset TMPDIR: the default is /tmp",
        modules=("tempfile",),
        direct=True,
    ),
    Row(
        "bytecode (__pycache__)",
        "compile before deployment (python -m compileall), and set PYTHONDONTWRITEBYTECODE=1",
        path=r"/__pycache__(/|$)",
    ),
    Row(
        "dbm, shelve: a database",
        f"{_SERVER}; for data that may be gone after the request open it at {{to}}",
        modules=("dbm",),
    ),
    # --- places ---
    Row(
        "next to an installed package",
        "installed packages cannot be written: give the library a directory below /tmp, or let it write "
        "before deployment and ship the file",
        path=r"/(site|dist)-packages(/|$)",
    ),
    Row(
        "the home directory: ~/.cache",
        f"set XDG_CACHE_HOME=/tmp/.cache, {_SHIP} and set XDG_CACHE_HOME to them",
        path=r"^~/\.cache(/|$)",
    ),
    Row(
        "the home directory: ~/.config",
        "set XDG_CONFIG_HOME=/tmp/.config",
        path=r"^~/\.config(/|$)",
    ),
    Row(
        "the home directory: ~/.local/share",
        "set XDG_DATA_HOME=/tmp/.local/share",
        path=r"^~/\.local/share(/|$)",
    ),
    Row(
        "the home directory",
        "set HOME=/tmp, or give the library a directory below /tmp",
        path=r"^~(/|$)",
    ),
    # --- a full /tmp ---
    Row(
        "XlsxWriter: temporary files",
        "xlsxwriter.Workbook keeps each sheet in a temporary file: give it the option in_memory",
        modules=("xlsxwriter",),
        errnos=(ENOSPC,),
    ),
    Row(
        "an upload that is spooled: Flask",
        "the upload is spooled there: set MAX_CONTENT_LENGTH, or read request.stream",
        modules=("werkzeug.formparser",),
        errnos=(ENOSPC,),
    ),
    Row(
        "an upload that is spooled: Django",
        "the upload is spooled there: set FILE_UPLOAD_HANDLERS to one that passes it on, and refuse larger "
        "ones by their Content-Length",
        modules=("django.core.files.uploadhandler", "django.core.files.uploadedfile"),
        errnos=(ENOSPC,),
    ),
    Row(
        "an upload that is spooled: Starlette, FastAPI",
        "the upload is spooled there: refuse larger ones by their Content-Length, or read request.stream()",
        modules=("tempfile.SpooledTemporaryFile", "starlette.formparsers"),
        errnos=(ENOSPC,),
    ),
    Row(
        "temporary files that pile up",
        "remove temporary files when they are no longer used: with tempfile.TemporaryDirectory()",
        path=r"^/tmp/tmp[a-z0-9_]{8}(/|$)",
        errnos=(ENOSPC,),
    ),
)


def _containers(*names: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        container = name.rpartition(".")[0]
        while container and container not in found:
            found.add(container)
            container = container.rpartition(".")[0]
    return found


def _at_home(path: str, project: str) -> str:
    home = os.path.expanduser("~").rstrip("/")
    if not home.startswith("/") or not is_below(path, home) or is_below(path, project):
        return path
    return f"~{path[len(home) :]}"


class Refusal:
    """One refusal as the rows see it."""

    def __init__(
        self,
        operation: str,
        code: int,
        path: str,
        project: str,
        functions: Iterable[str] = (),
        package: str = "",
        *,
        changes: bool = False,
    ) -> None:
        self.operation = operation
        self.code = code
        #: The absolute path, and the project's.
        self.path = path
        self.project = project
        #: The library functions on the way to the call, such as ``tempfile.mkstemp``.
        self.functions = functions
        #: The installed package that made the call, "" for the application.
        self.package = package
        #: Does it remove something, or change it without writing?
        self.changes = changes
        # Not cached properties: on 3.11 those share a lock, which a forked child would inherit as it is.
        #: The modules, packages and classes that contain the functions or the operation itself.
        self.modules = _containers(operation, *functions)
        #: The path with ``~`` in place of the home directory.
        self.at_home = _at_home(path, project)

    def fits(self, row: Row) -> bool:
        return (
            self.code in row.errnos
            and not (row.direct and self.package)
            and not (self.changes and not row.modules and not row.operations)
            and (not row.operations or self.operation.startswith(row.operations))
            and (not row.modules or not self.modules.isdisjoint(row.modules))
            and (not row.path or re.search(row.path, self.at_home[:_LONGEST]) is not None)
        )


def find(refusal: Refusal) -> Row | None:
    """The first row that matches ``refusal``; None if none does."""
    return next((row for row in TABLE if refusal.fits(row)), None)
