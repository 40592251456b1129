"""The private directories on the real disk: make, measure, wipe, sweep up after dead processes.

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
import secrets
import stat as modes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EWOULDBLOCK
from typing import Final, NamedTuple

from .interpose import originals

PREFIX: Final = "tmpguard-"
_OWN_NAME: Final = re.compile(f"{PREFIX}[0-9a-f]{{12}}")
PAGE: Final = 4096
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WIPE_ROUNDS: Final = 5
_TMP_MODE: Final = 0o1777
_SMALL: Final = 8
#: Empty directories kept for invocations to come.
_SPARE: Final = 16
#: A link's target of fewer bytes lies in the inode and costs nothing.
SHORT_SYMLINK: Final = 128
_LONG: Final = 1000
#: What its owner has to be allowed to list a directory and to look at what is in it.
_LOOKING: Final = 0o500

logger = logging.getLogger("tmpguard")


class Usage(NamedTuple):
    """What a scratch directory holds: bytes in whole pages as tmpfs charges them, and directory entries."""

    bytes: int
    files: int


# --- the process's directory ---------------------------------------------------------------------------


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
            parent = originals.os_open(base, _DIRECTORY)
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
            descriptor = originals.os_open(name, _DIRECTORY, dir_fd=self._descriptor)
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
    return PREFIX + secrets.token_hex(6)


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
        descriptor = originals.os_open(path, _DIRECTORY)
    except PermissionError:
        originals.chmod(path, 0o700)
        descriptor = originals.os_open(path, _DIRECTORY)
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
        descriptor = originals.os_open(name, _DIRECTORY, dir_fd=parent)
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
        root.abandon()


os.register_at_fork(after_in_child=_forget_all)


# --- measuring -----------------------------------------------------------------------------------------


def pages(size: int) -> int:
    """``size`` bytes rounded up to whole pages, in bytes."""
    return -(-size // PAGE) * PAGE


def allocated(
    status: os.stat_result, path: str, dir_fd: int | None = None, follow: int = os.O_NOFOLLOW
) -> int:
    """The bytes that tmpfs would charge for the file of ``status``: its whole pages of data (C3.2).

    Holes cost nothing. Where the disk has allocated less or more than the length tells, the file itself is
    asked where its data lie, since file systems count extents, delayed and compressed blocks differently.
    """
    if modes.S_ISLNK(status.st_mode):
        return pages(status.st_size) if status.st_size >= SHORT_SYMLINK else 0
    if not modes.S_ISREG(status.st_mode):
        return 0
    on_disk = status.st_blocks * 512
    length = pages(status.st_size)
    if on_disk >= length:
        return length
    try:
        descriptor = originals.os_open(path, os.O_RDONLY | os.O_CLOEXEC | follow, dir_fd=dir_fd)
    except OSError:
        return pages(on_disk)
    try:
        ranges = list(data_ranges(descriptor, 0, status.st_size))
    finally:
        originals.close(descriptor)
    data = sum(end - start for start, end in ranges)
    overhead = PAGE * (1 + len(ranges) // 256)  # blocks that hold the extent tree of a scattered file
    return data if data >= on_disk - overhead else pages(on_disk)


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of ``start`` to ``end`` that are no hole, in whole pages. Moves the descriptor's offset."""
    start = start // PAGE * PAGE
    while start < end:
        try:
            first = originals.lseek(descriptor, start, os.SEEK_DATA) // PAGE * PAGE
            if first >= end:
                return
            last = pages(originals.lseek(descriptor, first, os.SEEK_HOLE))
        except OSError:
            return  # ENXIO: no data up to the end of the file
        yield first, min(last, pages(end))
        start = last


def measure(parent: int, name: str) -> Usage:
    """What the directory ``name`` in ``parent`` holds; the data of a hard link count once (C3.2)."""
    return _measure_below(parent, name, set())


