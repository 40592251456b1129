"""What a guard knows of the read-only rest: it outlives requests, and every way in which it becomes wrong
(C1.2; DESIGN, decision 9)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.context import unguarded
from tmpguard.core.mounts import known
from tmpguard.core.mounts.known import Known
from tmpguard.interpose.entries import look
from tmpguard.interpose.wrapper import quick


@pytest.fixture
def project() -> Iterator[Path]:
    """A project that is not below ``/tmp``, with a directory and another one to take its place."""
    root = Path(os.path.realpath(tempfile.mkdtemp(prefix="project-", dir="/var/tmp")))
    for name in ("current", "next"):
        (root / name / "deeper").mkdir(parents=True)
        (root / name / "deeper" / "file.txt").write_text(name)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root)


@pytest.fixture(autouse=True)
def without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing expires by itself."""
    monkeypatch.setattr(known, "SECONDS", 1e9)
    known.forget()


@contextmanager
def looked_at() -> Iterator[set[str]]:
    """The paths of which the walk asks the disk in the block."""
    paths: set[str] = set()

    def lstat(path: str) -> os.stat_result:
        paths.add(path)
        return original(path)

    original = originals.lstat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "lstat", lstat)
        yield paths


def read(path: str | Path) -> str:
    with open(path) as file:
        return file.read()


def by_symlink(path: Path, target: str) -> None:
    shutil.rmtree(path)
    os.symlink(target, path)


def by_pathlib(path: Path, target: str) -> None:
    shutil.rmtree(path)
    path.symlink_to(target)


def _moved_away(path: Path, target: str) -> Path:
    new = path.with_name("link")
    originals.symlink(target, new)
    originals.rename(path, path.with_name("old"))
    return new


def by_rename(path: Path, target: str) -> None:
    os.rename(_moved_away(path, target), path)


def by_replace(path: Path, target: str) -> None:
    os.replace(_moved_away(path, target), path)


def by_move(path: Path, target: str) -> None:
    shutil.move(_moved_away(path, target), path)


def by_link(path: Path, target: str) -> None:
    os.link(_moved_away(path, target), path, follow_symlinks=False)


OWN = [by_symlink, by_pathlib, by_rename, by_replace, by_move, by_link]


# --- it outlives requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_a_new_invocation_walks_no_path_that_another_one_has_walked(
    guard: tmpguard.Guard, project: Path, relative: bool
) -> None:
    path = "current/deeper/file.txt" if relative else str(project / "current/deeper/file.txt")
    with guard.invocation():
        assert read(path) == "current"
    with looked_at() as paths, guard.invocation():
        assert read(path) == "current"
        assert os.stat(path).st_size == 7
        assert os.path.exists(path)
    assert paths == set()


