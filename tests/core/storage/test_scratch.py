"""The private directories on disk: claimed, swept, measured and wiped without races (C4.2, C4.6)."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads, run_python
from tmpguard.core import originals
from tmpguard.core.storage.claims import PREFIX, Claim, new_name, sweep
from tmpguard.core.storage.pages import Usage, measure
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.wipe import wipe


@pytest.fixture
def root(scratch_root: Path) -> Iterator[ScratchRoot]:
    made = ScratchRoot(str(scratch_root))
    yield made
    made.release()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def before_call(
    monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[..., object], times: int = 1
) -> list[tuple[Any, ...]]:
    """Run ``action`` before the first calls of the original ``name``; the list tells of the calls."""
    original, calls = getattr(originals, name), list[tuple[Any, ...]]()

    def calling(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) <= times:
            action(*args, **kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(originals, name, calling)
    return calls


def after_call(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """Run ``action`` after the first call of the original ``name``."""
    original, done = getattr(originals, name), threading.Event()

    def calling(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not done.is_set():
            done.set()
            action()
        return result

    monkeypatch.setattr(originals, name, calling)


# --- claiming ------------------------------------------------------------------------------------------


def test_directories_are_made_below_one_that_is_locked(root: ScratchRoot, scratch_root: Path) -> None:
    first, second = root.make(), root.make()
    (process,) = scratch_root.iterdir()
    assert process.name.startswith(PREFIX)
    assert {os.path.dirname(first), os.path.dirname(second)} == {str(process)}
    assert first != second
    with opened(process) as descriptor, pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    root.discard(first)
    root.discard(second)


def test_a_sweeper_that_comes_before_the_lock_makes_the_claimer_try_again(
    root: ScratchRoot, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    after_call(monkeypatch, "mkdir", lambda: swept.append(sweep(str(scratch_root))))
    directory = root.make()
    assert swept == [1]
    assert os.path.isdir(directory)
    root.discard(directory)


def test_a_sweeper_that_comes_between_open_and_lock_makes_the_claimer_try_again(
    root: ScratchRoot, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    after_call(monkeypatch, "os_open", lambda: swept.append(sweep(str(scratch_root))))
    directory = root.make()
    assert swept == [1]
    assert os.path.isdir(directory)
    root.discard(directory)


def test_a_sweeper_that_holds_the_lock_makes_the_claimer_take_another_name(
    root: ScratchRoot, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def hold() -> None:
        (process,) = scratch_root.iterdir()
        held.append(os.open(process, os.O_RDONLY))
        fcntl.flock(held[0], fcntl.LOCK_EX)

    after_call(monkeypatch, "mkdir", hold)
    directory = root.make()
    assert os.path.isdir(directory)
    assert len(list(scratch_root.iterdir())) == 2
    os.close(held[0])
    assert sweep(str(scratch_root)) == 1
    assert os.path.isdir(directory)
    root.discard(directory)


def test_claiming_and_sweeping_at_once_lose_nothing(scratch_root: Path) -> None:
    over = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            while not over.is_set():
                sweep(str(scratch_root))
            return
        try:
            for _ in range(50):
                own = ScratchRoot(str(scratch_root))
                directory = own.make()
                assert os.listdir(directory) == []
                Path(directory, "file.txt").write_text("text")
                own.discard(directory)
                own.release()
        finally:
            over.set()

    in_threads(3, work)
    assert list(scratch_root.iterdir()) == []


def test_making_and_releasing_at_once_lose_nothing(root: ScratchRoot, scratch_root: Path) -> None:
    def work(number: int) -> None:
        for _ in range(50):
            if number:
                directory = root.make()
                Path(directory, "file.txt").write_text("text")
                root.discard(directory)
            else:
                root.release()

    in_threads(4, work)
    root.release()
    assert list(scratch_root.iterdir()) == []


def test_what_is_released_is_made_anew(root: ScratchRoot, scratch_root: Path) -> None:
    for _ in range(2):
        directory = root.make()
        assert os.path.isdir(directory)
        root.release()
        assert os.path.isdir(directory), "it was in use"
        root.discard(directory)
        root.release()
        assert list(scratch_root.iterdir()) == []


def test_a_process_directory_that_somebody_removed_is_made_anew(
    root: ScratchRoot, scratch_root: Path
) -> None:
    """As cleaners of /tmp do."""
    root.discard(root.make())
    (process,) = scratch_root.iterdir()
    shutil.rmtree(process)
    directory = root.make()
    assert os.path.isdir(directory)
    root.discard(directory)


AFTER_THE_EXIT = """
import atexit, errno, os, sys, threading

over, tried = threading.Event(), threading.Event()

@atexit.register  # before tmpguard's, so it is called after that
def last():
    over.set()
    tried.wait()
    with guard.invocation():
        open("/tmp/file", "w").close()
        print("the main thread:", os.listdir("/tmp"))

