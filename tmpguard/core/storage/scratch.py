"""The private directories on the real disk: made, emptied, removed.

Each process has a directory of its own below the scratch root (:mod:`.claims`), and each invocation has a
numbered one in that. A wipe that fails is tried again until it succeeds (C4.4).

Everything here uses descriptors and follows no symlinks (C4.2). A finalizer, a signal handler or another
thread may interfere at any point: each action is recorded before it is taken, and the kernel decides who
was first.
Sizes are in bytes.
"""

from __future__ import annotations

import itertools
import logging
import stat as modes
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from errno import ENOTEMPTY, ESTALE
from typing import Final, Protocol

from tmpguard.core import hooks, originals, real
from tmpguard.core.errors import os_error
from tmpguard.core.mounts import known, private
from tmpguard.core.presence import is_found

from .claims import Claim, ScratchEntry, claim, sweep
from .pages import Usage, measure
from .small import TMP_MODE, Survey, empty, last_change, survey, trash_of
from .wipe import wipe

#: The most empty directories kept for later invocations.
_SPARE: Final = 16
#: The most directories of other invocations in which a missing file is looked for.
_OTHERS: Final = 32
#: Seconds between the first two attempts to wipe a directory, and the longest interval.
_DELAY: Final = 0.5
_LONGEST: Final = 60.0
#: Seconds for which the exit waits for threads that are making a directory, at most.
_MAKING: Final = 1.0

logger = logging.getLogger("tmpguard")


#: Called with the names of what an invocation left, such as ``/a/b``, before they are wiped.
Remember = Callable[[list[str]], None]


class Owner(Protocol):
    """The owner of a directory."""

    def close(self) -> None:
        """Refuse all further writes to it."""

    def wipe(self) -> Usage:
        """Discard the directory. Returns what it held."""
        ...


