"""The private directories on the real disk: made, emptied, removed.

Each process has one directory of its own below the scratch root (:mod:`.claims`), and each invocation a
numbered one in it. What cannot be wiped now is tried again until it can (C4.4).

Everything here goes by descriptors and follows no link (C4.2). A finalizer, a signal handler or another
thread may come in at any point: a step is noted before it is taken, and the kernel decides who was first.
Sizes are in bytes.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat as modes
import threading
import time
import weakref
from contextlib import suppress
from contextvars import Context
from errno import ENOTEMPTY
from typing import Final, Protocol

from tmpguard.core import hooks, originals

from .claims import Claim, Entry, claim, sweep
from .dirfd import DIRECTORY
from .pages import PAGE, Usage, allocated, measure
from .wipe import wipe

_TMP_MODE: Final = 0o1777
_SMALL: Final = 8
#: Empty directories kept for invocations to come.
_SPARE: Final = 16
#: Seconds between the first attempts to wipe a directory, and at the most.
_DELAY: Final = 0.5
_LONGEST: Final = 60.0

logger = logging.getLogger("tmpguard")


class Owner(Protocol):
    """Whose a directory is."""

    def close(self) -> None:
        """Nothing may be written to it any more."""

    def wipe(self) -> Usage:
        """Discard the directory. Returns what was left in it."""


class ScratchRoot:
    """The process's own directory below ``path``: made on first use, removed when nothing is in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        #: The claim in which directories are made now, and all that have something in them by their paths.
        self._current: Claim | None = None
        self._claims: dict[str, Claim] = {}
        self._inherited: tuple[str, ...] = ()

    # --- making ----------------------------------------------------------------------------------------

    def make(self, owner: Owner | None = None) -> str:
        """A new, empty directory for one invocation, with the mode of a /tmp: nobody else gets through the
        process's own to it. Raises OSError as mkdir does.

        It is wiped when the ``owner`` is collected without having discarded it.
        """
        whose = None if owner is None else weakref.ref(owner)
        while True:
            current = self._current
            if current is None or current.leaving:
                current = self._claim()
            elif (spare := self._take_spare(current, whose)) is not None:
                return spare
            name = str(next(self._numbers))
            current.entries[name] = Entry(whose)
            directory = f"{current.path}/{name}"
            try:
                _make_tmp(directory)
            except FileNotFoundError:
                self._renew(current)
                current.entries.pop(name, None)
            except OSError:
                current.entries.pop(name, None)
                raise
            else:
                return directory

    def _claim(self) -> Claim:
        with self._lock:
            current = self._current
            if current is None or current.leaving:
                # One that a signal handler has made meanwhile is found again among all.
                current = claim(self.path)
                self._claims[current.path] = self._current = current
            return current

    def _renew(self, owned: Claim) -> None:
        with self._lock:  # which whoever is about to give it up holds as well
            if not owned.leaving:
                owned.renew()

    def _take_spare(self, current: Claim, owner: weakref.ref[Owner] | None) -> str | None:
        """An empty directory that an earlier invocation gave back."""
        with suppress(IndexError):
            while True:
                name = current.spare.pop()
                directory = f"{current.path}/{name}"
                if originals.access(directory, os.F_OK):
                    current.entries[name].owner = owner
                    return directory
                current.entries.pop(name, None)
        return None

    def remake(self, directory: str) -> None:
        """Somebody has taken ``directory`` away: make it anew (C4.6). Raises OSError as mkdir does."""
        base = directory.rpartition("/")[0]
        for _ in range(2):
            try:
                _make_tmp(directory)
            except FileExistsError:
                return  # another thread was first
            except FileNotFoundError:
                owned = self._claims.get(base)
                if owned is None:
                    raise  # the parent's of this forked process
                self._renew(owned)
            else:
                return

    # --- wiping ----------------------------------------------------------------------------------------

    def _find(self, directory: str) -> tuple[Claim | None, str]:
        """The claim that ``directory`` is an entry of, None where it is not ours, and its name."""
        base, _, name = directory.rpartition("/")
        found = self._claims.get(base)
        return (None if found is None or name not in found.entries else found), name

    def discard(self, directory: str) -> Usage | None:
        """Measure and wipe an invocation's directory. Returns what was left in it, None where it was wiped
        before, or is the parent's of this forked process.

        Where that fails it is logged, and tried again by :meth:`tidy`.
        """
        owned, name = self._find(directory)
        if owned is None:
            return None
        usage = self.discard_small(directory, reusable=False)
        return self._discard(owned, name) if usage is None else usage

    def _discard(self, owned: Claim, name: str) -> Usage:
        usage = Usage(0, 0)
        try:
            with suppress(OSError):
                usage = measure(owned.descriptor, name)
            wipe(owned.descriptor, name)
        except OSError:
            self._put_off(owned, name)
        else:
            owned.entries.pop(name, None)
        return usage

    def _put_off(self, owned: Claim, name: str) -> None:
        """It could not be wiped: have it tried again."""
        entry = owned.entries.get(name)
        if entry is None:
            return
        if not entry.due:
            logger.exception(
                "tmpguard could not wipe the scratch directory %s/%s; it is tried again", owned.path, name
            )
        entry.delay = min(max(entry.delay * 2, _DELAY), _LONGEST)
        entry.due = time.monotonic() + entry.delay

    def discard_small(self, directory: str, *, reusable: bool) -> Usage | None:
        """Wipe an invocation's directory if it holds a few files and no directory; None if it holds more.

        Cheaper than :meth:`discard`: the usual request leaves a file or two. A ``reusable`` directory is kept
        for another invocation, since making and removing one costs more than all else in a small request.
        """
        owned, name = self._find(directory)
        if owned is None:
            return None
        try:
            descriptor = originals.os_open(name, DIRECTORY, dir_fd=owned.descriptor)
        except OSError:
            return None  # whatever it is: the thorough wipe will find it, and tell
        try:
            found = _few_files(descriptor)
            if found is None:
                return None
            usage, files = found
            if reusable and len(owned.spare) < _SPARE and _is_as_made(descriptor):
                self._keep(owned, name, descriptor, files)
            else:
                self._remove(owned, name, descriptor, files)
        except OSError:
            return None
        finally:
            originals.close(descriptor)
        return usage

    def _remove(self, owned: Claim, name: str, descriptor: int, files: list[str]) -> None:
        """Remove the directory ``name``, which holds ``files``."""
        try:
            originals.rmdir(name, dir_fd=owned.descriptor)
        except OSError as exc:
            if exc.errno != ENOTEMPTY:
                raise  # EBUSY: it is a mount point, of which nothing may be touched
            for file in files:
                originals.unlink(file, dir_fd=descriptor)
            originals.rmdir(name, dir_fd=owned.descriptor)
        owned.entries.pop(name, None)

    def _keep(self, owned: Claim, name: str, descriptor: int, files: list[str]) -> None:
        """Empty the directory ``name`` and keep it under a name that nobody has ever seen.

        So a path that late code of its invocation has resolved before leads nowhere. The files are moved out
        of it before they are unlinked: one that is still open somewhere would else be found, by its path, to
        belong to the invocation that gets the directory. Raises OSError(EBUSY) for a mount point.
        """
        base = owned.descriptor
        spare = str(next(self._numbers))
        owned.entries[spare] = Entry(owned.entries[name].owner)
        try:
            originals.rename(name, spare, src_dir_fd=base, dst_dir_fd=base)
        except OSError:
            owned.entries.pop(spare, None)
            raise
        owned.entries.pop(name, None)
        try:
            for file in files:
                originals.rename(file, f"{spare}.gone", src_dir_fd=descriptor, dst_dir_fd=base)
                originals.unlink(f"{spare}.gone", dir_fd=base)
            if not originals.listdir(descriptor):
                originals.utime(descriptor)
                owned.entries[spare].owner = None
                owned.spare.append(spare)
                return
        except OSError:
            pass
        self._discard(owned, spare)  # late code has made something there before the name was gone

    # --- tidying up ------------------------------------------------------------------------------------

    def trim(self) -> None:
        """Remove the empty directories that are kept for invocations to come."""
        for owned in self._claims.copy().values():
            with suppress(IndexError):
                while True:
                    name = owned.spare.pop()
                    with suppress(OSError):
                        originals.rmdir(name, dir_fd=owned.descriptor)
                    owned.entries.pop(name, None)

    def tidy(self, *, everything: bool = False) -> float | None:
        """Wipe what could not be wiped and is due again, or ``everything`` of that, and what was forgotten.

        Returns in how many seconds there is more to do, None for never.
        """
        now, waits = time.monotonic(), []
        for owned in self._claims.copy().values():
            for name, entry in owned.entries.copy().items():
                orphaned = entry.owner is not None and entry.owner() is None
                if entry.due and not everything and entry.due > now:
                    waits.append(entry.due - now)
                elif entry.due or orphaned:
                    self._discard(owned, name)
                    if entry.due and name in owned.entries:
                        waits.append(entry.delay)
        return min(waits, default=None)

    def has_more_to_do(self) -> bool:
        """Is there a directory whose wipe has failed so far?"""
        claims = self._claims.copy().values()
        return any(entry.due for owned in claims for entry in owned.entries.copy().values())

    def release(self) -> None:
        """Remove the process's directory if no invocation has anything in it; the next one makes it anew."""
        self.trim()
        for owned in self._claims.copy().values():
            if not owned.entries:
                with self._lock:
                    self._leave(owned)

    def _leave(self, owned: Claim) -> None:
        owned.leaving = not owned.entries
        if not owned.leaving:
            return
        # Removed first, unlocked second: a name that can be seen is always locked by a living owner.
        try:
            try:
                originals.rmdir(owned.path)
            except FileNotFoundError:
                pass
            except OSError:
                for name in owned.strays():
                    with suppress(OSError):
                        wipe(owned.descriptor, name) if _is_directory(owned, name) else _unlink(owned, name)
                originals.rmdir(owned.path)
        except OSError:
            owned.leaving = False  # somebody has begun to use it
            return
        self._claims.pop(owned.path, None)
        owned.close()

    def holds(self, path: str) -> bool:
        """Is the real ``path`` in this process's directory, or in that of the process it was forked from?"""
        return path.startswith(tuple(f"{base}/" for base in (*self._claims.copy(), *self._inherited)))

    # --- forks and the exit ----------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child: the directories are the parent's, so let go of them without touching them."""
        inherited = (*self._inherited, *self._claims)
        for owned in self._claims.values():
            owned.close()
        self.__init__(self.path)  # type: ignore[misc]
        self._inherited = inherited

    def abandon(self) -> None:
        """At the interpreter's exit: wipe what was never ended, too, and leave nothing."""
        self.trim()
        for owned in self._claims.copy().values():
            for name, entry in owned.entries.copy().items():
                owner = None if entry.owner is None else entry.owner()
                if owner is None:
                    self._discard(owned, name)
                else:
                    owner.close()  # a finalizer that comes later must wait for no thread that has its lock
                    owner.wipe()
        self.release()


