"""Every test leaves the process as it found it: nothing patched, nothing on disk, no invocation bound."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.reports import log
from tmpguard.core.storage.claims import PREFIX


def _scratch_directories() -> set[str]:
    """What this process has in its own directories, which it holds open: other processes have theirs."""
    held = set()
    for name in originals.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            held.add(originals.readlink(f"/proc/self/fd/{name}"))
    left = set()
    for path in held:
        if os.path.basename(path).startswith(PREFIX):
            with contextlib.suppress(FileNotFoundError):
                left.update(f"{path}/{name}" for name in originals.listdir(path))
    return left


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    before = _scratch_directories()
    yield
    assert tmpguard.current() is None, "an invocation is still bound"
    assert tmpguard.drain(timeout=30), "the background thread is stuck"
    log.restart()  # nothing to sum up at the end of the run
    tmpguard.uninstall()
    for function in (os.stat, os.lstat, os.mkdir, os.open, os.unlink, open):
        assert type(function).__name__ == "builtin_function_or_method", f"{function} is still patched"
    left = _scratch_directories() - before
    assert not left, f"scratch directories are left: {left}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Nothing is added to ``sys.path``, once all fixtures are done with it: what lies there below the real
    ``/tmp`` is seen by every guard that is built."""
    _path.update(sys.path)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    result = yield
    added = set(sys.path) - _path
    assert not added, f"left in sys.path: {added}"
    return result


_path: set[str] = set()


@pytest.fixture
def scratch_root(tmp_path: Path) -> Path:
    """An empty directory for the scratch directories of a test's guards."""
    root = tmp_path / "scratch"
    root.mkdir()
    return root


@pytest.fixture
def guard(scratch_root: Path) -> tmpguard.Guard:
    """A guard without a bundle, on a scratch root of its own."""
    return tmpguard.Guard(scratch_root=scratch_root, bundle=None)


@pytest.fixture
def public_root() -> Iterator[Path]:
    """The same, but a process of any user may use it, which ``tmp_path`` does not allow."""
    root = Path(tempfile.mkdtemp(prefix="public-"))
    root.chmod(0o777)
    yield root
    shutil.rmtree(root)
