"""Every way into the file system from Python (C6.1): refused outside of /tmp, redirected below it."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import contextvars
import cProfile
import dbm.dumb
import errno
import fileinput
import gzip
import importlib.util
import io
import logging
import logging.handlers
import lzma
import mailbox
import mmap
import os
import pathlib
import py_compile
import shelve
import shutil
import socket
import socketserver
import tarfile
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.context import unguarded

READ_ONLY = "Read-only file system"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "data").mkdir(parents=True)
    (directory / "file.txt").write_text("text")
    (directory / "module.py").write_text("VALUE = 1\n")
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


# --- writers that make the file they are given ---------------------------------------------------------


def _opened(descriptor: int) -> None:
    os.write(descriptor, b"text")
    os.close(descriptor)


def _initialized_again(path: str) -> None:
    with io.FileIO("file.txt") as file:
        file.__init__(path, "w")  # type: ignore[misc]


def _logged(handler: logging.Handler) -> None:
    handler.close()


def _profiled(path: str) -> None:
    profile = cProfile.Profile()
    profile.runcall(len, "")
    profile.dump_stats(path)


def _boxed(path: str) -> None:
    box = mailbox.mbox(path)
    box.add("Subject: text\n\ntext")
    box.close()


def _with(opened: Any, write: Callable[[Any], Any]) -> None:
    with opened as file:
        write(file)


MAKERS: dict[str, Callable[[str], Any]] = {
    "open": lambda path: open(path, "w").close(),
    "open for appending": lambda path: open(path, "a").close(),
    "open exclusively": lambda path: open(path, "x").close(),
    "open for update": lambda path: open(path, "w+b", buffering=0).close(),
    "open with an opener": lambda path: open(path, "w", opener=lambda p, flags: os.open(p, flags)).close(),
    "io.open": lambda path: io.open(path, "w").close(),  # noqa: UP020
    "io.FileIO": lambda path: io.FileIO(path, "w").close(),
    "io.FileIO again": _initialized_again,
    "codecs.open": lambda path: codecs.open(path, "w", "utf-8").close(),
    "os.open": lambda path: _opened(os.open(path, os.O_WRONLY | os.O_CREAT)),
    "os.open exclusively": lambda path: _opened(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)),
    "os.fdopen": lambda path: os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT), "w").close(),
    "os.mkdir": os.mkdir,
    "os.makedirs": lambda path: os.makedirs(path + "/a/b"),
    "os.mkfifo": os.mkfifo,
    "os.mknod": os.mknod,
    "os.symlink": lambda path: os.symlink("target", path),
    "Path.touch": lambda path: Path(path).touch(),
    "Path.write_text": lambda path: Path(path).write_text("text"),
    "Path.write_bytes": lambda path: Path(path).write_bytes(b"bytes"),
    "Path.open": lambda path: Path(path).open("w").close(),
    "Path.mkdir": lambda path: Path(path).mkdir(parents=True),
    "Path.symlink_to": lambda path: Path(path).symlink_to("target"),
    "shutil.copy": lambda path: shutil.copy("file.txt", path),
    "shutil.copy2": lambda path: shutil.copy2("file.txt", path),
    "shutil.copyfile": lambda path: shutil.copyfile("file.txt", path),
    "shutil.copytree": lambda path: shutil.copytree("data", path),
    "shutil.make_archive": lambda path: os.rename(shutil.make_archive(path, "zip", "data"), path),
    "zipfile": lambda path: _with(zipfile.ZipFile(path, "w"), lambda z: z.writestr("a", "text")),
    "tarfile": lambda path: _with(tarfile.open(path, "w:gz"), lambda t: t.add("file.txt")),
    "gzip": lambda path: _with(gzip.open(path, "wb"), lambda f: f.write(b"bytes")),
    "bz2": lambda path: _with(bz2.open(path, "wb"), lambda f: f.write(b"bytes")),
    "lzma": lambda path: _with(lzma.open(path, "wb"), lambda f: f.write(b"bytes")),
    "logging.FileHandler": lambda path: _logged(logging.FileHandler(path)),
    "RotatingFileHandler": lambda path: _logged(logging.handlers.RotatingFileHandler(path, maxBytes=10)),
    "WatchedFileHandler": lambda path: _logged(logging.handlers.WatchedFileHandler(path)),
    "mailbox.mbox": _boxed,
    "mailbox.Maildir": lambda path: mailbox.Maildir(path).add("Subject: text\n\ntext"),
    "cProfile": _profiled,
}


@pytest.mark.filterwarnings(r"ignore:codecs.open\(\) is deprecated:DeprecationWarning")  # since 3.14
@pytest.mark.parametrize("maker", MAKERS)
def test_maker_is_refused_outside_and_redirected_below_tmp(
    guard: tmpguard.Guard, project: Path, tmp_path: Path, maker: str
) -> None:
    """C1.1, C2.1, C6.1"""
    make, name = MAKERS[maker], f"{tmp_path.name}-made"
    with guard.invocation() as invocation:
        with pytest.raises(OSError, match=READ_ONLY) as caught:
            make("data/made")
        assert caught.value.errno == errno.EROFS
        assert invocation.report.violations
        assert not os.listdir("data")
        before = len(invocation.report.violations)
        make(f"/tmp/{name}")
        assert name in os.listdir("/tmp")
        assert len(invocation.report.violations) == before
    assert not originals.access(f"/tmp/{name}", os.F_OK)
    assert sorted(os.listdir(project)) == ["data", "file.txt", "module.py"]
    assert not os.listdir(project / "data")


# --- temporary files -----------------------------------------------------------------------------------

TEMPORARY: dict[str, Callable[[str | None], Any]] = {
    "mkstemp": lambda directory: os.close(tempfile.mkstemp(dir=directory)[0]),
    "mkdtemp": lambda directory: tempfile.mkdtemp(dir=directory),
    "TemporaryFile": lambda directory: tempfile.TemporaryFile(dir=directory).close(),
    "NamedTemporaryFile": lambda directory: tempfile.NamedTemporaryFile(dir=directory).close(),
    "TemporaryDirectory": lambda directory: tempfile.TemporaryDirectory(dir=directory).cleanup(),
    "SpooledTemporaryFile": lambda directory: _rolled_over(directory),
}


def _rolled_over(directory: str | None) -> None:
    with tempfile.SpooledTemporaryFile(max_size=10, dir=directory) as file:
        file.write(bytes(100))


@pytest.mark.parametrize("kind", TEMPORARY)
def test_temporary_files_are_made_below_tmp(
    guard: tmpguard.Guard, project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """C1.1, C3.5: by default, too, where TMPDIR says otherwise."""
    monkeypatch.setenv("TMPDIR", str(project / "data"))
    with guard.invocation() as invocation:
        assert tempfile.gettempdir() == "/tmp"
        TEMPORARY[kind](None)
        TEMPORARY[kind]("/tmp")
        assert not invocation.report.violations
        with pytest.raises(OSError, match=READ_ONLY):
            TEMPORARY[kind](str(project / "data"))
        assert invocation.report.violations
    assert not os.listdir(project / "data")


def test_temporary_names_are_virtual_and_closing_removes_the_file(guard: tmpguard.Guard) -> None:
    """C7.1: and not the real file of that name (SURFACE 3)."""
    with guard.invocation():
        with tempfile.NamedTemporaryFile(suffix=".txt") as file:
            file.write(b"bytes")
            file.flush()
            assert file.name.startswith("/tmp/")
            assert os.path.getsize(file.name) == 5
            # Outside of the invocation somebody else has a file of that name.
            contextvars.Context().run(Path(file.name).write_text, "real")
        assert not os.path.exists(file.name)
    try:
        assert os.path.getsize(file.name) == 4
    finally:
        os.unlink(file.name)


# --- changing what is there ----------------------------------------------------------------------------


def _edited_in_place(path: str) -> None:
    with fileinput.input(path, inplace=True) as lines:
        for line in lines:
            print(line.upper(), end="")


def _removed(path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shutil.move(path, directory)


CHANGES: dict[str, Callable[[str], Any]] = {
    "Path.unlink": lambda path: Path(path).unlink(),
    "Path.rename": lambda path: Path(path).rename(path + ".bak"),
    "Path.replace": lambda path: Path(path).replace(path + ".bak"),
    "Path.chmod": lambda path: Path(path).chmod(0o600),
    "Path.hardlink_to": lambda path: Path(path + ".hard").hardlink_to(path),
    "os.truncate": lambda path: os.truncate(path, 1),
    "os.setxattr": lambda path: os.setxattr(path, "user.name", b"value"),
    "os.utime": os.utime,
    "os.chown": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "shutil.chown": lambda path: shutil.chown(path, os.getuid()),
    "shutil.copystat": lambda path: shutil.copystat("module.py", path),
    "shutil.copymode": lambda path: shutil.copymode("module.py", path),
    "shutil.move": _removed,
    "fileinput": _edited_in_place,
    "open for update": lambda path: _with(open(path, "r+"), lambda f: f.write("X")),
    "zipfile": lambda path: _with(zipfile.ZipFile(path, "a"), lambda z: z.writestr("a", "text")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_refused_outside_and_goes_through_below_tmp(
    guard: tmpguard.Guard, project: Path, change: str
) -> None:
    """C1.1, C2.1, C6.1"""
    before = os.stat(project / "file.txt")
    with guard.invocation() as invocation:
        with pytest.raises(OSError, match=READ_ONLY):
            CHANGES[change]("file.txt")
        violations = len(invocation.report.violations)
        assert violations
        shutil.copy("file.txt", "/tmp/file.txt")
        CHANGES[change]("/tmp/file.txt")
        assert len(invocation.report.violations) == violations
    after = os.stat(project / "file.txt")
    assert (after.st_mode, after.st_mtime_ns, after.st_size) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_size,
    )
    assert (project / "file.txt").read_text() == "text"
    assert sorted(os.listdir(project)) == ["data", "file.txt", "module.py"]


def test_extended_attributes(guard: tmpguard.Guard) -> None:
    """C2.1, C6.1"""
    with guard.invocation():
        Path("/tmp/file.txt").touch()
        os.setxattr("/tmp/file.txt", "user.name", b"value")
        assert os.listxattr("/tmp/file.txt") == ["user.name"]
        assert os.getxattr("/tmp/file.txt", "user.name") == b"value"
        os.removexattr("/tmp/file.txt", "user.name")
        for call in (
            lambda: os.setxattr("file.txt", "user.name", b"value"),
            lambda: os.removexattr("file.txt", "user.name"),
        ):
            with pytest.raises(OSError, match=READ_ONLY):
                call()


def test_writable_mapping_of_a_read_only_file_is_refused_by_its_descriptor(guard: tmpguard.Guard) -> None:
    """C6.1: there is no descriptor to map it by."""
    with guard.invocation():
        with pytest.raises(OSError, match=READ_ONLY):
            open("file.txt", "r+b")
        with open("file.txt", "rb") as file:
            with pytest.raises(PermissionError):
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as copy:
                copy[:4] = b"TEXT"
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                assert view[:] == b"text"


def test_archives_are_unpacked_below_tmp_only(guard: tmpguard.Guard) -> None:
    """C2.1, C6.1"""
    with guard.invocation():
        # 3.11.3 and older ask for no filter.
        filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        options: dict[str, Any] = {"zip": {}, "gztar": filtered}
        for kind, option in options.items():
            archive = shutil.make_archive("/tmp/archive", kind, ".")
            shutil.unpack_archive(archive, f"/tmp/{kind}", **option)
            assert sorted(os.listdir(f"/tmp/{kind}")) == ["data", "file.txt", "module.py"]
            with pytest.raises(OSError, match=READ_ONLY):
                shutil.unpack_archive(archive, "data", **option)
        assert not os.listdir("data")


def test_bytecode_is_written_neither_outside_nor_into_the_real_tmp(
    guard: tmpguard.Guard, project: Path, tmp_path: Path
) -> None:
    """C1.1: the interpreter's own functions know only the real file system."""
    with guard.invocation():
        with pytest.raises(OSError, match=READ_ONLY):
            py_compile.compile(str(project / "module.py"), str(project / "data" / "module.pyc"), doraise=True)
        with contextlib.suppress(OSError):
            py_compile.compile(str(project / "module.py"), f"/tmp/{tmp_path.name}.pyc")
    assert not os.path.exists(f"/tmp/{tmp_path.name}.pyc")
    assert not os.listdir(project / "data")
    assert not os.path.exists(importlib.util.cache_from_source(str(project / "module.py")))


