"""An invocation starts with an empty /tmp of its own, sees no other's, and ends once and for all (C4)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads, left_in, run_unprivileged
from tmpguard.core import originals
from tmpguard.core.storage.scratch import Owner, ScratchRoot

CROWD = 8


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


# --- each its own (C4.1) -------------------------------------------------------------------------------


def test_each_invocation_starts_with_an_empty_tmp(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        fresh = os.listdir("/tmp")
    for _ in range(3):
        with guard.invocation():
            assert os.listdir("/tmp") == fresh
            write("/tmp/of-the-request.txt", "text")
            os.makedirs("/tmp/a/b")
            assert set(os.listdir("/tmp")) == {*fresh, "a", "of-the-request.txt"}
    assert "of-the-request.txt" not in originals.listdir("/tmp")


def test_files_of_the_real_tmp_are_not_seen(guard: tmpguard.Guard) -> None:
    """C4.1"""
    with tempfile.NamedTemporaryFile(dir="/tmp") as real:
        with guard.invocation():
            assert not os.path.lexists(real.name)
            assert os.path.basename(real.name) not in os.listdir("/tmp")
            write(real.name, "the invocation's")
        assert real.read() == b""


def test_threads_with_invocations_of_their_own_see_only_their_own_files(guard: tmpguard.Guard) -> None:
    """C4.1"""
    written, looked = threading.Barrier(CROWD), threading.Barrier(CROWD)

    def work(number: int) -> None:
        with guard.invocation():
            write("/tmp/same.txt", f"{number}")
            write(f"/tmp/{number}.txt", "")
            written.wait()
            assert read("/tmp/same.txt") == f"{number}"
            assert {"same.txt", f"{number}.txt"} <= set(os.listdir("/tmp"))
            assert len([name for name in os.listdir("/tmp") if name.endswith(".txt")]) == 2
            looked.wait()

    in_threads(CROWD, work)


def test_tasks_with_invocations_of_their_own_see_only_their_own_files(guard: tmpguard.Guard) -> None:
    """C4.1"""

    async def work(number: int, everybody: list[int], all_written: asyncio.Event) -> None:
        with guard.invocation():
            write("/tmp/same.txt", f"{number}")
            everybody.append(number)
            if len(everybody) == CROWD:
                all_written.set()
            await all_written.wait()
            assert read("/tmp/same.txt") == f"{number}"

    async def main() -> None:
        everybody: list[int] = []
        event = asyncio.Event()
        await asyncio.gather(*(work(number, everybody, event) for number in range(CROWD)))

    asyncio.run(main())


def test_an_invocation_inside_another_hides_it_until_it_ends(guard: tmpguard.Guard) -> None:
    """C4.1"""
    with guard.invocation() as outer:
        write("/tmp/file.txt", "outer")
        with guard.invocation() as inner:
            assert tmpguard.current() is inner
            assert not os.path.exists("/tmp/file.txt")
            write("/tmp/file.txt", "inner")
        assert tmpguard.current() is outer
        assert read("/tmp/file.txt") == "outer"
    assert tmpguard.current() is None
    assert outer.report.violations == inner.report.violations == ()


def test_the_end_of_an_inner_invocation_is_no_concern_of_the_outer_ones(tmp_path: Path) -> None:
    """C2.3, C4.2: tmpguard's own work on another scratch root is no violation."""
    roots = [tmp_path / "outer", tmp_path / "inner"]
    for root in roots:
        root.mkdir()
    outer, inner = (tmpguard.invocation(scratch_root=root, bundle=None) for root in roots)
    with outer:
        with inner:
            os.makedirs("/tmp/a/b")
            write("/tmp/a/b/file.txt", "text")
        assert originals.listdir(roots[1]) == []
    assert outer.report.violations == ()
    assert originals.listdir(roots[0]) == []


def test_an_inner_invocation_is_wiped_without_root_s_rights_too(public_root: Path) -> None:
    """C4.2: a directory of mode 000 in an invocation inside another one."""
    code = """
from pathlib import Path
from typing import Any
roots = [Path(sys.argv[1], name) for name in ("outer", "inner")]
for root in roots:
    root.mkdir()
outer, inner = (tmpguard.invocation(scratch_root=root, bundle=None) for root in roots)
with outer:
    with inner:
        os.makedirs("/tmp/a/b")
        os.chmod("/tmp/a", 0)
print(outer.report.violations, *(list(root.iterdir()) for root in roots))
"""
    assert run_unprivileged(code, public_root) == "() [] []\n"


