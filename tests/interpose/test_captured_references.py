"""References to the file functions that modules took before there was a guard, and the backstop (C6.1, C7.3).

What was taken by name, as a class attribute or as a default is replaced. What could not be reached, or calls
``posix`` itself, is refused: it can never change the real file system.
"""

from __future__ import annotations

import _io
import contextlib
import errno
import functools
import importlib
import io
import os
import posix
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals

pytestmark = pytest.mark.usefixtures("uninstalled")

READ_ONLY = "Read-only file system"

SOURCE = """
import functools, glob, io, os, os.path, pathlib, shutil, sqlite3, tempfile
from builtins import open as builtin_open
from io import FileIO, open as io_open
from os import listdir, mkdir, open as os_open, remove, rename, scandir, stat, unlink

def touch_by_default(path, opener=open):
    opener(path, "w").close()

def remove_by_keyword(path, *, remover=os.remove):
    remover(path)

class Store:
    opener = open
    static = staticmethod(os.mkdir)
    _unlink = os.unlink

    def save(self, path):
        self.opener(path, "w").close()

    def make(self, path):
        self.static(path)

    def drop(self, path):
        self._unlink(path)

    def list(self, path, lister=os.listdir):
        return lister(path)

    class Inner:
        remover = os.remove

table = {"mkdir": os.mkdir}
partial = functools.partial(os.mkdir)
closure = (lambda function: lambda path: function(path))(os.mkdir)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "data").mkdir(parents=True)
    (directory / "file.txt").write_text("text")
    return directory


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module with references of every kind, imported before the guard is built."""
    (tmp_path / "modules").mkdir()
    name = "holder_of_references"
    (tmp_path / "modules" / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield importlib.import_module(name)
    del sys.modules[name]


@pytest.fixture
def guard(holder: ModuleType, project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(OSError, match=READ_ONLY) as caught:
        yield
    assert caught.value.errno == errno.EROFS


MAKERS: dict[str, Callable[[Any, str], Any]] = {
    "from builtins import open": lambda holder, path: holder.builtin_open(path, "w").close(),
    "from io import open": lambda holder, path: holder.io_open(path, "w").close(),
    "from io import FileIO": lambda holder, path: holder.FileIO(path, "w").close(),
    "from os import open": lambda holder, path: os.close(holder.os_open(path, os.O_WRONLY | os.O_CREAT)),
    "from os import mkdir": lambda holder, path: holder.mkdir(path),
    "default argument": lambda holder, path: holder.touch_by_default(path),
    "class attribute": lambda holder, path: holder.Store().save(path),
    "staticmethod": lambda holder, path: holder.Store().make(path),
    "table of functions": lambda holder, path: holder.table["mkdir"](path),
}

REMOVERS: dict[str, Callable[[Any, str], Any]] = {
    "from os import remove": lambda holder, path: holder.remove(path),
    "from os import unlink": lambda holder, path: holder.unlink(path),
    "keyword default": lambda holder, path: holder.remove_by_keyword(path),
    "class attribute": lambda holder, path: holder.Store().drop(path),
    "from os import rename": lambda holder, path: holder.rename(path, path + ".bak"),
}

UNREACHED: dict[str, Callable[[Any, str], Any]] = {
    "partial": lambda holder, path: holder.partial(path),
    "closure": lambda holder, path: holder.closure(path),
}


def test_captured_makers_are_refused_outside_and_redirected_below_tmp(
    guard: tmpguard.Guard, holder: Any, project: Path, tmp_path: Path
) -> None:
    """C6.1"""
    for number, (kind, make) in enumerate(MAKERS.items()):
        name = f"{tmp_path.name}-{number}"
        with guard.invocation() as invocation:
            make(holder, f"/tmp/{name}")
            assert name in holder.listdir("/tmp"), kind
            assert not originals.access(f"/tmp/{name}", os.F_OK), kind
            assert not invocation.report.violations, kind
            with refused():
                make(holder, "data/made")
            assert len(invocation.report.violations) == 1, kind
        assert not os.listdir(project / "data")


def test_captured_removers_are_refused_outside_and_redirected_below_tmp(
    guard: tmpguard.Guard, holder: Any, project: Path, tmp_path: Path
) -> None:
    """C6.1: they do not remove the real file of that name."""
    real = Path("/tmp") / f"{tmp_path.name}.txt"
    real.write_text("real")
    try:
        for kind, remove in REMOVERS.items():
            with guard.invocation() as invocation:
                with pytest.raises(FileNotFoundError):
                    remove(holder, str(real))
                holder.builtin_open(real, "w").close()
                remove(holder, str(real))
                assert real.name not in holder.listdir("/tmp"), kind
                with refused():
                    remove(holder, "file.txt")
                assert len(invocation.report.violations) == 1, kind
            assert real.read_text() == "real", kind
            assert (project / "file.txt").exists(), kind
    finally:
        real.unlink()


def test_captured_readers_see_the_invocations_tmp(guard: tmpguard.Guard, holder: Any) -> None:
    """C6.1, C7.1"""
    with guard.invocation():
        Path("/tmp/file.txt").write_text("text")
        assert "file.txt" in holder.listdir("/tmp")
        assert "file.txt" in holder.Store().list("/tmp")
        assert "/tmp/file.txt" in [entry.path for entry in holder.scandir("/tmp")]
        assert holder.stat("/tmp/file.txt").st_size == 4
        assert list(Path("/tmp").glob("*.txt")) == [Path("/tmp/file.txt")]
        assert holder.glob.glob("/tmp/*.txt") == ["/tmp/file.txt"]


def test_uninstalling_gives_every_holder_the_very_object_back(
    holder: Any, project: Path, scratch_root: Path
) -> None:
    """C7.3"""
    names = ("builtin_open", "io_open", "FileIO", "os_open", "mkdir", "remove", "unlink", "rename", "stat")
    # No dictionaries of functions here: they would be taken for tables that hold references.
    before = [(name, vars(holder)[name]) for name in names]
    attributes = list(vars(holder.Store).items())
    defaults = holder.touch_by_default.__defaults__
    for _ in range(2):
        tmpguard.Guard(bundle=project, scratch_root=scratch_root)
        assert holder.mkdir is os.mkdir is not posix.mkdir
        assert holder.table["mkdir"] is os.mkdir
        assert holder.Store._unlink is os.unlink
        tmpguard.uninstall()
        for name, value in before:
            assert vars(holder)[name] is value, name
        for name, value in attributes:
            assert vars(holder.Store)[name] is value, name
        assert holder.touch_by_default.__defaults__ is defaults
        assert holder.remove_by_keyword.__kwdefaults__["remover"] is posix.remove
        assert holder.table["mkdir"] is posix.mkdir
        assert os.mkdir is posix.mkdir
        assert open is _io.open


def test_modules_imported_meanwhile_get_the_originals_back(
    project: Path, scratch_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7.3"""
    (tmp_path / "late_holder.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    tmpguard.Guard(bundle=project, scratch_root=scratch_root)
    try:
        late = importlib.import_module("late_holder")
        assert late.mkdir is os.mkdir
        tmpguard.uninstall()
        assert late.mkdir is posix.mkdir
        assert late.builtin_open is _io.open
        assert late.FileIO is _io.FileIO
        assert late.Store._unlink is posix.unlink
        assert late.Store.__dict__["static"].__func__ is posix.mkdir
        assert late.touch_by_default.__defaults__ == (_io.open,)
    finally:
        sys.modules.pop("late_holder", None)


def test_outside_an_invocation_captured_references_work_on_the_real_file_system(
    guard: tmpguard.Guard, holder: Any, tmp_path: Path
) -> None:
    """C6.4"""
    for number, make in enumerate(MAKERS.values()):
        make(holder, f"{tmp_path}/made-{number}")
        assert os.path.lexists(tmp_path / f"made-{number}")
    for number, make in enumerate(UNREACHED.values()):
        make(holder, f"{tmp_path}/unreached-{number}")


# --- the backstop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNREACHED)
def test_references_that_cannot_be_reached_are_refused(
    guard: tmpguard.Guard, holder: Any, project: Path, tmp_path: Path, kind: str
) -> None:
    """C2.3, C2.4, C6.1: below /tmp, too, where the call would change the real one."""
    made = f"/tmp/{tmp_path.name}-made"
    with guard.invocation() as invocation:
        for path in (made, str(project / "made")):
            with pytest.raises(OSError, match=READ_ONLY) as caught:
                UNREACHED[kind](holder, path)
            assert caught.value.filename == path
            assert any("could not replace" in note for note in caught.value.__notes__)
        assert [(v.operation, v.path, v.errno) for v in invocation.report.violations] == [
            ("os.mkdir", made, errno.EROFS),
            ("os.mkdir", str(project / "made"), errno.EROFS),
        ]
    assert not os.path.exists(made)
    assert not (project / "made").exists()


LOW_LEVEL: dict[str, Callable[[str, str], Any]] = {
    "posix.open": lambda new, old: posix.open(new, os.O_WRONLY | os.O_CREAT),
    "posix.open to truncate": lambda new, old: posix.open(old, os.O_RDWR | os.O_TRUNC),
    "posix.open to append": lambda new, old: posix.open(old, os.O_WRONLY | os.O_APPEND),
    "posix.mkdir": lambda new, old: posix.mkdir(new),
    "posix.rmdir": lambda new, old: posix.rmdir(os.path.dirname(old)),
    "posix.unlink": lambda new, old: posix.unlink(old),
    "posix.remove": lambda new, old: posix.remove(old),
    "posix.rename": lambda new, old: posix.rename(old, new),
    "posix.replace": lambda new, old: posix.replace(old, new),
    "posix.link": lambda new, old: posix.link(old, new),
    "posix.symlink": lambda new, old: posix.symlink(old, new),
    "posix.truncate": lambda new, old: posix.truncate(old, 0),
    "posix.chmod": lambda new, old: posix.chmod(old, 0o600),
    "posix.chown": lambda new, old: posix.chown(old, -1, -1),
    "posix.utime": lambda new, old: posix.utime(old, (1, 1)),
    "posix.setxattr": lambda new, old: posix.setxattr(old, "user.name", b"value"),
    "_io.open": lambda new, old: _io.open(new, "w"),
    "_io.open to append": lambda new, old: _io.open(old, "a"),
    "_io.open to update": lambda new, old: _io.open(old, "r+"),
    "_io.FileIO": lambda new, old: _io.FileIO(new, "x"),
    "posix.mkdir by descriptor": lambda new, old: _by_descriptor(posix.mkdir, new),
    "posix.unlink by descriptor": lambda new, old: _by_descriptor(posix.unlink, old),
    "posix.open by descriptor": lambda new, old: _by_descriptor(
        functools.partial(posix.open, flags=os.O_WRONLY | os.O_CREAT), new
    ),
}


def _by_descriptor(call: Callable[..., Any], path: str) -> Any:
    directory, _, name = path.rpartition("/")
    descriptor = posix.open(directory, os.O_RDONLY)
    try:
        return call(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def test_calls_of_the_low_level_modules_are_refused(
    guard: tmpguard.Guard, project: Path, tmp_path: Path
) -> None:
    """C1.1, C2.3, C6.1: what tells the audit hook of itself (mkfifo and mknod do not)."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old.txt").write_text("old")
    before = os.stat(tmp_path / "real" / "old.txt")
    slipped = []
    for kind, call in LOW_LEVEL.items():
        with guard.invocation() as invocation:
            with contextlib.suppress(OSError):
                call(f"{tmp_path}/real/new.txt", f"{tmp_path}/real/old.txt")
            if [violation.errno for violation in invocation.report.violations] != [errno.EROFS]:
                slipped.append(kind)
    assert not slipped
    assert os.listdir(tmp_path / "real") == ["old.txt"]
    after = os.stat(tmp_path / "real" / "old.txt")
    assert (after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
    )


def test_low_level_calls_that_only_read_pass(guard: tmpguard.Guard, project: Path) -> None:
    """C1.1, SURFACE 1.1"""
    with guard.invocation() as invocation:
        with _io.open(project / "file.txt") as file:
            assert file.read() == "text"
        os.close(posix.open(project / "file.txt", os.O_RDONLY))
        assert "file.txt" in posix.listdir(project)
        with _io.open(os.devnull, "w") as null:
            null.write("text")
        assert not invocation.report.violations


def test_backstop_lets_watched_calls_through(project: Path, scratch_root: Path) -> None:
    """C2.5"""
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, enforce=False)
    with guard.invocation() as invocation:
        posix.mkdir(project / "made")
        assert [(v.operation, v.errno) for v in invocation.report.violations] == [("os.mkdir", errno.EROFS)]
    assert (project / "made").is_dir()


def test_backstop_sleeps_outside_invocations_and_after_uninstalling(
    guard: tmpguard.Guard, project: Path
) -> None:
    """C6.4, C7.3"""
    with guard.invocation():
        pass
    posix.mkdir(project / "first")
    tmpguard.uninstall()
    with guard.invocation().bound():
        tmpguard.uninstall()
        posix.mkdir(project / "second")
    assert (project / "second").is_dir()


def test_classes_derived_from_file_io_before(scratch_root: Path) -> None:
    """A base cannot be looked up anew: the class is given the other one, and gets its own back."""
    tmpguard.uninstall()

    class Mixin: ...

    class Derived(Mixin, io.FileIO):
        def write(self, data: Any, /) -> Any:
            return super().write(bytes(data).upper())

    class Further(Derived): ...

    before = Derived.__bases__
    older = Derived(os.devnull, "w")
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        with Further("/tmp/a", "w") as file:
            file.write(b"abc")
            assert file.name == "/tmp/a"
            assert isinstance(file, io.FileIO)
        with open("/tmp/a", "rb") as file:
            assert file.read() == b"ABC"
        assert invocation.report.used_bytes == 4096
        with pytest.raises(OSError, match="Read-only file system: '/etc/none'"):
            Derived("/etc/none", "w")
        assert older.write(b"gone") == 4
    older.close()
    tmpguard.uninstall()
    assert Derived.__bases__ == before
    assert Derived.__mro__[2] is io.FileIO
