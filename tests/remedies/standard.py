"""What applications do with the standard library, and places that any library may write to."""

from __future__ import annotations

import dbm
import logging
import os
import py_compile
import shutil
import sqlite3
import tempfile
import urllib.request

from .patterns import MAKES
from .provoke import Places, Step, provokes


@provokes("logging: a file")
def log_file(places: Places) -> Step:
    return lambda: logging.FileHandler("app.log")


@provokes("SQLite")
def database(places: Places) -> Step:
    return lambda: sqlite3.connect("app.db")


@provokes("dbm, shelve: a database")
def dbm_database(places: Places) -> Step:
    return lambda: dbm.open("cache", "c")


@provokes("urllib: urlretrieve")
def retrieve(places: Places) -> Step:
    (places.project / "remote.csv").write_text("a,b\n")
    return lambda: urllib.request.urlretrieve((places.project / "remote.csv").as_uri(), "local.csv")


@provokes("tempfile: a directory other than /tmp")
def temporary_file(places: Places) -> Step:
    return lambda: tempfile.NamedTemporaryFile(dir=".")


@provokes("bytecode (__pycache__)")
def bytecode(places: Places) -> Step:
    (places.project / "plain.py").write_text("")
    return lambda: py_compile.compile(str(places.project / "plain.py"))


@provokes("next to an installed package")
def beside_a_package(places: Places) -> Step:
    module = places.library("shop_client.metadata", MAKES)
    return lambda: module.prepare(os.path.join(os.path.dirname(module.__file__ or ""), ".metadata"))


@provokes("the home directory: ~/.cache")
def cache(places: Places) -> Step:
    return lambda: os.mkdir(os.path.expanduser("~/.cache/shop"))


@provokes("the home directory: ~/.config")
def config(places: Places) -> Step:
    return lambda: open(os.path.expanduser("~/.config/shop.toml"), "w")


@provokes("the home directory: ~/.local/share")
def share(places: Places) -> Step:
    return lambda: os.mkdir(os.path.expanduser("~/.local/share/crew"))


@provokes("the home directory")
def home(places: Places) -> Step:
    return lambda: open(os.path.expanduser("~/.shop-sync"), "w")


@provokes("temporary files that pile up")
def temporary_directories(places: Places) -> Step:
    (places.project / "page.bin").write_bytes(bytes(300_000))

    def step() -> None:
        while True:
            shutil.copy("page.bin", tempfile.mkdtemp())

    return step
