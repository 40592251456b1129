"""After an invocation nothing of it is left, whatever it left behind; nothing else is touched (C4.2)."""

from __future__ import annotations

import inspect
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import run_unprivileged
from tmpguard.core import originals

NAMES = [
    "new\nline",
    "tab\tand space ",
    " ",
    "-rf",
    "...",
    "~",
    "*",
    "'\"\\",
    "\udcff\udc80",
    "ünïcödé",
    "n" * 255,
    "tmpguard-0",
    "tmpguard-1",
]


def touch(path: str) -> None:
    with open(path, "w") as file:
        file.write("text")


# --- what an application may leave ---------------------------------------------------------------------


def leave_files() -> None:
    for number in range(20):
        touch(f"/tmp/{number}")


def leave_five_thousand_files() -> None:
    for number in range(5_000):
        os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))


def leave_directories_without_any_rights() -> None:
    for path in ("/tmp/empty", "/tmp/full/inner/inmost"):
        os.makedirs(path)
    touch("/tmp/full/inner/file.txt")
    touch("/tmp/full/inner/inmost/file.txt")
    for path in ("/tmp/full/inner/inmost", "/tmp/full/inner", "/tmp/full", "/tmp/empty"):
        os.chmod(path, 0)


def leave_files_without_any_rights() -> None:
    touch("/tmp/file.txt")
    os.chmod("/tmp/file.txt", 0)


def leave_a_tmp_without_any_rights() -> None:
    os.mkdir("/tmp/directory")
    touch("/tmp/file.txt")
    os.chmod("/tmp", 0)


def leave_every_mode() -> None:
    for mode in range(0, 0o1000, 0o111):
        os.makedirs(f"/tmp/{mode:o}/inner")
        touch(f"/tmp/{mode:o}/inner/file.txt")
        os.chmod(f"/tmp/{mode:o}/inner", mode | 0o6000)
        os.chmod(f"/tmp/{mode:o}", mode | 0o1000)


def leave_three_hundred_levels() -> None:
    os.makedirs("/tmp/" + "/".join(["d"] * 300))
    touch("/tmp/" + "d/" * 300 + "file.txt")


def leave_wide_and_deep() -> None:
    for number in range(5):
        os.makedirs(f"/tmp/{number}" + "/d/e" * 20)
        touch(f"/tmp/{number}/d/e/file.txt")


def leave_links_that_lead_out() -> None:
    os.symlink("/etc", "/tmp/etc")
    os.symlink("/etc/passwd", "/tmp/passwd")
    os.symlink("..", "/tmp/up")
    os.symlink("../..", "/tmp/further-up")
    os.symlink("/", "/tmp/root")
    os.symlink("/tmp", "/tmp/self")
    os.symlink("loop", "/tmp/loop")
    os.symlink("nowhere", "/tmp/dangling")
    os.makedirs("/tmp/directory")
    os.symlink("../..", "/tmp/directory/up")
    os.symlink(".", "/tmp/directory/here")


def leave_hard_links() -> None:
    touch("/tmp/file.txt")
    os.mkdir("/tmp/directory")
    for number in range(10):
        os.link("/tmp/file.txt", f"/tmp/directory/{number}")


def leave_fifos() -> None:
    os.mkfifo("/tmp/fifo")
    os.mkdir("/tmp/directory")
    os.mkfifo("/tmp/directory/fifo", 0)


def leave_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("/tmp/socket")


def leave_odd_names() -> None:
    for name in NAMES:
        os.mkdir(f"/tmp/{name}")
        for inner in NAMES:
            touch(f"/tmp/{name}/{inner}")


def leave_names_of_our_own() -> None:
    for number in range(4):
        os.makedirs(f"/tmp/tmpguard-{number}/tmpguard-{number}/tmpguard-0")
        touch(f"/tmp/tmpguard-{number}/tmpguard-9")


def leave_the_working_directory_inside() -> None:
    os.makedirs("/tmp/a/b")
    os.chdir("/tmp/a/b")
    touch("file.txt")


LEAVE = [
    leave_files,
    leave_directories_without_any_rights,
    leave_files_without_any_rights,
    leave_a_tmp_without_any_rights,
    leave_every_mode,
    leave_three_hundred_levels,
    leave_wide_and_deep,
    leave_links_that_lead_out,
    leave_hard_links,
    leave_fifos,
    leave_sockets,
    leave_odd_names,
    leave_names_of_our_own,
    leave_the_working_directory_inside,
]