def test_a_path_beside_a_known_one_is_looked_at_alone(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation():
        read(project / "current/deeper/file.txt")
    with looked_at() as paths, guard.invocation():
        assert not os.path.exists(f"{project}/current/deeper/other.txt")
        assert os.listdir(f"{project}/current/deeper") == ["file.txt"]
    assert paths <= {f"{project}/current/deeper/other.txt"}


def test_entries_of_the_root_directory_are_known_too(guard: tmpguard.Guard, project: Path) -> None:
    """os.path.realpath looks at each component of a path."""
    path = str(project / "current/deeper/file.txt")
    with guard.invocation():
        assert os.path.realpath(path) == path
    with looked_at() as paths, guard.invocation():
        assert os.path.realpath(path) == path
    assert paths == set()


def test_tmp_is_the_invocation_s_own_among_the_entries_of_the_root_directory(guard: tmpguard.Guard) -> None:
    theirs = os.stat("/tmp").st_ino
    for _ in range(2):
        with guard.invocation():
            assert os.stat("/").st_ino == originals.stat("/").st_ino
            assert theirs not in (os.stat("/tmp").st_ino, os.lstat("/tmp").st_ino)
            assert os.listdir("/tmp") == ["package"]


def test_what_is_missing_is_found_as_soon_as_it_is_there(guard: tmpguard.Guard, project: Path) -> None:
    path = project / "current/deeper/new.txt"
    with guard.invocation():
        for _ in range(2):
            assert not os.path.exists(str(path))
            with pytest.raises(FileNotFoundError) as caught:
                open(str(path))
            assert caught.value.filename == str(path)
    path.write_text("new")
    with guard.invocation():
        assert read(str(path)) == "new"
    path.unlink()
    with guard.invocation():
        assert not os.path.exists(str(path))


def test_the_status_of_what_is_no_link_takes_one_system_call(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard, project: Path
) -> None:
    calls: list[object] = []
    for name, original in (("_stat", originals.stat), ("_lstat", originals.lstat)):
        monkeypatch.setattr(look, name, counting(original, calls))
    stat = quick(counting(originals.stat, calls), look._quick_stat, "os.stat")
    paths = ["current/deeper/file.txt", f"{project}/current/deeper/missing", f"{project}/current/deeper"]
    with guard.invocation():
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                stat(path)
        for path in paths:
            calls.clear()
            with contextlib.suppress(FileNotFoundError):
                stat(path)
            assert len(calls) == 1


def counting(call: Callable[..., os.stat_result], calls: list[object]) -> Callable[..., os.stat_result]:
    @functools.wraps(call)  # quick() gives the name to the function that is called within an invocation
    def counted(path: object, **options: object) -> os.stat_result:
        calls.append(path)
        return call(path, **options)

    return counted


def test_a_guard_remembers_a_limited_number_of_paths(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard, project: Path
) -> None:
    monkeypatch.setattr(known, "MOST_CACHED", 20)
    for number in range(50):
        (project / f"directory-{number}").mkdir()
    long = "x" * 250
    (project / long).mkdir()
    with guard.invocation():
        for number in range(50):
            os.path.exists(f"{project}/directory-{number}/file")
        os.path.exists(f"{project}/{long}/{long}")
        for _ in os.walk(project):
            pass
    remembered = guard.mounts.known
    assert 0 < len(remembered.paths) <= 20
    assert 0 < len(remembered.directories) <= 20
    assert not [path for path in remembered.paths if len(path) > known.LONGEST]


def test_a_guard_of_its_own_knows_nothing_of_anothers_bundle(project: Path, scratch_root: Path) -> None:
    (project / ".genezioignore").write_text("current/\n")
    options = {"bundle": project, "scratch_root": scratch_root}
    seeing, missing = tmpguard.Guard(**options, ignore=None), tmpguard.Guard(**options)
    path = str(project / "current/deeper/file.txt")
    for _ in range(2):
        with seeing.invocation():
            assert read(path) == "current"
        with missing.invocation():
            assert not os.path.exists(path)
            assert os.listdir(str(project / "next/deeper")) == ["file.txt"]
            assert "current" not in os.listdir(str(project))


# --- how it becomes wrong --------------------------------------------------------------------------------


@pytest.fixture
def used(guard: tmpguard.Guard, project: Path) -> tmpguard.Guard:
    """``guard`` after requests that used what is about to change, in each way to use it."""
    for _ in range(2):
        with guard.invocation():
            assert seen(project) == ["current", "current", "current", ["file.txt"], True, False]
    return guard


def seen(project: Path) -> list[object]:
    """What an invocation sees of ``current``, in each way to look."""
    path = f"{project}/current/deeper"
    return [
        read(f"{path}/file.txt"),
        read("current/deeper/file.txt"),
        read(Path(path, "file.txt")),
        os.listdir(path),
        os.path.isfile(f"{path}/file.txt"),
        os.path.islink(f"{project}/current"),
    ]


def make_mine() -> None:
    os.makedirs("/tmp/mine/deeper")
    with open("/tmp/mine/deeper/file.txt", "w") as file:
        file.write("mine")


MINE = ["mine", "mine", "mine", ["file.txt"], True, True]


@pytest.mark.parametrize("change", OWN)
def test_the_process_own_change_is_seen_at_once(
    used: tmpguard.Guard, project: Path, change: Callable[[Path, str], None]
) -> None:
    change(project / "current", "/tmp/mine")
    with used.invocation():
        make_mine()
        assert seen(project) == MINE


@pytest.mark.parametrize("change", OWN)
def test_a_change_by_another_thread_is_seen_by_a_running_invocation(
    used: tmpguard.Guard, project: Path, change: Callable[[Path, str], None]
) -> None:
    with used.invocation():
        make_mine()
        assert seen(project)[0] == "current"
        with unguarded():
            change(project / "current", "/tmp/mine")
        assert seen(project) == MINE


def test_another_process_change_is_seen_when_what_is_known_expires(
    used: tmpguard.Guard, project: Path
) -> None:
    script = "import os; os.rename('current', 'old'); os.symlink('/tmp/mine', 'current')"
    subprocess.run([sys.executable, "-c", script], cwd=project, check=True)
    with used.invocation():
        make_mine()
        used.mounts.known.expires = time.monotonic()
        assert seen(project) == MINE


def test_what_is_known_expires_after_a_second(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard, project: Path
) -> None:
    monkeypatch.undo()
    assert known.SECONDS == 1
    begin = time.monotonic()
    known.forget()
    made = guard.mounts.fresh()
    assert begin - 1e-6 <= made.expires - 1 <= time.monotonic()
    monkeypatch.setattr(known, "monotonic", lambda: made.expires)
    assert guard.mounts.fresh() is not made


def test_a_link_in_the_place_of_a_file_is_followed(used: tmpguard.Guard, project: Path) -> None:
    path = project / "current/deeper/file.txt"
    path.unlink()
    os.symlink("/tmp/mine/deeper/file.txt", path)
    with used.invocation():
        make_mine()
        assert read(str(path)) == "mine"
        assert os.stat(str(path)).st_size == 4
        assert os.path.islink(str(path))


def test_a_link_where_nothing_was_is_followed(guard: tmpguard.Guard, project: Path) -> None:
    path = str(project / "current/deeper/new.txt")
    with guard.invocation():
        assert not os.path.exists(path)
    os.symlink("/tmp/mine/deeper/file.txt", path)
    with guard.invocation():
        make_mine()
        assert read(path) == "mine"


def test_the_working_directory_s_own_path_is_looked_at_too(used: tmpguard.Guard, project: Path) -> None:
    """A relative path tells nothing of absolute ones below a directory that is a link by now."""
    os.rename(project, f"{project}-old")
    os.symlink("/tmp/mine", project)
    try:
        with used.invocation():
            os.makedirs("/tmp/mine/current/deeper")
            with open("/tmp/mine/current/deeper/file.txt", "w") as file:
                file.write("mine")
            for _ in range(2):
                assert not os.path.exists("current/deeper/file.txt")
                assert read(f"{project}/current/deeper/file.txt") == "mine"
    finally:
        originals.unlink(project)
        originals.rename(f"{project}-old", project)


def test_a_directory_that_is_swapped_while_it_is_walked_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard, project: Path
) -> None:
    """Between the look at the directory and the note of it another thread puts a link there."""
    original, path = originals.lstat, str(project / "current")

    def lstat(asked: str) -> os.stat_result:
        status = original(asked)
        if asked == path and not project.joinpath("old").exists():
            with unguarded():
                by_rename(project / "current", "/tmp/mine")
        return status

    with guard.invocation():
        make_mine()
        with monkeypatch.context() as patch:
            patch.setattr(originals, "lstat", lstat)
            os.path.exists(f"{path}/deeper/file.txt")
        assert project.joinpath("old").exists()
        assert seen(project) == MINE


