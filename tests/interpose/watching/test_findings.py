"""C2.5: with ``enforce=False`` the report has what enforcement would have refused, and nothing is refused."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from errno import ENOENT, ENOSPC, EPERM, EROFS, ESTALE, EXDEV
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import MB
from tmpguard.core.reports.report import Report
from tmpguard.core.watching import _CLOCK_REALTIME_COARSE

Change = Callable[[Path], object]

# --- what enforcement refuses --------------------------------------------------------------------------


def by_open(project: Path) -> object:
    with open("new.txt", "w") as file:
        return file.write("new")


def by_append(project: Path) -> object:
    with open(project / "there.txt", "ab") as file:
        return file.write(b"more")


def by_update_without_buffer(project: Path) -> object:
    with open(project / "there.txt", "r+b", buffering=0) as file:
        return file.write(b"T")


def by_file_io(project: Path) -> object:
    with io.FileIO(str(project / "raw.bin"), "w") as file:
        return file.write(b"raw")


def by_os_open(project: Path) -> object:
    descriptor = os.open("made.txt", os.O_CREAT | os.O_RDONLY | os.O_EXCL)
    os.close(descriptor)
    return None


def by_opener(project: Path) -> object:
    with open("opened.txt", "w", opener=lambda path, flags: os.open(project / path, flags)) as file:
        return file.write("opened")


def by_directory(project: Path) -> object:
    descriptor = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.mkdir("inside", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return None


def by_pathlib(project: Path) -> object:
    return (project / "path.txt").write_text("path")


def by_makedirs(project: Path) -> object:
    os.makedirs(project / "deep" / "deeper", exist_ok=True)
    return None


def by_symlink(project: Path) -> object:
    return os.symlink("there.txt", "link")


def by_link(project: Path) -> object:
    return os.link("there.txt", "hard")


def by_fifo(project: Path) -> object:
    return os.mkfifo("fifo")


def by_unlink(project: Path) -> object:
    return os.unlink(b"there.txt")


def by_rmdir(project: Path) -> object:
    return os.rmdir("empty/")


def by_rename(project: Path) -> object:
    return os.rename("there.txt", "moved.txt")


def by_move_from_tmp(project: Path) -> object:
    name = f"/tmp/{uuid.uuid4().hex}.txt"
    with open(name, "w") as file:
        file.write("moved")
    try:
        return shutil.move(name, project / "arrived.txt")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def by_copy(project: Path) -> object:
    return shutil.copyfile("there.txt", "copy.txt")


def by_chmod(project: Path) -> object:
    return os.chmod("there.txt", 0o600)


def by_fchmod(project: Path) -> object:
    with open("there.txt") as file:
        return os.fchmod(file.fileno(), 0o600)


def by_utime(project: Path) -> object:
    return os.utime("there.txt", (1, 1))


def by_touch(project: Path) -> object:
    return Path("touched").touch()


def by_truncate(project: Path) -> object:
    return os.truncate("there.txt", 1)


def by_link_into_the_project(project: Path) -> object:
    name = f"/tmp/{uuid.uuid4().hex}"
    os.symlink(project, name)
    try:
        return pathlib.Path(name, "through.txt").write_text("through")
    finally:
        os.unlink(name)


def by_descriptor_in_proc(project: Path) -> object:
    with open("there.txt") as file, open(f"/proc/self/fd/{file.fileno()}", "r+") as again:
        return again.write("T")


def by_tempfile_elsewhere(project: Path) -> object:
    descriptor, _ = tempfile.mkstemp(dir=project, prefix="own-", suffix=".txt")
    os.close(descriptor)
    return None


def by_socket(project: Path) -> object:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.bind("sock")


def by_new_database(project: Path) -> object:
    return sqlite3.connect("new.db").close()


def by_database(project: Path) -> object:
    with contextlib.closing(sqlite3.connect("there.db")) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        return connection.commit()


CHANGES = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


def furnish(project: Path) -> None:
    for entry in project.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (project / "there.txt").write_text("there")
    (project / "empty").mkdir()
    with contextlib.closing(sqlite3.connect(project / "there.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.commit()


def told(report: Report) -> list[tuple[object, ...]]:
    """The violations, without the random parts of the names of temporary files."""

    def plain(text: str) -> str:
        return re.sub(r"[0-9a-f]{32}|own-\w{8}|(?<=/fd/|tmp/)\d+", "RANDOM", text)

    return [
        (one.operation, plain(one.path), one.errno, one.location, one.library, plain(one.remedy))
        for one in report.violations
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[3:])
def test_what_enforcement_refuses_is_recorded_with_its_line_and_remedy(
    change: Change, project: Path, scratch_root: Path
) -> None:
    furnish(project)
    with tmpguard.invocation(bundle=project, scratch_root=scratch_root) as enforced:
        with pytest.raises((OSError, sqlite3.Error)):
            change(project)
    with tmpguard.invocation(bundle=project, scratch_root=scratch_root, enforce=False) as watched:
        change(project)
    # The first one: what a library tries after an error, nobody tries without.
    assert told(watched.report)[0] == told(enforced.report)[0]
    assert {one.errno for one in watched.report.violations} <= {EROFS, EXDEV}
    assert not watched.report.elsewhere
    assert list(scratch_root.iterdir()) == []


def names(project: Path) -> list[str]:
    return sorted(str(path.relative_to(project)) for path in project.rglob("*") if path.name != "sock")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[3:])
def test_what_is_watched_happens(change: Change, project: Path) -> None:
    def outcome() -> tuple[object, list[str]]:
        furnish(project)
        result = change(project)
        found = [name for name in names(project) if not name.startswith("own-")]
        return result, found

    plain = outcome()
    with tmpguard.invocation(bundle=project, enforce=False):
        watched = outcome()
    assert watched == plain


def test_what_fails_by_itself_is_no_finding(project: Path) -> None:
    (project / "there.txt").write_text("there")
    with tmpguard.invocation(bundle=project, enforce=False) as watched:
        for fails in (
            lambda: open("missing/new.txt", "w"),
            lambda: open(".", "w"),
            lambda: open("there.txt", "x"),
            lambda: open("no\0name", "w"),
            lambda: open("there.txt", "rw"),
            lambda: os.mkdir("there.txt"),
            lambda: os.unlink("missing.txt"),
            lambda: os.rmdir("/proc"),
            lambda: os.rename("missing.txt", "other.txt"),
            lambda: os.chmod("missing.txt", 0o600),
            lambda: os.open("there.txt", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
            lambda: sqlite3.connect("missing/new.db"),
            lambda: os.mkdir(3.5),  # type: ignore[arg-type]
            lambda: os.stat("/tmp/" + uuid.uuid4().hex),
        ):
            with pytest.raises((OSError, ValueError, TypeError, sqlite3.Error)) as caught:
                fails()
            assert not getattr(caught.value, "__notes__", [])
    assert watched.report.violations == ()
    assert watched.report.lookups == ()


def test_devices_and_writable_mounts_are_no_findings(project: Path) -> None:
    volume = project / "volume"
    volume.mkdir()
    with tmpguard.invocation(bundle=project, enforce=False, writable=[volume]) as watched:
        with open("/dev/null", "w") as null:
            null.write("nothing")
        (volume / "kept.txt").write_text("kept")
        (volume / "kept.txt").rename(volume / "renamed.txt")
        print("to the console")
    assert watched.report.violations == ()
    assert (watched.report.peak_bytes, watched.report.files) == (0, 0)


def test_the_platforms_dev_shm(project: Path) -> None:
    name = f"/dev/shm/{uuid.uuid4().hex}"
    options: dict[str, Any] = {"platform": "aws-lambda", "storage_size": 512}
    with tmpguard.invocation(bundle=project, enforce=False, **options) as watched:
        Path(name).write_text("shared")
        Path(name).unlink()
    assert [one.errno for one in watched.report.violations] == [EROFS, EROFS]


# --- what would not fit --------------------------------------------------------------------------------


@pytest.fixture
def name() -> Iterator[str]:
    """A name in the real /tmp."""
    path = f"/tmp/{uuid.uuid4().hex}.txt"
    yield path
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@pytest.fixture
def watching(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root, enforce=False)


def fills_by_buffered_writes(name: str) -> None:
    with open(name, "w") as file:
        for _ in range(300):
            file.write("x" * 4096)


def fills_by_os_write(name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT)
    for _ in range(300):
        os.write(descriptor, bytes(4096))
    os.close(descriptor)


def fills_by_unnamed_file(name: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(300 * 4096))
        file.flush()


def fills_by_copy(name: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(600 * 1024))
        file.flush()
        shutil.copyfile(file.name, name)


def fills_by_fallocate(name: str) -> None:
    with open(name, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 300 * 4096)


@pytest.mark.parametrize(
    "fills",
    [fills_by_buffered_writes, fills_by_os_write, fills_by_unnamed_file, fills_by_copy, fills_by_fallocate],
    ids=lambda function: function.__name__[9:],
)
def test_more_than_the_quota_is_written_and_recorded_once(
    fills: Callable[[str], None], watching: tmpguard.Guard, name: str
) -> None:
    with watching.invocation() as watched:
        fills(name)
    (violation,) = watched.report.violations
    assert violation.errno == ENOSPC
    assert violation.location is not None
    assert violation.location.function == fills.__name__
    assert "is full: all of its 1 MB" in violation.remedy
    assert watched.report.peak_bytes == 1200 * 1024


def test_removed_files_free_their_space(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        for _ in range(3):
            Path(name).write_bytes(bytes(MB // 2))
            Path(name).unlink()
            Path(name).write_bytes(bytes(MB // 2))
            os.truncate(name, 0)
            with tempfile.TemporaryFile() as file:
                file.write(bytes(MB // 2))
        assert watched.report.files == 1
    assert watched.report.violations == ()
    assert watched.report.used_bytes == 0
    assert watched.report.peak_bytes == MB // 2


def test_closed_temporary_files_are_in_no_later_peak(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        Path(name).touch()  # so that it is another inode
        for _ in range(3):
            with tempfile.TemporaryFile() as file:
                file.write(bytes(MB // 4))
        Path(name).write_bytes(bytes(MB // 4))
    assert watched.report.peak_bytes == MB // 4


def test_holes_cost_nothing(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        with open(name, "wb") as file:
            file.truncate(100 * MB)
            file.seek(50 * MB)
            file.write(b"x")
    assert watched.report.violations == ()
    assert watched.report.used_bytes == 4096


def test_what_native_code_writes_is_counted_at_the_end(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        with contextlib.closing(sqlite3.connect(name)) as connection:
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (?)", [os.urandom(2 * MB)])
            connection.commit()
    assert watched.report.used_bytes == os.stat(name).st_size > 2 * MB
    (violation,) = watched.report.violations
    assert (violation.operation, violation.errno) == ("quota exceeded by a native writer", ENOSPC)
    assert violation.path == name


def test_a_file_that_grows_counts_by_what_is_new(watching: tmpguard.Guard, name: str) -> None:
    Path(name).write_bytes(bytes(3 * MB))
    with watching.invocation() as watched:
        with open(name, "ab") as file:
            file.write(bytes(8192))
    assert watched.report.violations == ()
    assert watched.report.used_bytes == 8192


def test_the_number_of_files(project: Path, name: str) -> None:
    with tmpguard.invocation(bundle=project, enforce=False, max_files=3) as watched:
        os.mkdir(name)
        for number in range(5):
            Path(name, f"{number}.txt").touch()
    (violation,) = watched.report.violations
    assert violation.errno == ENOSPC
    assert violation.path.endswith("/2.txt")
    assert watched.report.files == 6


def forgets(name: str) -> list[bytes]:
    """What a file holds that was not closed: one, and one in a cycle, of whose parts the collector clears
    the references first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        file: Any = open(name, "wb")
        file.write(b"forgotten")
        del file
        forgotten = Path(name).read_bytes()
        file = open(name, "wb")
        file.write(bytes(5000))
        file.raw.cycle = [file]
        del file
        gc.collect()
        return [forgotten, Path(name).read_bytes()]


