"""Each figure of a report is the true one: random scripts, compared with the disk after each step.

The disk is asked by other means than tmpguard's own: what the scratch directory and the open unlinked files
hold, in whole pages. The most of these sums within an invocation is its peak.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, NamedTuple

import pytest

import tmpguard
from tests.support import left_in

PAGE = 4096
NAMES = [f"/tmp/{name}" for name in ("a", "b", "c", "d", "of/a", "of/b", "of/deep/c")]
DIRECTORIES = ["/tmp/of", "/tmp/of/deep", "/tmp/e"]


# --- what the disk says --------------------------------------------------------------------------------


class Held(NamedTuple):
    """What is used: bytes in whole pages, and directory entries."""

    bytes: int
    files: int


def on_disk(directory: str | None, *, unlinked: bool = True) -> Held:
    """What is behind a /tmp, also the unlinked files that are still open where ``unlinked``."""
    if directory is None:
        return Held(0, 0)
    sizes: dict[int, int] = {}
    files = 0
    for place, directories, names in os.walk(directory):
        for name in [*directories, *names]:
            files += 1
            path = f"{place}/{name}"
            status = os.lstat(path)
            sizes[status.st_ino] = 0 if modes.S_ISDIR(status.st_mode) else data_of(path, status)
    for descriptor in os.listdir("/proc/self/fd") if unlinked else ():
        path = f"/proc/self/fd/{descriptor}"
        with suppress(FileNotFoundError):
            status = os.stat(path)
            if os.readlink(path).startswith(f"{directory}/") and not status.st_nlink:
                files += status.st_ino not in sizes
                sizes[status.st_ino] = data_of(path, status)
    return Held(sum(sizes.values()), files)


def data_of(path: str, status: os.stat_result) -> int:
    if modes.S_ISLNK(status.st_mode):
        return 0 if status.st_size < 128 else PAGE
    descriptor = os.open(path, os.O_RDONLY)
    total = at = 0
    try:
        while at < status.st_size:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, begin, os.SEEK_HOLE)
            total += -(-at // PAGE) * PAGE - begin // PAGE * PAGE
    except OSError as exc:
        if exc.errno != errno.ENXIO:  # nothing but a hole from there on
            raise
    finally:
        os.close(descriptor)
    return total


# --- what a script does --------------------------------------------------------------------------------


class Script:
    """Random steps in one /tmp; ``held`` are files that stay open."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.held: list[BinaryIO] = []

    def step(self) -> None:
        with suppress(OSError):
            self.random.choice(STEPS)(self)

    def path(self) -> str:
        return self.random.choice(NAMES)

    def content(self) -> bytes:
        return b"x" * self.random.choice((1, 100, PAGE, PAGE + 1, self.random.randrange(200_000)))

    def write(self) -> None:
        with open(self.path(), self.random.choice(("wb", "ab", "r+b", "xb"))) as file:
            file.write(self.content())

    def write_text(self) -> None:
        Path(self.path()).write_text("y" * self.random.randrange(20_000))

    def write_behind_a_hole(self) -> None:
        with open(self.path(), "wb", buffering=0) as file:
            file.seek(self.random.randrange(50) * 1000)
            file.write(self.content())

    def write_raw(self) -> None:
        descriptor = os.open(self.path(), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, self.content(), self.random.randrange(30) * 1000)
            os.write(descriptor, self.content())
        finally:
            os.close(descriptor)

    def cut(self) -> None:
        os.truncate(self.path(), self.random.randrange(100_000))

    def allocate(self) -> None:
        with open(self.path(), "ab") as file:
            os.posix_fallocate(file.fileno(), 0, self.random.randrange(1, 100_000))

    def unlink(self) -> None:
        os.unlink(self.path())

    def rename(self) -> None:
        os.replace(self.path(), self.path())

    def link(self) -> None:
        os.link(self.path(), self.path())

    def symlink(self) -> None:
        os.symlink("t" * self.random.choice((3, 127, 128, 3000)), self.path())

    def make_directory(self) -> None:
        os.mkdir(self.random.choice(DIRECTORIES))

    def remove_directory(self) -> None:
        os.rmdir(self.random.choice(DIRECTORIES))

    def hold(self) -> None:
        """Keep a file open that has no name, or loses it."""
        if self.random.random() < 0.5:
            file: Any = tempfile.TemporaryFile(buffering=0)
        else:
            file = open(self.path(), "w+b", buffering=0)
        self.held.append(file)
        file.write(self.content())

    def write_held(self) -> None:
        if self.held:
            self.random.choice(self.held).write(self.content())

    def release(self) -> None:
        if self.held:
            self.held.pop(self.random.randrange(len(self.held))).close()

    def close(self) -> None:
        while self.held:
            self.held.pop().close()


