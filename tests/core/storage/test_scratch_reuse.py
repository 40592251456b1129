"""An emptied scratch directory serves another invocation, which cannot tell (C4.1, C4.2)."""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import left_in
from tmpguard.core import originals
from tmpguard.core.invocation import Invocation
from tmpguard.core.storage import scratch, small
from tmpguard.core.storage.wiper import wiper

Kept = list[Any]


@pytest.fixture(autouse=True)
def nothing_is_kept_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is kept stays: no test is so slow that the process would be idle."""
    monkeypatch.setattr("tmpguard.core.storage.wiper._IDLE", 600)
    tmpguard.drain()


def run(guard: tmpguard.Guard, work: Callable[[], object]) -> Invocation:
    """Run ``work`` as a request is run: ended by ``end()``, without a wait for the wipe."""
    invocation = guard.invocation()
    with invocation.bound():
        work()
    invocation.end()
    return invocation


def write(path: str = "/tmp/file.txt", text: str = "text") -> None:
    with open(path, "w") as file:
        file.write(text)


def test_a_directory_is_used_again_under_another_name(guard: tmpguard.Guard, scratch_root: Path) -> None:
    seen: list[tuple[int, list[str]]] = []
    for _ in range(3):
        run(guard, lambda: (seen.append((os.stat("/tmp").st_ino, os.listdir("/tmp"))), write()))
        assert len(left_in(scratch_root)) == 1
    assert len({inode for inode, _ in seen}) == 1
    assert [names for _, names in seen] == [[], [], []]


def test_what_came_into_an_emptied_directory_late_is_wiped(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C4.2: late code had resolved the directory's path just before it was emptied and renamed."""
    run(guard, write)
    (owned,) = guard.scratch.claims.values()
    (kept,) = owned.spare
    Path(owned.path, kept, "late").touch()
    guard.scratch.trim()
    assert os.listdir(owned.path) == []
    assert tmpguard.drain()
    assert left_in(scratch_root) == []