def test_forgotten_files_are_closed_as_by_themselves(watching: tmpguard.Guard, name: str) -> None:
    plain = forgets(name)
    with watching.invocation():
        assert forgets(name) == plain


# --- what would be missing -----------------------------------------------------------------------------


def reads(name: str) -> object:
    return Path(name).read_text()


def looks(name: str) -> object:
    return os.path.exists(name)


def removes(name: str) -> object:
    return os.unlink(name)


def appends(name: str) -> object:
    with open(name, "a") as file:
        return file.write("more")


def renames(name: str) -> object:
    os.rename(name, name + ".new")
    return os.rename(name + ".new", name)


def reads_by_os(name: str) -> object:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


FINDS = [reads, looks, removes, appends, renames, reads_by_os]


@pytest.mark.parametrize("finds", FINDS)
def test_a_file_of_another_request_is_found_and_recorded(
    finds: Callable[[str], object], watching: tmpguard.Guard, name: str
) -> None:
    with watching.invocation() as first:
        Path(name).write_text("the first request's")
        finds(name)
    Path(name).write_text("the first request's")
    assert first.report.lookups == ()
    with watching.invocation() as first:
        Path(name).write_text("the first request's")
    with watching.invocation() as second:
        finds(name)
    assert second.report.violations == ()
    (lookup,) = second.report.elsewhere
    assert (lookup.path, lookup.errno) == (name, ENOENT)
    assert lookup.location is not None
    assert lookup.location.function == finds.__name__
    assert "was made by another request" in lookup.remedy


