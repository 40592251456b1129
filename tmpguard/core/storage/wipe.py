"""Removes a directory and everything in it, whatever the application did to it (C4.2)."""

from __future__ import annotations

import itertools
from errno import EACCES, EBUSY, ENOENT, ENOTDIR, ENOTEMPTY, EPERM
from typing import Final

from tmpguard.core import originals

from .dirfd import MountPoint, mount_of, opened_directory, unlock

_ROUNDS: Final = 5
_HOISTED: Final = "tmpguard-"


def wipe(parent: int, name: str) -> None:
    """Remove the directory ``name`` in ``parent`` and everything in it.

    It enters no mount point (C4.4): mounts in it stay, with the directories that lead there. Late writers may
    add entries, so it repeats until the tree is empty.

    Raises OSError if something cannot be removed (an immutable file, for example), after everything else was.
    """
    mount = mount_of(parent)
    for round_left in reversed(range(_ROUNDS)):
        try:
            with opened_directory(parent, name, mount) as top:
                if originals.fstat(top).st_mode & 0o700 != 0o700:
                    originals.fchmod(top, 0o700)  # it may be readable but not searchable
                _Wipe(top, mount).empty()
            originals.rmdir(name, dir_fd=parent)
            return
        except OSError as exc:
            if exc.errno == ENOENT and not _has_entry(parent, name):
                return
            # An entry was added, removed or replaced after the listing.
            if exc.errno not in (ENOENT, ENOTDIR, ENOTEMPTY) or not round_left:
                raise


class _Wipe:
    """One pass over the open directory ``top``, which is on ``mount``.

    Nested directories are first moved to the top, so that a tree of any depth needs only two descriptors.
    """

    def __init__(self, top: int, mount: str) -> None:
        self._top = top
        self._mount = mount
        self._numbers = itertools.count()
        self._failure: OSError | None = None

    def empty(self) -> None:
        pending = self._clear(self._top)
        while pending:
            name = pending.pop()
            try:
                with opened_directory(self._top, name, self._mount) as inner:
                    for child in self._clear(inner):
                        self._hoist(inner, child, pending)
                originals.rmdir(name, dir_fd=self._top)
            except OSError as exc:
                self._note(exc)
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it refers to this frame, which would refer to it

    def _note(self, failure: OSError) -> None:
        """Remember it and continue. Of several, the one reported is one that another pass cannot fix."""
        if self._failure is None or self._failure.errno in (ENOENT, ENOTDIR, ENOTEMPTY):
            self._failure = failure

    def _clear(self, directory: int) -> list[str]:
        """Unlink everything in ``directory`` but the directories. Returns their names."""
        with originals.scandir(directory) as found:
            entries = list(found)
        directories = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            try:
                _unlink(entry.name, directory)
            except OSError as exc:
                self._note(exc)
        return directories

    def _hoist(self, directory: int, name: str, pending: list[str]) -> None:
        """Move the directory ``name`` to the top, under an unused name, to be emptied next."""
        repaired = False
        while True:
            target = f"{_HOISTED}{next(self._numbers)}"
            if _has_entry(self._top, target):
                continue  # the application's own name
            try:
                originals.rename(name, target, src_dir_fd=directory, dst_dir_fd=self._top)
                pending.append(target)
                return
            except PermissionError as exc:
                if repaired:
                    self._note(exc)
                    return
                # Moving a directory changes its "..": both it and its parent must be writable.
                originals.fchmod(directory, 0o700)
                unlock(directory, name, self._mount)
                repaired = True
            except OSError as exc:
                self._note(MountPoint(name) if exc.errno == EBUSY else exc)
                return


def _has_entry(parent: int, name: str) -> bool:
    """Is there an entry ``name`` in the directory ``parent``?"""
    try:
        originals.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unlink(name: str, directory: int) -> None:
    try:
        originals.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as exc:
        if exc.errno not in (EACCES, EPERM):
            raise
        # Its owner may lack write permission.
        originals.fchmod(directory, 0o700)
        originals.unlink(name, dir_fd=directory)
