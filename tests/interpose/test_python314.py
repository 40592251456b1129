"""What Python 3.14 has added; docs/python-versions.md goes through it."""

from __future__ import annotations

import asyncio
import errno
import importlib
import inspect
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT

MB = 1 << 20

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="only Python 3.14 has these calls")


@pytest.fixture
def tmp(guard: tmpguard.Guard) -> Any:
    """The /tmp of an invocation, with a file and a directory; ``Any``, since older ones lack the methods."""
    with tmpguard.Guard(storage_size=1, bundle=None, scratch_root=guard.scratch.path).invocation():
        top = Path("/tmp")
        (top / "file.txt").write_bytes(b"x" * 600_000)
        (top / "tree/inner").mkdir(parents=True)
        (top / "tree/inner/leaf.txt").write_text("leaf")
        yield top


def used() -> int:
    return shutil.disk_usage("/tmp").used


def test_path_copy_is_charged(tmp: Any) -> None:
    """C3.5"""
    before = used()
    copied = (tmp / "tree").copy(tmp / "copy")
    assert copied == tmp / "copy"
    assert (tmp / "copy/inner/leaf.txt").read_text() == "leaf"
    assert used() == before + 4096


def test_path_copy_stops_at_the_quota(tmp: Any) -> None:
    """C3.4"""
    with pytest.raises(OSError, match="No space left") as caught:
        (tmp / "file.txt").copy(tmp / "again.txt")
    assert caught.value.errno == errno.ENOSPC
    assert used() <= MB


@pytest.mark.parametrize("method", ["copy", "move"])
def test_paths_are_not_copied_or_moved_out(tmp: Any, method: str) -> None:
    """C2.1"""
    target = PROJECT / "out.txt"  # not below tmp_path, which is in the real /tmp
    with pytest.raises(OSError, match="Read-only") as caught:
        getattr(tmp / "file.txt", method)(target)
    assert caught.value.errno == errno.EROFS
    assert caught.value.filename == str(target)
    assert (tmp / "file.txt").exists()
    assert not target.exists()


def test_path_copy_into_and_move_into(tmp: Any) -> None:
    (tmp / "tree/inner/leaf.txt").copy_into(tmp)
    assert (tmp / "leaf.txt").read_text() == "leaf"
    moved = (tmp / "leaf.txt").move_into(tmp / "tree")
    assert moved == tmp / "tree/leaf.txt"
    assert not (tmp / "leaf.txt").exists()


def test_path_copy_from_outside(tmp: Any) -> None:
    assert Path(__file__).copy(tmp / "source.py").read_bytes() == Path(__file__).read_bytes()  # type: ignore[attr-defined]


def test_path_info_looks_within_the_invocation(tmp: Any) -> None:
    """C7.1"""
    assert (tmp / "file.txt").info.is_file()
    assert (tmp / "tree").info.is_dir()
    assert not (tmp / "nothing").info.exists()
    found = {path.name: path.info for path in tmp.iterdir()}
    assert found["tree"].is_dir()
    assert not found["file.txt"].is_symlink()


def test_readinto_reads_a_descriptor(tmp: Any) -> None:
    descriptor = os.open("/tmp/tree/inner/leaf.txt", os.O_RDONLY)
    buffer = bytearray(4)
    assert os.readinto(descriptor, buffer) == 4  # type: ignore[attr-defined]
    os.close(descriptor)
    assert buffer == b"leaf"


def test_zstandard_is_charged_and_refused_like_other_compression(tmp: Any) -> None:
    """C2.1, C3.5"""
    zstd = importlib.import_module("compression.zstd")
    before = used()
    with zstd.open("/tmp/data.zst", "wb") as file:
        file.write(os.urandom(8000))
    assert used() == before + 8192
    with pytest.raises(OSError, match="Read-only file system"):
        zstd.open(PROJECT / "data.zst", "wb")


def test_archives_of_zstandard_stay_in_tmp(tmp: Any) -> None:
    """C3.5, C7.1"""
    assert shutil.make_archive("/tmp/packed", "zstdtar", "/tmp/tree") == "/tmp/packed.tar.zst"
    shutil.unpack_archive("/tmp/packed.tar.zst", "/tmp/unpacked")
    assert Path("/tmp/unpacked/inner/leaf.txt").read_text() == "leaf"


def test_annotations_are_evaluated_late_and_signatures_are_the_originals(tmp: Any) -> None:
    """C7.2"""
    annotationlib: Any = importlib.import_module("annotationlib")
    for function in (open, os.stat, os.mkdir, os.walk, shutil.rmtree):
        for kind in annotationlib.Format:
            if kind is not annotationlib.Format.VALUE_WITH_FAKE_GLOBALS:
                inspect.signature(function, annotation_format=kind)  # type: ignore[call-arg]
        assert annotationlib.get_annotations(function) == {}


def test_the_call_graph_of_a_task_has_the_application_s_frames(tmp: Any) -> None:
    async def inner() -> list[str]:
        Path("/tmp/by-a-task").touch()
        graph = asyncio.capture_call_graph()  # type: ignore[attr-defined]
        return [entry.frame.f_code.co_name for entry in graph.call_stack]

    async def outer() -> list[str]:
        return await inner()

    assert asyncio.run(outer()) == ["inner", "outer"]


def test_the_environment_may_be_read_again(tmp: Any) -> None:
    os.putenv("TMPGUARD_TEST_RELOADED", "yes")
    try:
        os.reload_environ()  # type: ignore[attr-defined]
        assert os.environ["TMPGUARD_TEST_RELOADED"] == "yes"
    finally:
        os.environ.pop("TMPGUARD_TEST_RELOADED", None)
