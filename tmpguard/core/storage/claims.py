"""The process's own directories on the real disk: claimed without races, removed after a crash.

A claim is a directory ``tmpguard-<random>`` below a scratch root, with mode 0700. The process holds an
exclusive ``flock`` on it for as long as it lives. If the lock is free, the process is gone: the next process
to start wipes that directory, and no others (C4.6).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, EWOULDBLOCK
from fcntl import LOCK_EX, LOCK_NB
from typing import Any

from tmpguard.core import originals
from tmpguard.core.mounts.private import PREFIX, is_claim

from .dirfd import DIRECTORY, listed, mount_of
from .wipe import wipe


class ScratchEntry:
    """A directory in a claim: its owner, when to try to wipe it again, and when it was emptied."""

    __slots__ = ("delay", "due", "emptied", "in_the_making", "owner")

    def __init__(self, owner: Callable[[], Any] | None, *, in_the_making: bool = False) -> None:
        #: Returns the owner, or None if it is gone. None if there was never an owner.
        self.owner = owner
        #: Whether a thread is about to make it.
        self.in_the_making = in_the_making
        #: When to try again, by the monotonic clock; 0 if no wipe has failed.
        self.due = 0.0
        #: Seconds from the last attempt until then.
        self.delay = 0.0
        #: The time of its last change, in nanoseconds, if it has been emptied to be used again.
        self.emptied = 0


class Claim:
    """A directory of this process: its path, the descriptor that holds its lock, and its contents."""

    __slots__ = ("_open", "descriptor", "entries", "leaving", "path", "spare")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        # Whoever removes the item from the list closes the descriptor.
        self._open = [descriptor]
        #: By name, each directory that is or may be in it. An entry is added before its directory is made and
        #: removed after it, so that nothing is lost if a signal interrupts.
        self.entries: dict[str, ScratchEntry] = {}
        #: The names of empty directories, kept for later invocations.
        self.spare: list[str] = []
        #: Is it about to be removed? Then nothing may be made in it.
        self.leaving = False

    def renew(self) -> None:
        """Make it again at the same path, after somebody removed it.

        Raises OSError as mkdir does.
        """
        try:
            descriptor = _made(self.path)
        except FileExistsError:
            return  # another thread was first
        try:
            # The same descriptor number, so that it always refers to one of our directories.
            originals.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            originals.close(descriptor)

    def close(self) -> None:
        """Release the lock. Idempotent."""
        with suppress(IndexError, OSError):
            originals.close(self._open.pop())

    def strays(self) -> list[str]:
        """What is in it without an entry: an interrupted step left it."""
        names = listed(self.descriptor)
        return [name for name in names if name.partition(".")[0] not in self.entries]


def claim(root: str, tried: list[str]) -> Claim:
    """Make a directory of our own below ``root`` and lock it. Raises OSError as mkdir does.

    Its path is added to ``tried`` before it is made, so that it is not lost if a signal interrupts.
    """
    while True:
        path = f"{root.rstrip('/')}/{new_name()}"
        tried.append(path)
        try:
            return Claim(path, _made(path))
        except FileExistsError:
            continue


def new_name() -> str:
    """A name for a claim. A sweep considers no other names: anybody may use the same prefix."""
    return PREFIX + os.urandom(6).hex()


def _made(path: str) -> int:
    """Make the directory ``path`` and lock it. Returns the descriptor that holds the lock.

    Raises FileExistsError if it exists, or if another process that is sweeping holds the new directory.
    """
    while True:
        _make(path)
        try:
            descriptor = _open_own(path)
        except FileNotFoundError:
            continue  # it was swept up before it was locked
        except OSError:
            originals.rmdir(path)
            raise
        try:
            originals.flock(descriptor, LOCK_EX | LOCK_NB)
            if originals.fstat(descriptor).st_nlink:
                return descriptor
        except OSError as exc:
            originals.close(descriptor)
            if exc.errno in (EAGAIN, EWOULDBLOCK):
                raise FileExistsError(path) from None
            originals.rmdir(path)
            raise
        originals.close(descriptor)


def _make(path: str) -> None:
    try:
        originals.mkdir(path, 0o700)
    except FileNotFoundError:
        _make_root(path.rpartition("/")[0])
        originals.mkdir(path, 0o700)


def _make_root(path: str) -> None:
    """The scratch root itself is gone: make it again, as ``mkdir -p`` does."""
    if path:
        try:
            originals.mkdir(path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            _make_root(path.rpartition("/")[0])
            originals.mkdir(path)


def _open_own(path: str) -> int:
    """Open the new directory ``path``. The umask may have removed even the owner's permissions."""
    try:
        descriptor = originals.os_open(path, DIRECTORY)
    except PermissionError:
        originals.chmod(path, 0o700)
        descriptor = originals.os_open(path, DIRECTORY)
    if originals.fstat(descriptor).st_mode & 0o777 != 0o700:
        originals.fchmod(descriptor, 0o700)
    return descriptor


def cannot_write(root: str) -> str:
    """Why no directory can be made below ``root``; "" if one can. Only an attempt can tell."""
    path = f"{root.rstrip('/')}/.{new_name()}"  # a name that no sweep considers
    try:
        originals.mkdir(path, 0o700)
        originals.rmdir(path)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


# --- after dead processes -----------------------------------------------------------------------------


def sweep(root: str) -> int:
    """Wipe the directories that dead processes of this user left below ``root``. Returns how many.

    Never raises: what cannot be removed is left to the next process.
    """
    removed = 0
    with suppress(OSError):
        parent = originals.os_open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = [name for name in originals.listdir(parent) if is_claim(name)]
            removed = sum(_sweep_one(parent, name) for name in names)
        finally:
            originals.close(parent)
    return removed


def _sweep_one(parent: int, name: str) -> bool:
    try:
        descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    except OSError:
        return False  # not a directory, or a symlink, or not ours
    try:
        status = originals.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700:
            return False
        if mount_of(descriptor) != mount_of(parent):
            return False
        originals.flock(descriptor, LOCK_EX | LOCK_NB)  # BlockingIOError if its owner is alive
        wipe(parent, name)
    except OSError:
        return False
    finally:
        originals.close(descriptor)
    return True
