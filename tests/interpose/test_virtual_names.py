"""No scratch path ever shows: names are the application's own or canonical ones below /tmp (C7.1)."""

from __future__ import annotations

import contextlib
import copy
import glob
import io
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import case
from tmpguard.core import originals
from tmpguard.core.mounts import private
from tmpguard.core.storage.claims import PREFIX


@pytest.fixture(autouse=True)
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as bound:
        make_tree()
        yield bound


def make_tree() -> None:
    """In /tmp: a/b/file.txt, links to it, to a directory, to nowhere and out."""
    os.makedirs("/tmp/a/b")
    Path("/tmp/a/b/file.txt").write_text("text")
    os.symlink("b/file.txt", "/tmp/a/relative")
    os.symlink("/tmp/a/b", "/tmp/a/absolute")
    os.symlink("/tmp/nowhere", "/tmp/a/dangling")
    os.symlink("/etc", "/tmp/a/out")


def shows_scratch(answer: object) -> bool:
    """Is there a trace of tmpguard's directories in what was answered?"""
    return PREFIX in repr(answer) or f"{os.sep}scratch{os.sep}" in repr(answer)


def in_tmp(names: object) -> list[str]:
    return sorted(os.fsdecode(name) for name in names)  # type: ignore[attr-defined]


# --- results -------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[Callable[[], object], object]] = {
    "open": (lambda: _name_of(open("/tmp/a/b/file.txt")), "/tmp/a/b/file.txt"),
    "open through a link": (lambda: _name_of(open("/tmp/a/relative")), "/tmp/a/relative"),
    "open bytes": (lambda: _name_of(open(b"/tmp/a/b/file.txt", "rb")), b"/tmp/a/b/file.txt"),
    "listdir": (lambda: sorted(os.listdir("/tmp/a")), ["absolute", "b", "dangling", "out", "relative"]),
    "listdir of bytes": (lambda: os.listdir(b"/tmp/a/b"), [b"file.txt"]),
    "listdir through a link": (lambda: os.listdir("/tmp/a/absolute"), ["file.txt"]),
    "readlink": (lambda: os.readlink("/tmp/a/relative"), "b/file.txt"),
    "readlink, absolute": (lambda: os.readlink("/tmp/a/absolute"), "/tmp/a/b"),
    "readlink of bytes": (lambda: os.readlink(b"/tmp/a/absolute"), b"/tmp/a/b"),
    "Path.readlink": (lambda: Path("/tmp/a/absolute").readlink(), Path("/tmp/a/b")),
    "realpath": (lambda: os.path.realpath("/tmp/a/relative"), "/tmp/a/b/file.txt"),
    "realpath through two": (lambda: os.path.realpath("/tmp/a/absolute/file.txt"), "/tmp/a/b/file.txt"),
    "realpath of bytes": (lambda: os.path.realpath(b"/tmp/a/relative"), b"/tmp/a/b/file.txt"),
    "realpath, dangling": (lambda: os.path.realpath("/tmp/a/dangling"), "/tmp/nowhere"),
    "realpath of tmp": (lambda: os.path.realpath("/tmp"), "/tmp"),
    "Path.resolve": (lambda: Path("/tmp/a/relative").resolve(strict=True), Path("/tmp/a/b/file.txt")),
    "abspath": (lambda: os.path.abspath("/tmp/a/../a/b"), "/tmp/a/b"),
    "walk": (lambda: sorted(directory for directory, _, _ in os.walk("/tmp/a")), ["/tmp/a", "/tmp/a/b"]),
    "walk from below": (
        lambda: [directory for directory, _, _ in os.walk("/tmp/a", topdown=False)],
        ["/tmp/a/b", "/tmp/a"],
    ),
    "walk of bytes": (
        lambda: sorted(directory for directory, _, _ in os.walk(b"/tmp/a")),
        [b"/tmp/a", b"/tmp/a/b"],
    ),
    "fwalk": (
        lambda: sorted((directory, sorted(files)) for directory, _, files, _ in os.fwalk("/tmp/a")),
        [("/tmp/a", ["dangling", "relative"]), ("/tmp/a/b", ["file.txt"])],
    ),
    "glob": (lambda: glob.glob("/tmp/a/b/*"), ["/tmp/a/b/file.txt"]),
    "glob, recursive": (
        lambda: sorted(glob.glob("/tmp/**/file.txt", recursive=True)),
        ["/tmp/a/absolute/file.txt", "/tmp/a/b/file.txt"],
    ),
    "glob with a root": (lambda: glob.glob("b/*", root_dir="/tmp/a"), ["b/file.txt"]),
    "Path.glob": (lambda: list(Path("/tmp/a").glob("b/*.txt")), [Path("/tmp/a/b/file.txt")]),
    "Path.rglob": (lambda: list(Path("/tmp").rglob("file.txt")), [Path("/tmp/a/b/file.txt")]),
    "Path.iterdir": (lambda: list(Path("/tmp/a/b").iterdir()), [Path("/tmp/a/b/file.txt")]),
    "mkdtemp": (lambda: os.path.dirname(tempfile.mkdtemp()), "/tmp"),
    "mkstemp": (lambda: os.path.dirname(_path_of(tempfile.mkstemp())), "/tmp"),
    "gettempdir": (tempfile.gettempdir, "/tmp"),
    "gettempdirb": (tempfile.gettempdirb, b"/tmp"),
    "NamedTemporaryFile": (lambda: os.path.dirname(_name_of(tempfile.NamedTemporaryFile())), "/tmp"),
    "TemporaryDirectory": (lambda: os.path.dirname(_directory()), "/tmp"),
    "copy": (lambda: shutil.copy("/tmp/a/b/file.txt", "/tmp/a/b/copy.txt"), "/tmp/a/b/copy.txt"),
    "move": (lambda: shutil.move("/tmp/a/b/file.txt", "/tmp/moved.txt"), "/tmp/moved.txt"),
    "copytree": (lambda: shutil.copytree("/tmp/a/b", "/tmp/copied"), "/tmp/copied"),
    "make_archive": (lambda: shutil.make_archive("/tmp/archive", "tar", "/tmp/a/b"), "/tmp/archive.tar"),
}