def test_a_guard_built_inside_an_invocation_takes_its_options_from_the_real_file_system(
    guard: tmpguard.Guard, tmp_path: Path
) -> None:
    """C6.4: what a guard is configured with is no business of the invocation that happens to be around."""
    with guard.invocation():
        os.mkdir("/tmp/only-here")
        with pytest.raises(tmpguard.ConfigurationError, match="does not exist"):
            tmpguard.Guard(bundle="/tmp/only-here")
        with tmpguard.invocation(scratch_root=tmp_path, bundle=None):
            write("/tmp/file.txt", "text")


def test_entering_twice_leaves_nothing_bound(guard: tmpguard.Guard) -> None:
    invocation = guard.invocation()

    def enter_twice() -> None:
        with invocation:
            with invocation:
                pass
        assert tmpguard.current() is None

    contextvars.copy_context().run(enter_twice)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_generators_that_hold_invocations_can_be_closed_in_any_order(
    guard: tmpguard.Guard, order: tuple[int, ...]
) -> None:
    def rows(name: str) -> Iterator[str]:
        with guard.invocation():
            Path("/tmp/me").write_text(name)
            yield name

    with guard.invocation() as outer:
        generators = [rows(f"{number}") for number in range(3)]
        for generator in generators:
            next(generator)
        for number in order:
            generators[number].close()
            current = tmpguard.current()
            assert current is not None
            assert not current.ended
        assert current is outer
        Path("/tmp/mine").touch()
        assert os.listdir("/tmp") == ["mine"]
    assert tmpguard.current() is None


def test_code_that_outlives_its_invocation_stays_bound_to_it(guard: tmpguard.Guard) -> None:
    late = guard.invocation()
    with late.bound():
        late.end()
        with guard.invocation():
            Path("/tmp/x").touch()
        assert tmpguard.current() is late


def test_an_abandoned_block_that_is_closed_elsewhere_changes_nothing_there(guard: tmpguard.Guard) -> None:
    def rows() -> Iterator[int]:
        with guard.invocation():
            yield 1

    generator = rows()
    contextvars.Context().run(next, generator)
    with guard.invocation() as here:
        generator.close()
        assert tmpguard.current() is here
    assert tmpguard.current() is None


def test_a_block_left_by_an_exception_is_wiped(guard: tmpguard.Guard, scratch_root: Path) -> None:
    """C4.2"""
    with contextlib.suppress(ZeroDivisionError), guard.invocation():
        write("/tmp/file.txt", "text")
        raise ZeroDivisionError
    assert tmpguard.current() is None
    assert list(scratch_root.iterdir()) == []


# --- made on first use (C4.7) --------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scratch directories that were made."""
    directories: list[str] = []
    make = ScratchRoot.make

    def counting(self: ScratchRoot, owner: Owner) -> str:
        directories.append(make(self, owner))
        return directories[-1]

    monkeypatch.setattr(ScratchRoot, "make", counting)
    return directories


def _nothing() -> None:
    pass


def _read_elsewhere() -> None:
    assert read("/etc/passwd")
    assert os.listdir("/etc")
    assert os.path.exists("/etc/passwd")
    assert os.getcwd()


def _write_elsewhere() -> None:
    with pytest.raises(OSError, match="Read-only file system"):
        open("/etc/new.txt", "w")


@pytest.mark.parametrize("work", [_nothing, _read_elsewhere, _write_elsewhere])
def test_work_that_stays_out_of_tmp_makes_no_scratch_directory(
    work: Callable[[], None], guard: tmpguard.Guard, scratch_root: Path, made: list[str]
) -> None:
    with guard.invocation() as invocation:
        work()
        assert (invocation.report.used_bytes, invocation.report.files) == (0, 0)
        assert originals.listdir(scratch_root) == []
    invocation.end()
    assert made == []


def test_the_first_use_makes_one_scratch_directory(
    guard: tmpguard.Guard, scratch_root: Path, made: list[str]
) -> None:
    with guard.invocation():
        for number in range(3):
            write(f"/tmp/{number}", "")
        assert len(made) == 1
    assert list(scratch_root.iterdir()) == []


