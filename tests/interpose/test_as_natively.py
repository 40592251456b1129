"""Small things in which an invocation is like the interpreter without it; CPython's own tests found them."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import inspect
import io
import itertools
import linecache
import os
import pickle
import pydoc
import signal
import site
import socket
import sqlite3
import stat
import sys
import tempfile
import threading
import tokenize
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import case
from tmpguard.core import originals


@pytest.fixture
def inside(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as invocation:
        os.chdir("/tmp")
        yield invocation


class Thing:
    """Something that can be watched."""


FAILING: dict[str, Callable[[], object]] = {
    "stat": lambda: os.stat("/tmp/none"),
    "lstat": lambda: os.lstat("/tmp/none/.."),
    "open": lambda: open("/tmp/none"),
    "FileIO": lambda: io.FileIO("/tmp/none"),
    "os.open": lambda: os.open("/tmp/none", os.O_RDONLY),
    "mkdir": lambda: os.mkdir("/etc/none"),
    "open to write": lambda: open("/etc/none", "w"),
    "unlink": lambda: os.unlink("/tmp/none"),
    "rename": lambda: os.rename("/tmp/none", "/tmp/other"),
    "chmod": lambda: os.chmod("/tmp/none", 0o600),
    "scandir": lambda: os.scandir("/tmp/none"),
    "truncate": lambda: os.truncate("/tmp/none", 0),
}


@pytest.mark.parametrize("name", FAILING)
def test_an_error_keeps_nothing_alive(inside: tmpguard.Invocation, name: str) -> None:
    """No cycle: what the calling frames hold goes with them, and not when the collector comes by."""

    def calls() -> weakref.ref[Thing]:
        thing = Thing()
        with contextlib.suppress(OSError):
            FAILING[name]()
        return weakref.ref(thing)

    gc.collect()
    gc.disable()
    try:
        assert calls()() is None
    finally:
        gc.enable()


# --- entries -------------------------------------------------------------------------------------------


def test_an_entry_can_be_neither_changed_nor_made_nor_pickled(inside: tmpguard.Invocation) -> None:
    Path("/tmp/a").touch()
    with os.scandir("/tmp") as entries:
        entry = next(entries)
    for name in ("name", "path", "other"):
        with pytest.raises(AttributeError):
            setattr(entry, name, "b")
    assert entry.name == "a"
    with pytest.raises(TypeError, match="cannot create"):
        type(entry)()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(entry, protocol)
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.copy(entry)


def test_threads_that_share_a_listing_lose_no_entry(inside: tmpguard.Invocation) -> None:
    """The original releases the interpreter's lock while it reads: each entry goes to exactly one thread."""
    names = [f"file{number}" for number in range(1000)]
    for name in names:
        Path("/tmp", name).touch()
    for _ in range(10):
        with os.scandir("/tmp") as entries, ThreadPoolExecutor(6) as pool:
            barrier = threading.Barrier(6)

            def read(barrier: threading.Barrier = barrier, entries: Any = entries) -> list[str]:
                barrier.wait()
                return [entry.name for entry in entries]

            found = [job.result() for job in [pool.submit(read) for _ in range(6)]]
        assert sorted(itertools.chain(*found)) == sorted(names)


def test_a_listing_may_be_closed_by_another_thread(inside: tmpguard.Invocation) -> None:
    for number in range(600):
        Path(f"/tmp/{number}").touch()
    for _ in range(10):
        with os.scandir("/tmp") as entries, ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(lambda entries=entries: len(list(entries))) for _ in range(3)]
            pool.submit(entries.close)
            assert sum(job.result() for job in jobs) <= 600
        assert list(entries) == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_raw_file_cannot_be_pickled(inside: tmpguard.Invocation, protocol: int) -> None:
    """The words are the interpreter's own, which differ by the version and the protocol."""
    complaints = []
    with open("/tmp/file", "wb", buffering=0) as raw, originals.FileIO(raw.fileno(), "w", False) as usual:
        for file in (raw, usual):
            with pytest.raises(TypeError) as caught:
                pickle.dumps(file, protocol)
            complaints.append(str(caught.value))
    assert complaints[0] == complaints[1]


