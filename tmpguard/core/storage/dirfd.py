"""Directories by descriptor, no link followed, whatever the application made of their modes (C4.2)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tmpguard.core import originals

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What its owner has to be allowed to list a directory and to look at what is in it.
_LOOKING: Final = 0o500


@contextmanager
def opened_directory(parent: int, name: str) -> Iterator[int]:
    descriptor = open_directory(parent, name)
    try:
        yield descriptor
    finally:
        originals.close(descriptor)


@contextmanager
def readable_directory(parent: int, path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of the directory ``path``, and whether its owner may not look at what is in it: then its
    mode is another one for as long as this takes."""
    before = None
    try:
        descriptor = originals.os_open(path, DIRECTORY, dir_fd=parent)
    except PermissionError:
        before = modes.S_IMODE(originals.stat(path, dir_fd=parent, follow_symlinks=False).st_mode)
        descriptor = open_directory(parent, path)
    try:
        mode = modes.S_IMODE(originals.fstat(descriptor).st_mode)
        if mode & _LOOKING != _LOOKING:
            before = mode
            originals.fchmod(descriptor, mode | _LOOKING)
        yield descriptor, before is not None
    finally:
        if before is not None:
            originals.fchmod(descriptor, before)
        originals.close(descriptor)


@contextmanager
def unlocked(directory: str) -> Iterator[None]:
    """Within the block the owner has all rights to ``directory``, whatever its mode."""
    mode = modes.S_IMODE(originals.lstat(directory).st_mode)
    if mode & 0o700 == 0o700:
        yield
        return
    originals.chmod(directory, mode | 0o700)
    try:
        yield
    finally:
        originals.chmod(directory, mode)


def open_directory(parent: int, name: str) -> int:
    """A descriptor of the directory ``name``, made readable for its owner if it is not; follows no link."""
    try:
        return originals.os_open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        unlock(parent, name)
        return originals.os_open(name, DIRECTORY, dir_fd=parent)


def unlock(parent: int, name: str) -> None:
    """Give the owner all rights on the directory ``name``. chmod follows links, so it goes by descriptor."""
    descriptor = originals.os_open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
    )
    try:
        originals.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        originals.close(descriptor)
