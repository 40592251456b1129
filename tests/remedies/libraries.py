"""Real libraries; those that are not installed are left out, and the test says so."""

from __future__ import annotations

import os
import sys
import zipfile
from typing import Any

import pytest

from .provoke import Places, Step, provokes


def need(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


@provokes("NLTK: corpora and models")
def nltk(places: Places) -> Step:
    downloader = need("nltk.downloader")
    with zipfile.ZipFile(places.project / "words.zip", "w") as archive:
        archive.writestr("words/en", "word")
    size = (places.project / "words.zip").stat().st_size
    (places.project / "index.xml").write_text(
        "<nltk_data><packages>"
        f'<package id="words" name="Words" subdir="corpora" size="{size}" unzipped_size="4" unzip="1" '
        f'url="{(places.project / "words.zip").as_uri()}" checksum="x"/>'
        "</packages><collections/></nltk_data>"
    )
    index = (places.project / "index.xml").as_uri()

    def step() -> None:
        security = sys.modules.get("nltk.pathsec")  # newer versions read no index from a file otherwise
        before = getattr(security, "ENFORCE", None)
        try:
            if security is not None:
                security.ENFORCE = False  # type: ignore[attr-defined]
            downloader.Downloader(index, str(places.project / "nltk_data")).download("words", quiet=True)
        finally:
            if security is not None:
                security.ENFORCE = before  # type: ignore[attr-defined]

    return step


@provokes("tiktoken: encodings")
def tiktoken(places: Places) -> Step:
    load = need("tiktoken.load")
    (places.project / "encoding.bpe").write_text("")

    def step() -> None:
        os.environ["TIKTOKEN_CACHE_DIR"] = "encodings"
        try:
            load.read_file_cached("encoding.bpe")
        finally:
            del os.environ["TIKTOKEN_CACHE_DIR"]

    return step


@provokes("Hugging Face: models and datasets")
def hugging_face(places: Places) -> Step:
    hub = need("huggingface_hub")
    return lambda: hub.cached_assets_path(
        "shop", "models", assets_dir=places.home / ".cache/huggingface/assets"
    )


@provokes("scikit-learn: datasets")
def scikit_learn(places: Places) -> Step:
    datasets = need("sklearn.datasets")
    return lambda: datasets.get_data_home()


@provokes("seaborn: datasets")
def seaborn(places: Places) -> Step:
    library = need("seaborn")
    return lambda: library.get_data_home()


@provokes("joblib: Memory and memory maps")
def joblib(places: Places) -> Step:
    library = need("joblib")
    return lambda: library.Memory("cache", verbose=0).cache(len)([])


@provokes("pooch: downloaded data (SciPy, scikit-image and others)")
def pooch(places: Places) -> Step:
    library = need("pooch")
    (places.project / "data.csv").write_text("a,b\n")
    url = (places.project / "data.csv").as_uri()
    return lambda: library.retrieve(url, known_hash=None, path=places.home / ".cache/pooch")


@provokes("diskcache: the cache's directory")
def diskcache(places: Places) -> Step:
    library = need("diskcache")
    return lambda: library.Cache("cache")


@provokes("cachelib, Flask-Caching, Flask-Session: files")
def cachelib(places: Places) -> Step:
    library = need("cachelib")
    return lambda: library.FileSystemCache("flask_session").set("key", "value")


@provokes("webassets: bundles and their cache")
def webassets(places: Places) -> Step:
    library = need("webassets")
    (places.project / "site.css").write_text("body {}")
    environment = library.Environment(directory=str(places.project), url="/")
    environment.register("css", "site.css", output="site.min.css")
    return lambda: environment["css"].urls()


@provokes("lock files (filelock, fasteners, portalocker)")
def filelock(places: Places) -> Step:
    library = need("filelock")
    return lambda: library.FileLock("model.lock").acquire(timeout=0.1)


@provokes("Loguru: a file")
def loguru(places: Places) -> Step:
    library = need("loguru")
    return lambda: library.logger.add("app.log")


@provokes("Flask-SQLAlchemy: SQLite in the instance folder")
def flask_sqlalchemy(places: Places) -> Step:
    library = need("flask_sqlalchemy")
    from flask import Flask

    def step() -> None:
        app = Flask("shop", root_path=str(places.project), instance_path=str(places.project / "instance"))
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.db"
        library.SQLAlchemy(app)

    return step


@provokes("SQLAlchemy: SQLite")
def sqlalchemy(places: Places) -> Step:
    library = need("sqlalchemy")
    return lambda: library.create_engine("sqlite:///shop.db").connect()