def test_threads_that_use_it_first_at_once_share_one_scratch_directory(
    guard: tmpguard.Guard, made: list[str]
) -> None:
    barrier = threading.Barrier(CROWD)
    invocation = guard.invocation()

    def work(number: int) -> None:
        with invocation.bound():
            barrier.wait()
            write(f"/tmp/{number}", "")

    in_threads(CROWD, work)
    with invocation:
        assert {f"{number}" for number in range(CROWD)} <= set(os.listdir("/tmp"))
    assert len(made) == 1


def test_scratch_directories_are_private(guard: tmpguard.Guard, scratch_root: Path, made: list[str]) -> None:
    """C4.1: nobody else on the machine may look into them, whatever the umask."""
    before = os.umask(0)
    try:
        with guard.invocation():
            write("/tmp/file.txt", "text")
            process, invocation = os.path.dirname(made[0]), made[0]
            assert [originals.stat(path).st_mode & 0o7777 for path in (process, invocation)] == [
                0o700,
                0o1777,
            ]
    finally:
        os.umask(before)


# --- the end (C4.2, C4.4) ------------------------------------------------------------------------------


def test_the_block_ends_with_everything_wiped_and_the_report_final(
    guard: tmpguard.Guard, scratch_root: Path
) -> None:
    with guard.invocation() as invocation:
        write("/tmp/file.txt", "x" * 5000)
    assert list(scratch_root.iterdir()) == []
    report = invocation.report
    assert (report.used_bytes, report.peak_bytes, report.files) == (8192, 8192, 1)


def test_a_report_that_is_read_while_another_thread_ends_the_invocation_is_the_final_one(
    guard: tmpguard.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a client in the same process, which has the response before the request is over."""
    ending, go = threading.Event(), threading.Event()
    discard = ScratchRoot.discard_small

    def slow(*args: Any, **kwargs: Any) -> Any:
        ending.set()
        go.wait()
        return discard(*args, **kwargs)

    monkeypatch.setattr(ScratchRoot, "discard_small", slow)
    invocation = guard.invocation()
    with invocation.bound():
        write("/tmp/file.txt", "x" * 5000)
    thread = threading.Thread(target=invocation.end)
    thread.start()
    ending.wait()
    threading.Timer(0.05, go.set).start()
    report = invocation.report
    assert (report.peak_bytes, report.used_bytes, report.files) == (8192, 8192, 1)
    thread.join()


def test_an_invocation_that_is_over_makes_no_new_scratch_directory(
    guard: tmpguard.Guard, scratch_root: Path, made: list[str]
) -> None:
    """C4.5"""
    invocation = guard.invocation()
    invocation.end()
    with invocation.bound():
        with pytest.raises(OSError, match="Stale") as refused:
            open("/tmp/file.txt", "w")
    assert refused.value.errno == errno.ESTALE
    assert made == []


@pytest.mark.parametrize("reported", [True, False])
def test_an_end_while_the_first_use_makes_the_scratch_directory_leaves_none(
    scratch_root: Path, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    """A thread of the application begins to use files just when the response is done (C4.2, C4.5)."""
    reports: list[tmpguard.Report] = []
    guard = tmpguard.Guard(
        scratch_root=scratch_root, bundle=None, on_report=reports.append if reported else None
    )
    invocation = guard.invocation()
    make = ScratchRoot.make

    def meanwhile(self: ScratchRoot, owner: Owner) -> str:
        made = make(self, owner)
        ending = threading.Thread(target=invocation.end)
        ending.start()
        ending.join()
        assert tmpguard.drain(30)
        return made

    monkeypatch.setattr(ScratchRoot, "make", meanwhile)
    with invocation.bound():
        for _ in range(2):
            with pytest.raises(OSError, match="Stale"):
                open("/tmp/file.txt", "w")
    assert tmpguard.drain(30)
    assert left_in(scratch_root) == []
    assert len(reports) == reported


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads
def test_each_invocation_has_a_directory_of_its_own_for_multiprocessing(guard: tmpguard.Guard) -> None:
    """C4.1: the process keeps one for all of its life."""
    import multiprocessing.util

    outside = multiprocessing.util.get_temp_dir()
    fork = multiprocessing.get_context("fork")
    for _ in range(2):
        with guard.invocation():
            inside = multiprocessing.util.get_temp_dir()
            assert inside != outside
            assert multiprocessing.util.get_temp_dir() == inside
            assert os.listdir("/tmp") == [os.path.basename(inside)]
            with fork.Manager() as manager:
                assert manager.list([1, 2])[1] == 2
    assert multiprocessing.util.get_temp_dir() == outside