def _name_of(file: Any) -> Any:
    with file:
        return file.name


def _path_of(made: tuple[int, str]) -> str:
    os.close(made[0])
    return made[1]


def _directory() -> str:
    with tempfile.TemporaryDirectory() as directory:
        return directory


def test_answers_bear_virtual_names(guard: tmpguard.Guard) -> None:
    for name, (ask, expected) in ANSWERS.items():
        with case(name), guard.invocation():
            make_tree()
            answer = ask()
            assert answer == expected
            assert type(answer) is type(expected)


def test_the_working_directory_bears_its_virtual_name() -> None:
    for spelled in ("/tmp/a/b", "/tmp/a/absolute", b"/tmp/a/b/", "/tmp/a/out/../tmp/a/b"):
        with contextlib.suppress(FileNotFoundError):  # the last one, where there is no such real directory
            os.chdir(spelled)
        assert (os.getcwd(), os.getcwdb()) == ("/tmp/a/b", b"/tmp/a/b")
        assert Path.cwd() == Path("/tmp/a/b")
        assert os.path.abspath("file.txt") == "/tmp/a/b/file.txt"
        assert os.path.realpath("..") == "/tmp/a"
        assert open("file.txt").close() is None


def test_relative_listings_stay_relative() -> None:
    os.chdir("/tmp/a")
    assert sorted(os.listdir()) == sorted(os.listdir(".")) == sorted(os.listdir(b"".decode() or "."))
    assert [entry.path for entry in os.scandir("b")] == ["b/file.txt"]
    assert {entry.path for entry in os.scandir()} == {f"./{name}" for name in os.listdir()}
    assert glob.glob("b/*") == ["b/file.txt"]
    assert list(Path("b").iterdir()) == [Path("b/file.txt")]
    assert [directory for directory, _, _ in os.walk("b")] == ["b"]


