"""What a refusal tells, on the exception, in the report and on the logger (C2); what is not refused (C1)."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals

READ_ONLY = "Read-only file system"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project directory. It lies below the real /tmp, as a checkout on a build server may (C1.5)."""
    directory = tmp_path / "project"
    (directory / "data").mkdir(parents=True)
    (directory / "file.txt").write_text("text")
    return directory


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)


def refusal(call: Callable[[], Any]) -> OSError:
    """The refusal that ``call`` meets."""
    with pytest.raises(OSError, match=READ_ONLY) as caught:
        call()
    assert caught.value.errno == errno.EROFS
    return caught.value


def this_line() -> int:
    """The number of the caller's line."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def read(path: Path) -> str:
    with originals.open(path) as file:
        return str(file.read())


# --- the exception (C2.1) ------------------------------------------------------------------------------


class BytesPath:
    """A PathLike whose path is bytes."""

    def __fspath__(self) -> bytes:
        return b"data/new.txt"

    def __repr__(self) -> str:
        return "BytesPath()"  # in the test's name, where an address would make it another one in each process


@pytest.mark.parametrize(
    ("given", "filename"),
    [
        ("new.txt", "new.txt"),
        ("./new.txt", "./new.txt"),
        ("data/../new.txt", "data/../new.txt"),
        ("data//new.txt", "data//new.txt"),
        ("file.txt", "file.txt"),
        (b"new.txt", b"new.txt"),
        (Path("data/new.txt"), "data/new.txt"),
        (BytesPath(), b"data/new.txt"),
    ],
    ids=repr,
)
def test_filename_is_as_the_caller_spelled_it(guard: tmpguard.Guard, given: Any, filename: Any) -> None:
    """C2.1: and a PathLike as Python spells it."""
    with guard.invocation():
        for call in (
            lambda: open(given, "w"),
            lambda: os.open(given, os.O_WRONLY | os.O_CREAT),
            lambda: os.unlink(given),
        ):
            exc = refusal(call)
            assert type(exc) is OSError
            assert exc.strerror == READ_ONLY
            assert exc.filename == filename
            assert type(exc.filename) is type(filename)
            assert exc.filename2 is None
            assert str(exc) == f"[Errno 30] {READ_ONLY}: {filename!r}"


def test_absolute_filename_is_kept(guard: tmpguard.Guard, project: Path) -> None:
    """C2.1"""
    with guard.invocation():
        assert refusal(lambda: open(f"{project}/new.txt", "w")).filename == f"{project}/new.txt"
        assert refusal(lambda: os.mkdir("/usr/new")).filename == "/usr/new"


def test_filename_relative_to_a_descriptor_is_kept(guard: tmpguard.Guard, project: Path) -> None:
    """C1.2, C2.1"""
    with guard.invocation():
        directory = os.open(project / "data", os.O_RDONLY)
        try:
            for call in (
                lambda: os.open("new.txt", os.O_WRONLY | os.O_CREAT, dir_fd=directory),
                lambda: os.mkdir("new.txt", dir_fd=directory),
                lambda: os.unlink("new.txt", dir_fd=directory),
            ):
                assert refusal(call).filename == "new.txt"
        finally:
            os.close(directory)


@pytest.mark.parametrize("given", ["file.txt", b"file.txt", Path("file.txt")], ids=repr)
def test_both_filenames_are_as_the_caller_spelled_them(guard: tmpguard.Guard, given: Any) -> None:
    """C2.1"""
    spelled = os.fspath(given)
    other = b"data/to" if isinstance(spelled, bytes) else "data/to"
    with guard.invocation():
        for call in (os.rename, os.replace, os.link, os.symlink):
            exc = refusal(lambda call=call: call(given, other))  # type: ignore[misc]
            assert (exc.filename, exc.filename2) == (spelled, other)
            assert str(exc) == f"[Errno 30] {READ_ONLY}: {spelled!r} -> {other!r}"


def test_what_the_kernel_reports_first_comes_first(guard: tmpguard.Guard, project: Path) -> None:
    """C2.2: and none of it is a violation."""
    with guard.invocation() as invocation:
        with pytest.raises(FileNotFoundError):
            open("missing/new.txt", "w")
        with pytest.raises(IsADirectoryError):
            open("data", "w")
        with pytest.raises(FileExistsError):
            os.mkdir("data")
        os.makedirs("data", exist_ok=True)
        assert not os.access("file.txt", os.W_OK)
        assert os.statvfs("file.txt").f_flag & os.ST_RDONLY
        assert not os.statvfs("/tmp").f_flag & os.ST_RDONLY
        with open("file.txt") as file:
            assert file.read() == "text"
    assert not invocation.report.violations


def test_rename_of_a_mount_point_goes_by_the_directory_around_it() -> None:
    """C2.2: wherever the scratch directories are."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/").st_dev:
        pytest.skip("no file system of its own at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        with tmpguard.Guard(bundle=None, scratch_root=directory).invocation():
            os.listdir("/tmp")
            with pytest.raises(OSError, match="Read-only") as caught:
                os.rename("/tmp", "/tmp.bak")
            assert caught.value.errno == errno.EROFS
        assert tmpguard.drain()


def test_rename_across_mounts_is_refused_as_such(guard: tmpguard.Guard) -> None:
    """C2.2: so shutil.move copies."""
    with guard.invocation():
        with pytest.raises(OSError, match="Invalid cross-device link") as caught:
            os.rename("file.txt", "/tmp/moved.txt")
        assert caught.value.errno == errno.EXDEV
        with open("/tmp/made.txt", "w") as file:
            file.write("made")
        assert refusal(lambda: shutil.move("/tmp/made.txt", "data/made.txt")).filename == "data/made.txt"
        assert os.path.exists("/tmp/made.txt")


# --- the note (C2.4) -----------------------------------------------------------------------------------


def note_of(call: Callable[[], Any]) -> str:
    return "\n".join(refusal(call).__notes__)


@pytest.mark.parametrize(
    ("spelled", "instead"),
    [
        ("new.txt", "/tmp/new.txt"),
        ("uploads/a.txt", "/tmp/uploads/a.txt"),
        ("./data/../a.txt", "/tmp/data/a.txt"),
        ("{project}/data/a.txt", "/tmp/data/a.txt"),
        ("/usr/a.txt", "/tmp/a.txt"),
    ],
)
def test_note_says_where_to_write_instead(
    guard: tmpguard.Guard, project: Path, spelled: str, instead: str
) -> None:
    """C2.4"""
    path = spelled.format(project=project)
    (project / "uploads").mkdir()
    with guard.invocation():
        note = note_of(lambda: open(path, "w"))
        assert f"only /tmp is writable; write to {instead}" in note
        assert note == note_of(lambda: open(path.encode(), "w"))


def test_note_of_a_rename_is_about_the_target(guard: tmpguard.Guard) -> None:
    """C2.4"""
    with guard.invocation():
        note = note_of(lambda: os.rename("file.txt", "data/renamed.txt"))
        assert "write to /tmp/data/renamed.txt" in note


def test_note_tells_that_the_bundle_is_read_only(guard: tmpguard.Guard) -> None:
    """C2.4, C5.1"""
    with guard.invocation():
        note = note_of(lambda: open("/tmp/package/file.txt", "w"))
        assert "/tmp/package is the read-only bundle" in note
        assert "write to /tmp/file.txt" in note


# --- the report (C2.3) ---------------------------------------------------------------------------------


def test_violation_names_the_operation_and_this_line(guard: tmpguard.Guard) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        line = this_line() + 2
        with pytest.raises(OSError, match=READ_ONLY):
            open("new.txt", "w")
    (violation,) = invocation.report.violations
    assert (violation.operation, violation.path, violation.errno) == ("open", "new.txt", errno.EROFS)
    function = f"{test_violation_names_the_operation_and_this_line.__name__}"
    assert violation.location == (__file__, line, function)
    assert violation.library is None


OPERATIONS: dict[str, Callable[[str], Any]] = {
    "open": lambda path: open(path, "w"),
    "os.open": lambda path: os.open(path, os.O_WRONLY),
    "os.mkdir": lambda path: os.mkdir(path + "/new"),
    "os.mkfifo": lambda path: os.mkfifo(path + "/new"),
    "os.mknod": lambda path: os.mknod(path + "/new"),
    "os.unlink": os.unlink,
    "os.remove": os.remove,
    "os.rmdir": os.rmdir,
    "os.rename": lambda path: os.rename(path, path + ".bak"),
    "os.replace": lambda path: os.replace(path, path + ".bak"),
    "os.link": lambda path: os.link(path, path + ".bak"),
    "os.symlink": lambda path: os.symlink("target", path + ".bak"),
    "os.chmod": lambda path: os.chmod(path, 0o600),
    "os.chown": lambda path: os.chown(path, -1, -1),
    "os.lchown": lambda path: os.lchown(path, -1, -1),
    "os.utime": os.utime,
    "os.truncate": lambda path: os.truncate(path, 0),
    "os.setxattr": lambda path: os.setxattr(path, "user.name", b"value"),
    "os.removexattr": lambda path: os.removexattr(path, "user.name"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_goes_by_its_usual_name(guard: tmpguard.Guard, operation: str) -> None:
    """C2.3: and the file stays as it is."""
    call = OPERATIONS[operation]
    path = "data" if operation in ("os.mkdir", "os.mkfifo", "os.mknod", "os.rmdir") else "file.txt"
    with guard.invocation() as invocation:
        refusal(lambda: call(path))
        (violation,) = invocation.report.violations
        assert violation.operation == operation
        assert violation.path.startswith(path)
        assert sorted(os.listdir()) == ["data", "file.txt"]
        assert os.stat("file.txt").st_size == 4


def test_violation_names_the_library_that_made_the_call(guard: tmpguard.Guard) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        line = this_line() + 1
        refusal(lambda: shutil.copy("file.txt", "copy.txt"))
    (violation,) = invocation.report.violations
    assert violation.path == "copy.txt"
    assert violation.location is not None
    assert violation.location.file == __file__
    assert violation.location.line == line
    assert violation.library is not None
    assert violation.library.file == shutil.__file__
    assert violation.library.function == "copyfile"


def save(path: str) -> None:
    Path(path).write_text("text")


def test_location_is_the_innermost_frame_of_the_application(guard: tmpguard.Guard) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        refusal(lambda: save("new.txt"))
    (violation,) = invocation.report.violations
    lines, start = inspect.getsourcelines(save)
    assert violation.location == (__file__, start + 1, save.__name__)
    assert len(lines) == 2
    assert violation.library is not None
    assert "pathlib" in violation.library.file


def test_swallowed_refusals_are_recorded_in_their_order(guard: tmpguard.Guard) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        for name in ("first", "second"):
            with contextlib.suppress(OSError):
                os.mkdir(name)
        shutil.rmtree("data", ignore_errors=True)
        live = invocation.report.violations
    assert [(v.operation, v.path) for v in live] == [
        ("os.mkdir", "first"),
        ("os.mkdir", "second"),
        ("os.rmdir", "data"),
    ]
    assert invocation.report.violations == live
    assert os.path.isdir(guard.bundle or "")


def test_path_of_bytes_and_descriptors_is_readable_in_the_report(
    guard: tmpguard.Guard, project: Path
) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        refusal(lambda: os.mkdir(b"new"))
        refusal(lambda: os.mkdir(Path("new")))
        with open("file.txt") as file:
            refusal(lambda: os.fchmod(file.fileno(), 0o600))
    paths = [violation.path for violation in invocation.report.violations]
    assert paths == ["new", "new", f"{project}/file.txt"]


def test_allowed_work_records_nothing(guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture) -> None:
    """C2.3"""
    with guard.invocation() as invocation:
        os.makedirs("/tmp/a/b")
        shutil.copytree(".", "/tmp/copy")
        shutil.rmtree("/tmp/copy")
        with tempfile.TemporaryDirectory() as directory:
            save(f"{directory}/file.txt")
    assert not invocation.report.violations
    assert not caplog.records


# --- the logger ----------------------------------------------------------------------------------------


def test_each_violation_is_one_warning(guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture) -> None:
    """C2.3"""
    with guard.invocation():
        lines = [this_line() + 1, this_line() + 2]
        refusal(lambda: os.mkdir("first"))
        refusal(lambda: os.unlink("file.txt"))
    assert [(r.name, r.levelno) for r in caplog.records] == [("tmpguard", logging.WARNING)] * 2
    messages = [record.getMessage() for record in caplog.records]
    for message, line, words in zip(
        messages, lines, [("os.mkdir", "first"), ("os.unlink", "file.txt")], strict=True
    ):
        assert f"{__file__}:{line}" in message
        assert READ_ONLY in message
        assert all(word in message for word in words)


def test_refused_logging_handler_does_not_recurse(guard: tmpguard.Guard) -> None:
    """C2.3: a handler that writes outside /tmp is refused as well, once for each record."""
    handler = logging.FileHandler("app.log", delay=True)
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    logger = logging.getLogger("tmpguard")
    logger.addHandler(handler)
    try:
        with guard.invocation() as invocation:
            refusal(lambda: os.mkdir("new"))
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert [violation.path for violation in invocation.report.violations] == ["new", handler.baseFilename]


# --- devices, FIFOs and sockets (C1.3) -----------------------------------------------------------------


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_devices_may_be_written(guard: tmpguard.Guard, device: str) -> None:
    """C1.3"""
    with guard.invocation() as invocation:
        assert os.access(device, os.W_OK)
        for mode in ("w", "a", "r+"):
            with open(device, mode) as file:
                assert file.write("text") == 4
                assert file.name == device
        descriptor = os.open(device, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        assert os.write(descriptor, b"bytes") == 5
        os.close(descriptor)
        shutil.copyfile("file.txt", device)
    assert not invocation.report.violations


def test_standard_streams_may_be_written_by_name(tmp_path: Path) -> None:
    """C1.3: where they are pipes, as under a process manager."""
    code = """if True:
        import tmpguard
        with tmpguard.invocation(bundle=None, scratch_root=".") as invocation:
            for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
                with open(name, "w") as file:
                    print(name, file=file)
            with open("/dev/stderr", "w") as file:
                print("error", file=file)
        assert not invocation.report.violations
    """
    source = str(Path(tmpguard.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stdout.split() == ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"], child.stderr
    assert child.stderr == "error\n"


def test_fifo_outside_tmp_may_be_written(guard: tmpguard.Guard, project: Path) -> None:
    """C1.3"""
    os.mkfifo(project / "fifo")
    reader = os.open(project / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with guard.invocation() as invocation:
            with open("fifo", "w") as file:
                file.write("text")
            assert os.read(reader, 10) == b"text"
            refusal(lambda: os.unlink("fifo"))
            refusal(lambda: os.chmod("fifo", 0o600))
        assert len(invocation.report.violations) == 2
    finally:
        os.close(reader)
