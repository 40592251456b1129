"""A project directory for each case."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, forget


@pytest.fixture
def project(tmp_path: Path, scratch_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    before = set(sys.modules)
    yield Project(directory, scratch_root)
    forget(tmp_path, before)