# --- names that nothing can have ------------------------------------------------------------------------

#: With a surrogate that stands for no byte.
UNENCODABLE: dict[str, Callable[[str], object]] = {
    "open": open,
    "open to write": lambda path: open(path, "w"),
    "io.FileIO": lambda path: io.FileIO(path),
    "io.open_code": io.open_code,
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "stat": os.stat,
    "lstat": os.lstat,
    "access": lambda path: os.access(path, os.R_OK),
    "scandir": os.scandir,
    "listdir": os.listdir,
    "mkdir": os.mkdir,
    "unlink": os.unlink,
    "rename": lambda path: os.rename("/tmp", path),
    "link": lambda path: os.link(path, "/tmp/new"),
    "symlink": lambda path: os.symlink("target", path),
    "chmod": lambda path: os.chmod(path, 0o600),
    "truncate": lambda path: os.truncate(path, 0),
    "chdir": os.chdir,
    "statvfs": os.statvfs,
    "readlink": os.readlink,
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "sqlite3": sqlite3.connect,
}


@pytest.mark.parametrize("path", ["/tmp/\udfff", "/nowhere/\udfff", "\udfff", "/tmp/a\udfff/b"], ids=ascii)
@pytest.mark.parametrize("name", UNENCODABLE)
def test_a_name_that_cannot_be_encoded_is_refused_as_it_was_given(
    inside: tmpguard.Invocation, name: str, path: str
) -> None:
    """C7.1: the error holds the text, and the position of the surrogate in it."""
    with pytest.raises(UnicodeEncodeError) as caught:
        UNENCODABLE[name](path)
    assert ascii(caught.value.object) == ascii(path)
    assert caught.value.start == path.index("\udfff")


# --- arguments -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 a path is no buffer")
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_paths_of_os_may_be_buffers_with_a_warning(inside: tmpguard.Invocation, kind: Any) -> None:
    path = kind(b"/tmp/directory")
    with pytest.warns(DeprecationWarning, match="path should be string, bytes or os.PathLike, not"):
        os.mkdir(path)
    Path("/tmp/directory/a").touch()
    with pytest.warns(DeprecationWarning, match="path should be"):
        assert os.listdir(path) == [b"a"]
    with pytest.warns(DeprecationWarning, match="path should be"), os.scandir(path) as entries:
        assert [entry.path for entry in entries] == [b"/tmp/directory/a"]
    with pytest.warns(DeprecationWarning, match="path"), pytest.raises(NotADirectoryError) as caught:
        os.rmdir(given := kind(b"/tmp/directory/a"))
    assert caught.value.filename is given
    with pytest.warns(DeprecationWarning, match="path"), pytest.raises(OSError, match="Read-only file"):
        os.mkdir(kind(b"/etc/none"))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since 3.12 a path is no buffer")
@pytest.mark.parametrize("name", ["mkdir", "stat", "lstat", "listdir", "readlink", "chdir", "unlink"])
def test_a_buffer_is_warned_of_once_in_the_calling_line(inside: tmpguard.Invocation, name: str) -> None:
    with pytest.warns(DeprecationWarning, match="path should be") as caught, contextlib.suppress(OSError):
        getattr(os, name)(bytearray(b"/tmp/none/deeper"))
    assert [warning.filename for warning in caught] == [__file__]


