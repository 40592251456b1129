"""Removing a directory and all that is in it, whatever the application made of it (C4.2)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from errno import EACCES, ENOENT, ENOTDIR, ENOTEMPTY, EPERM
from typing import Final

from tmpguard.core import originals

from .dirfd import opened_directory, unlock

_ROUNDS: Final = 5
_HOISTED: Final = "tmpguard-"


def wipe(parent: int, name: str) -> None:
    """Remove the directory ``name`` of the descriptor ``parent`` and all that is in it.

    A directory that lies in a directory is first moved up to the top: so any depth is wiped with two
    descriptors. Late writers may add entries meanwhile, so it goes over the tree until it is empty.

    Raises OSError when something cannot be removed (an immutable file, say).
    """
    for round_left in reversed(range(_ROUNDS)):
        try:
            with opened_directory(parent, name) as top:
                _empty(top)
            originals.rmdir(name, dir_fd=parent)
            return
        except OSError as exc:
            if exc.errno == ENOENT and not _has_entry(parent, name):
                return
            # Somebody added, removed or replaced an entry between the listing and the step.
            if exc.errno not in (ENOENT, ENOTDIR, ENOTEMPTY) or not round_left:
                raise


def _has_entry(parent: int, name: str) -> bool:
    """Is there an entry ``name`` in the directory of the descriptor ``parent``?"""
    try:
        originals.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _empty(top: int) -> None:
    pending = _clear(top, top)
    numbers = itertools.count()
    while pending:
        name = pending.pop()
        with opened_directory(top, name) as inner:
            for child in _clear(top, inner):
                pending.append(_hoist(inner, child, top, numbers))
        originals.rmdir(name, dir_fd=top)


def _clear(top: int, directory: int) -> list[str]:
    """Unlink all that is no directory in ``directory``; the names of those that are."""
    with originals.scandir(directory) as found:
        entries = list(found)
    directories = []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            directories.append(entry.name)
        else:
            _unlink(entry.name, directory)
    return directories


def _unlink(name: str, directory: int) -> None:
    try:
        originals.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as exc:
        if exc.errno not in (EACCES, EPERM):
            raise
        # The directory may not be writable for its owner.
        originals.fchmod(directory, 0o700)
        originals.unlink(name, dir_fd=directory)


def _hoist(directory: int, name: str, top: int, numbers: Iterator[int]) -> str:
    """Move the directory ``name`` to the top under a name that is free there; returns that name."""
    repaired = False
    while True:
        target = f"{_HOISTED}{next(numbers)}"
        if _has_entry(top, target):
            continue  # the application's own name
        try:
            originals.rename(name, target, src_dir_fd=directory, dst_dir_fd=top)
            return target
        except PermissionError:
            if repaired:
                raise
            # Moving a directory changes its "..", which wants it writable, and its parent too.
            originals.fchmod(directory, 0o700)
            unlock(directory, name)
            repaired = True
