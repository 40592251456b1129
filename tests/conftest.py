"""Every test leaves the process as it found it: nothing patched, nothing on disk, no invocation bound."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

import tmpguard
from tmpguard.interpose import originals
from tmpguard.scratch import PREFIX


def _scratch_directories() -> set[str]:
    return {name for name in originals.listdir(tempfile.gettempdir()) if name.startswith(PREFIX)}


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    before = _scratch_directories()
    yield
    assert tmpguard.current() is None, "an invocation is still bound"
    assert tmpguard.drain(timeout=30), "the background thread is stuck"
    tmpguard.uninstall()
    for function in (os.stat, os.lstat, os.mkdir, os.open, os.unlink, open):
        assert type(function).__name__ == "builtin_function_or_method", f"{function} is still patched"
    left = {
        name
        for name in _scratch_directories() - before
        if originals.listdir(os.path.join(tempfile.gettempdir(), name))
    }
    assert not left, f"scratch directories are left: {left}"
