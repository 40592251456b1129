"""Files in an instance's ``/tmp`` that are removed and still open: they are charged until they are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from tmpguard.core import originals

_DELETED: Final = " (deleted)"
#: Files that are looked for.
_MOST: Final = 100


class Held(NamedTuple):
    """A file, its size on the disk in bytes, and the name of the program that holds it."""

    path: str
    size: int
    program: str


def held_files(ancestor: int, device: int) -> list[Held]:
    """The removed files on ``device`` that descendants of the process ``ancestor`` hold, each once."""
    found: dict[int, Held] = {}
    for process in _descendants(ancestor):
        for name in _names(f"/proc/{process}/fd"):
            with suppress(OSError):
                link = f"/proc/{process}/fd/{name}"
                path = originals.readlink(link)
                if path.endswith(_DELETED):
                    status = originals.stat(link)
                    if status.st_dev == device and status.st_blocks and len(found) < _MOST:
                        size = status.st_blocks * 512
                        found.setdefault(
                            status.st_ino, Held(path.removesuffix(_DELETED), size, _program(process))
                        )
    return list(found.values())


def _descendants(ancestor: int) -> Iterator[int]:
    waiting = [ancestor]
    while waiting:
        process = waiting.pop()
        for task in _names(f"/proc/{process}/task"):
            with suppress(OSError):
                children = _read(f"/proc/{process}/task/{task}/children").split()
                waiting += map(int, children)
                yield from map(int, children)


def _names(directory: str) -> list[str]:
    try:
        return originals.listdir(directory)
    except OSError:
        return []


def _program(process: int) -> str:
    return _read(f"/proc/{process}/comm").strip()


def _read(path: str) -> str:
    descriptor = originals.os_open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65_536).decode(errors="replace")
    finally:
        originals.close(descriptor)
