"""What reaches the real file system past the wrappers: functions of C modules, streams of the C library."""

from __future__ import annotations

import _socket
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals

pytestmark = pytest.mark.usefixtures("uninstalled")

posix: Any = __import__("posix")


@pytest.fixture
def directory() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/var/tmp")
    before = os.getcwd()
    yield path
    assert os.getcwd() == before, "the process was moved"
    os.rmdir(path)  # nothing is in it


def bind(path: str) -> None:
    sock = _socket.socket(_socket.AF_UNIX)
    try:
        sock.bind(path)
    finally:
        sock.close()


def keylog(path: str) -> None:
    ssl.create_default_context().keylog_filename = path


CALLS: dict[str, Callable[[str], object]] = {
    "posix.mkfifo": lambda path: posix.mkfifo(path),
    "posix.mknod": lambda path: posix.mknod(path),
    "posix.mkdir": lambda path: posix.mkdir(path),
    "posix.open": lambda path: posix.open(path, os.O_CREAT | os.O_WRONLY),
    "_socket.bind": lambda path: bind(path),
    "keylog": keylog,
}


@pytest.mark.parametrize("call", CALLS)
def test_what_would_be_made_outside_is_refused(call: str, guard: tmpguard.Guard, directory: str) -> None:
    with guard.invocation() as invocation, pytest.raises(OSError, match="Read-only"):
        CALLS[call](f"{directory}/new")
    assert [one.path for one in invocation.report.violations] == [f"{directory}/new"]


#: How a file is opened to write to it through a reference that could not be replaced.
OPENINGS: dict[str, Callable[[str], Any]] = {
    "FileIO": lambda path: originals.FileIO(path, "w"),
    "open": lambda path: originals.open(path, "w"),
    "FileIO of bytes": lambda path: originals.FileIO(os.fsencode(path), "w"),
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_file_in_the_request_s_own_scratch_directory_may_be_opened(
    opening: str, guard: tmpguard.Guard
) -> None:
    with guard.invocation() as invocation:
        os.mkdir("/tmp/inner")
        for name in ("file", "inner/file", "inner/..file", "inner/../other"):
            OPENINGS[opening](f"{invocation.mounted.directory}/{name}").close()
        os.symlink("nowhere", "/tmp/link")  # from now on, paths are not translated by their text alone
        OPENINGS[opening](f"{invocation.mounted.directory}/last").close()
        assert sorted(os.listdir("/tmp")) == ["file", "inner", "last", "link", "other"]
    assert invocation.report.violations == ()


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_path_beside_the_scratch_directory_is_not_in_it(
    opening: str, guard: tmpguard.Guard, directory: str
) -> None:
    with guard.invocation() as invocation:
        assert os.listdir("/tmp") == []
        own = str(invocation.mounted.directory)
        claim = os.path.dirname(own)
        for path in (f"{claim}s/file", f"{claim}", f"{own}/../../file", f"{own}/../../..{directory}/file"):
            with pytest.raises(OSError, match="Read-only"):
                OPENINGS[opening](path)
    assert len(invocation.report.violations) == 4
    assert not os.path.exists(f"{claim}s")


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_path_that_leads_out_of_a_writable_mount_is_not_in_it(
    opening: str, scratch_root: Path, directory: str
) -> None:
    os.mkdir(f"{directory}/data")
    guard = tmpguard.Guard(bundle=None, scratch_root=str(scratch_root), writable=[f"{directory}/data"])
    try:
        with guard.invocation() as invocation:
            OPENINGS[opening](f"{directory}/data/file").close()
            with pytest.raises(OSError, match="Read-only"):
                OPENINGS[opening](f"{directory}/data/../file")
    finally:
        os.unlink(f"{directory}/data/file")
        os.rmdir(f"{directory}/data")
    assert len(invocation.report.violations) == 1


def test_a_relative_name_of_a_socket_counts_from_the_real_directory(
    guard: tmpguard.Guard, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    try:
        with guard.invocation(), pytest.raises(OSError, match="Read-only"):
            bind("new")
    finally:
        monkeypatch.undo()


def test_other_addresses_are_bound_as_ever(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        for family, address in (
            (_socket.AF_INET, ("127.0.0.1", 0)),
            (_socket.AF_UNIX, b"\0tmpguard-" + os.urandom(6)),
            (_socket.AF_UNIX, ""),
        ):
            sock = _socket.socket(family)
            sock.bind(address)
            sock.close()
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("/tmp/socket")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("/tmp/" + "s" * 90)
    assert invocation.report.violations == ()


def test_the_process_stays_where_it_is(guard: tmpguard.Guard, directory: str) -> None:
    """C5.3"""
    before = os.getcwd()
    with guard.invocation():
        for move in (posix.chdir, os.chdir):
            move(directory)
            assert os.getcwd() == directory
            os.chdir("/tmp")
        descriptor = os.open(directory, os.O_RDONLY)
        posix.fchdir(descriptor)
        os.close(descriptor)
        assert os.getcwd() == directory
    assert os.getcwd() == before


def test_pipes_of_posix_are_made_in_the_request_s_tmp(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        posix.mkfifo("/tmp/pipe")
        assert os.listdir("/tmp") == ["pipe"]
    assert not os.path.exists("/tmp/pipe")


def test_a_key_log_in_tmp_is_the_request_s(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        context = ssl.create_default_context()
        context.keylog_filename = "/tmp/keys"
        assert context.keylog_filename == "/tmp/keys"
        assert os.listdir("/tmp") == ["keys"]
        context.keylog_filename = None
        assert context.keylog_filename is None
        with pytest.raises(FileNotFoundError) as missing:
            context.keylog_filename = "/tmp/no/keys"
    assert missing.value.filename == "/tmp/no/keys"
    assert not os.path.exists("/tmp/keys")
    assert isinstance(vars(ssl.SSLContext)["keylog_filename"], property)
    tmpguard.uninstall()
    assert "keylog_filename" not in vars(ssl.SSLContext)