# --- local sockets -------------------------------------------------------------------------------------


def test_a_socket_is_not_bound_to_a_mount_point(project: Path, scratch_root: Path, tmp_path: Path) -> None:
    """C2.2, C7.1: its directory may be writable, what is mounted there may not be; and no real path shows."""
    volume = tmp_path / "volume"
    volume.mkdir()
    guard = tmpguard.Guard(
        bundle=project, platform="genezio", writable=[volume], scratch_root=scratch_root, storage_size=1
    )
    with guard.invocation() as invocation, socket.socket(socket.AF_UNIX) as server:
        for address in ("/tmp", "/tmp/package", "/tmp/package/", str(volume), f"{volume}/."):
            with pytest.raises(OSError, match="in use") as caught:
                server.bind(address)
            assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, None)
        with unguarded():
            os.rmdir(volume)  # as another process may
        with pytest.raises(FileNotFoundError) as caught:
            server.bind(str(volume))
        assert caught.value.filename is None
    assert not invocation.report.violations


def test_local_sockets(guard: tmpguard.Guard, project: Path) -> None:
    """C1.1, C2.2, C7.1: a bound socket is a file, and its error bears no file name."""
    with guard.invocation() as invocation:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            with pytest.raises(OSError, match=READ_ONLY) as caught:
                server.bind("socket")
            assert caught.value.filename is None
            with pytest.raises(OSError, match="in use"):
                server.bind("file.txt")
            with pytest.raises(FileNotFoundError):
                server.bind("missing/socket")
            server.bind("/tmp/socket")
            server.listen()
            assert os.path.exists("/tmp/socket")
            assert not originals.access("/tmp/socket", os.F_OK)
            assert server.getsockname() == "/tmp/socket"
            client.connect("/tmp/socket")
            assert client.getpeername() == "/tmp/socket"
        with socket.socket(socket.AF_UNIX) as server:
            with pytest.raises(OSError, match="in use"):
                server.bind("/tmp/socket")
        os.unlink("/tmp/socket")
    (violation,) = invocation.report.violations
    assert (violation.operation, violation.path) == ("socket.bind", "socket")
    assert not (project / "socket").exists()


