"""A file that is missing because another invocation or the start-up had made it (C7.4)."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.support import case
from tmpguard.core import originals
from tmpguard.core.storage.forgotten import REMEMBERED, Forgotten, Maker
from tmpguard.core.storage.scratch import ScratchRoot


def missing(call: Callable[[], object]) -> FileNotFoundError:
    with pytest.raises(FileNotFoundError) as caught:
        call()
    return caught.value


def notes_of(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def leave(guard: tmpguard.Guard, path: str = "/tmp/a.txt") -> None:
    """A request leaves a file."""
    with guard.invocation():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("x")


OTHER = "/tmp/a.txt was made by another request, and each request has a /tmp of its own: make it in each"


# --- who made it -----------------------------------------------------------------------------------------


def test_a_file_of_an_earlier_request_has_a_note_and_a_look_up(guard: tmpguard.Guard) -> None:
    leave(guard)
    with guard.invocation() as second:
        error = missing(lambda: open("/tmp/a.txt"))
    (lookup,) = second.report.lookups
    assert (lookup.operation, lookup.path, lookup.errno) == ("open", "/tmp/a.txt", errno.ENOENT)
    assert lookup.remedy.startswith(OTHER)
    assert lookup.location is not None
    assert lookup.location.file == __file__
    assert notes_of(error) == [f"tmpguard: {lookup.remedy}"]
    assert second.report.elsewhere == (lookup,)
    assert not second.report.violations


def test_a_file_that_nobody_made_has_neither(guard: tmpguard.Guard) -> None:
    leave(guard)
    leave(guard, "/tmp/cache/b.txt")
    with guard.invocation() as second:
        for path in ("/tmp/none.txt", "/tmp/a.tx", "/tmp/cache/none.txt", "/tmp/a.txt/x"):
            assert notes_of(missing(lambda path=path: open(path))) == []  # type: ignore[misc]
        assert not os.path.exists("/tmp/none.txt")
        assert not os.access("/tmp/none.txt", os.F_OK)
    assert second.report.lookups == ()


def test_a_file_of_the_start_up(guard: tmpguard.Guard) -> None:
    with tmpguard.cold_start(guard=guard):
        Path("/tmp/model.bin").write_text("x")
    with guard.invocation() as request:
        error = missing(lambda: open("/tmp/model.bin"))
    (note,) = notes_of(error)
    assert note.startswith("tmpguard: /tmp/model.bin was made by the start-up")
    assert note.endswith("make it in each request, or ship it with the project")
    (lookup,) = request.report.lookups
    assert note == f"tmpguard: {lookup.remedy}"


def test_a_file_of_a_start_up_that_was_not_guarded(guard: tmpguard.Guard) -> None:
    """It lies in the real /tmp, which no request sees."""
    with tempfile.NamedTemporaryFile(dir="/tmp") as made, guard.invocation() as request:
        error = missing(lambda: open(made.name))
    (note,) = notes_of(error)
    assert note.startswith(f"tmpguard: {made.name} was made by code outside any request")
    assert [lookup.path for lookup in request.report.lookups] == [made.name]


def test_a_file_that_was_in_the_real_tmp_before_the_process_is_nobody_s(guard: tmpguard.Guard) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as made, guard.invocation() as request:
        guard.forgotten._since += 10**6
        assert notes_of(missing(lambda: open(made.name))) == []
    assert request.report.lookups == ()


def test_a_file_that_nobody_had_made_a_second_ago(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """That nobody had made a name is remembered, but only until somebody may have."""
    path = f"/tmp/{tmp_path.name}-{os.getpid()}"

    def notes() -> list[str]:
        return notes_of(missing(lambda: os.stat(path)))

    waiting = guard.invocation()
    with waiting.bound():
        assert notes() == notes() == []
    with guard.invocation():
        Path(path).write_text("x")  # by a request that still runs
        with waiting.bound():
            assert "made by another request" in notes()[0]
        os.unlink(path)
        with waiting.bound():
            assert notes() == []
        Path(path).write_text("x")
    with waiting.bound():
        assert "made by another request" in notes()[0]  # which has ended now
    with waiting:
        pass
    assert len(waiting.report.lookups) == 1


def test_a_file_that_code_outside_any_request_makes_is_noticed_a_second_later(
    guard: tmpguard.Guard, tmp_path: Path
) -> None:
    path = f"/tmp/{tmp_path.name}-{os.getpid()}"
    with guard.invocation():
        assert notes_of(missing(lambda: os.stat(path))) == []
    Path(path).write_text("x")
    try:
        guard.forgotten.expires = 0.0
        with guard.invocation():
            (note,) = notes_of(missing(lambda: os.stat(path)))
    finally:
        os.unlink(path)
    assert "made by code outside any request" in note


@pytest.mark.parametrize(
    "look", [os.stat, os.lstat, open, os.path.exists], ids=["stat", "lstat", "open", "exists"]
)
def test_a_look_that_finds_nothing_asks_the_disk_once(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch, look: Callable[[str], object]
) -> None:
    asked = []

    def access(path: str, mode: int) -> bool:
        asked.append(path)
        return original(path, mode)

    original = originals.access
    with guard.invocation():
        Path("/tmp/a.txt").write_text("x")
        monkeypatch.setattr(originals, "access", access)
        for _ in range(3):
            with contextlib.suppress(FileNotFoundError):
                assert not look("/tmp/none.txt")
        monkeypatch.undo()
    assert asked == ["/tmp/none.txt"]


def test_scratch_directories_are_nobody_s(guard: tmpguard.Guard) -> None:
    """C4.1: they are absent."""
    guard = tmpguard.Guard(bundle=None, scratch_root="/tmp")
    with guard.invocation() as request:
        Path("/tmp/a.txt").write_text("x")
        scratch = os.path.dirname(request.volume.directory or "")
        assert notes_of(missing(lambda: os.listdir(scratch))) == []


def test_a_file_of_a_request_that_still_runs(guard: tmpguard.Guard) -> None:
    first = guard.invocation()
    with first.bound():
        Path("/tmp/a.txt").write_text("x")
    with guard.invocation() as second:
        error = missing(lambda: open("/tmp/a.txt"))
    (lookup,) = second.report.lookups
    assert lookup.remedy.startswith(OTHER)
    assert notes_of(error) == [f"tmpguard: {lookup.remedy}"]
    first.end()


def test_a_file_of_an_earlier_instance(scratch_root: Path) -> None:
    guard = tmpguard.Guard(lifetime="instance", scratch_root=scratch_root, bundle=None)
    leave(guard)
    with guard.invocation():
        assert Path("/tmp/a.txt").read_text() == "x"
    guard.end_instance()
    with guard.invocation() as later:
        error = missing(lambda: open("/tmp/a.txt"))
    assert notes_of(error)[0].startswith("tmpguard: /tmp/a.txt was made in an earlier instance")
    assert len(later.report.lookups) == 1
    guard.end_instance()


# --- whose doing it is -----------------------------------------------------------------------------------


def test_what_the_request_removed_itself_is_nobody_else_s_doing(guard: tmpguard.Guard) -> None:
    removals: dict[str, Callable[[], object]] = {
        "remove": lambda: os.remove("/tmp/a.txt"),
        "unlink": lambda: os.unlink("/tmp/a.txt"),
        "rename": lambda: os.rename("/tmp/a.txt", "/tmp/b.txt"),
        "replace": lambda: os.replace("/tmp/a.txt", "/tmp/b.txt"),
        "move": lambda: shutil.move("/tmp/a.txt", "/tmp/b.txt"),
    }
    for name, remove in removals.items():
        with case(name):
            leave(guard)
            guard.forgotten.discard("/b.txt")
            with guard.invocation() as second:
                Path("/tmp/a.txt").write_text("x")
                remove()
                assert notes_of(missing(lambda: open("/tmp/a.txt"))) == []
            assert second.report.lookups == ()


def test_a_directory_that_the_request_removed_itself(guard: tmpguard.Guard) -> None:
    leave(guard, "/tmp/cache/a.txt")
    with guard.invocation() as second:
        Path("/tmp/cache").mkdir()
        Path("/tmp/cache/a.txt").write_text("x")
        shutil.rmtree("/tmp/cache")
        assert notes_of(missing(lambda: os.listdir("/tmp/cache"))) == []
    assert second.report.lookups == ()


def test_what_the_request_makes_itself_afterwards_is_a_look_up_and_no_finding(guard: tmpguard.Guard) -> None:
    """Such as a directory that is made where it is not there yet."""
    leave(guard, "/tmp/cache/new/a.txt")
    with guard.invocation() as second:
        os.makedirs("/tmp/cache/new", exist_ok=True)
        assert not os.path.exists("/tmp/cache/new/a.txt")
    assert {lookup.path for lookup in second.report.lookups} >= {"/tmp/cache", "/tmp/cache/new/a.txt"}
    assert [lookup.path for lookup in second.report.elsewhere] == ["/tmp/cache/new/a.txt"]


def test_a_link_of_its_own_that_leads_nowhere(guard: tmpguard.Guard) -> None:
    leave(guard)
    with guard.invocation() as second:
        os.symlink("/tmp/none", "/tmp/a.txt")
        assert notes_of(missing(lambda: open("/tmp/a.txt"))) == []
    assert second.report.lookups == ()


def test_a_file_made_where_another_made_the_directory(guard: tmpguard.Guard) -> None:
    """The commonest one: a directory that is made at import, and files in it in each request."""
    with tmpguard.cold_start(guard=guard):
        os.makedirs("/tmp/uploads/new")
    makings: dict[str, Callable[[], object]] = {
        "w": lambda: open("/tmp/uploads/new/b.txt", "w"),
        "xb": lambda: open("/tmp/uploads/new/b.txt", "xb"),
        "a": lambda: open("/tmp/uploads/new/b.txt", "a"),
        "w+": lambda: open("/tmp/uploads/new/b.txt", "w+", buffering=1),
        "os.open": lambda: os.open("/tmp/uploads/new/b.txt", os.O_CREAT | os.O_WRONLY),
        "mkdir": lambda: os.mkdir("/tmp/uploads/new/b"),
        "symlink": lambda: os.symlink("x", "/tmp/uploads/new/b"),
        "mkstemp": lambda: tempfile.mkstemp(dir="/tmp/uploads/new"),
        "copy": lambda: shutil.copyfile("/etc/passwd", "/tmp/uploads/new/b"),
    }
    for name, make in makings.items():
        with case(name), guard.invocation() as request:
            (note,) = notes_of(missing(make))
            assert note.startswith("tmpguard: /tmp/uploads/new was made by the start-up")
            assert len(request.report.lookups) == 1


def test_a_rename_into_a_directory_that_another_made(guard: tmpguard.Guard) -> None:
    leave(guard, "/tmp/cache/a.txt")
    with guard.invocation() as second:
        Path("/tmp/new.txt").write_text("x")
        (note,) = notes_of(missing(lambda: os.rename("/tmp/new.txt", "/tmp/cache/b.txt")))
        assert note.startswith("tmpguard: /tmp/cache was made by another request")
    assert [lookup.path for lookup in second.report.lookups] == ["/tmp/cache/b.txt"]


# --- every way to look -----------------------------------------------------------------------------------


def ways() -> Iterator[tuple[str, Callable[[str], object]]]:
    yield "open", open
    yield "read in binary", lambda path: open(path, "rb")
    yield "open for updating", lambda path: open(path, "r+b")
    yield "unbuffered", lambda path: open(path, "rb", buffering=0)
    yield "os.open", lambda path: os.open(path, os.O_RDONLY)
    yield "os.open for writing", lambda path: os.open(path, os.O_WRONLY)
    yield "Path.read_text", lambda path: Path(path).read_text()
    yield "bytes", lambda path: open(os.fsencode(path))
    yield "os.stat", os.stat
    yield "os.lstat", os.lstat
    yield "os.listdir", os.listdir
    yield "os.scandir", os.scandir
    yield "os.remove", os.remove
    yield "os.rename", lambda path: os.rename(path, "/tmp/new")
    yield "os.link", lambda path: os.link(path, "/tmp/new")
    yield "os.chmod", lambda path: os.chmod(path, 0o600)
    yield "os.truncate", lambda path: os.truncate(path, 0)
    yield "os.readlink", os.readlink
    yield "os.statvfs", os.statvfs
    yield "os.chdir", os.chdir
    yield "shutil.copy", lambda path: shutil.copy(path, "/tmp/new")


def test_every_way_to_look_for_a_file(guard: tmpguard.Guard) -> None:
    leave(guard)
    for spelled in ("/tmp/a.txt", "/tmp//a.txt", "/tmp/../tmp/a.txt"):
        for name, look in ways():
            with case((name, spelled)), guard.invocation() as request:
                error = missing(lambda look=look: look(spelled))  # type: ignore[misc]  # noqa: B023
                (lookup,) = request.report.lookups
                assert notes_of(error) == [f"tmpguard: {lookup.remedy}"]
                assert lookup.remedy.startswith(OTHER)


def test_checks_that_raise_nothing(guard: tmpguard.Guard) -> None:
    leave(guard)
    checks: list[Callable[[str], bool]] = [
        os.path.exists,
        os.path.isfile,
        os.path.lexists,
        lambda path: os.access(path, os.R_OK),
        lambda path: Path(path).exists(),
    ]
    for place, check in enumerate(checks):
        with case(place), guard.invocation() as request:
            assert not check("/tmp/a.txt")
            assert not check("/tmp/a.txt")
            assert [lookup.path for lookup in request.report.lookups] == ["/tmp/a.txt"]


def test_a_relative_path_and_one_after_a_link(guard: tmpguard.Guard) -> None:
    leave(guard)
    with guard.invocation() as request:
        os.symlink("/tmp", "/tmp/here")
        os.chdir("/tmp")
        assert len(notes_of(missing(lambda: open("a.txt")))) == 1
        assert [lookup.path for lookup in request.report.lookups] == ["a.txt"]


# --- objects that are made once --------------------------------------------------------------------------


CACHING = """
import os