def connects(sender: socket.socket, name: str) -> object:
    return sender.connect(name)


def sends(sender: socket.socket, name: str) -> object:
    return sender.sendto(b"text", name)


def sends_buffers(sender: socket.socket, name: str) -> object:
    return sender.sendmsg([b"te", b"xt"], [], 0, name)


@pytest.mark.parametrize("uses", [connects, sends, sends_buffers])
def test_a_socket_of_another_request_is_reached_and_recorded(
    uses: Callable[[socket.socket, str], object], watching: tmpguard.Guard, name: str
) -> None:
    kind = socket.AF_UNIX, socket.SOCK_DGRAM
    with socket.socket(*kind) as receiver, socket.socket(*kind) as sender:
        with watching.invocation():
            receiver.bind(name)
        with watching.invocation() as second:
            uses(sender, name)
    (lookup,) = second.report.elsewhere
    assert (lookup.path, lookup.errno, lookup.library) == (name, ENOENT, None)
    assert lookup.location is not None
    assert lookup.location.function == uses.__name__


def makes_a_file_in_it(name: str) -> object:
    return Path(name, "new.txt").write_text("new")


def makes_a_directory_in_it(name: str) -> object:
    return os.mkdir(f"{name}/new")


def moves_a_file_into_it(name: str) -> object:
    with tempfile.NamedTemporaryFile(dir="/tmp", delete=False) as file:
        pass
    return os.rename(file.name, f"{name}/moved.txt")