def test_a_listing_that_is_overtaken_by_a_change_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard, project: Path
) -> None:
    original = originals.scandir

    def scandir(asked: str) -> object:
        entries = list(original(asked))
        if asked == str(project) and not project.joinpath("old").exists():
            with unguarded():
                by_rename(project / "current", "/tmp/mine")
        return _Entries(entries)

    with guard.invocation():
        make_mine()
        with monkeypatch.context() as patch:
            patch.setattr(originals, "scandir", scandir)
            next(iter(os.walk(str(project))))
        assert project.joinpath("old").exists()
        assert seen(project) == MINE


class _Entries(list):  # type: ignore[type-arg]
    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("change", [by_symlink, by_rename, by_replace])
def test_a_change_that_is_only_recorded_is_seen_at_once(
    project: Path, scratch_root: Path, change: Callable[[Path, str], None]
) -> None:
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, enforce=False)
    with guard.invocation():
        assert read(f"{project}/current/deeper/file.txt") == "current"
        change(project / "current", f"{project}/next")
        assert read(f"{project}/current/deeper/file.txt") == "next"
        assert os.path.islink(f"{project}/current")


def test_nothing_is_remembered_of_writable_mounts(project: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=None, scratch_root=scratch_root, writable=[project])
    with guard.invocation():
        for _ in range(2):
            assert read(f"{project}/current/deeper/file.txt") == "current"
            for _ in os.walk(project):
                pass
        remembered = guard.mounts.known
        assert not [path for path in (*remembered.paths, *remembered.directories) if str(project) in path]
        by_rename(project / "current", f"{project}/next")
        assert read(f"{project}/current/deeper/file.txt") == "next"