class Cache:
    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory)

    def set(self, key, value):
        try:
            with open(f"{self.directory}/{key}", "w") as file:
                file.write(value)
        except OSError:
            pass  # as caches do
"""


def test_an_object_of_a_library_that_keeps_a_path(
    guard: tmpguard.Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "caching.py").write_text(CACHING)
    monkeypatch.syspath_prepend(packages)
    caching = importlib.import_module("caching")
    with tmpguard.cold_start(guard=guard):
        cache = caching.Cache("/tmp/cache")
    with guard.invocation() as request:
        cache.set("key", "value")
    (lookup,) = request.report.elsewhere
    assert lookup.path == "/tmp/cache/key"
    assert lookup.remedy == (
        "/tmp/cache was made by the start-up, and what that writes to /tmp is gone before the first request: "
        "make the object of caching that keeps this path in each request"
    )


def test_a_database_of_the_start_up(guard: tmpguard.Guard) -> None:
    """It is made anew, empty, without an error: the error is about its tables."""
    with tmpguard.cold_start(guard=guard):
        connection = sqlite3.connect("/tmp/app.db")
        connection.execute("create table users (name)")
        connection.close()
    with guard.invocation() as request:
        connection = sqlite3.connect("/tmp/app.db")
        with pytest.raises(sqlite3.OperationalError, match="no such table") as caught:
            connection.execute("select * from users")
        connection.close()
    (lookup,) = request.report.elsewhere
    assert (lookup.operation, lookup.path) == ("sqlite3.connect", "/tmp/app.db")
    assert lookup.remedy.startswith("/tmp/app.db was made by the start-up")
    assert notes_of(caught.value) == [f"tmpguard: {lookup.remedy}"]


def test_a_database_that_nobody_made(guard: tmpguard.Guard) -> None:
    with guard.invocation() as request:
        connection = sqlite3.connect("/tmp/app.db")
        with pytest.raises(sqlite3.OperationalError, match="no such table") as caught:
            connection.execute("select * from users")
        connection.close()
    assert notes_of(caught.value) == []
    assert request.report.lookups == ()


def test_a_database_in_a_directory_of_the_start_up(guard: tmpguard.Guard) -> None:
    with tmpguard.cold_start(guard=guard):
        os.mkdir("/tmp/cache")
    with guard.invocation() as request:
        with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
            sqlite3.connect("/tmp/cache/cache.db").execute("create table a (b)")
    (lookup,) = request.report.elsewhere
    assert (lookup.operation, lookup.path) == ("sqlite3.connect", "/tmp/cache/cache.db")
    assert lookup.remedy.startswith("/tmp/cache was made by the start-up")
    assert notes_of(caught.value) == [f"tmpguard: {lookup.remedy}"]


# --- bounds ----------------------------------------------------------------------------------------------


def test_the_memory_is_bounded_and_the_start_s_names_are_kept_apart(tmp_path: Path) -> None:
    memory = Forgotten(ScratchRoot(str(tmp_path)))
    memory.add(["/model.bin"], Maker.START)
    for number in range(REMEMBERED + 10):
        memory.add([f"/{number}", "x" * 10_000], Maker.REQUEST)
    assert memory.maker_of("/model.bin", "") is Maker.START
    assert memory.maker_of("/9", "") is None
    assert memory.maker_of("/10", "") is Maker.REQUEST
    assert memory.maker_of("x" * 10_000, "") is None


def test_a_large_tree_is_remembered_in_part(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        for number in range(1500):
            Path(f"/tmp/{number}").touch()
    assert len(guard.forgotten._names) == 1000


def test_a_request_that_uses_no_file_notes_nothing(guard: tmpguard.Guard) -> None:
    with guard.invocation() as request:
        pass
    assert not guard.forgotten._names
    assert request.report.lookups == ()


def test_requests_in_many_threads(guard: tmpguard.Guard) -> None:
    """Each looks for what the others left, while those end."""
    leave(guard, "/tmp/shared.txt")
    failures: list[str] = []

    def request(number: int) -> None:
        for turn in range(20):
            with guard.invocation() as mine:
                Path(f"/tmp/{number}-{turn}").write_text("x")
                if not notes_of(missing(lambda: open("/tmp/shared.txt"))):
                    failures.append(f"{number}-{turn}")
                if len(mine.report.lookups) != 1:
                    failures.append(f"{number}-{turn}: {mine.report.lookups}")

    threads = [threading.Thread(target=request, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