def makes_a_database_in_it(name: str) -> object:
    return sqlite3.connect(f"{name}/new.db").close()


def lists_it(name: str) -> object:
    return os.listdir(name)


@pytest.mark.parametrize(
    "uses",
    [makes_a_file_in_it, makes_a_directory_in_it, moves_a_file_into_it, makes_a_database_in_it, lists_it],
)
def test_a_directory_of_another_request_is_missing_where_it_is_used(
    uses: Callable[[str], object], watching: tmpguard.Guard, name: str
) -> None:
    with watching.invocation() as first:
        os.makedirs(f"{name}/own")
        uses(f"{name}/own")
        os.mkdir(f"{name}/other")
    assert first.report.lookups == ()
    with watching.invocation() as second:
        uses(f"{name}/other")
    (lookup,) = second.report.elsewhere
    assert lookup.location is not None
    assert lookup.location.function == uses.__name__
    assert lookup.remedy.startswith(f"{name}/other was made by another request")


def checks(name: str) -> None:
    if not os.path.isdir(name):
        os.mkdir(name)


def makes_if_missing(name: str) -> None:
    os.makedirs(f"{name}/inner", exist_ok=True)


def tries_to_make(name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name)


@pytest.mark.parametrize("begins", [checks, makes_if_missing, tries_to_make])
def test_a_directory_that_the_request_would_have_made_is_not_missing(
    begins: Callable[[str], None], watching: tmpguard.Guard, name: str
) -> None:
    for number in range(2):
        with watching.invocation() as watched:
            begins(name)
            Path(name, f"{number}.txt").write_text("in it")
            assert f"{number}.txt" in os.listdir(name)
        assert watched.report.lookups == ()


@pytest.mark.parametrize("finds", FINDS)
def test_with_an_instance_it_is_no_finding(finds: Callable[[str], object], project: Path, name: str) -> None:
    guard = tmpguard.Guard(bundle=project, lifetime="instance", enforce=False)
    with guard.invocation() as first:
        Path(name).write_text("the first request's")
        first_leftovers = first.report.leftovers
    assert first_leftovers == first.report.leftovers == ((name, 4096),)
    with guard.invocation() as second:
        finds(name)
    assert second.report.lookups == ()


def test_a_file_of_the_start_up(watching: tmpguard.Guard, name: str) -> None:
    with tmpguard.cold_start(guard=watching) as start:
        Path(name).write_text("the start-up's")
    assert start.report.cold_start
    with watching.invocation() as watched:
        assert Path(name).read_text() == "the start-up's"
    (lookup,) = watched.report.elsewhere
    assert "was made by the start-up" in lookup.remedy


def make_old(name: str) -> None:
    """Make a file that is older than what begins now: the kernel's clock for files has ticked since."""
    Path(name).write_text("old")
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= os.stat(name).st_ctime_ns:
        pass


def test_a_file_that_was_there_before(watching: tmpguard.Guard, name: str) -> None:
    make_old(name)
    with watching.invocation() as watched:
        assert Path(name).read_text() == "old"
    (lookup,) = watched.report.elsewhere
    assert "was made by code outside any request" in lookup.remedy


