"""An instance's ``/tmp`` as the supervisor sees it: by a descriptor, without asking any process."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterable, Iterator
from typing import Final

from tmpguard.core import originals
from tmpguard.core.layout import TMP
from tmpguard.core.storage.dirfd import DIRECTORY, mount_of, opened_directory
from tmpguard.core.storage.wipe import wipe

#: Of /tmp itself.
_MODE: Final = 0o1777

#: Paths of files that are listed.
_LISTED: Final = 1000

#: What must stay in a directory: the names, and what must stay in those that lead to a mount.
Kept = dict[str, "Kept"]


class Tmp:
    """The tmpfs behind ``descriptor``, which had ``inodes`` when the application was started.

    ``mounted`` are the paths in it on which something is mounted; they stay, with their parents. None if it
    is this machine's own /tmp: what is there already stays.
    """

    def __init__(self, descriptor: int, inodes: int, mounted: Iterable[str] | None) -> None:
        self._descriptor = descriptor
        self._inodes = inodes
        #: Files that are removed and still open: a server may have such ones all its life.
        self._held = 0
        #: What those cost in bytes, as of the last wipe.
        self.held_bytes = 0
        #: Whether there was nothing in it when its use was asked for.
        self.was_empty = False
        self._mount = mount_of(descriptor)
        status = os.fstat(descriptor)
        self._owner = status.st_uid, status.st_gid
        self._kept: Kept = {}
        if mounted is None:
            mounted = [f"{TMP}/{name}" for name in originals.listdir(descriptor)]
        for path in mounted:
            kept = self._kept
            for name in path.removeprefix(TMP + "/").split("/"):
                kept = kept.setdefault(name, {})

    def usage(self) -> tuple[int, int]:
        """The bytes in use, and the number of files, directories and links.

        The bytes include those of files that are removed and still open.
        """
        used, entries = self._charged()
        self.was_empty = not entries
        # Some of those that were held may be closed by now: what has a name is counted then.
        return used, self._count() if entries and self._held else entries

    def _count(self) -> int:
        return sum(1 + _inside(parent, name) for parent, name in self._made(self._descriptor, self._kept))

    def device(self) -> int:
        """The number of its file system."""
        return os.fstat(self._descriptor).st_dev

    def _charged(self) -> tuple[int, int]:
        status = os.fstatvfs(self._descriptor)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        if not status.f_files:  # a tmpfs without a limit on files does not count them
            return used, len(self._paths())
        return used, status.f_files - status.f_ffree - self._inodes

    def size(self) -> int:
        """The bytes that fit into it."""
        status = os.fstatvfs(self._descriptor)
        return status.f_blocks * status.f_frsize

    def is_full_of_files(self) -> bool:
        """Has it as many files as it may have?"""
        status = os.fstatvfs(self._descriptor)
        return bool(status.f_files) and status.f_ffree == 0

    def is_empty(self) -> bool:
        """Is nothing in it? Then all that can be left to do is to restore /tmp itself, which is done."""
        self._restore()
        return self._charged()[1] == 0

    def wipe(self) -> int:
        """Remove all that the application has made; the number of entries in /tmp itself that this were.

        Raises OSError when something cannot be removed, after all else was.
        """
        self._restore()
        if self._charged()[1] == 0:
            self._held = self.held_bytes = 0
            return 0
        failure: OSError | None = None
        count = 0
        for parent, name in self._made(self._descriptor, self._kept):
            count += 1
            try:
                self._remove(parent, name)
            except OSError as exc:
                failure = exc
        self.held_bytes, self._held = self._charged()
        if failure is not None:
            raise failure
        return count

    def _restore(self) -> None:
        """The application may have changed the mode and the owner of /tmp itself."""
        status = os.fstat(self._descriptor)
        if (status.st_uid, status.st_gid) != self._owner:
            os.fchown(self._descriptor, *self._owner)
        if modes.S_IMODE(status.st_mode) != _MODE:
            os.fchmod(self._descriptor, _MODE)

    def _made(self, directory: int, kept: Kept) -> Iterator[tuple[int, str]]:
        """Each entry that the application has made, with its directory's descriptor, outermost only."""
        for name in originals.listdir(directory):
            inner = kept.get(name)
            if inner is None:
                yield directory, name
            elif inner:
                with opened_directory(directory, name, self._mount) as opened:
                    yield from self._made(opened, inner)

    def _remove(self, parent: int, name: str) -> None:
        try:
            status = originals.stat(name, dir_fd=parent, follow_symlinks=False)
            if modes.S_ISDIR(status.st_mode):
                wipe(parent, name)
            else:
                originals.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return  # the application was faster

    def paths(self) -> list[str]:
        """The files that the application has made, and its empty directories: the first thousand."""
        return self._paths() if self._charged()[1] else []

    def _paths(self) -> list[str]:
        found: list[str] = []
        for parent, name in self._made(self._descriptor, self._kept):
            self._add(found, parent, name, f"{self._path_of(parent)}/{name}")
        return found

    def _path_of(self, directory: int) -> str:
        if directory == self._descriptor:
            return TMP
        # Its path in the instance: the descriptor's own mount is rooted at /tmp.
        return originals.readlink(f"/proc/self/fd/{directory}")

    def _add(self, found: list[str], parent: int, name: str, path: str) -> None:
        if len(found) >= _LISTED:
            return
        try:
            descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
        except OSError:
            found.append(path)  # no directory, or one that is locked
            return
        try:
            names = originals.listdir(descriptor)
            for inner in names:
                self._add(found, descriptor, inner, f"{path}/{inner}")
            if not names:
                found.append(path)
        finally:
            originals.close(descriptor)

    def close(self) -> None:
        """Let go of it."""
        originals.close(self._descriptor)


def _inside(parent: int, name: str) -> int:
    """The number of entries in a directory and all below it; 0 if it is none, or is locked."""
    try:
        descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    except OSError:
        return 0
    try:
        names = originals.listdir(descriptor)
        return len(names) + sum(_inside(descriptor, inner) for inner in names)
    finally:
        originals.close(descriptor)
