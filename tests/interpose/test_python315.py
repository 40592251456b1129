"""What Python 3.15 has added; docs/python-versions.md goes through it."""

from __future__ import annotations

import errno
import importlib
import mmap
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT
from tmpguard.core import originals
from tmpguard.interpose.entries import look

pytestmark = pytest.mark.skipif(sys.version_info < (3, 15), reason="only Python 3.15 has these calls")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "into-tmp-file").symlink_to("/tmp/file")
    (project / "file").touch()
    (project / "to-file").symlink_to("file")
    return project


@pytest.fixture
def statx(project: Path, scratch_root: Path) -> Any:
    """``os.statx`` with the usual mask, in an invocation whose /tmp has a file of five bytes and links."""
    if not hasattr(os, "statx"):
        pytest.skip("this C library has no statx")
    with tmpguard.Guard(bundle=project, scratch_root=scratch_root).invocation() as invocation:
        Path("/tmp/file").write_text("bytes")
        Path("/tmp/link").symlink_to("file")
        Path("/tmp/dangling").symlink_to("missing")
        yield lambda path, mask=os.STATX_BASIC_STATS, **options: os.statx(path, mask, **options)
    assert not invocation.report.violations


def test_statx_looks_where_paths_lead(statx: Any, project: Path) -> None:
    """C1.2"""
    for path in ("/tmp/file", b"/tmp/file", Path("/tmp/file"), "/tmp/link", project / "into-tmp-file"):
        assert statx(path).stx_size == 5
        assert statx(path).stx_ino == os.stat(path).st_ino
    assert statx(path=PROJECT).stx_ino == os.stat(PROJECT).st_ino
    directory = os.open("/tmp", os.O_RDONLY)
    try:
        assert statx("link", dir_fd=directory).stx_size == 5
        assert statx(directory).stx_ino == os.stat("/tmp").st_ino
    finally:
        os.close(directory)


def test_statx_without_following_does_as_the_interpreter_does(statx: Any, project: Path) -> None:
    """CPython 3.15.2 follows a link nevertheless."""
    status = originals.statx(project / "to-file", os.STATX_TYPE, follow_symlinks=False)  # type: ignore[attr-defined]
    follows = stat.S_ISREG(status.stx_mode)
    for path in (project / "to-file", "/tmp/link"):
        assert stat.S_ISREG(statx(path, follow_symlinks=False).stx_mode) is follows
    if follows:
        with pytest.raises(FileNotFoundError):
            statx("/tmp/dangling", follow_symlinks=False)
    else:
        assert stat.S_ISLNK(statx("/tmp/dangling", follow_symlinks=False).stx_mode)


@pytest.mark.parametrize("sees_links", [True, False])
def test_statx_of_either_kind_of_interpreter(
    statx: Any, monkeypatch: pytest.MonkeyPatch, sees_links: bool
) -> None:
    """The original is given a path without links, unless it is to look at one."""
    given: list[tuple[str, bool]] = []
    monkeypatch.setattr(look, "_statx_sees_links", lambda: sees_links)
    monkeypatch.setattr(
        originals, "statx", lambda path, mask, flags, follow_symlinks: given.append((path, follow_symlinks))
    )
    statx("/tmp/link", follow_symlinks=False)
    statx("/tmp/link")
    assert [(os.path.basename(path), follow) for path, follow in given] == [
        ("link", False) if sees_links else ("file", True),
        ("file", True),
    ]


