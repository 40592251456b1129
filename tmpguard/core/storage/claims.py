"""The process's own directories on the real disk: claimed without races, swept up after dead processes.

A claim is a directory ``tmpguard-<random>`` below a scratch root, mode 0700, held by an exclusive ``flock``
for as long as the process lives. One whose lock can be had belongs to a process that is gone: the next
process to start wipes it, and no other (C4.6).
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, EWOULDBLOCK
from typing import Any, Final

from tmpguard.core import originals

from .dirfd import DIRECTORY, mount_of
from .wipe import wipe

PREFIX: Final = "tmpguard-"
_OWN_NAME: Final = re.compile(f"{PREFIX}[0-9a-f]{{12}}")


class Entry:
    """A directory of a claim: whose it is, and when its wipe is tried again."""

    __slots__ = ("delay", "due", "owner")

    def __init__(self, owner: Callable[[], Any] | None) -> None:
        #: Gives the owner, or None where it is gone; None where nobody is to be asked.
        self.owner = owner
        #: When it is to be wiped again, by the monotonic clock; 0 where nobody has failed to.
        self.due = 0.0
        #: Seconds between the last attempt and that.
        self.delay = 0.0


class Claim:
    """A directory of this process's own: where it is, the descriptor that holds its lock, what is in it."""

    __slots__ = ("_open", "descriptor", "entries", "leaving", "path", "spare")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        # Whoever takes it out closes the descriptor.
        self._open = [descriptor]
        #: By its name, each directory that is or may be in it. Noted before it is made and until it is gone,
        #: so that one that a signal interrupts is found again.
        self.entries: dict[str, Entry] = {}
        #: The names of those that are empty, kept for invocations to come.
        self.spare: list[str] = []
        #: Is it about to be removed? Then nobody may make anything in it.
        self.leaving = False

    def renew(self) -> None:
        """Somebody has taken it away: make it anew at the same path, for those who know that.

        Raises OSError as mkdir does.
        """
        try:
            descriptor = _made(self.path)
        except FileExistsError:
            return  # another thread was first
        try:
            # The same number, so that whoever uses it has always a directory of ours.
            originals.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            originals.close(descriptor)

    def close(self) -> None:
        """Give up the lock. Does nothing the second time."""
        with suppress(IndexError, OSError):
            originals.close(self._open.pop())

    def strays(self) -> list[str]:
        """What is in it and is no entry: an interrupted step has left it."""
        names = originals.listdir(self.descriptor)
        return [name for name in names if name.partition(".")[0] not in self.entries]


def claim(root: str) -> Claim:
    """Make a directory of our own below ``root`` and lock it. Raises OSError as mkdir does."""
    while True:
        path = f"{root.rstrip('/')}/{new_name()}"
        try:
            return Claim(path, _made(path))
        except FileExistsError:
            continue


def new_name() -> str:
    """A name for a claim. A sweeper looks at no other: anybody's may begin like ours."""
    return PREFIX + os.urandom(6).hex()


def _made(path: str) -> int:
    """Make the directory ``path`` and lock it; the descriptor that holds the lock.

    Raises FileExistsError where it is there, or where a sweeper holds what was just made.
    """
    while True:
        _make(path)
        try:
            descriptor = _open_own(path)
        except FileNotFoundError:
            continue  # a sweeper took it for a dead process's before it was locked
        except OSError:
            originals.rmdir(path)
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    """The scratch root itself is gone: make it anew, as ``mkdir -p`` does."""
    if path:
        try:
            originals.mkdir(path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            _make_root(path.rpartition("/")[0])
            originals.mkdir(path)


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


def cannot_write(root: str) -> str:
    """Why no directory can be made below ``root``; "" if one can, which only trying tells for sure."""
    path = f"{root.rstrip('/')}/.{new_name()}"  # a name that no sweeper looks at
    try:
        originals.mkdir(path, 0o700)
        originals.rmdir(path)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


# --- what dead processes left ----------------------------------------------------------------------------


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
        if mount_of(descriptor) != mount_of(parent):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its owner lives: BlockingIOError
        wipe(parent, name)
    except OSError:
        return False
    finally:
        originals.close(descriptor)
    return True