class ScratchRoot:
    """The process's own directory below ``path``: made on first use, removed when nothing is in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = real.RLock()
        self._numbers = itertools.count(1)
        #: The claim in which directories are made now.
        self._current: Claim | None = None
        #: All claims that have something in them, by their paths.
        self.claims: dict[str, Claim] = {}
        #: Where claims were about to be made. A directory there that is not a claim was left by a signal.
        self._tried: list[str] = []
        self._inherited: tuple[str, ...] = ()
        #: The thread in which the interpreter exits, as soon as it does.
        self._exiting: int | None = None

    # --- making ----------------------------------------------------------------------------------------

    def make(self, owner: Owner | None = None) -> str:
        """A new, empty directory for one invocation, with the mode of a /tmp: other users cannot reach it,
        because they cannot search the process's directory. Raises OSError as mkdir does, and ESTALE in a
        thread that still runs when the interpreter exits: nobody would remove what it makes.

        If the ``owner`` is collected without having discarded it, it is wiped.
        """
        whose = None if owner is None else weakref.ref(owner)
        while True:
            self._check_exit()
            current = self._current
            if current is None or current.leaving:
                current = self._claim()
            elif (spare := self._take_spare(current, whose)) is not None:
                return spare
            name = str(next(self._numbers))
            entry = current.entries[name] = ScratchEntry(whose, in_the_making=True)
            directory = f"{current.path}/{name}"
            try:
                self._check_exit()  # which sees the entry if it comes from now on
                _make_tmp(directory)
            except FileNotFoundError:
                self._renew(current)
                current.entries.pop(name, None)
            except OSError:
                current.entries.pop(name, None)
                if self._exiting is not None:
                    self.release()
                raise
            else:
                return directory
            finally:
                entry.in_the_making = False

    def _check_exit(self) -> None:
        if self._exiting is not None and self._exiting != real.get_ident():
            raise os_error(ESTALE)

    def _claim(self) -> Claim:
        with self._lock:
            current = self._current
            if current is None or current.leaving:
                # If a signal handler has made one too, it is among the claims.
                current = claim(self.path, self._tried)
                self.claims[current.path] = self._current = current
                self._tried.remove(current.path)
            return current

    def _renew(self, owned: Claim) -> None:
        with self._lock:  # it may be about to be released
            if not owned.leaving:
                owned.renew()

    def _take_spare(self, current: Claim, owner: weakref.ref[Owner] | None) -> str | None:
        """An empty directory that an earlier invocation gave back."""
        while current.spare:
            try:
                name = current.spare.pop()
            except IndexError:
                break  # another thread was first
            directory = f"{current.path}/{name}"
            entry = current.entries[name]
            try:
                changed = last_change(directory)
            except OSError:
                current.entries.pop(name, None)
                continue
            if changed == entry.emptied:
                entry.owner = owner
                return directory
            self._discard(current, name)  # late code has made something in it
        return None

    def remake(self, directory: str) -> None:
        """Somebody removed ``directory``: make it again (C4.6). Raises OSError as :meth:`make` does."""
        self._check_exit()  # otherwise the exit has removed it
        base = directory.rpartition("/")[0]
        for _ in range(2):
            try:
                _make_tmp(directory)
            except FileExistsError:
                return  # another thread was first
            except FileNotFoundError:
                owned = self.claims.get(base)
                if owned is None:
                    raise  # it belongs to the process that forked this one
                self._renew(owned)
            else:
                return

    # --- wiping ----------------------------------------------------------------------------------------

    def _find(self, directory: str) -> tuple[Claim | None, str]:
        """The claim that ``directory`` is in, None if it is not ours, and its name."""
        base, _, name = directory.rpartition("/")
        found = self.claims.get(base)
        return (None if found is None or name not in found.entries else found), name

    def discard(self, directory: str, remember: Remember | None = None) -> Usage | None:
        """Measure and wipe an invocation's directory. Returns what it held; None if it was wiped before, or
        belongs to the process that forked this one. ``remember`` is called with the names of what it held.

        A failure is logged, and :meth:`tidy` tries again.
        """
        owned, name = self._find(directory)
        if owned is None:
            return None
        usage = self.discard_small(directory, remember, reusable=False)
        return self._discard(owned, name, remember) if usage is None else usage

    def _discard(self, owned: Claim, name: str, remember: Remember | None = None) -> Usage:
        usage = Usage(0, 0)
        names: list[str] | None = None if remember is None else []
        try:
            with suppress(OSError):
                usage = measure(owned.descriptor, name, names)
            if remember is not None and names:
                remember(names)
            wipe(owned.descriptor, name)
        except OSError:
            self._put_off(owned, name)
        else:
            owned.entries.pop(name, None)
        return usage

    def _put_off(self, owned: Claim, name: str) -> None:
        """It could not be wiped: schedule another attempt."""
        entry = owned.entries.get(name)
        if entry is None:
            return
        if not entry.due:
            logger.exception(
                "tmpguard: could not wipe the scratch directory %s/%s; it is tried again", owned.path, name
            )
        entry.delay = min(max(entry.delay * 2, _DELAY), _LONGEST)
        entry.due = real.monotonic() + entry.delay

    def discard_small(
        self, directory: str, remember: Remember | None = None, *, reusable: bool
    ) -> Usage | None:
        """Wipe an invocation's directory if it holds a few files and no directories. Returns what it held;
        None if there is more to do.

        This is cheaper than :meth:`discard`; most requests leave one or two files. A ``reusable`` directory
        is kept for another invocation, since making and removing one is the largest cost of a small request.
        """
        owned, name = self._find(directory)
        if owned is None:
            return None
        try:
            found = survey(owned.descriptor, name)
        except OSError:
            return None  # whatever it is: discard() will find it, and log it
        if found is None:
            return None
        try:
            if remember is not None and found.files:
                remember([f"/{file}" for file in found.files])
            if reusable and found.unchanged and len(owned.spare) < _SPARE:
                self._keep(owned, name, found)
            else:
                self._remove(owned, name, found)
        except OSError:
            return None
        finally:
            originals.close(found.descriptor)
        return Usage(found.bytes, len(found.files))

    def _remove(self, owned: Claim, name: str, found: Survey) -> None:
        """Remove the directory ``name`` and the files ``found`` in it."""
        try:
            originals.rmdir(name, dir_fd=owned.descriptor)
        except OSError as exc:
            if exc.errno != ENOTEMPTY:
                raise  # EBUSY: it is a mount point, which must not be touched
            for file in found.files:
                originals.unlink(file, dir_fd=found.descriptor)
            originals.rmdir(name, dir_fd=owned.descriptor)
        owned.entries.pop(name, None)

    def _keep(self, owned: Claim, name: str, found: Survey) -> None:
        """Empty the directory ``name`` and keep it under a new name.

        So paths that late code of its invocation has already resolved lead nowhere. Raises OSError(EBUSY) for
        a mount point.
        """
        spare = str(next(self._numbers))
        entry = owned.entries[spare] = ScratchEntry(owned.entries[name].owner)
        try:
            emptied = empty(owned.descriptor, name, spare, found)
        except OSError:
            owned.entries.pop(spare, None)
            raise
        owned.entries.pop(name, None)
        if emptied is not None:
            entry.owner, entry.emptied = None, emptied
            owned.spare.append(spare)
            return
        with suppress(OSError):
            originals.unlink(trash_of(spare), dir_fd=owned.descriptor)
        self._discard(owned, spare)  # late code made something in it before it was renamed

    # --- tidying up ------------------------------------------------------------------------------------

    def trim(self) -> None:
        """Remove the empty directories that are kept for later invocations."""
        for owned in self.claims.copy().values():
            with suppress(IndexError):
                while True:
                    name = owned.spare.pop()
                    try:
                        originals.rmdir(name, dir_fd=owned.descriptor)
                    except OSError:
                        self._discard(owned, name)  # late code made something in it when it was empty already
                    else:
                        owned.entries.pop(name, None)

    def tidy(self, *, everything: bool = False) -> float | None:
        """Wipe the directories whose wipe failed and is due again (or all of them, for ``everything``), and
        those whose owner was collected.

        Returns the number of seconds until there is more to do; None if there is nothing.
        """
        now, waits = real.monotonic(), []
        for owned in self.claims.copy().values():
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
        return any(entry.due for entry in self._entries())

    def _entries(self) -> Iterator[ScratchEntry]:
        for owned in self.claims.copy().values():
            yield from owned.entries.copy().values()

    def release(self) -> None:
        """Remove the process's directory if it is empty; the next invocation makes a new one."""
        self.trim()
        for owned in self.claims.copy().values():
            if not owned.entries:
                with self._lock:
                    self._leave(owned)
        with self._lock:
            while self._tried:
                path = self._tried[-1]
                if path not in self.claims:
                    with suppress(OSError):
                        originals.rmdir(path)
                self._tried.remove(path)

    def _leave(self, owned: Claim) -> None:
        owned.leaving = not owned.entries
        if not owned.leaving:
            return
        # Remove it before unlocking it: as long as the name is visible, its living owner holds the lock.
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
            owned.leaving = False  # somebody has started to use it
            return
        self.claims.pop(owned.path, None)
        owned.close()

    def is_shared(self) -> bool:
        """Does more than one invocation have a directory here?"""
        return len(self.claims) > 1 or (
            (current := self._current) is not None and len(current.entries) - len(current.spare) > 1
        )

    def is_elsewhere(self, name: str, directory: str) -> bool:
        """Is ``name`` (``/a.txt``) in the directory of an invocation other than that of ``directory``?

        That one may be running or about to be wiped. If there are many, only some of them are searched.
        """
        return any(is_found(other + name) for other in self._others(directory))

    def _others(self, directory: str) -> Iterator[str]:
        for owned in self.claims.copy().values():
            if len(owned.entries) - len(owned.spare) > 1:
                for name in list(owned.entries.copy())[:_OTHERS]:
                    if (other := f"{owned.path}/{name}") != directory:
                        yield other

    def holds(self, path: str) -> bool:
        """Is the real ``path`` in the directory of this process, or of one that it was forked from?"""
        root = self.path.rstrip("/") + "/"
        name, separator, _ = path[len(root) :].partition("/")
        base = root + name
        return bool(separator) and path.startswith(root) and (base in self.claims or base in self._inherited)

    # --- forks and the exit ----------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child: the directories belong to the parent, so forget them without touching them."""
        inherited = (*self._inherited, *self.claims)
        for owned in self.claims.values():
            owned.close()
        self.__init__(self.path)  # type: ignore[misc]
        self._inherited = inherited

    def _await_making(self) -> None:
        """Wait for the threads that had looked at ``_exiting`` before and are making a directory now.

        A daemon thread may never run again after that, so it cannot remove what it made.
        """
        deadline = real.monotonic() + _MAKING
        if self._lock.acquire(timeout=_MAKING):  # which is held while a claim is made
            self._lock.release()
        while any(entry.in_the_making for entry in self._entries()) and real.monotonic() < deadline:
            real.sleep(0.001)

    def abandon(self) -> None:
        """At the interpreter's exit: wipe everything, including invocations that never ended."""
        self._exiting = real.get_ident()  # other threads must not make anything from now on
        self._await_making()
        self.trim()
        for owned in self.claims.copy().values():
            for name, entry in owned.entries.copy().items():
                owner = None if entry.owner is None else entry.owner()
                if owner is None:
                    self._discard(owned, name)
                else:
                    owner.close()  # a later finalizer must not wait for a thread that holds its lock
                    owner.wipe()
        self.release()


