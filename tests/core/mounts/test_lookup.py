"""Which mount a path leads to, and what may be written there (C1)."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.metadata
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tmpguard.core import originals

READ_ONLY = "Read-only file system"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project directory below the real /tmp, as a checkout on a build server may be (C1.5)."""
    directory = tmp_path / "project"
    (directory / "data").mkdir(parents=True)
    (directory / "file.txt").write_text("text")
    return directory


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    directory.mkdir()
    (directory / "old.txt").write_text("old")
    return directory


@pytest.fixture
def guard(project: Path, volume: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root, writable=[volume])


@contextlib.contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(OSError, match=READ_ONLY) as caught:
        yield
    assert caught.value.errno == errno.EROFS


def write(path: str | Path, text: str = "text") -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str | Path) -> str:
    with open(path) as file:
        return file.read()


# --- /tmp and the rest (C1.1, C1.2) --------------------------------------------------------------------


def test_tmp_is_writable_and_the_real_tmp_is_not_touched(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """C1.1"""
    name = f"/tmp/{tmp_path.name}-is-not-there"
    with guard.invocation() as invocation:
        write(name)
        os.mkdir(name + ".d")
        assert not originals.access(name, os.F_OK)
        assert read(name) == "text"
    assert not os.path.exists(name)
    assert not os.path.exists(name + ".d")
    assert not invocation.report.violations


def test_links_in_tmp_that_lead_out_are_read_only(guard: tmpguard.Guard, project: Path) -> None:
    """C1.2"""
    with guard.invocation():
        os.symlink(project / "file.txt", "/tmp/file")
        os.symlink(project, "/tmp/directory")
        assert read("/tmp/file") == "text"
        for path in ("/tmp/file", "/tmp/directory/file.txt", "/tmp/directory/data/../file.txt"):
            with refused():
                write(path)
        with refused():
            os.mkdir("/tmp/directory/new")
        with refused():
            os.truncate("/tmp/file", 0)
        os.unlink("/tmp/file")  # the link itself is the invocation's own
    assert (project / "file.txt").read_text() == "text"


def test_links_in_the_project_that_lead_into_tmp_are_writable(guard: tmpguard.Guard, project: Path) -> None:
    """C1.2: `uploads -> /tmp/uploads` is a usual way to deploy."""
    (project / "uploads").symlink_to("/tmp/uploads")
    with guard.invocation() as invocation:
        os.makedirs("/tmp/uploads")
        write("uploads/a.txt")
        os.rename("uploads/a.txt", "uploads/b.txt")
        assert os.listdir("/tmp/uploads") == ["b.txt"]
        os.mkdir("uploads/new")
        shutil.rmtree("uploads/new")
        with refused():
            write("uploads/../../usr/new.txt")
    assert not os.path.exists("/tmp/uploads")
    assert len(invocation.report.violations) == 1


@pytest.mark.parametrize(
    "text", ["file/", "file//", "file/.", "./file/./", "/tmp/file/", "to-file/", "to-file/."]
)
def test_a_link_whose_text_ends_as_a_directory_s_leads_to_no_file(guard: tmpguard.Guard, text: str) -> None:
    """C1.2: neither does one that leads to it."""
    with guard.invocation():
        write("/tmp/file")
        os.symlink("file", "/tmp/to-file")
        os.symlink(text, "/tmp/link")
        os.symlink("link", "/tmp/other")
        for path in ("/tmp/link", "/tmp/other"):
            for call in (os.stat, open, os.listdir, lambda path: os.truncate(path, 0), os.statvfs):
                with pytest.raises(NotADirectoryError) as caught:
                    call(path)
                assert caught.value.filename == path
            assert not os.access(path, os.F_OK)
            with pytest.raises(OSError, match="directory") as refusal:
                write(path)
            # The kernel refuses to make a file of a name with a slash before it looks for it.
            assert refusal.value.errno == (errno.ENOTDIR if text.rstrip("/").endswith(".") else errno.EISDIR)
        assert read("/tmp/file") == "text"


def test_a_link_whose_text_ends_as_a_directory_s_leads_to_one(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation():
        os.mkdir("/tmp/directory")
        for number, text in enumerate(["directory/", "directory/.", "./directory//", f"{project}/data/"]):
            os.symlink(text, f"/tmp/{number}")
            assert os.path.isdir(f"/tmp/{number}")
            assert os.listdir(f"/tmp/{number}") == []
        write("/tmp/0/new")
        with refused():
            write("/tmp/3/new")


@pytest.mark.parametrize("text", ["new/", "nowhere/new/", "file/new/", "link/", "dangling/"])
def test_no_file_is_made_through_a_link_that_ends_in_a_slash(guard: tmpguard.Guard, text: str) -> None:
    expected = {"nowhere/new/": errno.ENOENT, "file/new/": errno.ENOTDIR}.get(text, errno.EISDIR)
    with guard.invocation():
        write("/tmp/file")
        os.symlink("nowhere/at/all", "/tmp/dangling")
        os.symlink(text, "/tmp/link")
        with pytest.raises(OSError, match="directory") as caught:
            write("/tmp/link")
        assert caught.value.errno == expected
        assert not os.path.lexists("/tmp/new")


def test_descriptors_lead_where_they_were_opened(guard: tmpguard.Guard, project: Path) -> None:
    """C1.2"""
    with guard.invocation():
        with open(project / "file.txt") as file:
            with refused():
                open(f"/proc/self/fd/{file.fileno()}", "w")
        with open("/tmp/file.txt", "w") as file:
            with open(f"/proc/self/fd/{file.fileno()}", "w") as other:
                other.write("by number")
        assert read("/tmp/file.txt") == "by number"
        for directory, allowed in (("/tmp", True), (project, False)):
            descriptor = os.open(directory, os.O_PATH)
            try:
                with contextlib.nullcontext() if allowed else refused():
                    os.mkdir("made", dir_fd=descriptor)
                with contextlib.nullcontext() if allowed else refused():
                    os.mkdir(f"/proc/self/fd/{descriptor}/made-too")
            finally:
                os.close(descriptor)
        assert os.path.isdir("/tmp/made")
        assert os.path.isdir("/tmp/made-too")


# --- writable mounts (C1.4) ----------------------------------------------------------------------------


def test_writable_mount_is_passed_through(guard: tmpguard.Guard, volume: Path) -> None:
    """C1.4: no quota and no wipe."""
    with guard.invocation() as invocation:
        with open(volume / "large.bin", "wb") as file:
            for _ in range(3):
                assert file.write(bytes(1 << 20)) == 1 << 20
        os.mkdir(volume / "directory")
        write(volume / "directory" / "inner.txt")
        os.unlink(volume / "old.txt")
        os.rename(volume / "large.bin", volume / "renamed.bin")
        assert os.access(volume, os.W_OK)
        assert not os.statvfs(volume).f_flag & os.ST_RDONLY
        assert os.statvfs(volume).f_blocks == originals.statvfs(volume).f_blocks
        assert invocation.report.used_bytes == 0
    assert sorted(os.listdir(volume)) == ["directory", "renamed.bin"]
    assert os.path.getsize(volume / "renamed.bin") == 3 << 20
    assert (volume / "directory" / "inner.txt").read_text() == "text"
    assert not invocation.report.violations


def test_what_is_beside_a_writable_mount_is_not_writable(
    guard: tmpguard.Guard, volume: Path, project: Path
) -> None:
    """C1.4"""
    (volume / "out").symlink_to(project / "file.txt")
    with guard.invocation():
        with refused():
            write(volume / "out")
        with pytest.raises(FileExistsError):
            os.mkdir(volume)
        with pytest.raises(OSError, match="busy"):
            os.rmdir(volume)
        with pytest.raises(OSError, match="busy"):
            os.rename(volume, "/tmp/moved")
        with refused():
            write(os.path.join(volume, "..", "project", "new.txt"))
    assert volume.is_dir()


def test_files_move_between_mounts_by_being_copied(guard: tmpguard.Guard, volume: Path) -> None:
    """C1.4, C2.2"""
    with guard.invocation() as invocation:
        write("/tmp/result.txt", "result")
        for call in (os.rename, os.link):
            with pytest.raises(OSError, match="cross-device") as caught:
                call("/tmp/result.txt", volume / "result.txt")
            assert caught.value.errno == errno.EXDEV
        shutil.move("/tmp/result.txt", volume / "result.txt")
        shutil.move(volume / "old.txt", "/tmp/old.txt")
        assert os.listdir(volume) == ["result.txt"]
        assert invocation.report.used_bytes == 4096
        assert read("/tmp/old.txt") == "old"
    assert (volume / "result.txt").read_text() == "result"
    assert not invocation.report.violations


def test_writable_mount_outside_tmp(project: Path, scratch_root: Path) -> None:
    """C1.4"""
    volume = Path("/var/tmp") / scratch_root.parent.name
    volume.mkdir()
    try:
        guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, writable=[volume])
        with guard.invocation():
            write(volume / "file.txt")
            os.symlink(volume / "file.txt", "/tmp/link")
            write("/tmp/link", "by the link")
            with refused():
                os.rmdir(volume)
            with refused():
                write(f"{volume}-beside.txt")
        assert (volume / "file.txt").read_text() == "by the link"
    finally:
        shutil.rmtree(volume)


# --- a project below the real /tmp (C1.5) --------------------------------------------------------------


def test_project_below_tmp_stays_readable_and_read_only(guard: tmpguard.Guard, project: Path) -> None:
    """C1.5"""
    with guard.invocation() as invocation:
        assert read(project / "file.txt") == "text"
        assert read("file.txt") == "text"
        assert sorted(os.listdir(project)) == ["data", "file.txt"]
        assert [entry.name for entry in os.scandir(project) if entry.is_dir()] == ["data"]
        assert os.path.realpath("file.txt") == str(project / "file.txt")
        with refused():
            write(project / "file.txt")
        with refused():
            os.mkdir(project / "new")
        with refused():
            shutil.rmtree(project)
    assert len(invocation.report.violations) == 3
    assert (project / "file.txt").read_text() == "text"
    assert (project / "data").is_dir()


def test_directories_on_the_way_to_the_project_are_those_of_the_invocation(
    guard: tmpguard.Guard, project: Path, volume: Path
) -> None:
    """C1.5, C4.1: what else lies there on the machine is not seen."""
    way = project.parent
    with guard.invocation():
        assert os.path.isdir(way)
        assert sorted(os.listdir(way)) == ["volume"]  # the project is there for its path only
        assert os.path.isdir(project)
        write(way / "new.txt")
        assert sorted(os.listdir(way)) == ["new.txt", "volume"]
    assert sorted(os.listdir(way)) == ["project", "scratch", "volume"]


def test_modules_of_the_project_are_imported_within_an_invocation(
    guard: tmpguard.Guard, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1.5, C2.3: that no bytecode can be written is no finding."""
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    name = "imported_within_an_invocation"
    (project / f"{name}.py").write_text("VALUE = 1\n")
    try:
        with guard.invocation() as invocation:
            module = importlib.import_module(name)
            assert module.VALUE == 1
            assert importlib.reload(module).VALUE == 1
        assert not invocation.report.violations
    finally:
        sys.modules.pop(name, None)


def test_packages_and_the_standard_library_are_readable(guard: tmpguard.Guard) -> None:
    """C1.1, C1.5"""
    with guard.invocation() as invocation:
        assert "def copyfile" in read(shutil.__file__)
        assert os.path.isfile(pytest.__file__)
        assert importlib.metadata.version("pytest") == pytest.__version__
        with refused():
            write(Path(shutil.__file__).parent / "new.py")
    assert len(invocation.report.violations) == 1


# --- only watching (C2.5) ------------------------------------------------------------------------------


@pytest.fixture
def watching(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root, enforce=False)


def test_watching_lets_operations_through_and_records_them(
    watching: tmpguard.Guard,
    project: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C2.5"""
    monkeypatch.chdir(project)
    with watching.invocation() as invocation:
        write("new.txt")
        os.mkdir("made")
        os.chmod("file.txt", 0o600)
        os.rename("file.txt", "made/renamed.txt")
        os.symlink("new.txt", "link")
        os.link("new.txt", "hard")
        os.truncate("hard", 2)
        os.rmdir("data")
        os.mkfifo("fifo")
        os.utime("made", (1, 1))
        os.unlink("fifo")
        descriptor = os.open("raw.txt", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"raw")
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect("db.sqlite")) as connection:
            connection.execute("CREATE TABLE t (x)")
    assert sorted(os.listdir(project)) == ["db.sqlite", "hard", "link", "made", "new.txt", "raw.txt"]
    assert (project / "new.txt").read_text() == "te"
    assert (project / "made" / "renamed.txt").read_text() == "text"
    assert (project / "raw.txt").read_text() == "raw"
    assert [(v.operation, v.path, v.errno) for v in invocation.report.violations] == [
        ("open", "new.txt", errno.EROFS),
        ("os.mkdir", "made", errno.EROFS),
        ("os.chmod", "file.txt", errno.EROFS),
        ("os.rename", "file.txt", errno.EROFS),
        ("os.symlink", "link", errno.EROFS),
        ("os.link", "new.txt", errno.EROFS),
        ("os.truncate", "hard", errno.EROFS),
        ("os.rmdir", "data", errno.EROFS),
        ("os.mkfifo", "fifo", errno.EROFS),
        ("os.utime", "made", errno.EROFS),
        ("os.unlink", "fifo", errno.EROFS),
        ("os.open", "raw.txt", errno.EROFS),
        ("sqlite3.connect", "db.sqlite", errno.EROFS),
    ]
    assert len(caplog.records) == len(invocation.report.violations)
    assert all("would refuse" in record.getMessage() for record in caplog.records)


def test_watching_leaves_tmp_to_the_application(watching: tmpguard.Guard, scratch_root: Path) -> None:
    """C2.5"""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        with watching.invocation() as invocation:
            write(f"{directory}/small.txt")
            with open(f"{directory}/large.bin", "wb", buffering=0) as file:
                assert file.write(bytes(2 << 20)) == 2 << 20
            assert invocation.report.used_bytes == (2 << 20) + 4096
        assert sorted(os.listdir(directory)) == ["large.bin", "small.txt"]
    assert {violation.errno for violation in invocation.report.violations} == {errno.ENOSPC}
    assert invocation.report.used_bytes == (2 << 20) + 4096
    assert os.listdir(scratch_root) == []
