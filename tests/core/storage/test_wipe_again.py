"""What a wipe cannot do now is tried again until it can, at the latest at the exit (C4.4)."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import eventually, left_in, run_python
from tmpguard.core import originals
from tmpguard.core.storage import scratch


def leave_a_file() -> None:
    Path("/tmp/file").write_text("text")


def leave_directories() -> None:
    os.makedirs("/tmp/a/b/c")
    Path("/tmp/a/b/file").write_text("text")


def leave_many_files() -> None:
    for number in range(20):
        Path(f"/tmp/{number}").write_text("text")


def leave_nothing() -> None:
    os.listdir("/tmp")


def leave_an_unlinked_file() -> None:
    """That is, one of which only the kernel knows that it is closed, and a larger file."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(5000))
    Path("/tmp/file").write_bytes(bytes(100_000))


LEAVE = [leave_a_file, leave_directories, leave_many_files, leave_nothing, leave_an_unlinked_file]


def end_in_the_block(guard: tmpguard.Guard, leave: Callable[[], None], fail: Callable[[], object]) -> None:
    with guard.invocation():
        leave()
        fail()


def end_in_the_background(
    guard: tmpguard.Guard, leave: Callable[[], None], fail: Callable[[], object]
) -> None:
    invocation = guard.invocation()
    with invocation.bound():
        leave()
    fail()
    invocation.end()
    assert tmpguard.drain()


def end_the_instance(guard: tmpguard.Guard, leave: Callable[[], None], fail: Callable[[], object]) -> None:
    shared = tmpguard.Guard(scratch_root=guard.scratch.path, bundle=None, lifetime="instance")
    with shared.invocation():
        leave()
    fail()
    shared.end_instance()


ENDS = [end_in_the_block, end_in_the_background, end_the_instance]


@contextmanager
def failing(name: str, code: int) -> Iterator[list[Any]]:
    """The original ``name`` fails with ``code`` within the block; how often it did."""
    original, calls = getattr(originals, name), list[Any]()

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        raise OSError(code, os.strerror(code))

    setattr(originals, name, fail)
    try:
        yield calls
    finally:
        setattr(originals, name, original)


FAILURES = [
    ("listdir", errno.EMFILE),
    ("os_open", errno.EMFILE),
    ("os_open", errno.ENFILE),
    ("scandir", errno.EMFILE),
    ("scandir", errno.ENOMEM),
    ("unlink", errno.EIO),
    ("rmdir", errno.EBUSY),
    ("rename", errno.EIO),
]


@pytest.mark.parametrize(("name", "code"), FAILURES)
@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("end", ENDS)
def test_what_could_not_be_wiped_is_wiped_by_the_next_drain(
    end: Callable[..., None],
    leave: Callable[[], None],
    name: str,
    code: int,
    guard: tmpguard.Guard,
    scratch_root: Path,
) -> None:
    with ExitStack() as broken:
        end(guard, leave, lambda: broken.enter_context(failing(name, code)))
    with guard.invocation():
        assert os.listdir("/tmp") == []
    assert tmpguard.drain()
    assert left_in(scratch_root) == []
    assert list(scratch_root.iterdir()) == [] or eventually(lambda: list(scratch_root.iterdir()) == [])


@pytest.mark.parametrize("end", ENDS)
def test_it_is_tried_again_without_anybody_asking(
    end: Callable[..., None], guard: tmpguard.Guard, scratch_root: Path
) -> None:
    with ExitStack() as broken:
        end(guard, leave_directories, lambda: broken.enter_context(failing("os_open", errno.EMFILE)))
        assert left_in(scratch_root) != []
    assert eventually(lambda: list(scratch_root.iterdir()) == [])


@pytest.mark.parametrize("end", ENDS)
def test_a_figure_that_cannot_be_had_delays_no_wipe(
    end: Callable[..., None], guard: tmpguard.Guard, scratch_root: Path
) -> None:
    """Where no descriptor is free, nobody can tell which unlinked files are closed."""
    with ExitStack() as broken:
        end(guard, leave_an_unlinked_file, lambda: broken.enter_context(failing("listdir", errno.EMFILE)))
    assert eventually(lambda: left_in(scratch_root) == [])


def test_an_overrun_that_cannot_be_measured_delays_no_wipe(scratch_root: Path) -> None:
    guard = tmpguard.Guard(storage_size=1, scratch_root=str(scratch_root), bundle=None)
    invocation = guard.invocation()
    with invocation.bound():
        descriptor = os.open("/tmp/file", os.O_WRONLY | os.O_CREAT)
        originals.FileIO(descriptor, "w", closefd=False).write(bytes(2 << 20))  # as native code would
    try:
        with failing("os_open", errno.EMFILE):
            invocation.end()
        assert eventually(lambda: left_in(scratch_root) == [])
    finally:
        os.close(descriptor)