class Asked:
    """A path that counts how often it is asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.times = 0

    def __fspath__(self) -> str:
        self.times += 1
        return self.path


TAKING_A_PATH: dict[str, Callable[[Any], object]] = {
    "open": lambda path: open(path),
    "open to write": lambda path: open(path, "wb"),
    "open to change": lambda path: open(path, "r+b"),
    "FileIO": lambda path: io.FileIO(path, "w"),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "os.open to write": lambda path: os.open(path, os.O_WRONLY | os.O_CREAT),
    "stat": lambda path: os.stat(path),
    "lstat": lambda path: os.lstat(path),
    "access": lambda path: os.access(path, os.W_OK),
    "statvfs": lambda path: os.statvfs(path),
    "readlink": lambda path: os.readlink(path),
    "listdir": lambda path: os.listdir(path),
    "scandir": lambda path: os.scandir(path),
    "chdir": lambda path: os.chdir(path),
    "mkdir": lambda path: os.mkdir(path),
    "unlink": lambda path: os.unlink(path),
    "symlink": lambda path: os.symlink("a", path),
    "rename": lambda path: os.rename(path, "/etc/tmpguard/none"),
    "chmod": lambda path: os.chmod(path, 0o600),
    "truncate": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("name", TAKING_A_PATH)
@pytest.mark.parametrize("where", ["/tmp/none/a", "/etc/tmpguard/none", "/tmp/\0", ""])
def test_a_path_like_is_asked_for_its_path_as_often_as_natively(
    inside: tmpguard.Invocation, name: str, where: str
) -> None:
    natively, guarded = Asked(where), Asked(where)
    with _outside(), contextlib.suppress(OSError, ValueError):
        TAKING_A_PATH[name](natively)
    with contextlib.suppress(OSError, ValueError):
        TAKING_A_PATH[name](guarded)
    assert guarded.times == natively.times


@pytest.mark.parametrize("mode", ["r", "w"])
def test_the_path_of_a_file_is_never_a_buffer(inside: tmpguard.Invocation, mode: str) -> None:
    for opener in (open, io.FileIO):
        with pytest.raises(TypeError):
            opener(bytearray(b"/tmp/a"), mode)
    assert os.listdir("/tmp") == []


@pytest.mark.parametrize("wrong", ["/tmp", 1.5, [], 10**20])
def test_what_is_no_descriptor_is_refused_in_the_usual_words(inside: tmpguard.Invocation, wrong: Any) -> None:
    kind = OverflowError if wrong == 10**20 else TypeError
    for call in (os.stat, os.mkdir, os.unlink, os.readlink):
        with pytest.raises(kind) as natively, _outside():
            call("a", dir_fd=wrong)  # type: ignore[operator]
        for path in ("a", "/tmp/a", "/etc/a"):  # an absolute path needs none, and yet it is looked at
            with pytest.raises(kind) as caught:
                call(path, dir_fd=wrong)  # type: ignore[operator]
            if kind is TypeError:
                assert str(caught.value) == str(natively.value)


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    from tmpguard.core.invocation import unguarded

    with unguarded():
        yield


class Number:
    """What is no int, but stands for one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


BY_NUMBER: dict[str, Callable[[Any, Any], object]] = {
    "stat": lambda file, _: os.stat(file).st_size,
    "chmod": lambda file, _: os.chmod(file, 0o640),
    "chmod of the file, whatever the directory": lambda file, directory: os.chmod(file, 0o600, dir_fd=-1),
    "chmod of no link": lambda file, _: os.chmod(file, 0o644, follow_symlinks=False),
    "chown": lambda file, _: os.chown(file, -1, -1),
    "chown of no link": lambda file, _: os.chown(file, -1, -1, follow_symlinks=False),
    "utime": lambda file, _: os.utime(file, (1, 1)),
    "utime of no link": lambda file, _: os.utime(file, (1, 1), follow_symlinks=False),
    "fchmod": lambda file, _: os.fchmod(file, 0o600),
    "fchown": lambda file, _: os.fchown(file, -1, -1),
    "write": lambda file, _: os.write(file, b"text"),
    "writev": lambda file, _: os.writev(file, [b"text"]),
    "pwrite": lambda file, _: os.pwrite(file, b"text", 5000),
    "posix_fallocate": lambda file, _: os.posix_fallocate(file, 0, 9000),
    "truncate": lambda file, _: os.truncate(file, 5000),
    "ftruncate": lambda file, _: os.ftruncate(file, 3),
    "copy_file_range": lambda file, _: os.copy_file_range(file, file, 1, 0, 100),
    "dup": lambda file, _: os.close(os.dup(file)),
    "open": lambda file, _: open(file, "r+", closefd=False).write("text"),
    "setxattr": lambda file, _: os.setxattr(file, "user.name", b"value"),
    "setxattr of no link": lambda file, _: os.setxattr(file, "user.a", b"", follow_symlinks=False),
    "getxattr": lambda file, _: os.getxattr(file, "user.name"),
    "removexattr": lambda file, _: os.removexattr(file, "user.name"),
    "mkdir": lambda _, directory: os.mkdir("inner", dir_fd=directory),
    # btrfs lists what was there when the directory was opened.
    "lseek": lambda _, directory: os.lseek(directory, 0, os.SEEK_SET),
    "listdir": lambda _, directory: os.listdir(directory),
    "scandir": lambda _, directory: [entry.name for entry in os.scandir(directory)],
    "chdir": lambda _, directory: os.chdir(directory),
    "fchdir": lambda _, directory: os.fchdir(directory),
    "fchdir of nothing": lambda *_: os.fchdir("directory"),  # type: ignore[arg-type]
}