STEPS: list[Callable[[Script], None]] = [
    *[Script.write] * 4,
    *(Script.write_text, Script.write_behind_a_hole, Script.write_raw, Script.cut, Script.allocate),
    *(Script.unlink, Script.unlink, Script.rename, Script.link, Script.symlink),
    *(Script.make_directory, Script.make_directory, Script.remove_directory),
    *(Script.hold, Script.write_held, Script.release),
]


def figures(report: tmpguard.Report) -> tuple[Held, int]:
    return Held(report.used_bytes, report.files), report.peak_bytes


# --- one invocation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_the_figures_of_an_invocation_are_those_of_the_disk(seed: int, scratch_root: Path) -> None:
    random = Random(seed)
    asks = random.random() < 0.5  # else nothing is measured in between
    on_report = (lambda report: None) if random.random() < 0.5 else None
    guard = tmpguard.Guard(storage_size=1, bundle=None, scratch_root=scratch_root, on_report=on_report)
    for _ in range(4):
        script, peak = Script(random), 0
        invocation = guard.invocation()
        for _ in range(random.randrange(30)):
            with invocation.bound():
                script.step()
            now = on_disk(invocation.mounted.directory)
            peak = max(peak, now.bytes)
            if asks and random.random() < 0.3:
                assert figures(invocation.report) == (now, peak)
        left = on_disk(invocation.mounted.directory, unlinked=False)
        invocation.end()
        assert figures(invocation.report) == (left, peak)
        script.close()
    tmpguard.drain()
    assert left_in(scratch_root) == []


# --- one instance --------------------------------------------------------------------------------------


class Request:
    """An invocation of an instance, with the most that was in use while it ran."""

    def __init__(self, guard: tmpguard.Guard, now: Held) -> None:
        self.invocation = guard.invocation()
        self.peak = now.bytes


@pytest.mark.parametrize("asked", ["during", "at the end", "later"])
@pytest.mark.parametrize("seed", range(6))
def test_the_figures_in_an_instance_are_those_of_the_disk(seed: int, asked: str, scratch_root: Path) -> None:
    """Requests begin and end while others run; some touch nothing. What lies in the /tmp is used by
    each of them."""
    random = Random(seed)
    handed: list[tmpguard.Report] = []
    guard = tmpguard.Guard(
        storage_size=1, bundle=None, scratch_root=scratch_root, lifetime="instance", on_report=handed.append
    )
    script = Script(random)
    running: list[Request] = []
    expected: list[tuple[tmpguard.Report, tuple[Held, int]]] = []
    directory: str | None = None
    for _ in range(150):
        now = on_disk(directory)
        if not running or (len(running) < 4 and random.random() < 0.1):
            running.append(Request(guard, now))
        one = random.choice(running)
        if random.random() < 0.15:
            running.remove(one)
            report = one.invocation.report
            one.invocation.end()
            expected.append((report, (now, one.peak)))
            if asked == "at the end":
                assert figures(report) == expected[-1][1]
            continue
        if random.random() < 0.5:  # others touch nothing
            with running[0].invocation.bound():
                script.step()
            directory = running[0].invocation.mounted.directory or directory
        now = on_disk(directory)
        for each in running:
            each.peak = max(each.peak, now.bytes)
        if asked == "during":
            assert figures(one.invocation.report) == (now, one.peak)
    for one in running:
        one.invocation.end()
    tmpguard.drain()
    for report, told in expected:
        assert figures(report) == told
    assert len(handed) == len(expected) + len(running)
    script.close()
    guard.end_instance()
    assert left_in(scratch_root) == []


def test_a_request_that_touches_nothing_has_what_the_others_left(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=None, scratch_root=scratch_root, lifetime="instance")
    with guard.invocation() as first:
        pass
    assert figures(first.report) == (Held(0, 0), 0)
    with guard.invocation():
        Path("/tmp/large").write_bytes(bytes(20 * PAGE))
        Path("/tmp/small").write_bytes(b"x")
        os.unlink("/tmp/large")
    with guard.invocation() as idle:
        assert figures(idle.report) == (Held(PAGE, 1), PAGE)
    assert figures(idle.report) == (Held(PAGE, 1), PAGE)
    with guard.invocation(), guard.invocation() as beside:
        Path("/tmp/large").write_bytes(bytes(20 * PAGE))
    assert figures(beside.report) == (Held(21 * PAGE, 2), 21 * PAGE)
    with guard.invocation() as last:
        guard.end_instance()
    assert figures(last.report)[0] == Held(21 * PAGE, 2)
    assert figures(idle.report) == (Held(PAGE, 1), PAGE)