def test_local_servers_of_the_library(guard: tmpguard.Guard) -> None:
    """C6.1"""
    with guard.invocation():
        with socketserver.UnixStreamServer("/tmp/server", socketserver.BaseRequestHandler):
            assert "server" in os.listdir("/tmp")
        with pytest.raises(OSError, match=READ_ONLY):
            socketserver.UnixStreamServer("data/server", socketserver.BaseRequestHandler)


# --- databases -----------------------------------------------------------------------------------------


def _dbm_modules() -> list[Any]:
    found: list[Any] = [dbm.dumb]
    for name in ("dbm.gnu", "dbm.ndbm", "dbm.sqlite3"):
        with contextlib.suppress(ImportError):
            found.append(importlib.import_module(name))
    return found


@pytest.mark.parametrize("module", _dbm_modules(), ids=lambda module: str(module.__name__))
def test_dbm(guard: tmpguard.Guard, project: Path, module: Any) -> None:
    """C1.1, C6.1"""
    with guard.invocation() as invocation:
        with module.open("/tmp/database", "c") as database:
            database[b"key"] = b"value"
        with module.open("/tmp/database", "r") as database:
            assert database[b"key"] == b"value"
        assert [name for name in os.listdir("/tmp") if name.startswith("database")]
        with pytest.raises((OSError, module.error)):
            module.open("data/database", "c")
        assert invocation.report.violations
        assert not os.listdir("data")
    assert not [name for name in os.listdir("/tmp") if name.startswith("database")]