def test_the_next_request_does_not_see_what_came_late(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C4.1: the same, but the directory is wanted again."""
    run(guard, write)
    (owned,) = guard.scratch.claims.values()
    (kept,) = owned.spare
    Path(owned.path, kept, "late").touch()
    seen: list[list[str]] = []
    run(guard, lambda: seen.append(os.listdir("/tmp")))
    assert seen == [[]]
    assert not Path(owned.path, kept).exists()


def test_a_file_that_cannot_be_unlinked_at_first_is_not_left(
    guard: tmpguard.Guard, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4.4: it has been moved out of the invocation's directory already."""

    def fail(parent: int, name: str, spare: str, found: small.Survey) -> None:
        os.rename(name, spare, src_dir_fd=parent, dst_dir_fd=parent)
        trash = small.trash_of(spare)
        os.rename(found.files[0], trash, src_dir_fd=found.descriptor, dst_dir_fd=parent)

    monkeypatch.setattr(scratch, "empty", fail)
    run(guard, write)
    (owned,) = guard.scratch.claims.values()
    assert os.listdir(owned.path) == []


def test_nothing_is_left_when_the_wipes_are_done(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C4.2"""
    run(guard, write)
    assert tmpguard.drain()
    assert left_in(scratch_root) == []


def test_the_idle_process_keeps_no_directory(guard: tmpguard.Guard, scratch_root: Path) -> None:
    run(guard, write)
    guard.scratch.release()
    assert list(scratch_root.iterdir()) == []


def test_only_so_many_are_kept(guard: tmpguard.Guard, scratch_root: Path) -> None:
    crowd = [guard.invocation() for _ in range(40)]
    for invocation in crowd:
        with invocation.bound():
            write()
    for invocation in crowd:
        invocation.end()
    assert len(left_in(scratch_root)) == 16


def test_what_is_removed_from_outside_is_made_anew(guard: tmpguard.Guard, scratch_root: Path) -> None:
    run(guard, write)
    (kept,) = left_in(scratch_root)
    os.rmdir(kept)
    run(guard, write)
    assert len(left_in(scratch_root)) == 1


def test_a_path_that_was_resolved_before_the_end_leads_nowhere(guard: tmpguard.Guard) -> None:
    """C4.5: late code may have got so far as to know the real path."""
    paths: list[str] = []
    run(guard, lambda: (write(), paths.append(str(tmpguard.current().mounted.prefix))))  # type: ignore[union-attr]
    with pytest.raises(FileNotFoundError):
        originals.open(f"{paths[0]}/late.txt", "w")
    run(guard, write)
    with pytest.raises(FileNotFoundError):
        originals.open(f"{paths[0]}/late.txt", "w")


# --- what is still open ---------------------------------------------------------------------------------


def left_open(path: str, mode: str) -> Callable[[Kept], None]:
    def work(kept: Kept) -> None:
        write(path, "x" * 100_000)
        kept.append(open(path, mode))

    return work


def left_descriptor(kept: Kept) -> None:
    write(text="x" * 100_000)
    kept.append(originals.FileIO(os.open("/tmp/file.txt", os.O_RDWR)))


def left_mapping(kept: Kept) -> None:
    write(text="x" * 100_000)
    with open("/tmp/file.txt", "r+b") as file:
        kept.append(mmap.mmap(file.fileno(), 0))


def left_unlinked(kept: Kept) -> None:
    kept.append(open("/tmp/file.txt", "w+b", buffering=0))
    os.unlink("/tmp/file.txt")
    kept[0].write(bytes(100_000))


def left_replaced(kept: Kept) -> None:
    left_open("/tmp/file.txt", "rb")(kept)
    write("/tmp/other.txt")
    os.replace("/tmp/other.txt", "/tmp/file.txt")


def left_temporary(kept: Kept) -> None:
    kept.append(tempfile.TemporaryFile(buffering=0))
    kept[0].write(bytes(100_000))


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(left_open("/tmp/file.txt", "rb"), id="reader"),
        pytest.param(left_open("/tmp/file.txt", "r+b"), id="writer"),
        left_descriptor,
        left_mapping,
        left_unlinked,
        left_replaced,
        left_temporary,
    ],
)
def test_a_file_left_open_is_not_charged_to_the_next_one(
    guard: tmpguard.Guard, leave: Callable[[Kept], None]
) -> None:
    """C3.2, C4.1"""
    kept: Kept = []
    run(guard, lambda: leave(kept))
    used: list[tuple[int, int]] = []

    def look() -> None:
        write()
        report = tmpguard.current().report  # type: ignore[union-attr]
        used.append((report.used_bytes, report.files))

    run(guard, look)
    tmpguard.drain()
    assert used == [(4096, 1)]
    for file in kept:
        file.close()


# --- who may hold on to the directory itself ------------------------------------------------------------


def opened(kept: Kept) -> None:
    kept.append(os.open("/tmp/./", os.O_RDONLY))


def opened_by_path(kept: Kept) -> None:
    kept.append(os.open(b"/tmp", os.O_PATH))


def scanned(kept: Kept) -> None:
    kept.append(os.scandir("/tmp"))


def scanned_in_bytes(kept: Kept) -> None:
    kept.append(os.scandir(b"/tmp/"))


def forked(kept: Kept) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def changed_mode(kept: Kept) -> None:
    os.chmod("/tmp", 0o755)


def changed_times(kept: Kept) -> None:
    os.utime("/tmp", (1, 1))


def bound_socket(kept: Kept) -> None:
    kept.append(socket.socket(socket.AF_UNIX))
    kept[0].bind("/tmp/socket")


def grown(kept: Kept) -> None:
    for number in range(1000):
        os.mkdir(f"/tmp/{number:0>100}")
    for number in range(1000):
        os.rmdir(f"/tmp/{number:0>100}")


@pytest.mark.parametrize(
    "work",
    [
        opened,
        opened_by_path,
        scanned,
        scanned_in_bytes,
        changed_mode,
        changed_times,
        bound_socket,
        grown,
        pytest.param(forked, marks=pytest.mark.filterwarnings("ignore::DeprecationWarning")),
    ],
)
def test_a_directory_that_is_held_or_altered_is_not_used_again(
    guard: tmpguard.Guard, scratch_root: Path, work: Callable[[Kept], None]
) -> None:
    kept: Kept = []
    run(guard, lambda: work(kept))
    assert wiper.drain()
    assert left_in(scratch_root) == []
    for thing in kept:
        if isinstance(thing, int):
            originals.close(thing)
        else:
            thing.close()