def _make_tmp(directory: str) -> None:
    originals.mkdir(directory)
    originals.chmod(directory, TMP_MODE)  # mkdir would apply the umask


def _is_directory(owned: Claim, name: str) -> bool:
    status = originals.stat(name, dir_fd=owned.descriptor, follow_symlinks=False)
    return modes.S_ISDIR(status.st_mode)


def _unlink(owned: Claim, name: str) -> None:
    originals.unlink(name, dir_fd=owned.descriptor)


_roots: Final[dict[str, ScratchRoot]] = {}


def root_at(path: str) -> ScratchRoot:
    """The process's directory below ``path``; the first call removes what dead processes left there."""
    root = _roots.get(path)
    if root is None:
        private.roots.add(path)
        known.forget()  # until now it was an ordinary directory
        sweep(path)
        root = _roots.setdefault(path, ScratchRoot(path))
    return root


def tidy_all() -> None:
    """Wipe what could not be wiped so far, and remove the directories that are kept for reuse."""
    for root in list(_roots.values()):
        Context().run(root.tidy, everything=True)
        Context().run(root.trim)


def _forget_all() -> None:
    for root in _roots.values():
        root.forget()


def _sweep_all() -> None:
    """In a forked child, which may be a worker that replaces one that was killed (C4.6).

    It may also be a request's child, so the sweep runs outside of its invocation.
    """
    for path in _roots:
        Context().run(sweep, path)


def abandon_all() -> None:
    """At the interpreter's exit: leave no directory behind."""
    for root in list(_roots.values()):
        Context().run(root.abandon)  # an invocation may still be current


hooks.register(hooks.Step.LET_GO_OF_DIRECTORIES, _forget_all)
hooks.register(hooks.Step.SWEEP_UP, _sweep_all)
hooks.register(hooks.Step.REMOVE_DIRECTORIES, abandon_all)