def _measure_below(parent: int, name: str, linked: set[int]) -> Usage:
    total = files = 0
    pending = [name]
    while pending:
        path = pending.pop()
        try:
            with (
                _readable_directory(parent, path) as (directory, locked),
                originals.scandir(directory) as entries,
            ):
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        if len(path) < _LONG and not locked:
                            pending.append(f"{path}/{entry.name}")
                            continue
                        # Too deep to be named from the top, or not to be reached from there: go on from here.
                        below = _measure_below(directory, entry.name, linked)
                        total, files = total + below.bytes, files + below.files
                    else:
                        total += _entry_bytes(entry, directory, linked)
        except FileNotFoundError:
            continue  # removed by another thread meanwhile
    return Usage(total, files)


class Entry(NamedTuple):
    """One directory entry: the bytes of its file in whole pages, and whether that has more than one name."""

    bytes: int
    inode: int
    linked: bool


def inventory(parent: int, name: str) -> dict[str, Entry]:
    """The entries below the directory ``name`` in ``parent``, by their paths from there (``/a/b``)."""
    found: dict[str, Entry] = {}
    _take_inventory(parent, name, "", found)
    return found


def _take_inventory(parent: int, name: str, shown: str, found: dict[str, Entry]) -> None:
    pending = [(name, shown)]
    while pending:
        path, shown = pending.pop()
        try:
            with (
                _readable_directory(parent, path) as (directory, locked),
                originals.scandir(directory) as entries,
            ):
                for entry in entries:
                    inner = f"{shown}/{entry.name}"
                    if not entry.is_dir(follow_symlinks=False):
                        found[inner] = _entry_of(entry, directory)
                        continue
                    found[inner] = Entry(0, entry.inode(), False)
                    if len(path) < _LONG and not locked:
                        pending.append((f"{path}/{entry.name}", inner))
                    else:
                        _take_inventory(directory, entry.name, inner, found)
        except FileNotFoundError:
            continue  # removed by another thread meanwhile


def _entry_of(entry: os.DirEntry[str], directory: int) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Entry(0, entry.inode(), False)
    return Entry(allocated(status, entry.name, directory), status.st_ino, status.st_nlink > 1)


def _entry_bytes(entry: os.DirEntry[str], directory: int, linked: set[int]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if status.st_nlink > 1:
        if status.st_ino in linked:
            return 0
        linked.add(status.st_ino)
    return allocated(status, entry.name, directory)


@contextmanager
def _readable_directory(parent: int, path: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of the directory ``path``, and whether its owner may not look at what is in it: then its
    mode is another one for as long as this takes."""
    before = None
    try:
        descriptor = originals.os_open(path, _DIRECTORY, dir_fd=parent)
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
        return originals.os_open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        unlock(parent, name)
        return originals.os_open(name, _DIRECTORY, dir_fd=parent)


def unlock(parent: int, name: str) -> None:
    """Give the owner all rights on the directory ``name``. chmod follows links, so it goes by descriptor."""
    descriptor = originals.os_open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
    )
    try:
        originals.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        originals.close(descriptor)


# --- wiping --------------------------------------------------------------------------------------------


def wipe(parent: int, name: str) -> None:
    """Remove the directory ``name`` of the descriptor ``parent`` and all that is in it.

    A directory that lies in a directory is first moved up to the top: so any depth is wiped with two
    descriptors. Late writers may add entries meanwhile, so it goes over the tree until it is empty.

    Raises OSError when something cannot be removed (an immutable file, say).
    """
    for round_left in reversed(range(_WIPE_ROUNDS)):
        try:
            with _directory(parent, name) as top:
                _empty(top)
            originals.rmdir(name, dir_fd=parent)
            return
        except OSError as exc:
            if exc.errno == ENOENT and not _is_there(parent, name):
                return
            # Somebody added, removed or replaced an entry between the listing and the step.
            if exc.errno not in (ENOENT, ENOTDIR, ENOTEMPTY) or not round_left:
                raise


def _is_there(parent: int, name: str) -> bool:
    try:
        originals.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


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


@contextmanager
def _directory(parent: int, name: str) -> Iterator[int]:
    descriptor = open_directory(parent, name)
    try:
        yield descriptor
    finally:
        originals.close(descriptor)


def _empty(top: int) -> None:
    pending = _clear(top, top)
    numbers = itertools.count()
    while pending:
        name = pending.pop()
        with _directory(top, name) as inner:
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
        target = f"{PREFIX}{next(numbers)}"
        if _is_there(top, target):
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