def _by_number(place: Path) -> Iterator[tuple[str, object]]:
    """What each call gives for numbers of a file and of a directory in ``place``."""
    (place / "directory").mkdir()
    (place / "file").write_text("text")
    opened = [os.open(place / name, flags) for name, flags in (("file", os.O_RDWR), ("directory", 0))]
    for kind in (int, Number):
        for name, call in BY_NUMBER.items():
            try:
                yield f"{name} {kind.__name__}", call(*map(kind, opened))
            except (OSError, TypeError, ValueError) as exc:
                yield f"{name} {kind.__name__}", repr(exc)
    for descriptor in opened:
        os.close(descriptor)


def test_a_descriptor_may_be_whatever_has_an_index(
    guard: tmpguard.Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    natively = dict(_by_number(tmp_path))
    os.chdir(tmp_path)
    with guard.invocation():
        assert dict(_by_number(Path("/tmp"))) == natively


def test_metadata_of_a_file_elsewhere_cannot_be_changed_by_its_number(
    guard: tmpguard.Guard, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    descriptor = os.open(path, os.O_RDWR)
    before = path.stat()
    for kind in (int, Number):
        for name in ("chmod", "chmod of the file, whatever the directory", "chmod of no link", "chown"):
            with guard.invocation(), case(name), pytest.raises(OSError, match="Read-only"):
                BY_NUMBER[name](kind(descriptor), None)
        for name in ("utime", "fchmod", "fchown", "setxattr", "removexattr"):
            with guard.invocation(), case(name), pytest.raises(OSError, match="Read-only"):
                BY_NUMBER[name](kind(descriptor), None)
    assert path.stat() == before
    os.close(descriptor)


def test_modes_of_a_raw_file_are_those_of_a_raw_file(inside: tmpguard.Invocation) -> None:
    for mode in ("rt", "wt", "tw", "", "rw", "r++", "z"):
        with pytest.raises(ValueError, match="mode"):
            io.FileIO("/tmp/nowhere/a", mode)
    with io.FileIO("/tmp/a", "bwb") as file:
        file.write(b"abc")
    with io.FileIO("/tmp/a", "rbb") as file:
        assert (file.mode, file.name, file.read()) == ("rb", "/tmp/a", b"abc")
    assert Path("/tmp/a").read_bytes() == b"abc"


# --- what is asked about -------------------------------------------------------------------------------


def test_a_truth_value_is_a_descriptor_with_a_warning_since_3_13(inside: tmpguard.Invocation) -> None:
    for opener in (io.FileIO, open):
        if sys.version_info < (3, 13):
            opener(True, "w", closefd=False).close()
            continue
        with pytest.warns(RuntimeWarning, match="bool is used as a file descriptor") as told:
            file = opener(True, "w", closefd=False)
        assert file.fileno() == 1
        file.close()
        with pytest.warns(RuntimeWarning, match="bool") as also, pytest.raises(OSError, match="a"):
            os.stat("a", dir_fd=True)
        with pytest.warns(RuntimeWarning, match="bool"), pytest.raises(NotADirectoryError):
            os.fchdir(True)
        assert {warning.filename for warning in [*told, *also]} == {__file__}


@pytest.mark.parametrize("mode", ["w", "a", "x", "r+"])
def test_a_closed_raw_file_says_that_it_is_closed(inside: tmpguard.Invocation, mode: str) -> None:
    if mode == "r+":
        Path("/tmp/a").touch()
    file = io.FileIO("/tmp/a", mode)
    file.close()
    for call in (lambda: file.write(b"text"), file.truncate, lambda: file.truncate(5), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_functions_are_builtin_for_those_who_ask(inside: tmpguard.Invocation) -> None:
    for function in (os.mkdir, os.open, os.listdir, os.rename):
        assert inspect.isbuiltin(function)
        assert inspect.isroutine(function)
        assert not isinstance(function, types.FunctionType)
    assert pydoc.render_doc(os.mkdir).startswith("Python Library Documentation: built-in function mkdir")
    expected = "(path, *, dir_fd=None, follow_symlinks=True)"
    assert str(inspect.signature(os.stat)) == expected
    assert str(inspect.signature(open)).startswith("(file, mode='r', buffering=-1, encoding=None")


def test_a_file_system_has_its_identity(inside: tmpguard.Invocation) -> None:
    tmp, root = os.statvfs("/tmp"), os.statvfs("/")
    assert isinstance(tmp.f_fsid, int)
    with _outside():
        assert root.f_fsid == os.statvfs("/").f_fsid


def test_the_namespaces_of_a_process_are_there(inside: tmpguard.Invocation) -> None:
    for path in ("/proc/self/ns/uts", f"/proc/{os.getpid()}/ns/mnt"):
        with _outside():
            expected = os.stat(path).st_ino
        assert os.stat(path).st_ino == expected
        assert os.path.exists(path)
        with open(path) as file:
            assert os.fstat(file.fileno()).st_ino == expected


def test_tmpdir_counts_where_it_may_be_written(
    inside: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir("/tmp/mine")
    monkeypatch.setattr(tempfile, "tempdir", None)
    for place, expected in (("/tmp/mine", "/tmp/mine"), ("/etc", "/tmp"), ("/tmp/none", "/tmp")):
        monkeypatch.setenv("TMPDIR", place)
        assert tempfile.gettempdir() == expected
        assert tempfile.gettempdir() is tempfile.gettempdir()
    monkeypatch.setenv("TMPDIR", "mine")
    assert tempfile.gettempdir() == "/tmp/mine"
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/mine")  # found before
    assert tempfile.gettempdir() == "/tmp/mine"


# --- sources -------------------------------------------------------------------------------------------


def test_sources_in_tmp_are_those_of_the_invocation(inside: tmpguard.Invocation) -> None:
    Path("/tmp/code.py").write_text("# -*- coding: latin-1 -*-\nsecond = 2\n")
    with tokenize.open("/tmp/code.py") as file:
        assert file.encoding == "iso-8859-1"
    with tokenize.open("code.py") as file:
        assert file.read().endswith("second = 2\n")
    assert linecache.getline("/tmp/code.py", 2) == "second = 2\n"
    linecache.checkcache("/tmp/code.py")
    assert linecache.getline(__file__, 1).startswith('"""Small things')
    linecache.clearcache()


# --- local sockets -------------------------------------------------------------------------------------


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    return socket.socket(socket.AF_UNIX, kind), socket.socket(socket.AF_UNIX, kind)


def test_datagrams_find_their_socket(inside: tmpguard.Invocation) -> None:
    receiver, sender = _pair(socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind("receiver")  # an address is told as it was given
        sender.bind(b"/tmp/sender")
        assert receiver.getsockname() == "receiver"
        assert sender.sendto(b"one", "/tmp/receiver") == 3
        assert receiver.recvfrom(10) == (b"one", "/tmp/sender")
        assert sender.sendto(b"two", 0, b"receiver") == 3
        assert receiver.recvfrom_into(bytearray(10)) == (3, "/tmp/sender")
        assert sender.sendmsg([b"th", b"ree"], [], 0, "/tmp/receiver") == 5
        assert receiver.recvmsg(10)[::3] == (b"three", "/tmp/sender")
        sender.connect("/tmp/receiver")
        sender.send(b"four")
        assert receiver.recvmsg_into([bytearray(10)])[::3] == (4, "/tmp/sender")
        with pytest.raises(FileNotFoundError):
            sender.sendto(b"lost", "/tmp/nobody")
    assert set(os.listdir("/tmp")) == {"receiver", "sender"}


def test_streams_know_their_peers(inside: tmpguard.Invocation) -> None:
    server, client = _pair(socket.SOCK_STREAM)
    with server, client:
        server.bind("/tmp/server")
        server.listen()
        client.bind("client")
        assert client.connect_ex("/tmp/nobody") == 2
        assert client.connect_ex("/tmp/server") == 0
        accepted, address = server.accept()
        with accepted:
            assert address == "client"
            assert accepted.getpeername() == "client"
            assert client.getpeername() == "/tmp/server"


def test_a_path_that_is_too_long_for_an_address_is_refused(inside: tmpguard.Invocation) -> None:
    with socket.socket(socket.AF_UNIX) as server, pytest.raises(OSError, match="too long"):
        server.bind("/tmp/" + 108 * "a")


@pytest.mark.parametrize("length", [77, 78, 91, 92, 102])
def test_all_names_that_fit_into_an_address_are_bound(inside: tmpguard.Invocation, length: int) -> None:
    for path in ("/tmp/" + length * "a", length * "b"):
        server, client = _pair(socket.SOCK_STREAM)
        with server, client:
            server.bind(path)
            server.listen()
            assert server.getsockname() == path
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
            client.connect(path)
            assert client.getpeername() == path
            with socket.socket(socket.AF_UNIX) as second, pytest.raises(OSError, match="in use"):
                second.bind(path)
    assert sorted(os.listdir("/tmp")) == [length * "a", length * "b"]
    assert inside.report.files == 2


def test_sockets_of_one_name_in_two_directories_know_theirs(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 25)
    root.mkdir(mode=0o700)
    with tmpguard.invocation(bundle=None, scratch_root=root):
        one, other = _pair(socket.SOCK_STREAM)
        with one, other:
            for server, directory in ((one, "/tmp/one"), (other, "/tmp/other")):
                os.mkdir(directory)
                server.bind(f"{directory}/socket")
            assert (one.getsockname(), other.getsockname()) == ("/tmp/one/socket", "/tmp/other/socket")
            assert os.listdir("/tmp/one") == ["socket"]


def test_other_addresses_are_left_alone(inside: tmpguard.Invocation) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.sendto(b"one", receiver.getsockname())
        assert receiver.recvfrom(10) == (b"one", receiver.getsockname())
    with socket.socket(socket.AF_UNIX) as unnamed:
        assert unnamed.getsockname() == ""


# --- mount points --------------------------------------------------------------------------------------


def test_mount_points_are_told_by_what_stands_for_lstat(
    inside: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CPython's own tests have it, which put another function there."""

    def lstat(path: str) -> os.stat_result:
        return os.stat_result((0, 1, 1 if path == "/tmp/none" else 0, 0, 0, 0, 0, 0, 0, 0))

    assert [os.path.ismount(path) for path in ("/", "/tmp", "/tmp/", "/tmp/none")] == [
        True,
        True,
        True,
        False,
    ]
    monkeypatch.setattr(os, "lstat", lstat)
    assert os.path.ismount("/tmp/none")


FICLONE, FICLONERANGE = 0x40049409, 0x4020940D  # fcntl has names for them since 3.14


@pytest.mark.parametrize("request_", [FICLONE, FICLONERANGE])
@pytest.mark.parametrize("argument", [bytes(1024), 9999, -1, 1 << 70, "text", None, 1.5], ids=ascii)
def test_a_clone_of_nothing_is_refused_in_the_usual_words(
    inside: tmpguard.Invocation, request_: int, argument: Any
) -> None:
    def complaint(ioctl: Callable[..., object], target: Any) -> str:
        with pytest.raises(Exception, match=r".") as caught:
            ioctl(target, request_, argument)
        return repr(caught.value)

    with open("/tmp/file", "wb") as file:
        for target in (file, file.fileno(), 9999, "text"):
            assert complaint(fcntl.ioctl, target) == complaint(originals.fcntl_ioctl, target)


def test_a_pth_file_in_tmp_is_read(inside: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since 3.14 :mod:`site` has ``_io`` for ``io``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    os.mkdir("/tmp/added")
    Path("/tmp/packages.pth").write_text("/tmp/added\n")
    site.addpackage("/tmp", "packages.pth", set())
    assert sys.path[-1] == "/tmp/added"


NEGATIVE: dict[str, Callable[[], object]] = {
    "stat": lambda: os.stat(-1),
    "chdir": lambda: os.chdir(-1),
    "fchdir": lambda: os.fchdir(-1),
    "chmod": lambda: os.chmod(-1, 0o777),
    "chown": lambda: os.chown(-1, 0, 0),
    "listdir": lambda: os.listdir(-1),
    "scandir": lambda: os.scandir(-1),
    "utime": lambda: os.utime(-1, (0, 0)),
    "truncate": lambda: os.truncate(-1, 0),
    "ftruncate": lambda: os.ftruncate(-1, 0),
    "statvfs": lambda: os.statvfs(-1),
    "fstatvfs": lambda: os.fstatvfs(-1),
    "getxattr": lambda: os.getxattr(-1, "user.x"),
    "setxattr": lambda: os.setxattr(-1, "user.x", b""),
    "removexattr": lambda: os.removexattr(-1, "user.x"),
    "listxattr": lambda: os.listxattr(-1),
    "open": lambda: open(-1),
    "write": lambda: os.write(-1, b""),
}


@pytest.mark.skipif(sys.version_info < (3, 15), reason="older versions take it for the lack of a path")
@pytest.mark.parametrize("name", NEGATIVE)
def test_a_negative_descriptor_is_refused_as_the_version_does(guard: tmpguard.Guard, name: str) -> None:
    def complaint() -> str:
        with pytest.raises((OSError, ValueError)) as caught:
            NEGATIVE[name]()
        return f"{caught.value!r} {getattr(caught.value, 'filename', None)!r}"

    natively = complaint()
    with guard.invocation():
        assert complaint() == natively


@pytest.mark.skipif(sys.version_info < (3, 15), reason="they are allowed on older versions")
@pytest.mark.parametrize(
    "arguments", [(5.0,), (5.0, 0, None, True, sqlite3.Connection), tuple(range(10))], ids=len
)
def test_a_database_takes_no_arguments_by_position(guard: tmpguard.Guard, arguments: tuple[Any, ...]) -> None:
    def complaints() -> list[str]:
        found = []
        for make in (sqlite3.connect, sqlite3.Connection):
            with pytest.raises(TypeError) as caught:
                make("/tmp/database", *arguments)
            found.append(str(caught.value))
        return found

    natively = complaints()
    with guard.invocation():
        assert complaints() == natively


@pytest.mark.skipif(sys.version_info < (3, 14), reason="crashes older interpreters")
def test_a_limit_is_not_asked_for_without_a_descriptor(inside: tmpguard.Invocation) -> None:
    with pytest.raises(OSError, match="Bad file descriptor: -1"):
        os.pathconf(-1, "PC_LINK_MAX")


WAITING: dict[str, Callable[[str], object]] = {
    "open r": lambda path: open(path),
    "open rb": lambda path: open(path, "rb"),
    "open w": lambda path: open(path, "w"),
    "open ab": lambda path: open(path, "ab"),
    "unbuffered": lambda path: open(path, "rb", 0),
    "io.FileIO": lambda path: io.FileIO(path),
    "os.open": lambda path: os.open(path, os.O_WRONLY),
}


@pytest.mark.parametrize("name", WAITING)
def test_the_error_of_a_signal_handler_keeps_its_message(inside: tmpguard.Invocation, name: str) -> None:
    def handle(*_: object) -> None:
        raise TimeoutError("late")

    os.mkfifo("/tmp/fifo")
    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(TimeoutError) as caught:
            WAITING[name]("/tmp/fifo")  # waits for its other end
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert str(caught.value) == "late"
    assert caught.value.filename is None
