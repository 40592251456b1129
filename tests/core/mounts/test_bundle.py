"""/tmp/package reads the project's files, read-only, for free; the working directory is the project (C5)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import glob
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import case
from tmpguard.core import originals


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project: a file of 3 bytes, a directory with a file, links."""
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / "a.txt").write_text("abc")
    (root / "data/b.txt").write_text("b" * 10_000)
    (root / "link.txt").symlink_to("a.txt")
    (root / "to-tmp").symlink_to("/tmp/target.txt")
    (root / "data/up.txt").symlink_to("../a.txt")
    return root


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root)


@pytest.fixture(autouse=True)
def the_process_stays_where_it_is() -> Iterator[None]:
    here = os.getcwd()
    yield
    assert os.getcwd() == here


def code_of(call: Callable[[], object]) -> str:
    """The name of the errno that ``call`` fails with."""
    with pytest.raises(OSError) as failed:  # noqa: PT011 - which one is what is asked
        call()
    assert failed.value.errno is not None
    return errno.errorcode[failed.value.errno]


# --- reading (C5.1) ------------------------------------------------------------------------------------


def test_the_project_s_files_are_read_below_tmp_package(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation():
        assert Path("/tmp/package/a.txt").read_text() == "abc"
        assert len(Path("/tmp/package/data/b.txt").read_bytes()) == 10_000
        with open("/tmp/package/a.txt", "rb") as file:
            assert file.name == "/tmp/package/a.txt"
        with open(os.open("/tmp/package/a.txt", os.O_RDONLY)) as file:
            assert file.read() == "abc"
        assert os.path.getsize("/tmp/package/a.txt") == 3
        assert os.stat("/tmp/package").st_ino == originals.stat(project).st_ino
        assert Path("/tmp/package/a.txt").samefile(project / "a.txt")


def test_its_files_are_listed_with_their_virtual_names(guard: tmpguard.Guard) -> None:
    names = ["a.txt", "data", "link.txt", "to-tmp"]
    with guard.invocation():
        assert sorted(os.listdir("/tmp/package")) == names
        assert sorted(glob.glob("/tmp/package/*")) == [f"/tmp/package/{name}" for name in names]
        assert sorted(map(str, Path("/tmp/package").rglob("*.txt"))) == [
            "/tmp/package/a.txt",
            "/tmp/package/data/b.txt",
            "/tmp/package/data/up.txt",
            "/tmp/package/link.txt",
        ]
        with os.scandir("/tmp/package") as entries:
            assert sorted(entry.path for entry in entries) == [f"/tmp/package/{name}" for name in names]


def test_a_listing_of_tmp_shows_package(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        assert "package" in os.listdir("/tmp")
        Path("/tmp/own.txt").write_text("text")
        assert {"own.txt", "package"} <= set(os.listdir("/tmp"))
        assert {"own.txt", "package"} <= {path.name for path in Path("/tmp").iterdir()}
        assert b"package" in os.listdir(b"/tmp")
        (entry,) = (entry for entry in os.scandir("/tmp") if entry.name == "package")
        assert (entry.path, entry.is_dir(), entry.is_symlink()) == ("/tmp/package", True, False)
        assert entry.stat().st_ino == os.stat("/tmp/package").st_ino
        descriptor = os.open("/tmp", os.O_RDONLY)
        assert "package" in os.listdir(descriptor)
        os.close(descriptor)


def test_a_walk_of_tmp_goes_through_package(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        found = {directory: set(files) for directory, _, files in os.walk("/tmp")}
    assert found["/tmp/package"] == {"a.txt", "link.txt", "to-tmp"}
    assert found["/tmp/package/data"] == {"b.txt", "up.txt"}


def test_package_is_a_name_like_any_other_to_resolve(guard: tmpguard.Guard, project: Path) -> None:
    """C1.2: dots, slashes, links in either direction."""
    with guard.invocation():
        assert Path("/tmp/./package//data/../a.txt").read_text() == "abc"
        assert Path("/tmp/package/data/up.txt").read_text() == "abc"
        assert Path("/tmp/package/link.txt").read_text() == "abc"
        assert os.path.realpath("/tmp/package/link.txt") == "/tmp/package/a.txt"
        assert os.path.realpath("/tmp/package/..") == "/tmp"
        os.symlink("package/a.txt", "/tmp/in")
        os.symlink("/tmp/package/data", "/tmp/directory")
        assert Path("/tmp/in").read_text() == "abc"
        assert os.listdir("/tmp/directory/..") == os.listdir("/tmp/package")
        Path("/tmp/target.txt").write_text("the invocation's")
        assert Path("/tmp/package/to-tmp").read_text() == "the invocation's"
        assert Path(f"{project}/to-tmp").read_text() == "the invocation's"


def test_what_is_not_in_the_project_is_not_there(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        assert code_of(lambda: open("/tmp/package/nowhere.txt")) == "ENOENT"
        assert code_of(lambda: os.listdir("/tmp/package/a.txt")) == "ENOTDIR"
        assert not os.path.exists("/tmp/package/nowhere.txt")
    assert invocation.report.violations == ()


def test_a_project_below_the_real_tmp_stays_readable_at_its_own_path(
    guard: tmpguard.Guard, project: Path
) -> None:
    """C1.5"""
    with guard.invocation():
        assert (project / "a.txt").read_text() == "abc"
        assert code_of(lambda: (project / "a.txt").write_text("changed")) == "EROFS"
    assert (project / "a.txt").read_text() == "abc"


# --- writing (C5.1, C2) --------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[], object]] = {
    "open": lambda: open("/tmp/package/a.txt", "w"),
    "open to append": lambda: open("/tmp/package/a.txt", "a"),
    "open to update": lambda: open("/tmp/package/a.txt", "r+"),
    "open new": lambda: open("/tmp/package/new.txt", "w"),
    "os.open": lambda: os.open("/tmp/package/a.txt", os.O_RDWR),
    "mkdir": lambda: os.mkdir("/tmp/package/new"),
    "unlink": lambda: os.unlink("/tmp/package/a.txt"),
    "rmdir": lambda: os.rmdir("/tmp/package/data"),
    "rename": lambda: os.rename("/tmp/package/a.txt", "/tmp/package/new.txt"),
    "symlink": lambda: os.symlink("a.txt", "/tmp/package/new.txt"),
    "link": lambda: os.link("/tmp/package/a.txt", "/tmp/package/new.txt"),
    "truncate": lambda: os.truncate("/tmp/package/a.txt", 0),
    "chmod": lambda: os.chmod("/tmp/package/a.txt", 0o600),
    "chmod of itself": lambda: os.chmod("/tmp/package", 0o700),
    "utime": lambda: os.utime("/tmp/package/a.txt"),
    "rmtree": lambda: shutil.rmtree("/tmp/package"),
    "through a link": lambda: open("/tmp/package/link.txt", "w"),
    "through dots": lambda: open("/tmp/new/../package/a.txt", "w"),
}


def test_changes_in_the_bundle_are_refused(guard: tmpguard.Guard, project: Path) -> None:
    def state() -> list[tuple[Any, ...]]:
        return [(path, *path.lstat()[:7]) for path in sorted([project, *project.rglob("*")])]

    before = state()
    for name, call in REFUSED.items():
        with case(name), guard.invocation() as invocation:
            os.mkdir("/tmp/new")
            assert code_of(call) == "EROFS"
            assert [violation.errno for violation in invocation.report.violations][:1] == [errno.EROFS]
    assert state() == before


def test_the_note_says_where_to_write_instead(guard: tmpguard.Guard) -> None:
    """C2.4"""
    with guard.invocation():
        with pytest.raises(OSError, match="Read-only") as refused:
            open("/tmp/package/data/b.txt", "w")
    (note,) = refused.value.__notes__
    assert "/tmp/package is the read-only bundle" in note
    assert "write to /tmp/data/b.txt" in note


#: As the kernel answers with a read-only bind mount on /tmp/package in a tmpfs.
MOUNT_POINT: dict[str, tuple[str, Callable[[], object]]] = {
    "rmdir": ("EBUSY", lambda: os.rmdir("/tmp/package")),
    "rmdir with a slash": ("EBUSY", lambda: os.rmdir("/tmp/package/")),
    "unlink": ("EISDIR", lambda: os.unlink("/tmp/package")),
    "rename": ("EBUSY", lambda: os.rename("/tmp/package", "/tmp/other")),
    "rename to an empty directory": ("EBUSY", lambda: os.rename("/tmp/package", "/tmp/directory")),
    "rename of a directory to it": ("EBUSY", lambda: os.rename("/tmp/directory", "/tmp/package")),
    "rename of a file to it": ("EISDIR", lambda: os.rename("/tmp/file", "/tmp/package")),
    "rename to a file": ("ENOTDIR", lambda: os.rename("/tmp/package", "/tmp/file")),
    "rename into it": ("EXDEV", lambda: os.rename("/tmp/file", "/tmp/package/file")),
    "rename out of it": ("EXDEV", lambda: os.rename("/tmp/package/a.txt", "/tmp/a.txt")),
    "mkdir": ("EEXIST", lambda: os.mkdir("/tmp/package")),
    "mkfifo": ("EEXIST", lambda: os.mkfifo("/tmp/package")),
    "symlink": ("EEXIST", lambda: os.symlink("x", "/tmp/package")),
    "link to it": ("EEXIST", lambda: os.link("/tmp/file", "/tmp/package")),
    "link into it": ("EROFS", lambda: os.link("/tmp/file", "/tmp/package/file")),
    "link out of it": ("EXDEV", lambda: os.link("/tmp/package/a.txt", "/tmp/a.txt")),
    "open": ("EISDIR", lambda: open("/tmp/package", "w")),
}


def test_the_mount_point_itself_stays(guard: tmpguard.Guard, project: Path) -> None:
    for name, (code, call) in MOUNT_POINT.items():
        with case(name), guard.invocation():
            os.mkdir("/tmp/directory")
            Path("/tmp/file").write_text("text")
            assert code_of(call) == code
            assert Path("/tmp/package/a.txt").read_text() == "abc"
            assert Path("/tmp/file").read_text() == "text"
    assert (project / "a.txt").read_text() == "abc"


def test_access_and_statvfs_tell_that_it_is_read_only(guard: tmpguard.Guard) -> None:
    """C2.2"""
    with guard.invocation():
        assert not os.access("/tmp/package", os.W_OK)
        assert not os.access("/tmp/package/a.txt", os.W_OK)
        assert os.access("/tmp/package/a.txt", os.R_OK)
        assert os.statvfs("/tmp/package").f_flag & os.ST_RDONLY
        assert not os.statvfs("/tmp").f_flag & os.ST_RDONLY


# --- for free ------------------------------------------------------------------------------------------


def test_the_bundle_is_not_charged_to_the_quota(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation() as invocation:
        os.listdir("/tmp")
        Path("/tmp/package/data/b.txt").read_bytes()
        assert (invocation.report.used_bytes, invocation.report.files) == (0, 0)
        assert shutil.disk_usage("/tmp").used == 0
        shutil.copy("/tmp/package/data/b.txt", "/tmp/b.txt")
        assert (invocation.report.used_bytes, invocation.report.files) == (12_288, 1)
    assert (invocation.report.used_bytes, invocation.report.files) == (12_288, 1)


def test_the_bundle_does_not_count_as_files(project: Path, scratch_root: Path) -> None:
    """C3.6"""
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, max_files=1)
    with guard.invocation():
        os.listdir("/tmp")
        Path("/tmp/one").write_text("")
        assert code_of(lambda: open("/tmp/two", "w")) == "ENOSPC"


def test_the_project_is_untouched_by_the_wipe(guard: tmpguard.Guard, project: Path) -> None:
    """C4.2"""
    with guard.invocation():
        os.listdir("/tmp")
        os.symlink("package", "/tmp/link")
    assert (project / "data/b.txt").stat().st_size == 10_000


def test_without_a_bundle_package_is_a_name_as_any_other(scratch_root: Path) -> None:
    with tmpguard.invocation(bundle=None, scratch_root=scratch_root):
        assert not os.path.exists("/tmp/package")
        assert "package" not in os.listdir("/tmp")
        os.mkdir("/tmp/package")
        Path("/tmp/package/file.txt").write_text("text")
        shutil.rmtree("/tmp/package")


def test_the_bundle_is_the_working_directory_where_none_is_given(
    project: Path, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(project)
        guard = tmpguard.Guard(scratch_root=scratch_root)
    with guard.invocation():
        assert Path("/tmp/package/a.txt").read_text() == "abc"


# --- the working directory (C5.3) ----------------------------------------------------------------------


def test_the_working_directory_is_the_project(guard: tmpguard.Guard, project: Path) -> None:
    outside = os.getcwd()
    with guard.invocation():
        assert os.getcwd() == str(project)
        assert os.getcwdb() == os.fsencode(project)
        assert Path.cwd() == project
        assert Path("a.txt").read_text() == "abc"
        assert os.path.abspath("a.txt") == f"{project}/a.txt"
        assert code_of(lambda: open("new.txt", "w")) == "EROFS"
    assert os.getcwd() == outside


def test_chdir_lasts_for_one_invocation(guard: tmpguard.Guard, project: Path) -> None:
    outside = originals.getcwd()
    with guard.invocation():
        os.mkdir("/tmp/work")
        os.chdir("/tmp/work")
        assert os.getcwd() == "/tmp/work"
        Path("relative.txt").write_text("text")
        assert os.listdir() == os.listdir(".") == ["relative.txt"]
        assert os.path.realpath("relative.txt") == "/tmp/work/relative.txt"
        os.chdir("..")
        assert os.getcwd() == "/tmp"
        assert originals.getcwd() == outside
    with guard.invocation():
        assert os.getcwd() == str(project)


def test_requests_begin_where_the_start_up_went(
    guard: tmpguard.Guard, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "data")
    with guard.invocation():
        assert os.getcwd() == f"{project}/data"
        assert Path("b.txt").stat().st_size == 10_000
        os.chdir("/tmp")
    with guard.invocation():
        assert os.getcwd() == f"{project}/data"
    monkeypatch.undo()
    with guard.invocation():
        assert os.getcwd() == str(project)


def test_requests_begin_where_the_guarded_start_up_went(
    guard: tmpguard.Guard, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpguard.cold_start(guard=guard):
        os.chdir("data")
        assert os.getcwd() == f"{project}/data"
    with guard.invocation():
        assert os.getcwd() == f"{project}/data"
        assert Path("b.txt").stat().st_size == 10_000
    descriptor = os.open(project, os.O_RDONLY)
    with tmpguard.cold_start(guard=guard):
        os.fchdir(descriptor)
    os.close(descriptor)
    with guard.invocation():
        assert os.getcwd() == str(project)
    monkeypatch.chdir(project / "data")  # start-up code that is not guarded, later
    with guard.invocation():
        assert os.getcwd() == f"{project}/data"


def test_a_working_directory_that_is_gone_is_enoent_without_a_project(
    scratch_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    gone.rmdir()
    with guard.invocation():
        assert code_of(os.getcwd) == code_of(lambda: open("x")) == "ENOENT"
        os.chdir("/tmp")
        assert os.getcwd() == "/tmp"


def test_chdir_goes_wherever_a_path_leads(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation():
        os.chdir("/tmp/package/data")
        assert os.getcwd() == "/tmp/package/data"
        assert len(Path("b.txt").read_bytes()) == 10_000
        os.symlink("/etc", "/tmp/link")
        os.chdir("/tmp/link")
        assert os.getcwd() == os.path.realpath("/etc")
        os.chdir(b"/tmp")
        assert os.getcwd() == "/tmp"
        descriptor = os.open("/tmp/package/data", os.O_RDONLY | os.O_DIRECTORY)
        os.fchdir(descriptor)
        assert os.listdir(".") == os.listdir(project / "data")
        os.chdir("/")
        os.chdir(descriptor)
        assert os.listdir(".") == os.listdir(project / "data")
        os.close(descriptor)


def test_descriptors_of_its_files_bear_the_names_that_they_were_opened_by(
    guard: tmpguard.Guard, project: Path
) -> None:
    """C7.1: also where the same number is another one's later."""

    def shown(descriptor: int) -> str:
        names = {os.readlink(f"/{place}/{descriptor}") for place in ("proc/self/fd", "dev/fd")}
        names.add(os.path.realpath(f"/proc/{os.getpid()}/fd/{descriptor}"))
        (name,) = names
        return name

    with guard.invocation():
        for _ in range(2):
            for name in ("/tmp/package/a.txt", str(project / "a.txt")):
                with open(name) as file:
                    assert shown(file.fileno()) == name
                with io.FileIO(name) as raw:
                    assert shown(raw.fileno()) == name
                descriptor = os.open(name, os.O_RDONLY)
                assert shown(descriptor) == name
                os.close(descriptor)
        directory = os.open("/tmp/package/data/", os.O_RDONLY)
        descriptor = os.open("b.txt", os.O_RDONLY, dir_fd=directory)
        assert shown(descriptor) == "/tmp/package/data/b.txt"
        os.close(descriptor)
        descriptor = os.open("../..", os.O_RDONLY, dir_fd=directory)
        assert shown(descriptor) == "/tmp"
        assert "package" in os.listdir(descriptor)
        os.close(descriptor)
        os.fchdir(directory)
        assert os.getcwd() == "/tmp/package/data"
        os.close(directory)
        os.chdir("..")
        with open("a.txt") as file:
            assert shown(file.fileno()) == "/tmp/package/a.txt"
        os.chdir("..")
        assert os.getcwd() == "/tmp"


def test_chdir_that_fails_stays_where_it_is(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation():
        assert code_of(lambda: os.chdir("/tmp/nowhere")) == "ENOENT"
        assert code_of(lambda: os.chdir("a.txt")) == "ENOTDIR"
        assert os.getcwd() == str(project)


def test_a_working_directory_that_was_removed_is_gone(guard: tmpguard.Guard) -> None:
    """As the kernel says: getcwd fails, and so does all that is relative."""
    with guard.invocation():
        os.mkdir("/tmp/work")
        os.chdir("/tmp/work")
        os.rmdir("/tmp/work")
        assert code_of(os.getcwd) == "ENOENT"
        assert code_of(lambda: open("file.txt", "w")) == "ENOENT"
        os.chdir("/tmp")


def test_contextlib_chdir_works_and_returns(guard: tmpguard.Guard, project: Path) -> None:

    with guard.invocation():
        with contextlib.chdir("/tmp"):
            Path("file.txt").write_text("text")
        assert os.getcwd() == str(project)
        assert Path("/tmp/file.txt").exists()


def test_invocations_at_the_same_time_have_working_directories_of_their_own(
    guard: tmpguard.Guard, project: Path
) -> None:
    async def work(number: int, turns: list[int], turned: asyncio.Event) -> str:
        with guard.invocation():
            os.mkdir(f"/tmp/{number}")
            os.chdir(f"/tmp/{number}")
            turns.append(number)
            if len(turns) == 3:
                turned.set()
            await turned.wait()
            return os.getcwd()

    async def main() -> list[str]:
        turned = asyncio.Event()
        turns: list[int] = []
        return await asyncio.gather(*(work(number, turns, turned) for number in range(3)))

    assert asyncio.run(main()) == ["/tmp/0", "/tmp/1", "/tmp/2"]


def test_a_thread_shares_the_working_directory_of_its_invocation(guard: tmpguard.Guard) -> None:
    """C6.2: as threads of one process do."""
    seen: list[str] = []
    with guard.invocation():
        os.chdir("/tmp")
        thread = threading.Thread(target=lambda: (seen.append(os.getcwd()), os.chdir("/etc")))
        thread.start()
        thread.join()
        assert seen == ["/tmp"]
        assert os.getcwd() == "/etc"


# --- platforms without /tmp/package (C5.1) -------------------------------------------------------------


@pytest.mark.parametrize("platform", ["aws-lambda", "oci-functions", "vercel", "none"])
def test_a_platform_without_it_has_an_empty_tmp_that_can_be_cleaned(
    platform: str, project: Path, scratch_root: Path
) -> None:
    guard = tmpguard.Guard(platform=platform, bundle=project, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert os.listdir("/tmp") == []
        assert not os.path.lexists("/tmp/package")
        os.makedirs("/tmp/package/work")
        Path("/tmp/package/a.txt").write_text("its own")
        assert sorted(os.listdir("/tmp/package")) == ["a.txt", "work"]
        for entry in Path("/tmp").iterdir():
            shutil.rmtree(entry)
        assert os.listdir("/tmp") == []
        assert os.getcwd() == str(project)
        assert Path("a.txt").read_text() == "abc"
    assert not invocation.report.violations


def test_without_it_the_ignored_files_are_absent_from_the_project_only(
    project: Path, scratch_root: Path
) -> None:
    (project / ".genezioignore").write_text("a.txt\n")
    guard = tmpguard.Guard(platform="vercel", bundle=project, scratch_root=scratch_root)
    with guard.invocation():
        assert not os.path.exists("a.txt")
        os.mkdir("/tmp/package")
        Path("/tmp/package/a.txt").write_text("its own")
        os.symlink(project / "data/b.txt", "/tmp/package/link")
        assert Path("/tmp/package/a.txt").read_text() == "its own"
        assert len(Path("/tmp/package/link").read_bytes()) == 10_000
        assert sorted(os.listdir("/tmp/package")) == ["a.txt", "link"]
