"""Every test leaves nothing on disk and no invocation bound, and every module of tests nothing patched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.reports import log
from tmpguard.core.storage.claims import PREFIX


def pytest_configure() -> None:
    # A shell starts what runs in the background with SIGINT ignored, and child processes inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 12):
        sys.settrace = _until_alone(sys.settrace)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """``-n auto``: two for each core, because many tests wait for a server or a child process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * len(os.sched_getaffinity(0))


def _until_alone(settrace: Callable[[Any], None]) -> Callable[[Any], None]:
    """``settrace``, repeated while another thread is in the middle of the same call.

    Python 3.11 refuses the second of two such calls, and an audit hook in Python lets another thread run in
    the first. Each new thread begins with such a call under coverage, and never runs if it fails. tmpguard
    itself cannot do this: trace functions would see the wrapper.
    """

    def until_alone(function: Any, /) -> None:
        while True:
            try:
                return settrace(function)
            except RuntimeError as exc:
                if "another" not in str(exc):
                    raise

    return until_alone


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
    left = _scratch_directories() - before
    assert not left, f"scratch directories are left: {left}"


@pytest.fixture(autouse=True, scope="module")
def leaves_nothing_patched() -> Iterator[None]:
    """Once for each module: to search all modules for references takes as long as most tests."""
    yield
    _uninstall()


@pytest.fixture
def uninstalled() -> None:
    """The layer is not installed when the test begins, so that it finds what the test takes before."""
    assert tmpguard.current() is None, "a fixture that came first has an invocation"
    _uninstall()


def _uninstall() -> None:
    tmpguard.uninstall()
    for function in (os.stat, os.lstat, os.mkdir, os.open, os.unlink, open):
        assert type(function).__name__ == "builtin_function_or_method", f"{function} is still patched"


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