def test_it_is_tried_less_and_less_often(
    guard: tmpguard.Guard, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And soon again, at the latest after a minute, where it is a mount that stays for long."""
    now = 0.0
    monkeypatch.setattr(scratch.real, "monotonic", lambda: now)
    root = scratch.ScratchRoot(str(scratch_root))
    directory = root.make()
    with failing("rmdir", errno.EBUSY) as attempts:
        root.discard(directory)
        times = []
        while now < 300:
            now += 0.25
            before = len(attempts)
            root.tidy()
            if len(attempts) > before:
                times.append(now)
    assert times[:4] == [0.5, 1.5, 3.5, 7.5]
    assert {later - sooner for sooner, later in itertools.pairwise(times[7:])} == {60.0}
    assert root.has_more_to_do()
    assert root.tidy(everything=True) is None
    assert not root.has_more_to_do()
    root.release()
    assert list(scratch_root.iterdir()) == []


def test_one_that_cannot_be_wiped_does_not_keep_the_others(guard: tmpguard.Guard, scratch_root: Path) -> None:
    with ExitStack() as broken:
        end_in_the_block(
            guard, leave_directories, lambda: broken.enter_context(failing("rmdir", errno.EBUSY))
        )
    for _ in range(3):
        with guard.invocation():
            leave_directories()
    assert len(list(scratch_root.glob("*/*"))) <= 1
    assert tmpguard.drain()
    assert list(scratch_root.glob("*/*")) == []


def test_a_directory_whose_owner_was_collected_is_wiped(scratch_root: Path) -> None:
    """An end that was interrupted leaves it so."""

    class Owner:
        def close(self) -> None: ...

        def wipe(self) -> Any: ...

    root = scratch.ScratchRoot(str(scratch_root))
    owner = Owner()
    directory = root.make(owner)
    Path(directory, "file").write_text("text")
    root.tidy()
    assert os.path.exists(directory)
    del owner
    root.tidy()
    assert not os.path.exists(directory)
    root.release()
    assert list(scratch_root.iterdir()) == []


def test_what_an_interrupted_step_has_left_goes_with_the_process_s_directory(scratch_root: Path) -> None:
    root = scratch.ScratchRoot(str(scratch_root))
    directory = root.make()
    Path(os.path.dirname(directory), "1.gone").write_text("text")
    os.makedirs(os.path.dirname(directory) + "/77/inner")
    root.release()
    assert os.path.exists(directory), "it is in use"
    root.discard(directory)
    root.release()
    assert list(scratch_root.iterdir()) == []


FEW = """
import os, resource, tmpguard
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def occupy():
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return held

def free(held):
    for descriptor in held:
        os.close(descriptor)

def use():
    os.makedirs("/tmp/d/e")
    open("/tmp/d/e/file", "wb").write(b"x" * 500000)

import logging
logging.getLogger("tmpguard").setLevel(logging.CRITICAL)
"""

WITHOUT_DESCRIPTORS = {
    "a block": """
for _ in range(3):
    with guard.invocation():
        use()
        held = occupy()
    free(held)
with guard.invocation():
    open("/tmp/x", "w").close()
tmpguard.drain()
assert not [name for _, _, names in os.walk(sys.argv[1]) for name in names]
""",
    "in the background": """
for _ in range(3):
    invocation = guard.invocation()
    with invocation.bound():
        use()
    held = occupy()
    invocation.end()
    tmpguard.drain()
    free(held)
tmpguard.drain()
assert not [name for _, _, names in os.walk(sys.argv[1]) for name in names]
""",
    "until the exit": """
with guard.invocation():
    use()
    held = occupy()
import atexit
free(held)
""",
}


@pytest.mark.parametrize("code", WITHOUT_DESCRIPTORS.values(), ids=WITHOUT_DESCRIPTORS.keys())
def test_no_free_descriptor_at_the_end(code: str, scratch_root: Path) -> None:
    run_python(FEW + code, scratch_root)
    assert list(scratch_root.iterdir()) == []


AT_THE_EXIT = """
import os, sys, threading, time, tmpguard
from contextlib import suppress
from tmpguard.core import originals
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
mkdir, slow = originals.mkdir, threading.Event()

def late(path, *mode):
    is_slow = path.count("/") - sys.argv[1].count("/") == int(sys.argv[2])
    if is_slow:
        slow.set()
        time.sleep(0.2)
    mkdir(path, *mode)

def work():
    with suppress(OSError), guard.invocation():
        open("/tmp/file", "w").close()

originals.mkdir = late
threading.Thread(target=work, daemon=True).start()
slow.wait()
print("done")
"""


@pytest.mark.parametrize("level", [1, 2], ids=["the process's directory", "the invocation's directory"])
def test_what_a_daemon_thread_is_making_at_the_exit_is_removed(level: int, scratch_root: Path) -> None:
    """C4.2: it had begun to before, and would not run again to remove it."""
    assert run_python(AT_THE_EXIT, scratch_root, str(level)) == "done\n"
    assert list(scratch_root.iterdir()) == []


REMOVED_AT_THE_EXIT = """
import sys, threading, tmpguard
from tmpguard.core.storage import volume
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
within, gone = threading.Event(), threading.Event()
is_gone, release = volume.is_gone, guard.scratch.release

def late(directory):
    within.set()  # it is not closed, and about to be looked for
    gone.wait()
    return is_gone(directory)

def late_release():
    gone.set()
    if threading.current_thread() is not thread:
        thread.join()
    release()

def again():
    with guard.invocation() as invocation:
        open("/tmp/file", "w").close()
        volume.is_gone = late
        print("made again" if invocation.mounted.mend() else "left alone")

thread = threading.Thread(target=again, daemon=True)
thread.start()
within.wait()
guard.scratch.release = late_release
print("done")
"""


def test_a_directory_that_the_exit_has_removed_is_not_made_again(scratch_root: Path) -> None:
    """C4.2: the call of a daemon thread finds that it is gone."""
    assert run_python(REMOVED_AT_THE_EXIT, scratch_root) == "done\nleft alone\n"
    assert list(scratch_root.iterdir()) == []