# --- and what is around it -----------------------------------------------------------------------------


def state_of(path: Path) -> tuple[Any, ...]:
    """All that a wipe which goes astray would change."""
    status = os.lstat(path)
    inside = sorted(os.listdir(path)) if path.is_dir() else path.read_bytes()
    return (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns, inside)


@pytest.fixture
def bystanders(scratch_root: Path) -> Iterator[None]:
    """Files beside and above the scratch directories, and those that the links lead to: all stay."""
    beside = scratch_root / "beside"
    (beside / "inner").mkdir(parents=True)
    (beside / "file.txt").write_text("beside")
    above = scratch_root.parent / "above.txt"
    above.write_text("above")
    above.chmod(0o440)
    paths = [beside, beside / "inner", beside / "file.txt", above, scratch_root.parent]
    paths += [Path("/etc"), Path("/etc/passwd")]
    before = [state_of(path) for path in paths]
    yield
    assert [state_of(path) for path in paths] == before


def end_in_the_block(guard: tmpguard.Guard, leave: Callable[[], None]) -> None:
    with guard.invocation():
        leave()


def end_in_the_background(guard: tmpguard.Guard, leave: Callable[[], None]) -> None:
    invocation = guard.invocation()
    with invocation.bound():
        leave()
    invocation.end()
    assert tmpguard.drain(timeout=60)


ENDS = [end_in_the_block, end_in_the_background]


def own_entries(scratch_root: Path) -> list[str]:
    """What invocations left below the scratch root."""
    return [f"{path}" for path in scratch_root.glob("tmpguard-*/*")]


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usefixtures("bystanders")
def test_nothing_is_left_whatever_was_left_behind(
    end: Callable[..., None], leave: Callable[[], None], guard: tmpguard.Guard, scratch_root: Path
) -> None:
    end(guard, leave)
    assert own_entries(scratch_root) == []


def test_five_thousand_files_are_wiped(guard: tmpguard.Guard, scratch_root: Path) -> None:
    end_in_the_background(guard, leave_five_thousand_files)
    assert own_entries(scratch_root) == []


def test_nothing_is_left_without_root_s_rights_either(public_root: Path) -> None:
    """Root sees no modes, so directories without rights are only a hurdle for everybody else."""
    leave = [
        leave_directories_without_any_rights,
        leave_files_without_any_rights,
        leave_a_tmp_without_any_rights,
        leave_every_mode,
        leave_links_that_lead_out,
        leave_names_of_our_own,
    ]
    code = f"""
sys.path.insert(0, "tests")
{_source(leave)}
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
for leave in {[function.__name__ for function in leave]}:
    with guard.invocation() as invocation:
        globals()[leave]()
    assert invocation.report.violations == (), (leave, invocation.report.violations)
    assert os.listdir(sys.argv[1]) == [], (leave, list(os.walk(sys.argv[1])))
    invocation = guard.invocation()
    with invocation.bound():
        globals()[leave]()
    invocation.end()
    assert tmpguard.drain(60)
    assert not list(pathlib.Path(sys.argv[1]).glob("*/*")), (leave, list(os.walk(sys.argv[1])))
print("done")
"""
    assert run_unprivileged(code, public_root) == "done\n"


WHOLE = """
import os, sys
from tmpguard.core.storage.wipe import wipe

root = os.open(sys.argv[1], os.O_RDONLY)
for mode in range(0, 0o1000, 0o100):
    for path in ("top", "top/inner", "top/inner/deep", "top/empty"):
        os.mkdir(path, dir_fd=root)
    os.chmod("top/inner", mode, dir_fd=root)
    os.chmod("top", mode, dir_fd=root)
    wipe(root, "top")
    assert os.listdir(root) == [], oct(mode)
print("done")
"""


def test_a_directory_of_any_mode_is_wiped_without_root_s_rights(public_root: Path) -> None:
    assert run_unprivileged(WHOLE, public_root, imported="tmpguard.core.storage.wipe") == "done\n"


def _source(functions: list[Callable[[], None]]) -> str:
    """The source of these functions, for an interpreter that may read no modules of the tests."""
    return "\n\n".join(inspect.getsource(function) for function in [touch, *functions])