# --- entries of a directory ----------------------------------------------------------------------------


def entries(path: Any = "/tmp/a") -> dict[Any, Any]:
    with os.scandir(path) as found:
        return {entry.name: entry for entry in found}


def test_a_directory_entry_answers_all_that_it_answers() -> None:
    """C7.2"""
    found = entries()
    assert sorted(found) == ["absolute", "b", "dangling", "out", "relative"]
    for name, entry in found.items():
        path = f"/tmp/a/{name}"
        assert isinstance(entry, os.DirEntry)
        assert isinstance(entry, os.PathLike)
        assert (entry.name, entry.path, os.fspath(entry)) == (name, path, path)
        assert repr(entry) == f"<DirEntry {name!r}>"
        assert entry.inode() == os.lstat(path).st_ino
        assert entry.stat(follow_symlinks=False) == os.lstat(path)
        assert entry.is_symlink() is os.path.islink(path)
        for follow in (True, False):
            mode = _mode(path, follow)
            assert entry.is_dir(follow_symlinks=follow) is stat.S_ISDIR(mode), (name, follow)
            assert entry.is_file(follow_symlinks=follow) is stat.S_ISREG(mode), (name, follow)
        if name == "dangling":
            with pytest.raises(FileNotFoundError) as missing:
                entry.stat()
            assert missing.value.filename == path
        else:
            assert entry.stat() == os.stat(path)
        if sys.version_info >= (3, 12):
            assert entry.is_junction() is False


def _mode(path: str, follow: bool) -> int:
    try:
        return os.stat(path, follow_symlinks=follow).st_mode
    except FileNotFoundError:
        return 0


def test_an_entry_has_the_attributes_of_the_original_and_no_more() -> None:
    (entry,) = entries("/tmp/a/b").values()
    public = {name for name in dir(os.DirEntry) if not name.startswith("_")}
    assert {name for name in dir(entry) if not name.startswith("_")} == public
    with pytest.raises(AttributeError):
        entry.path = "x"
    with pytest.raises(AttributeError):
        _ = entry.no_such_attribute
    assert hash(entry) is not None
    assert entry != "file.txt"
    assert type(entry).__name__ == "DirEntry"


def test_entries_are_spelled_as_the_directory_was_asked_for() -> None:
    for spelled, expected in (
        ("/tmp/a/b", "/tmp/a/b/file.txt"),
        ("/tmp/a/b/", "/tmp/a/b/file.txt"),
        ("/tmp//a/./b", "/tmp//a/./b/file.txt"),
        (b"/tmp/a/b", b"/tmp/a/b/file.txt"),
        (Path("/tmp/a/b"), "/tmp/a/b/file.txt"),
        ("/tmp/a/absolute", "/tmp/a/absolute/file.txt"),
    ):
        (entry,) = entries(spelled).values()
        assert entry.path == expected
        assert type(entry.name) is type(expected)
    with os.scandir(os.open("/tmp/a/b", os.O_RDONLY)) as found:
        (entry,) = found
    assert (entry.name, entry.path) == ("file.txt", "file.txt")
    assert entry.is_file()
    assert entry.stat().st_size == 4


def test_a_descriptor_lists_what_is_there_now() -> None:
    """C1.2: whatever the file system below /tmp; on btrfs it lists what was there when it was opened."""
    directory = os.open("/tmp/a/b", os.O_RDONLY)
    Path("/tmp/a/b/new.txt").touch()
    assert sorted(os.listdir(directory)) == ["file.txt", "new.txt"]
    Path("/tmp/a/b/newer.txt").touch()
    with os.scandir(directory) as found:
        assert sorted(entry.name for entry in found) == ["file.txt", "new.txt", "newer.txt"]
    os.close(directory)


def test_an_entry_remembers_what_it_led_to(tmp_path: Path) -> None:
    """As natively: what was asked for once is not looked up again, what was not there is."""
    with os.scandir("/tmp/a") as found:
        entries = {entry.name: entry for entry in found}
    assert entries["relative"].is_file()
    assert not entries["dangling"].is_file()
    before = entries["relative"].stat()
    os.unlink("/tmp/a/b/file.txt")
    Path("/tmp/nowhere").touch()
    assert entries["relative"].is_file()
    assert entries["relative"].stat() == before
    assert entries["dangling"].is_file()