def _make_tmp(directory: str) -> None:
    originals.mkdir(directory)
    originals.chmod(directory, _TMP_MODE)  # of which the umask would take something


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


def _is_directory(owned: Claim, name: str) -> bool:
    status = originals.stat(name, dir_fd=owned.descriptor, follow_symlinks=False)
    return modes.S_ISDIR(status.st_mode)


def _unlink(owned: Claim, name: str) -> None:
    originals.unlink(name, dir_fd=owned.descriptor)


_roots: Final[dict[str, ScratchRoot]] = {}


def root_at(path: str) -> ScratchRoot:
    """The process's directory below ``path``; the first call sweeps up what dead processes left there."""
    root = _roots.get(path)
    if root is None:
        sweep(path)
        root = _roots.setdefault(path, ScratchRoot(path))
    return root


def tidy_all() -> None:
    """Wipe what could not be wiped so far, and remove the directories that are kept for others to come."""
    for root in list(_roots.values()):
        Context().run(root.tidy, everything=True)
        Context().run(root.trim)


def _forget_all() -> None:
    for root in _roots.values():
        root.forget()


def _sweep_all() -> None:
    """In a forked child, which is perhaps a worker in the place of one that was killed (C4.6)."""
    for path in _roots:
        sweep(path)


def abandon_all() -> None:
    """At the interpreter's exit: leave no directory behind."""
    for root in list(_roots.values()):
        Context().run(root.abandon)  # the code that ends may still be bound to an invocation


hooks.register(hooks.Step.LET_GO_OF_DIRECTORIES, _forget_all)
hooks.register(hooks.Step.SWEEP_UP, _sweep_all)
hooks.register(hooks.Step.REMOVE_DIRECTORIES, abandon_all)