@pytest.mark.parametrize("path", ["/tmp/missing", "/tmp/dangling", b"/tmp/missing/too", "/tmp/file/"])
def test_the_errors_of_statx_name_the_path_as_it_was_given(statx: Any, path: Any) -> None:
    """C7.1"""
    with pytest.raises(OSError, match=r"No such file|Not a directory") as caught:
        statx(path)
    assert caught.value.filename == path


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("/tmp/missing/too", os.O_RDONLY), {"flags": 0x100}, ValueError, "follow_symlinks"),
        (
            ("/tmp/missing/too", os.O_RDONLY),
            {"flags": 1 << 20},
            OSError,
            "Invalid argument: '/tmp/missing/too'",
        ),
        (("/tmp/missing/too", "mask"), {}, TypeError, "'str' object"),
        ((0, 0), {"follow_symlinks": False}, ValueError, "cannot use fd and follow_symlinks"),
        ((0, 0), {"dir_fd": 0}, ValueError, "can't specify dir_fd"),
        (("/tmp/nul\0", 0), {}, ValueError, "embedded null"),
        ((None, 0), {}, TypeError, "string, bytes, os.PathLike or integer, not NoneType"),
        ((9999, 0), {}, OSError, "Bad file descriptor: 9999"),
    ],
)
def test_statx_complains_as_the_original(
    statx: Any, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    for call in (statx, originals.statx):
        with pytest.raises(error, match=text):
            call(*arguments, **options)


def test_statx_is_over_with_the_invocation(guard: tmpguard.Guard) -> None:
    """C4.5"""
    with guard.invocation() as invocation:
        Path("/tmp/file").touch()
    with pytest.raises(OSError, match="Stale") as caught, invocation.bound():
        os.statx("/tmp/file", 0)  # type: ignore[attr-defined]
    assert caught.value.errno == errno.ESTALE


def test_statx_is_still_among_the_calls_that_take_descriptors(statx: Any) -> None:
    """C7.2"""
    for kind in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        assert os.statx in kind  # type: ignore[attr-defined]


# --- the rest ------------------------------------------------------------------------------------------


def used() -> int:
    return shutil.disk_usage("/tmp").used


def test_a_lazily_imported_module_is_found_in_the_request_that_uses_it(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up when it is used first: after the invocation its file is gone (C4.2)."""
    monkeypatch.syspath_prepend("/tmp/lazy")
    with guard.invocation():
        os.mkdir("/tmp/lazy")
        for number in (1, 2):
            Path(f"/tmp/lazy/lazy_user{number}.py").write_text(
                f"lazy import lazy_used{number}\ndef value(): return lazy_used{number}.VALUE\n"
            )
            Path(f"/tmp/lazy/lazy_used{number}.py").write_text("VALUE = 42\n")
        importlib.invalidate_caches()
        users = [importlib.import_module(f"lazy_user{number}") for number in (1, 2)]
        assert users[0].value() == 42
    with pytest.raises(ModuleNotFoundError):
        users[1].value()
    for name in ("lazy_user1", "lazy_user2", "lazy_used1"):
        monkeypatch.delitem(sys.modules, name)


def test_parents_are_made_with_their_own_mode(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        os.makedirs("/tmp/a/b/c", 0o755, parent_mode=0o700)  # type: ignore[call-arg]
        Path("/tmp/d/e").mkdir(0o755, parents=True, parent_mode=0o700)  # type: ignore[call-arg]
        modes = [
            stat.S_IMODE(os.stat(path).st_mode) for path in ("/tmp/a", "/tmp/a/b", "/tmp/a/b/c", "/tmp/d")
        ]
        assert modes == [0o700, 0o700, 0o755, 0o700]


def test_the_ways_of_realpath_find_the_invocation_s_links(guard: tmpguard.Guard) -> None:
    """C7.1"""
    with guard.invocation():
        os.symlink("missing", "/tmp/link")
        for name in ("ALLOW_MISSING", "ALL_BUT_LAST"):
            assert os.path.realpath("/tmp/link", strict=getattr(os.path, name)) == "/tmp/missing"


def test_a_mapping_is_flushed_with_flags(guard: tmpguard.Guard) -> None:
    with guard.invocation(), open("/tmp/mapped", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as mapping:
            mapping[:4] = b"text"
            mapping.flush(flags=mmap.MS_ASYNC)  # type: ignore[call-arg, attr-defined]
            mapping.flush(0, 4096, flags=mmap.MS_SYNC)  # type: ignore[call-arg, attr-defined]
        assert file.read(4) == b"text"
        assert used() == 8192


@pytest.mark.parametrize("kind", ["dbm.dumb", "dbm.sqlite3"])
def test_a_reorganized_database_stays_in_the_invocation(guard: tmpguard.Guard, kind: str) -> None:
    """C3.3"""
    module: Any = importlib.import_module(kind)
    with guard.invocation() as invocation:
        with module.open("/tmp/database", "c") as database:
            for number in range(50):
                database[str(number)] = bytes(4000)
            for number in range(49):
                del database[str(number)]
            database.reorganize()
            assert list(database.keys()) == [b"49"]
        assert used() < 50_000
    assert not invocation.report.violations


def test_a_profile_is_dumped_to_tmp(guard: tmpguard.Guard) -> None:
    tracing: Any = importlib.import_module("profiling.tracing")
    with guard.invocation():
        tracing.Profile().dump_stats("/tmp/profile")
        assert os.path.getsize("/tmp/profile")