def test_a_listing_is_an_iterator_and_a_context_manager() -> None:
    found = os.scandir("/tmp/a/b")
    assert iter(found) is found
    assert next(found).name == "file.txt"
    with pytest.raises(StopIteration):
        next(found)
    found.close()
    found.close()
    with os.scandir("/tmp/a") as found:
        next(found)
    assert list(found) == []


def test_a_listing_is_of_a_kind_that_nobody_makes_or_keeps() -> None:
    with os.scandir("/tmp/a") as found, originals.scandir("/") as native:
        assert type(found).__qualname__ == type(native).__qualname__
        with pytest.raises(TypeError, match=r"cannot create 'posix\.ScandirIterator' instances"):
            type(found)()
        with pytest.raises(TypeError, match=r"cannot pickle 'posix\.ScandirIterator' object"):
            copy.copy(found)


def test_a_listing_that_was_not_finished_is_warned_of() -> None:
    def forget() -> None:
        next(os.scandir("/tmp/a"))

    with pytest.warns(ResourceWarning, match="unclosed scandir iterator"):
        forget()


# --- errors --------------------------------------------------------------------------------------------

ERRORS: dict[str, Callable[[Any], object]] = {
    "open": open,
    "open to update": lambda path: open(path, "r+"),
    "open in it": lambda path: open(path, "w"),
    "io.FileIO": io.FileIO,
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "stat": os.stat,
    "lstat": os.lstat,
    "listdir": os.listdir,
    "scandir": os.scandir,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "remove": os.remove,
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, -1, -1),
    "truncate": lambda path: os.truncate(path, 0),
    "readlink": os.readlink,
    "chdir": os.chdir,
    "statvfs": os.statvfs,
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "realpath": lambda path: os.path.realpath(path, strict=True),
}


@pytest.mark.parametrize(
    "path",
    ["/tmp/no/file.txt", "/tmp/a/../no/file.txt", "/tmp/a/dangling/x", b"/tmp/no/file.txt", "no/file.txt"],
    ids=repr,
)
def test_errors_name_the_path_as_it_was_given(path: Any) -> None:
    os.chdir("/tmp/a")
    for name, call in ERRORS.items():
        with case(name):
            with pytest.raises(FileNotFoundError) as failed:
                call(path)
            if name != "realpath":  # names the first component that is not there
                assert failed.value.filename == path
                assert type(failed.value.filename) is type(path)
            assert not shows_scratch(f"{failed.value} {failed.value!r} {failed.value.args}")


@pytest.mark.parametrize("call", [os.rename, os.replace, os.link, os.symlink])
def test_errors_name_both_paths_as_they_were_given(call: Callable[..., object]) -> None:
    for src, dst in (("/tmp/no", "/tmp/no/x"), (b"/tmp/no", b"/tmp/no/x")):
        with pytest.raises(FileNotFoundError) as failed:
            call(src, dst)
        assert (failed.value.filename, failed.value.filename2) == (src, dst)


def test_errors_of_other_kinds_name_the_path_too() -> None:
    os.mkdir("/tmp/full")
    Path("/tmp/full/x").touch()
    cases: list[tuple[Callable[[], object], type[OSError], str]] = [
        (lambda: os.mkdir("/tmp/a"), FileExistsError, "/tmp/a"),
        (lambda: open("/tmp/a", "w"), IsADirectoryError, "/tmp/a"),
        (lambda: os.listdir("/tmp/a/b/file.txt"), NotADirectoryError, "/tmp/a/b/file.txt"),
        (lambda: open("/tmp/a/b/file.txt/x"), NotADirectoryError, "/tmp/a/b/file.txt/x"),
        (lambda: os.rmdir("/tmp/full"), OSError, "/tmp/full"),
        (lambda: open("/tmp/a/b/file.txt", "x"), FileExistsError, "/tmp/a/b/file.txt"),
        (lambda: shutil.copyfile("/tmp/no", "/tmp/x"), FileNotFoundError, "/tmp/no"),
        (lambda: Path("/tmp/no").read_text(), FileNotFoundError, "/tmp/no"),
        (lambda: shutil.rmtree("/tmp/no"), FileNotFoundError, "/tmp/no"),
    ]
    for call, kind, path in cases:
        with pytest.raises(kind) as failed:
            call()
        assert os.fspath(failed.value.filename) == path