@contextmanager
def scratch_of(guard: tmpguard.Guard) -> Iterator[str]:
    """An invocation, and the real directory behind its /tmp."""
    with guard.invocation():
        touch("/tmp/first.txt")
        descriptor = os.open("/tmp", os.O_RDONLY)
        yield originals.readlink(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)


@pytest.mark.usefixtures("bystanders")
def test_three_thousand_levels_are_wiped(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """Deeper than any path can name: made by descriptors, as native code could."""
    with scratch_of(guard) as real:
        descriptor = originals.os_open(real, os.O_RDONLY)
        for _ in range(3_000):
            originals.mkdir("directory", dir_fd=descriptor)
            inner = originals.os_open("directory", os.O_RDONLY, dir_fd=descriptor)
            originals.close(descriptor)
            descriptor = inner
        originals.close(descriptor)
    assert own_entries(scratch_root) == []


def test_hard_links_to_files_outside_take_nothing_with_them(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """The name goes; the file that native code linked in from elsewhere keeps its content and mode."""
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    outside.chmod(0o640)
    with scratch_of(guard) as real:
        originals.link(outside, f"{real}/linked.txt")
        assert originals.stat(outside).st_nlink == 2
    assert state_of(outside)[0] & 0o7777 == 0o640
    assert outside.read_text() == "outside"
    assert outside.stat().st_nlink == 1


def test_links_made_by_native_code_are_not_followed(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """Also those in place of a directory, and with directories' names of tmpguard's own."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "file.txt").write_text("outside")
    (outside / "inner").chmod(0)
    before = state_of(outside)
    with scratch_of(guard) as real:
        originals.mkdir(f"{real}/directory")
        for name in ("link", "tmpguard-0", "directory/link", "directory/tmpguard-0"):
            originals.symlink(outside, f"{real}/{name}")
    assert state_of(outside) == before
    assert (outside / "inner").stat().st_mode & 0o7777 == 0


@pytest.mark.usefixtures("bystanders")
def test_open_handles_do_not_keep_anything(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C3.2, C4.5"""
    with guard.invocation():
        os.mkdir("/tmp/directory")
        files = [open(f"/tmp/{mode}.txt", mode) for mode in ("w", "wb", "x", "a+", "w+b")]
        files.append(tempfile.TemporaryFile())
        descriptors = [
            os.open("/tmp/descriptor", os.O_CREAT | os.O_RDWR),
            os.open("/tmp/directory", os.O_RDONLY),
        ]
        listing = os.scandir("/tmp")
        next(listing)
    assert own_entries(scratch_root) == []
    for file in files:
        file.close()
    for descriptor in descriptors:
        os.close(descriptor)
    listing.close()


def test_a_fifo_is_wiped_without_being_opened(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """To open one would wait for the other end."""
    with guard.invocation() as invocation:
        os.mkfifo("/tmp/fifo")
        assert (invocation.report.used_bytes, invocation.report.files) == (0, 1)
    assert own_entries(scratch_root) == []
    assert (invocation.report.used_bytes, invocation.report.files) == (0, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_node_is_wiped_without_being_opened(guard: tmpguard.Guard, scratch_root: Path) -> None:
    with guard.invocation():
        try:
            os.mknod("/tmp/null", 0o20666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("this root may not make device nodes")
    assert own_entries(scratch_root) == []


def test_the_report_tells_what_was_left(guard: tmpguard.Guard) -> None:
    """Of directories without rights, links and hard links too."""
    with guard.invocation() as invocation:
        os.makedirs("/tmp/a/b")
        Path("/tmp/a/b/file.txt").write_bytes(b"x" * 4097)
        os.link("/tmp/a/b/file.txt", "/tmp/a/again.txt")
        os.symlink("/etc/passwd", "/tmp/a/link")
        os.chmod("/tmp/a/b", 0)
    assert (invocation.report.used_bytes, invocation.report.files) == (8192, 5)


def test_the_real_tmp_is_as_it_was(guard: tmpguard.Guard) -> None:
    names = [f"tmpguard-test-{os.getpid()}-{number}" for number in range(3)]
    with guard.invocation():
        touch(f"/tmp/{names[0]}")
        os.mkdir(f"/tmp/{names[1]}")
        os.symlink("x", f"/tmp/{names[2]}")
    assert not set(names) & set(os.listdir("/tmp"))