def test_a_file_that_a_child_made_is_the_requests_own(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        os.system(f"echo of the child > {name}")
        assert Path(name).read_text() == "of the child\n"
    assert watched.report.lookups == ()
    (child,) = watched.report.unguarded_children
    assert child.operation == "os.system"


def test_a_file_that_the_request_replaces_is_its_own(watching: tmpguard.Guard, name: str) -> None:
    make_old(name)
    with watching.invocation() as watched:
        if os.path.exists(name):
            os.unlink(name)
        Path(name).write_text("new")
        assert Path(name).read_text() == "new"
    assert watched.report.elsewhere == ()
    assert [lookup.operation for lookup in watched.report.lookups] == ["os.stat"]


def test_files_that_are_not_in_the_bundle(project: Path) -> None:
    (project / ".genezioignore").write_text("*.env\n")
    (project / "secret.env").write_text("secret")
    with tmpguard.invocation(bundle=project, enforce=False) as watched:
        assert os.path.exists("secret.env")
        assert Path("secret.env").read_text() == "secret"
        assert sorted(os.listdir()) == [".genezioignore", "secret.env"]
    (violation,) = watched.report.violations
    assert (violation.operation, violation.path, violation.errno) == ("open", "secret.env", ENOENT)
    (lookup,) = watched.report.lookups
    assert lookup.operation == "os.stat"


# --- what else is recorded -----------------------------------------------------------------------------


def test_late_writes(watching: tmpguard.Guard, name: str) -> None:
    with watching.invocation() as watched:
        file = open(name, "w")
    file.write("late")
    file.close()
    assert Path(name).read_text() == "late"
    with watched.bound():
        os.unlink(name)
    assert [(one.operation, one.errno) for one in watched.report.late_writes] == [
        ("write", ESTALE),
        ("os.unlink", ESTALE),
    ]


@pytest.mark.parametrize("policy", ["allow", "contain", "refuse"])
def test_children(policy: str, project: Path) -> None:
    guard = tmpguard.Guard(bundle=project, enforce=False, children=policy)
    with guard.invocation() as watched:
        assert os.system("exit 3") >> 8 == 3
    assert len(watched.report.unguarded_children) == (policy != "refuse")
    assert [one.errno for one in watched.report.violations] == [EPERM] * (policy == "refuse")


def test_what_bypasses_the_functions_is_recorded(watching: tmpguard.Guard, project: Path, name: str) -> None:
    import posix

    (project / "there.txt").write_text("there")
    with watching.invocation() as watched:
        posix.unlink("there.txt")
        with pytest.raises(FileNotFoundError):
            posix.mkdir("missing/new")
        posix.mkdir(name)
        assert watched.report.files == 1
    (violation,) = watched.report.violations
    assert (violation.operation, violation.path, violation.errno) == ("os.remove", "there.txt", EROFS)


def test_temporary_files_in_the_environments_directory_count_as_in_tmp(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = project / "temporary"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with tmpguard.invocation(bundle=project, enforce=False) as watched:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(4096))
            file.flush()
            assert os.path.dirname(file.name) == str(elsewhere)
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "inside.txt").write_text("inside")
        assert watched.report.violations == ()
        (elsewhere / "own.txt").touch()
    assert [one.path for one in watched.report.violations] == [str(elsewhere / "own.txt")]
    assert watched.report.peak_bytes == 4096


@pytest.mark.parametrize("kind", ["dbm.gnu", "dbm.ndbm"])
def test_databases_of_dbm(project: Path, kind: str) -> None:
    module = pytest.importorskip(kind, exc_type=ImportError)
    with tmpguard.invocation(bundle=project, enforce=False) as watched:
        with module.open(str(project / "database"), "c") as database:
            database[b"key"] = b"value"
        with module.open(str(project / "database"), "r") as database:
            assert database[b"key"] == b"value"
    assert [(one.operation, one.errno) for one in watched.report.violations] == [(f"{kind}.open", EROFS)]


def test_a_judge_that_fails_is_logged_and_disturbs_nothing(
    watching: tmpguard.Guard, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with watching.invocation() as watched:
        monkeypatch.setattr(type(watched), "made", fails)
        monkeypatch.setattr(type(watched), "refuse", fails)
        assert Path(name).write_text("written") == 7
        assert Path("new.txt").write_text("written") == 7
        os.mkdir("directory")
    assert "could not judge" in caplog.text
    assert Path(name).read_text() == "written"