# --- descriptors, sockets, libraries -------------------------------------------------------------------


def test_links_of_proc_show_virtual_names() -> None:
    """C1.2: ``/proc/self/fd/N``, by any of its names, and the directory behind one."""
    with open("/tmp/a/b/file.txt") as file:
        directory = os.open("/tmp/a", os.O_RDONLY)
        for link in (f"/proc/self/fd/{file.fileno()}", f"/proc/{os.getpid()}/fd/{file.fileno()}"):
            assert os.readlink(link) == "/tmp/a/b/file.txt"
            assert os.readlink(os.fsencode(link)) == b"/tmp/a/b/file.txt"
            assert os.path.realpath(link) == "/tmp/a/b/file.txt"
            assert str(Path(link).readlink()) == "/tmp/a/b/file.txt"
            with open(link) as again:
                assert (again.name, again.read()) == (link, "text")
        assert os.readlink(f"/proc/self/fd/{directory}") == "/tmp/a"
        assert sorted(os.listdir(f"/proc/self/fd/{directory}")) == sorted(os.listdir("/tmp/a"))
        os.close(directory)


@pytest.mark.parametrize(
    "link",
    ["/proc/self/cwd", "/proc/self//cwd", "/proc/thread-self/cwd", "/proc/self/task/../cwd", "self/cwd"],
)
def test_the_link_to_the_working_directory_has_many_names(link: str) -> None:
    os.chdir("/tmp/a")
    dir_fd = os.open("/proc", os.O_RDONLY)
    assert os.readlink(link, dir_fd=dir_fd) == "/tmp/a"
    assert os.stat(link, dir_fd=dir_fd).st_ino == os.stat("/tmp/a").st_ino
    os.close(dir_fd)


