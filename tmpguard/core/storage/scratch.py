"""The private directories on the real disk: make, empty, sweep up after dead processes.

Each process has one directory ``tmpguard-<random>`` below the scratch root, mode 0700, made without races
and held by an exclusive ``flock`` for as long as the process lives; each invocation has a numbered
directory in it. A directory whose lock can be had belongs to a process that is gone: the next process to
start wipes it, and no other (C4.6).

Everything here goes by descriptors and follows no link (C4.2). Sizes are in bytes.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import re
import stat as modes
import threading
from contextlib import suppress
from contextvars import Context
from errno import EAGAIN, EWOULDBLOCK
from typing import Final

from tmpguard.core import hooks, originals

from .dirfd import DIRECTORY
from .pages import PAGE, Usage, allocated, measure
from .wipe import wipe

PREFIX: Final = "tmpguard-"
_OWN_NAME: Final = re.compile(f"{PREFIX}[0-9a-f]{{12}}")
_TMP_MODE: Final = 0o1777
_SMALL: Final = 8
#: Empty directories kept for invocations to come.
_SPARE: Final = 16

logger = logging.getLogger("tmpguard")


class ScratchRoot:
    """The process's own directory below ``path``: made on first use, removed when nothing is in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._live: set[str] = set()
        self._spare: list[str] = []
        self._base: str | None = None
        self._descriptor = -1
        self._inherited: str | None = None

    def make(self) -> str:
        """A new, empty directory for one invocation, with the mode of a /tmp: nobody else gets through the
        process's own to it. Raises OSError as mkdir does."""
        with self._lock:
            if self._base is None:
                self._base, self._descriptor = _claim(self.path)
            elif (spare := self._take_spare()) is not None:
                return spare
            name = str(next(self._numbers))
            try:
                originals.mkdir(f"{self._base}/{name}")
            except FileNotFoundError:
                # Somebody who cleans up temporary files removed it.
                originals.close(self._descriptor)
                self._base, self._descriptor = _claim(self.path)
                originals.mkdir(f"{self._base}/{name}")
            directory = f"{self._base}/{name}"
            originals.chmod(directory, _TMP_MODE)  # of which the umask would take something
            self._live.add(directory)
            return directory

    def _take_spare(self) -> str | None:
        """An empty directory that an earlier invocation gave back."""
        while self._spare:
            directory = f"{self._base}/{self._spare.pop()}"
            if originals.access(directory, os.F_OK):
                self._live.add(directory)
                return directory
        return None

    def discard(self, directory: str) -> Usage:
        """Measure and wipe an invocation's directory. Returns what was left in it."""
        usage = Usage(0, 0)
        base, _, name = directory.rpartition("/")
        if directory not in self._live:
            return usage  # the parent's of this forked process
        try:
            parent = originals.os_open(base, DIRECTORY)
            try:
                with suppress(OSError):
                    usage = measure(parent, name)
                wipe(parent, name)
            finally:
                originals.close(parent)
        except FileNotFoundError:
            pass  # somebody else removed it: it is gone, which is what was wanted
        except OSError:
            logger.exception("tmpguard could not wipe the scratch directory %s", directory)
        finally:
            with self._lock:
                self._live.discard(directory)
        return usage

    def discard_small(self, directory: str, *, reusable: bool) -> Usage | None:
        """Wipe an invocation's directory if it holds a few files and no directory; None if it holds more.

        Cheaper than :meth:`discard`: the usual request leaves a file or two. A ``reusable`` directory is kept
        for another invocation, since making and removing one costs more than all else in a small request.
        """
        if directory not in self._live:
            return None
        name = directory.rpartition("/")[2]
        try:
            descriptor = originals.os_open(name, DIRECTORY, dir_fd=self._descriptor)
            try:
                found = _few_files(descriptor)
                if found is None:
                    return None
                usage, names = found
                if not reusable or len(self._spare) >= _SPARE or not _is_as_made(descriptor):
                    for file in names:
                        originals.unlink(file, dir_fd=descriptor)
                    originals.rmdir(name, dir_fd=self._descriptor)
                else:
                    self._keep_for_another(name, descriptor, names)
            finally:
                originals.close(descriptor)
        except OSError:
            return None  # whatever it is: the thorough wipe will find it, and tell
        self._live.discard(directory)
        return usage

    def _keep_for_another(self, name: str, descriptor: int, files: list[str]) -> None:
        """Empty the directory ``name`` and keep it under a name that nobody has ever seen.

        So a path that late code of its invocation has resolved before leads nowhere. The files are moved out
        of it before they are unlinked: one that is still open somewhere would else be found, by its path, to
        belong to the invocation that gets the directory.
        """
        base = self._descriptor
        spare = str(next(self._numbers))
        originals.rename(name, spare, src_dir_fd=base, dst_dir_fd=base)
        try:
            for file in files:
                originals.rename(file, f"{spare}.gone", src_dir_fd=descriptor, dst_dir_fd=base)
                originals.unlink(f"{spare}.gone", dir_fd=base)
            if not originals.listdir(descriptor):
                originals.utime(descriptor)
                self._spare.append(spare)
                return
        except OSError:
            logger.exception("tmpguard could not empty the scratch directory %s/%s", self._base, spare)
        wipe(base, spare)  # late code has made something there before the name was gone

    def trim(self) -> None:
        """Remove the empty directories that are kept for invocations to come."""
        with self._lock:
            while self._spare:
                with suppress(OSError):
                    originals.rmdir(self._spare.pop(), dir_fd=self._descriptor)

    def release(self) -> None:
        """Remove the process's directory if no invocation has anything in it; the next one makes it anew."""
        self.trim()
        with self._lock:
            if self._base is None or self._live or self._spare:
                return
            # Removed first, unlocked second: a name that can be seen is always locked by a living owner.
            with suppress(OSError):
                originals.rmdir(self._base)
            originals.close(self._descriptor)
            self._base, self._descriptor = None, -1

    def holds(self, path: str) -> bool:
        """Is the real ``path`` in this process's directory, or in that of the process it was forked from?"""
        return path.startswith(tuple(base + "/" for base in (self._base, self._inherited) if base))

    def forget(self) -> None:
        """In a forked child: the directories are the parent's, so let go of them without touching them."""
        if self._descriptor >= 0:
            with suppress(OSError):
                originals.close(self._descriptor)
        inherited = self._base or self._inherited
        self.__init__(self.path)  # type: ignore[misc]
        self._inherited = inherited

    def abandon(self) -> None:
        """At the interpreter's exit: wipe what was never ended, too, and leave nothing."""
        for directory in list(self._live):
            self.discard(directory)
        self.release()


