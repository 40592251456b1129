"""Databases in /tmp and in the project through Django's ORM, SQLAlchemy and aiosqlite's way (C3.5, C6.1)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import run_python

MB = 1 << 20
NAME = "/tmp/data.sqlite"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / "data.sqlite")) as connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, data)")
        connection.execute("INSERT INTO items VALUES (1, 'one')")
        connection.commit()
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as invocation:
        yield invocation


# --- SQLAlchemy ----------------------------------------------------------------------------------------


def engine_of(url: str, **options: Any) -> Any:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, **options)


def test_sqlalchemy_in_tmp_meets_the_quota(invocation: tmpguard.Invocation) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    metadata = sqlalchemy.MetaData()
    items = sqlalchemy.Table(
        "items",
        metadata,
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("data", sqlalchemy.LargeBinary),
    )

    class Item:
        def __init__(self, data: bytes) -> None:
            self.data = data

    orm.registry().map_imperatively(Item, items)
    engine = engine_of(f"sqlite:///{NAME}")
    metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all([Item(bytes(50_000)) for _ in range(4)])
        session.commit()
        session.add_all([Item(bytes(50_000)) for _ in range(40)])
        with pytest.raises(sqlalchemy.exc.OperationalError, match="database or disk is full"):
            session.commit()
        session.rollback()
        assert session.query(Item).count() == 4
        session.query(Item).filter(Item.id == 1).delete()  # type: ignore[attr-defined]
        session.commit()
        session.add(Item(bytes(50_000)))
        session.commit()
        assert session.execute(sqlalchemy.text("PRAGMA database_list")).first()[2] == NAME
    assert 200_000 < invocation.report.used_bytes <= invocation.report.peak_bytes <= MB
    engine.dispose()


def test_sqlalchemy_reads_the_projects_database(invocation: tmpguard.Invocation) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = engine_of("sqlite:///data.sqlite")
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT data FROM items")).scalar() == "one"
        with pytest.raises(sqlalchemy.exc.OperationalError, match="attempt to write a readonly database"):
            connection.execute(sqlalchemy.text("DELETE FROM items"))
    (violation,) = invocation.report.violations
    assert violation.path.endswith("data.sqlite")


def test_pool_that_outlives_a_request_gets_errors_and_does_no_harm(guard: tmpguard.Guard) -> None:
    """C4.1, C4.5"""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{NAME}")
    try:
        with guard.invocation():
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE items (data)"))
        with guard.invocation():
            with pytest.raises(sqlalchemy.exc.OperationalError), engine.begin() as connection:
                connection.execute(sqlalchemy.text("INSERT INTO items VALUES (zeroblob(100000))"))
            assert os.listdir("/tmp") == ["package"]
    finally:
        engine.dispose()
    assert not os.path.exists(NAME)


# --- Django --------------------------------------------------------------------------------------------

DJANGO = """
import os, sys, tmpguard, django
from django.conf import settings

engine = "django.db.backends.sqlite3"
settings.configure(DATABASES={
    "default": {"ENGINE": engine, "NAME": "/tmp/data.sqlite"},
    "project": {"ENGINE": engine, "NAME": "data.sqlite"},
})
django.setup()

from django.db import connection, connections, models, transaction
from django.db.utils import OperationalError

class Item(models.Model):
    data = models.BinaryField()

    class Meta:
        app_label = "stored"
        db_table = "items"

def refused(change, message):
    try:
        change()
    except OperationalError as exc:
        assert message in str(exc), exc
    else:
        raise AssertionError("nothing was raised")

@transaction.atomic
def store(count):
    for _ in range(count):
        Item.objects.create(data=bytes(50_000))

guard = tmpguard.Guard(storage_size=1, bundle=sys.argv[1], scratch_root=sys.argv[2])
for _ in range(2):
    with guard.invocation() as invocation:
        with connection.schema_editor() as editor:
            editor.create_model(Item)
        store(4)
        refused(lambda: store(40), "database or disk is full")
        assert Item.objects.count() == 4
        Item.objects.first().delete()
        store(1)
        assert Item.objects.count() == 4
        assert 200_000 < invocation.report.used_bytes <= invocation.report.peak_bytes <= 1 << 20
        assert all(v.path.startswith("/tmp/data.sqlite") for v in invocation.report.violations)
        before = invocation.report.violation_count
        stored = Item.objects.using("project")
        assert bytes(stored.get(id=1).data) == b"one"
        refused(lambda: stored.create(data=b"two"), "attempt to write a readonly database")
        assert invocation.report.violation_count == before + 1
        assert invocation.report.violations[-1].path.endswith("data.sqlite")
        assert stored.count() == 1
        connections.close_all()
print("done")
"""


def test_django_meets_the_quota_in_tmp_and_reads_the_projects_database(
    project: Path, scratch_root: Path
) -> None:
    pytest.importorskip("django")
    with contextlib.closing(sqlite3.connect(project / "data.sqlite")) as connection:
        connection.execute("UPDATE items SET data = CAST(data AS BLOB)")
        connection.commit()
    code = "import logging; logging.disable()\n" + DJANGO
    assert run_python(code, project, scratch_root) == "done\n"


# --- a thread for each connection ----------------------------------------------------------------------


def test_connection_in_a_thread_of_its_own_is_the_requests(invocation: tmpguard.Invocation) -> None:
    """C6.2: as aiosqlite does it."""

    async def work() -> int:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            connection = await loop.run_in_executor(thread, lambda: sqlite3.connect(NAME))
            run = connection.execute
            await loop.run_in_executor(thread, run, "CREATE TABLE items (data)")
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await loop.run_in_executor(
                    thread, connection.executescript, "INSERT INTO items VALUES (zeroblob(3000000))"
                )
            await loop.run_in_executor(thread, run, "INSERT INTO items VALUES (1)")
            await loop.run_in_executor(thread, connection.commit)
            rows = await loop.run_in_executor(thread, lambda: run("SELECT count(*) FROM items").fetchone())
            await loop.run_in_executor(thread, connection.close)
            return int(rows[0])

    assert asyncio.run(work()) == 1
    assert os.path.getsize(NAME) == invocation.report.used_bytes
