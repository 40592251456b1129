"""SQLite behaves the same in an invocation and on the kernel's set-up, to the byte (C1.1, C3.4, C3.5)."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard

from . import databases, kernel


def same(mine: Any, kernels: list[Any]) -> None:
    mine = json.loads(json.dumps(mine))
    for number, (one, other) in enumerate(zip(mine, kernels, strict=True)):
        assert one == other, f"step {number}"


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal", "memory"])
def test_database_that_is_filled_does_the_same_on_a_real_tmpfs(scratch_root: Path, mode: str) -> None:
    kernels = kernel.run([databases], "in_mode", mode)
    with tmpguard.invocation(storage_size=1, bundle=None, scratch_root=scratch_root) as invocation:
        same(databases.in_mode(mode), kernels)
    assert invocation.report.peak_bytes <= kernel.TMPFS_BYTES


@pytest.fixture
def project() -> Iterator[Path]:
    """A directory outside /tmp with different kinds of databases."""
    with tempfile.TemporaryDirectory(prefix="parity-", dir="/var/tmp") as name:
        make_databases(Path(name))
        yield Path(name)


def make_databases(directory: Path) -> None:
    (directory / "dir").mkdir()
    for name in ("plain.db", "wal.db", "hot.db"):
        with contextlib.closing(sqlite3.connect(directory / name)) as connection:
            if name == "wal.db":
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE items (a)")
            connection.commit()
            if name == "hot.db":  # a journal after a crash
                connection.execute("PRAGMA cache_size=1")
                connection.execute("INSERT INTO items VALUES (zeroblob(100000))")
                for found in ("hot.db", "hot.db-journal"):
                    shutil.copy(directory / found, directory / f"crashed-{found}")
    for found in ("hot.db", "hot.db-journal"):
        (directory / f"crashed-{found}").replace(directory / found)
    (directory / "link.db").symlink_to("plain.db")
    (directory / "into-tmp.db").symlink_to("/tmp/of-the-invocation.db")


def test_databases_of_a_read_only_disk_do_the_same(project: Path, scratch_root: Path) -> None:
    kernels = kernel.run([databases], "outside", str(project), bundle=str(project))
    with tmpguard.invocation(storage_size=1, bundle=project, scratch_root=scratch_root):
        mine = databases.outside(str(project))
    same(mine, kernels)