def _few_files(directory: int) -> tuple[Usage, list[str]] | None:
    """What ``directory`` holds, if that is a few files with a single name each; None if it is more."""
    names = originals.listdir(directory)
    if len(names) > _SMALL:
        return None
    total = 0
    for name in names:
        status = originals.stat(name, dir_fd=directory, follow_symlinks=False)
        if not modes.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return None
        total += allocated(status, name, directory)
    return Usage(total, len(names)), names


def _is_as_made(directory: int) -> bool:
    """Has ``directory`` the mode it was made with, no attribute, and no trace of a great many entries?"""
    status = originals.fstat(directory)
    return (
        status.st_mode & 0o7777 == _TMP_MODE
        and status.st_uid == os.geteuid()
        and status.st_size <= PAGE
        and not originals.listxattr(directory)
    )


def cannot_write(root: str) -> str:
    """Why no directory can be made below ``root``; "" if one can, which only trying tells for sure."""
    path = f"{root.rstrip('/')}/.{new_name()}"  # a name that no sweeper looks at
    try:
        originals.mkdir(path, 0o700)
        originals.rmdir(path)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def new_name() -> str:
    """A name for a process's directory. A sweeper looks at no other: anybody's may begin like ours."""
    return PREFIX + os.urandom(6).hex()


def _claim(root: str) -> tuple[str, int]:
    """Make a directory of our own below ``root`` and lock it: its path and the descriptor of the lock."""
    while True:
        path = f"{root.rstrip('/')}/{new_name()}"
        try:
            originals.mkdir(path, 0o700)
        except FileExistsError:
            continue
        try:
            descriptor = _open_own(path)
        except FileNotFoundError:
            continue  # a sweeper took it for a dead process's before it was locked
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if originals.fstat(descriptor).st_nlink:
                return path, descriptor
        except OSError as exc:
            if exc.errno not in (EAGAIN, EWOULDBLOCK):
                originals.close(descriptor)
                originals.rmdir(path)
                raise
        originals.close(descriptor)


def _open_own(path: str) -> int:
    """Open the new directory ``path``, from whose mode the umask may have taken even the owner's rights."""
    try:
        descriptor = originals.os_open(path, DIRECTORY)
    except PermissionError:
        originals.chmod(path, 0o700)
        descriptor = originals.os_open(path, DIRECTORY)
    if originals.fstat(descriptor).st_mode & 0o777 != 0o700:
        originals.fchmod(descriptor, 0o700)
    return descriptor


def sweep(root: str) -> int:
    """Wipe the directories that dead processes of this user left below ``root``; returns how many.

    Never raises: what cannot be removed is left to the next start.
    """
    removed = 0
    with suppress(OSError):
        parent = originals.os_open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = [name for name in originals.listdir(parent) if _OWN_NAME.fullmatch(name)]
            removed = sum(_sweep_one(parent, name) for name in names)
        finally:
            originals.close(parent)
    return removed


def _sweep_one(parent: int, name: str) -> bool:
    try:
        descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    except OSError:
        return False  # no directory, a link, or somebody else's
    try:
        status = originals.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its owner lives: BlockingIOError
        wipe(parent, name)
    except OSError:
        return False
    finally:
        originals.close(descriptor)
    return True


_roots: dict[str, ScratchRoot] = {}


def root_at(path: str) -> ScratchRoot:
    """The process's directory below ``path``; the first call sweeps up what dead processes left there."""
    root = _roots.get(path)
    if root is None:
        sweep(path)
        root = _roots.setdefault(path, ScratchRoot(path))
    return root


def trim_all() -> None:
    """Remove the empty directories that are kept for invocations to come."""
    for root in list(_roots.values()):
        root.trim()


def _forget_all() -> None:
    for root in _roots.values():
        root.forget()


def abandon_all() -> None:
    """At the interpreter's exit: leave no directory behind."""
    for root in _roots.values():
        Context().run(root.abandon)  # the code that ends may still be bound to an invocation


hooks.register(hooks.Step.LET_GO_OF_DIRECTORIES, _forget_all)
hooks.register(hooks.Step.REMOVE_DIRECTORIES, abandon_all)