def test_the_working_directory_of_another_process_is_its_own(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"], cwd="/usr") as other:
        try:
            assert os.readlink(f"/proc/{other.pid}/cwd") == "/usr"
            assert os.stat(f"/proc/{other.pid}/cwd").st_ino == os.stat("/usr").st_ino
        finally:
            other.kill()


def test_the_name_of_an_unlinked_file_is_virtual_too() -> None:
    with open("/tmp/gone.txt", "w") as file:
        os.unlink("/tmp/gone.txt")
        assert os.readlink(f"/proc/self/fd/{file.fileno()}") == "/tmp/gone.txt (deleted)"
    with tempfile.TemporaryFile() as nameless:
        shown = os.readlink(f"/proc/self/fd/{nameless.fileno()}")
        assert re.fullmatch(r"/tmp/.*\(deleted\)", shown)
        assert not shows_scratch(shown)


def test_listings_of_proc_show_no_scratch_path() -> None:
    """Neither this request's, nor the lock of the process, nor what another thread wipes in this moment."""
    with open("/tmp/a/b/file.txt"), another_request():
        os.chdir("/tmp/a")
        with os.scandir("/proc/self/fd") as found:
            links = [entry.path for entry in found]
        for link in links:
            with contextlib.suppress(OSError):
                shown = os.readlink(link)
                assert not shows_scratch(shown), link


@contextlib.contextmanager
def another_request() -> Iterator[int]:
    """A descriptor of a directory in the ``/tmp`` of another request, which has ended."""
    with tmpguard.Guard().invocation() as other:
        os.makedirs("/tmp/deep/er")
        directory = other.volume.directory
        assert directory is not None
        descriptor = originals.os_open(directory + "/deep/er", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        originals.close(descriptor)


@pytest.mark.parametrize("within", ["", "/1", "/1/a/b"])
@pytest.mark.parametrize("removed", ["", " (deleted)"])
def test_nothing_of_a_scratch_root_is_shown(
    invocation: tmpguard.Invocation, within: str, removed: str
) -> None:
    root = os.path.dirname(os.path.dirname(invocation.volume.directory or ""))
    assert private.shown_target(f"{root}/{PREFIX}0123456789ab{within}{removed}") == "/tmp (deleted)"
    for other in (f"{root}/file{removed}", f"{root}-too/{PREFIX}0123456789ab{removed}", f"/etc{removed}"):
        assert private.shown_target(other) == other


def test_a_descriptor_of_another_request_is_shown_as_removed() -> None:
    with another_request() as descriptor:
        assert os.readlink(f"/proc/self/fd/{descriptor}") == "/tmp (deleted)"


def test_sockets_tell_the_name_they_were_bound_to() -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("/tmp/a/socket")
        listening.listen()
        assert listening.getsockname() == "/tmp/a/socket"
        client.connect("/tmp/a/socket")
        assert client.getpeername() == "/tmp/a/socket"
        server, address = listening.accept()
        with server:
            assert not shows_scratch((address, server.getsockname(), client.getsockname()))
            assert server.getsockname() == "/tmp/a/socket"
        assert not shows_scratch(repr(listening))


def test_archives_bear_virtual_names() -> None:
    with zipfile.ZipFile("/tmp/archive.zip", "w") as archive:
        archive.write("/tmp/a/b/file.txt")
        assert archive.filename == "/tmp/archive.zip"
    assert zipfile.ZipFile("/tmp/archive.zip").namelist() == ["tmp/a/b/file.txt"]
    with tarfile.open("/tmp/archive.tar", "w") as tar:
        tar.add("/tmp/a")
        assert tar.name == "/tmp/archive.tar"
        assert "tmp/a/b/file.txt" in tar.getnames()
    with tarfile.open("/tmp/archive.tar") as tar:
        assert tar.getmember("tmp/a/absolute").linkname == "/tmp/a/b"


def test_a_log_handler_knows_its_file_by_its_virtual_name() -> None:
    handler = logging.FileHandler("/tmp/application.log")
    assert handler.baseFilename == "/tmp/application.log"
    assert handler.stream.name == "/tmp/application.log"
    handler.close()


def test_sqlite_tells_the_virtual_name() -> None:
    connection = sqlite3.connect("/tmp/database.db")
    try:
        connection.execute("create table t (x)")
        with pytest.raises(sqlite3.OperationalError) as failed:
            sqlite3.connect("/tmp/no/database.db").execute("select 1")
        assert not shows_scratch(failed.value)
    finally:
        connection.close()


def test_a_report_bears_no_scratch_path(invocation: tmpguard.Invocation) -> None:
    descriptor = os.open("/etc/passwd", os.O_RDONLY)
    for call in (
        lambda: open("/etc/new.txt", "w"),
        lambda: open("/tmp/a/out/new.txt", "w"),
        lambda: os.fchmod(descriptor, 0o600),
        lambda: os.mkdir("/tmp/a/out/new"),
    ):
        with pytest.raises(OSError, match="Read-only") as refused:
            call()
        assert not shows_scratch([*refused.value.__notes__, refused.value])
    os.close(descriptor)
    assert len(invocation.report.violations) == 4
    assert not shows_scratch(invocation.report.violations)
    assert not shows_scratch(invocation)
    assert not shows_scratch(invocation.report)
    json.dumps([violation._asdict() for violation in invocation.report.violations], default=str)


def test_a_child_is_told_no_scratch_path_by_its_arguments() -> None:
    """C6.3: a child sees the real /tmp, so it finds nothing at the virtual name either."""
    done = subprocess.run(
        [sys.executable, "-c", "import os, sys; print(os.path.exists(sys.argv[1]))", "/tmp/a/b/file.txt"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout == "False\n"