def test_nothing_is_remembered_of_tmp(guard: tmpguard.Guard) -> None:
    for _ in range(2):
        with guard.invocation():
            make_mine()
            assert read("/tmp/mine/deeper/file.txt") == "mine"
            for _ in os.walk("/tmp"):
                pass
    remembered = guard.mounts.known
    for path in (*remembered.paths, *remembered.directories):
        assert path.startswith("/tmp/package/") or not path.startswith("/tmp")


def test_a_file_that_is_not_in_the_bundle_is_not_found_by_what_is_known(
    project: Path, scratch_root: Path
) -> None:
    (project / ".genezioignore").write_text("*.log\nold/\n")
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root)
    log, old = str(project / "current/deeper/a.log"), str(project / "current/old")
    for _ in range(2):
        with guard.invocation():
            assert not os.path.exists(log)
            assert not os.path.exists(old)
    Path(log).write_text("log")
    Path(old).mkdir()
    for _ in range(2):
        with guard.invocation():
            assert not os.path.exists(log)
            assert not os.path.exists(old)
            assert os.listdir(str(project / "current/deeper")) == ["file.txt"]
            assert read(str(project / "current/deeper/file.txt")) == "current"


def test_a_directory_that_becomes_a_scratch_root_hides_what_is_in_it(
    used: tmpguard.Guard, project: Path
) -> None:
    with used.invocation():
        os.listdir(f"{project}/next")
    other = tmpguard.Guard(bundle=None, scratch_root=project / "next")
    with other.invocation() as theirs:
        make_mine()
        path = theirs.namespace.scratch()
        with used.invocation():
            assert os.listdir(f"{project}/next") == ["deeper"]
            assert not os.path.exists(path)
            assert not os.path.exists(f"{path}/mine/deeper/file.txt")
    other.scratch.release()


def test_an_empty_path_leads_nowhere(guard: tmpguard.Guard, project: Path) -> None:
    for _ in range(2):
        with guard.invocation():
            for path in (f"{project}/", f"{project}/current/", "current/", "current/deeper/../"):
                assert os.path.isdir(path)
            for call in (open, os.stat, os.lstat, os.listdir, os.scandir):
                with pytest.raises(FileNotFoundError):
                    call("")


def test_a_guard_that_is_gone_is_forgotten(project: Path, scratch_root: Path) -> None:
    table = tmpguard.Guard(bundle=project, scratch_root=scratch_root).mounts
    key = id(table)
    assert key in known._all
    del table
    gc.collect()
    assert key not in known._all