import tmpguard
guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=sys.argv[1])

def work():
    with guard.invocation():
        over.wait()
        try:
            open("/tmp/file", "w")
        except OSError as exc:
            print("a thread:", errno.errorcode[exc.errno])
    tried.set()

threading.Thread(target=work, daemon=True).start()
if sys.argv[2] == "used":
    with guard.invocation():
        open("/tmp/file", "w").close()
"""


@pytest.mark.parametrize("before", ["used", "unused"])
def test_a_thread_that_outlives_the_exit_makes_no_directory(scratch_root: Path, before: str) -> None:
    """C4.2: nobody would remove it. What the exit itself calls still has a /tmp."""
    told = run_python(AFTER_THE_EXIT, scratch_root, before)
    assert told == "a thread: ESTALE\nthe main thread: ['file']\n"
    assert os.listdir(scratch_root) == []


def test_a_directory_that_is_claimed_while_the_process_exits_is_given_back(
    root: ScratchRoot, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4.2: by a thread that was about to make one."""
    claim = root._claim

    def claim_while_the_process_exits() -> Claim:
        monkeypatch.undo()
        claimed = claim()
        exiting = threading.Thread(target=root.abandon)
        exiting.start()
        exiting.join()
        return claimed

    monkeypatch.setattr(root, "_claim", claim_while_the_process_exits)
    with pytest.raises(OSError, match="Stale"):
        root.make()
    assert os.listdir(scratch_root) == []