def test_shelve(guard: tmpguard.Guard) -> None:
    """C6.1"""
    with guard.invocation():
        with shelve.open("/tmp/shelf") as shelf:
            shelf["key"] = {"a": 1}
        with shelve.open("/tmp/shelf", "r") as shelf:
            assert shelf["key"] == {"a": 1}
    assert not list(pathlib.Path("/tmp").glob("shelf*"))


# --- tracebacks ----------------------------------------------------------------------------------------

FAILING: dict[str, Callable[[], object]] = {
    "open": lambda: open("/tmp/no/x", "w"),
    "open of a directory": lambda: open("/tmp/directory", "w"),
    "io.FileIO": lambda: io.FileIO("/tmp/no/x", "w"),
    "os.open": lambda: os.open("/tmp/no/x", os.O_CREAT | os.O_TRUNC | os.O_WRONLY),
    "os.mkdir": lambda: os.mkdir("/tmp/no/x"),
    "os.rename": lambda: os.rename("/tmp/no", "/tmp/x"),
    "os.replace": lambda: os.replace("/tmp/file", "/tmp/no/x"),
    "os.link": lambda: os.link("/tmp/no", "/tmp/x"),
    "os.symlink": lambda: os.symlink("text", "/tmp/file"),
    "os.truncate": lambda: os.truncate("/tmp/no", 3),
    "os.chmod": lambda: os.chmod("/tmp/no", 0o600),
    "os.listdir": lambda: os.listdir("/tmp/no"),
    "os.chdir": lambda: os.chdir("/tmp/no"),
    "shutil.move": lambda: shutil.move("/tmp/no", "/tmp/x"),
    "shutil.rmtree": lambda: shutil.rmtree("/tmp/no"),
    "Path.touch": lambda: Path("/tmp/no/x").touch(),
    "tempfile.mkstemp": lambda: tempfile.mkstemp(dir="/tmp/no"),
    "a file too many": lambda: [open(f"/tmp/{number}", "w").close() for number in range(9)],
    "a read-only file": lambda: open("/var/new.txt", "w"),
}


@pytest.mark.parametrize("call", FAILING.values(), ids=FAILING.keys())
def test_no_error_within_a_traceback_has_the_scratch_path(
    call: Callable[[], object], scratch_root: Path
) -> None:
    """C7.1: an error that is raised while another one is handled is printed with it."""
    guard = tmpguard.Guard(bundle=None, scratch_root=scratch_root, max_files=4)
    with guard.invocation():
        os.mkdir("/tmp/directory")
        open("/tmp/file", "w").close()
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            call()
    assert str(scratch_root) not in "".join(traceback.format_exception(caught.value))
