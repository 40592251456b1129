"""A project with a database, and a guard of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

import tmpguard


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a database of one row."""
    directory = tmp_path / "project"
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / "data.sqlite")) as connection:
        connection.executescript("CREATE TABLE items (name); INSERT INTO items VALUES ('one')")
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    """A guard of 1 MB whose bundle is the project."""
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)
