"""Random work on a small /tmp, and the space in use after each step.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
from collections.abc import Callable
from typing import Any

#: Each step: its name, its result, the bytes in use, and the length of its file.
Step = list[Any]

PAGE = 4096
NAMES = 5


class Worker:
    """Makes the same choices in both places, as long as it sees the same."""

    def __init__(self, seed: int, whole: bool) -> None:
        self.choose = random.Random(seed)
        self.whole = whole
        self.handles: list[int] = []

    # --- the steps -------------------------------------------------------------------------------------

    def write(self, path: str) -> int:
        with open(path, "ab", buffering=0) as file:
            return file.write(bytes(self.size()))

    def write_at(self, path: str) -> int:
        return self.by_descriptor(path, lambda fd: os.pwrite(fd, bytes(self.size()), self.offset()))

    def write_vector(self, path: str) -> int:
        pieces = [bytes(self.choose.randrange(9000)) for _ in range(self.choose.randrange(1, 20))]
        return self.by_descriptor(path, lambda fd: os.writev(fd, pieces))

    def write_buffered(self, path: str) -> str:
        with open(
            path, self.choose.choice(["wb", "ab", "r+b"]), buffering=self.choose.choice([-1, 50])
        ) as file:
            for _ in range(self.choose.randrange(1, 40)):
                file.write(bytes(self.choose.randrange(6000)))
        return "closed"

    def overwrite(self, path: str) -> int:
        with open(path, "wb", buffering=0) as file:
            return file.write(bytes(self.size()))

    def truncate(self, path: str) -> None:
        os.truncate(path, self.length(self.offset()))

    def extend(self, path: str) -> None:
        os.truncate(path, self.length(os.path.getsize(path) + self.offset()))

    def allocate(self, path: str) -> None:
        self.by_descriptor(path, lambda fd: os.posix_fallocate(fd, self.offset(), self.size()))

    def map(self, path: str) -> None:
        def change(fd: int) -> None:
            # Only allocated pages: the kernel would send a signal when the space runs out.
            os.posix_fallocate(fd, 0, max(1, os.fstat(fd).st_size))
            with mmap.mmap(fd, 0) as mapping:
                mapping[:] = bytes(len(mapping))

        self.by_descriptor(path, change)

    def copy(self, path: str) -> int:
        def copied(target: int) -> int:
            with open(self.path(), "rb") as source:
                return os.sendfile(target, source.fileno(), 0, 1 << 20)

        return self.by_descriptor(path, copied)

    def copy_range(self, path: str) -> int:
        def copied(target: int) -> int:
            with open(self.path(), "rb") as source:
                if os.path.samestat(os.fstat(source.fileno()), os.fstat(target)):
                    return 0  # overlapping ranges have nothing to do with space
                return os.copy_file_range(source.fileno(), target, 1 << 20, 0, self.choose.randrange(9000))

        return self.by_descriptor(path, copied)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rename(self, path: str) -> None:
        os.rename(path, self.path())

    def link(self, path: str) -> None:
        target = self.path()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        os.link(path, target)

    def symlink(self, path: str) -> None:
        os.unlink(path)
        os.symlink("t" * self.choose.choice([10, 127, 128, 300]), path)

    def directory(self, path: str) -> None:
        os.makedirs(f"/tmp/directory/{self.choose.randrange(1000)}", exist_ok=True)

    def hold(self, path: str) -> None:
        self.handles.append(os.open(path, os.O_RDWR))

    def hold_nameless(self, path: str) -> None:
        self.handles.append(os.open("/tmp", os.O_RDWR | os.O_TMPFILE, 0o600))

    def hold_twice(self, path: str) -> None:
        if self.handles:
            self.handles.append(os.dup(self.choose.choice(self.handles)))

    def write_held(self, path: str) -> int:
        if not self.handles:
            return 0
        return os.pwrite(self.choose.choice(self.handles), bytes(self.size()), self.offset())

    def close(self, path: str) -> None:
        if self.handles:
            os.close(self.handles.pop(self.choose.randrange(len(self.handles))))

    # --- choices ---------------------------------------------------------------------------------------

    def path(self) -> str:
        return f"/tmp/{self.choose.randrange(NAMES)}"

    def size(self) -> int:
        return self.choose.choice([1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 50_000, 200_000, 2_000_000])

    def offset(self) -> int:
        return self.choose.choice([0, 1, PAGE, 10 * PAGE - 1, 100_000, 300_000])

    def length(self, size: int) -> int:
        """A file that ends in a hole ends at the end of a page where that is to be."""
        return -(-size // PAGE) * PAGE if self.whole else size

    def by_descriptor(self, path: str, call: Callable[[int], Any]) -> Any:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            return call(descriptor)
        finally:
            os.close(descriptor)


STEPS: tuple[Callable[[Worker, str], Any], ...] = (
    *(Worker.write, Worker.write_at, Worker.write_vector, Worker.write_buffered, Worker.overwrite),
    *(Worker.truncate, Worker.extend, Worker.allocate, Worker.map, Worker.copy, Worker.copy_range),
    *(Worker.unlink, Worker.unlink, Worker.unlink, Worker.rename, Worker.link, Worker.symlink),
    *(Worker.directory, Worker.hold, Worker.hold_nameless, Worker.hold_twice, Worker.write_held),
    *(Worker.close, Worker.close),
)


def work(seed: int, steps: int, whole: bool) -> list[Step]:
    """Do ``steps`` random steps and return their records.

    With ``whole``, only whole pages are given to files as their length.
    """
    worker = Worker(seed, whole)
    done: list[Step] = []
    for _ in range(steps):
        path = worker.path()
        step = worker.choose.choice(STEPS)
        given: Any
        try:
            given = step(worker, path)
        except OSError as exc:
            given = errno.errorcode[exc.errno or 0]
        status = os.statvfs("/tmp")
        try:
            length = os.lstat(path).st_size
        except FileNotFoundError:
            length = -1
        done.append([f"{step.__name__} {path}", given, (status.f_blocks - status.f_bfree) * PAGE, length])
    for handle in worker.handles:
        os.close(handle)
    return done


def works(seeds: list[int], steps: int, whole: bool) -> list[list[Step]]:
    """The same for several seeds, each in an empty /tmp."""
    found = []
    for seed in seeds:
        found.append(work(seed, steps, whole))
        for name in os.listdir("/tmp"):
            path = f"/tmp/{name}"
            if os.path.isdir(path):
                for inner in os.listdir(path):
                    os.rmdir(f"{path}/{inner}")
                os.rmdir(path)
            else:
                os.unlink(path)
    return found