def test_a_descriptor_s_path_is_right_after_one_of_the_bundle_had_its_number(
    guard: tmpguard.Guard, project: Path
) -> None:
    path = str(project / "current/deeper/file.txt")
    with guard.invocation():
        read(path)
        with open("/tmp/package/current/deeper/file.txt") as file:
            number = file.fileno()
            assert os.readlink(f"/proc/self/fd/{number}").startswith("/tmp/package/")
        with open(path) as file:
            assert file.fileno() == number
            assert os.readlink(f"/proc/self/fd/{number}") == path


def test_the_clock_is_not_the_one_of_the_application(
    monkeypatch: pytest.MonkeyPatch, guard: tmpguard.Guard
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert Known().expires > 1e9


def test_a_file_that_goes_missing_is_named_as_it_was_given(guard: tmpguard.Guard, project: Path) -> None:
    """C7.1: where its path is known, a relative one too."""
    paths = ("current/deeper/file.txt", f"{project}/current/deeper/file.txt")
    with guard.invocation():
        assert [os.stat(path).st_size for path in paths * 2] == [len("current")] * 4
        with unguarded():
            originals.unlink(paths[1])
        for path in paths:
            with pytest.raises(FileNotFoundError) as caught:
                os.stat(path)
            assert caught.value.filename == path


# --- the process's own working directory ------------------------------------------------------------------


def moved_by_native_code(path: Path) -> None:
    ctypes.CDLL(None).chdir(os.fsencode(path))


def moved_by_descriptor(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fchdir(descriptor)
    os.close(descriptor)


@pytest.fixture
def at_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> tmpguard.Guard:
    """A guard of the project that the process is in, too."""
    monkeypatch.chdir(project)
    (project / "file.txt").write_text("of the project")
    (project / "next" / "file.txt").write_text("next")
    return tmpguard.Guard(bundle=project)


def _status(path: str) -> tuple[int, int]:
    os.stat(path)  # from now on the path is known
    return os.stat(path).st_ino, os.stat(path).st_size


@pytest.mark.parametrize("move", [os.chdir, moved_by_descriptor, moved_by_native_code])
def test_a_request_stays_where_it_began_when_the_process_moves(
    at_home: tmpguard.Guard, project: Path, move: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if move is moved_by_native_code:
        monkeypatch.setattr(known, "SECONDS", 0.0)
        known.forget()
    begun, moved = threading.Event(), threading.Event()
    seen = []

    def request() -> None:
        with at_home.invocation():
            seen.append(_status("file.txt"))
            begun.set()
            moved.wait()
            seen.append(_status("file.txt"))

    thread = threading.Thread(target=request)
    thread.start()
    begun.wait()
    move(project / "next")
    moved.set()
    thread.join()
    assert seen[0] == seen[1]
    with at_home.invocation():
        assert _status("file.txt")[1] == len("next")


def test_a_request_that_changes_its_directory_leaves_the_process_s_behind(
    at_home: tmpguard.Guard, project: Path
) -> None:
    with at_home.invocation():
        assert _status("file.txt")[1] == len("of the project")
        os.chdir("next")
        assert _status("file.txt")[1] == len("next")
        os.chdir("/tmp")
        with pytest.raises(FileNotFoundError, match=r"'file\.txt'"):
            os.stat("file.txt")
    assert os.getcwd() == str(project)


def test_a_relative_path_that_is_gone_is_named_as_given(at_home: tmpguard.Guard, project: Path) -> None:
    with at_home.invocation():
        _status("file.txt")
        with unguarded():
            os.unlink(project / "file.txt")
        with pytest.raises(FileNotFoundError) as caught:
            os.stat("file.txt")
        assert caught.value.filename == "file.txt"


def test_the_directory_of_the_process_is_removed_and_made_anew(
    at_home: tmpguard.Guard, project: Path
) -> None:
    os.chdir(project / "next")
    with at_home.invocation():
        _status("file.txt")
        with unguarded():
            shutil.rmtree(project / "next")
            (project / "next").mkdir()
            (project / "next" / "file.txt").write_text("anew")
        known.forget()
        assert _status("file.txt")[1] == len("anew")
