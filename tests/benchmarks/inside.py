"""File operations in an invocation, in its ``/tmp``; the plain side has a directory on the same disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .measure import Batch, Row

PAGE = 4096
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def place(guarded: bool, directory: str) -> Iterator[str]:
    """Where the row works: ``directory``, or the ``/tmp`` of an invocation with its scratch there."""
    if not guarded:
        yield directory
        return
    import tmpguard

    with tmpguard.invocation(scratch_root=directory, bundle=None):
        yield "/tmp"


def write_binary(guarded: bool, directory: str) -> Iterator[Batch]:
    data = os.urandom(PAGE)
    with place(guarded, directory) as root:
        path = root + "/file.bin"

        def batch(count: int) -> None:
            for _ in range(count):
                with open(path, "wb") as file:
                    file.write(data)

        yield batch


def write_text(guarded: bool, directory: str) -> Iterator[Batch]:
    text = "x" * (PAGE - 1) + "\n"
    with place(guarded, directory) as root:
        path = root + "/file.txt"

        def batch(count: int) -> None:
            for _ in range(count):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)

        yield batch


def read_binary(guarded: bool, directory: str) -> Iterator[Batch]:
    with place(guarded, directory) as root:
        path = root + "/file.bin"
        with open(path, "wb") as file:
            file.write(os.urandom(PAGE))

        def batch(count: int) -> None:
            for _ in range(count):
                with open(path, "rb") as file:
                    file.read()

        yield batch


def write_large(guarded: bool, directory: str) -> Iterator[Batch]:
    data = os.urandom(MEBIBYTE)
    with place(guarded, directory) as root:
        path = root + "/large.bin"

        def batch(count: int) -> None:
            for _ in range(count):
                with open(path, "wb") as file:
                    for _ in range(64):
                        file.write(data)

        yield batch


def write_small(guarded: bool, directory: str) -> Iterator[Batch]:
    data = b"a line of a log file, say 40 bytes long\n"
    with place(guarded, directory) as root:
        path = root + "/log.txt"

        def batch(count: int) -> None:
            for _ in range(count):
                with open(path, "wb") as file:
                    for _ in range(20_000):
                        file.write(data)

        yield batch


def _thousand_files(root: str) -> str:
    """A directory of 1,000 files."""
    flat = root + "/flat"
    os.mkdir(flat)
    for number in range(1000):
        with open(f"{flat}/file-{number:04}.txt", "wb"):
            pass
    return flat


def listdir(guarded: bool, directory: str) -> Iterator[Batch]:
    with place(guarded, directory) as root:
        path = _thousand_files(root)

        def batch(count: int) -> None:
            for _ in range(count):
                os.listdir(path)

        yield batch


def stat(guarded: bool, directory: str) -> Iterator[Batch]:
    with place(guarded, directory) as root:
        path = root + "/file.txt"
        with open(path, "w") as file:
            file.write("text")

        def batch(count: int) -> None:
            for _ in range(count):
                os.stat(path)

        yield batch


def walk_with_stat(guarded: bool, directory: str) -> Iterator[Batch]:
    with place(guarded, directory) as root:
        top = root + "/tree"
        for number in range(10):
            branch = f"{top}/branch-{number}"
            os.makedirs(branch)
            for leaf in range(100):
                with open(f"{branch}/leaf-{leaf:02}.txt", "wb"):
                    pass

        def batch(count: int) -> None:
            for _ in range(count):
                for path, _, names in os.walk(top):
                    for name in names:
                        os.stat(os.path.join(path, name))

        yield batch


ROWS = (
    Row("inside: write a file of 4 KiB", 1.35, write_binary),
    Row("inside: write a text file of 4 KiB", 1.45, write_text),
    Row("inside: read a file of 4 KiB", 1.25, read_binary),
    Row("inside: write 64 MiB in pieces of 1 MiB", 1.03, write_large, rounds=15),
    Row("inside: 20,000 small buffered writes", 1.15, write_small),
    Row("inside: `os.listdir` of 1,000 names", 1.10, listdir),
    Row("inside: `os.stat`", 1.90, stat),
    Row("inside: `os.walk` with `os.stat` over 1,000 files", 1.60, walk_with_stat),
)