def test_only_what_was_made_here_is_discarded(root: ScratchRoot, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    assert root.discard(str(tmp_path)) is None
    assert root.discard_small(str(tmp_path), reusable=True) is None
    directory = root.make()
    assert root.discard(directory) == Usage(0, 0)
    assert root.discard(directory) is None
    assert (tmp_path / "file.txt").exists()


# --- sweeping ------------------------------------------------------------------------------------------


def test_sweeping_what_is_not_there_or_no_directory_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    assert sweep(str(tmp_path / "nowhere")) == 0
    assert sweep(str(tmp_path / "file.txt")) == 0


def test_one_directory_that_cannot_be_swept_does_not_keep_the_others(
    scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        directory = scratch_root / new_name()
        directory.mkdir(mode=0o700)
        (directory / "file.txt").write_text("text")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    before_call(monkeypatch, "unlink", refuse, times=2)
    assert sweep(str(scratch_root)) == 3
    monkeypatch.undo()
    assert sweep(str(scratch_root)) == 1


# --- measuring -----------------------------------------------------------------------------------------


def test_pages_and_entries_are_measured_as_tmpfs_charges_them(scratch_root: Path) -> None:
    """C3.2: whole pages, holes, hard links, links and directories."""
    (scratch_root / "one/two").mkdir(parents=True)
    (scratch_root / "one/empty").write_bytes(b"")
    (scratch_root / "one/byte").write_bytes(b"x")
    (scratch_root / "one/two/page").write_bytes(b"x" * 4096)
    (scratch_root / "one/two/more").write_bytes(b"x" * 4097)
    os.link(scratch_root / "one/two/more", scratch_root / "one/again")
    with open(scratch_root / "one/hole", "wb") as file:
        file.truncate(1 << 20)
    (scratch_root / "one/link").symlink_to("short")
    os.mkfifo(scratch_root / "one/fifo")
    with opened(scratch_root) as descriptor:
        assert measure(descriptor, "one") == Usage(4 * 4096, 9)


def test_measuring_changes_no_modes(scratch_root: Path) -> None:
    """Nor does it leave a directory more open than it found it."""
    (scratch_root / "one/two").mkdir(parents=True)
    (scratch_root / "one/two").chmod(0)
    with opened(scratch_root) as descriptor:
        assert measure(descriptor, "one") == Usage(0, 1)
    assert (scratch_root / "one/two").stat().st_mode & 0o7777 == 0


# --- wiping --------------------------------------------------------------------------------------------


@pytest.fixture
def tree(scratch_root: Path) -> Path:
    """A directory of a few levels, to be wiped."""
    for path in ("a/b/c", "d/e", "f"):
        (scratch_root / "tree" / path).mkdir(parents=True)
        (scratch_root / "tree" / path / "file.txt").write_text("text")
    return scratch_root / "tree"


def wiped(tree: Path) -> bool:
    with opened(tree.parent) as descriptor:
        wipe(descriptor, tree.name)
    return not tree.exists()


def test_writers_that_go_on_during_the_wipe_are_wiped_too(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4.2: what native code writes in the middle of it."""

    def write(name: str, *, dir_fd: int) -> None:
        if name == "tree":
            (tree / "late/directory").mkdir(parents=True, exist_ok=True)
            (tree / "late/file.txt").write_text("late")

    before_call(monkeypatch, "rmdir", write, times=6)
    assert wiped(tree)


def test_a_writer_that_never_stops_does_not_keep_the_wipe_for_ever(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, *, dir_fd: int) -> None:
        if name == "tree":
            (tree / "late.txt").write_text("late")

    calls = before_call(monkeypatch, "rmdir", write, times=1000)
    with pytest.raises(OSError, match="not empty"):
        wiped(tree)
    assert len(calls) < 100


@pytest.mark.parametrize("name", ["rename", "os_open", "unlink", "rmdir"])
def test_entries_that_vanish_during_the_wipe_do_not_end_it(
    name: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread whose last call was on its way when the invocation ended may remove something itself."""
    rmtree = shutil.rmtree
    monkeypatch.setattr(originals, name, getattr(originals, name))
    busy = threading.Event()

    def vanish(path: Any, *_: Any, **directories: Any) -> None:
        directory = directories.get("dir_fd", directories.get("src_dir_fd"))
        if directory is None or path == "tree" or busy.is_set():
            return
        busy.set()
        target = f"/proc/self/fd/{directory}/{path}"
        rmtree(target) if os.path.isdir(target) else os.unlink(target)
        busy.clear()

    before_call(monkeypatch, name, vanish, times=3)
    assert wiped(tree)


def test_a_directory_that_turns_into_a_link_is_not_followed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4.2: exchanged between the look at it and the step into it."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "file.txt").write_text("text")
    exchanged: list[str] = []

    def exchange(path: Any, *_: Any, dir_fd: int | None = None) -> None:
        if dir_fd is not None and not exchanged and str(path).startswith(PREFIX):
            exchanged.append(path)
            shutil.rmtree(tree / path)
            (tree / path).symlink_to(outside)

    before_call(monkeypatch, "os_open", exchange, times=100)
    assert wiped(tree)
    assert exchanged
    assert sorted(os.listdir(outside)) == ["file.txt", "inner"]


def test_what_is_to_be_wiped_and_is_a_link_is_not_followed(scratch_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.txt").write_text("text")
    (scratch_root / "link").symlink_to(outside)
    with opened(scratch_root) as descriptor, pytest.raises(OSError, match=r"directory|symbolic links"):
        wipe(descriptor, "link")
    assert (outside / "file.txt").exists()


def immutable(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """Have the kernel refuse to unlink these."""
    unlink = originals.unlink

    def refusing(path: Any, *, dir_fd: int | None = None) -> None:
        if path in names:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(originals, "unlink", refusing)


@pytest.mark.parametrize("ends_in", ["block", "background"])
def test_what_cannot_be_removed_is_told_and_all_else_is_removed(
    ends_in: str,
    guard: tmpguard.Guard,
    scratch_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """C4.2: an immutable file, say. Later invocations are as clean as ever."""
    invocation = guard.invocation()
    with invocation.bound():
        for number in range(12):
            os.makedirs(f"/tmp/{number}/inner")
            Path(f"/tmp/{number}/inner/file.txt").write_text("text")
        Path("/tmp/3/inner/immutable.txt").write_text("text")
    with monkeypatch.context() as patch:
        immutable(patch, {"immutable.txt"})
        if ends_in == "block":
            with invocation:
                pass
        else:
            invocation.end()
        for _ in range(3):
            assert tmpguard.drain(timeout=30)
        records = [record for record in caplog.records if record.name == "tmpguard"]
        assert [record.levelno for record in records] == [logging.ERROR], "once, however often it is tried"
        assert str(scratch_root) in records[0].getMessage()
        left = [path.name for path in scratch_root.rglob("*") if path.is_file()]
        assert left == ["immutable.txt"]
        with guard.invocation():
            assert os.listdir("/tmp") == []
    assert tmpguard.drain(timeout=30)
    assert list(scratch_root.glob("*/*")) == []


def test_an_immutable_file_is_told(
    guard: tmpguard.Guard, scratch_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same with a real one, where that can be had."""
    chattr = shutil.which("chattr")
    if chattr is None or os.geteuid() != 0:
        pytest.skip("to make a file immutable takes root and chattr")
    invocation = guard.invocation()
    with invocation.bound():
        Path("/tmp/immutable.txt").write_text("text")
    (real,) = scratch_root.glob("*/*/immutable.txt")
    if subprocess.run([chattr, "+i", real], check=False, capture_output=True).returncode:
        invocation.end()
        pytest.skip("this file system knows no immutable files")
    with invocation:
        pass
    subprocess.run([chattr, "-i", real], check=True)
    assert "could not wipe" in caplog.text
    assert tmpguard.drain(timeout=30)
    assert list(scratch_root.glob("*/*")) == []
