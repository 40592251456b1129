"""What an invocation that only watches made and wrote in the real ``/tmp`` (C2.5).

Nothing is redirected or wiped there, and other code uses the same directory. So the files of the invocation
are told from all others by device and inode.
"""

from __future__ import annotations

import os
import stat as modes
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from tmpguard.core import originals, real

from .forgotten import Maker
from .openfiles import open_unlinked
from .pages import PAGE, Usage, allocated, pages

#: The most files whose makers a guard remembers.
REMEMBERED: Final = 4096

#: The device and the inode of a file.
Key = tuple[int, int]


def key_of(status: os.stat_result) -> Key:
    """The device and the inode of the file of ``status``."""
    return status.st_dev, status.st_ino


def status_of(path: str) -> os.stat_result | None:
    """The status of the entry at the real ``path``; None if there is none, or it cannot be looked at."""
    try:
        return originals.lstat(path)
    except (OSError, ValueError):
        return None


class _Entry:
    """A file: where it is, the bytes it had before the invocation wrote to it, and those it has now."""

    __slots__ = ("base", "is_foreign", "path", "size")

    def __init__(self, path: str, base: int, size: int, *, is_foreign: bool = False) -> None:
        self.path = path
        self.base = base
        self.size = size
        #: Whether somebody else made it.
        self.is_foreign = is_foreign

    @property
    def bytes(self) -> int:
        """What counts: in production, what had been there before would not be there."""
        return max(0, self.size - self.base)


class Leaving(NamedTuple):
    """A file that an invocation left: its path, and how many bytes it wrote to it."""

    path: str
    bytes: int


class Ledger:
    """The files in the real ``/tmp`` that one invocation made, replaced or wrote to. Sizes are in bytes.

    Writes are estimated from the size of the file and what was written. The disk is asked when something was
    removed, when the estimate exceeds ``limit``, and at the end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[Key, _Entry] = {}
        #: Paths at which native code may make files, with the key and the bytes of what was there before.
        self._followed: dict[str, tuple[Key, int] | None] = {}
        self._total = 0
        self._doubtful = False
        self._lock = real.RLock()
        #: The most bytes that were in use at one time.
        self.peak = 0

    @property
    def count(self) -> int:
        """The number of files, as far as is known without asking the disk."""
        return len(self._entries)

    def owns(self, key: Key) -> bool:
        """Whether the invocation made or wrote to the file."""
        return key in self._entries or (bool(self._followed) and self._is_followed(key))

    def made(self, key: Key) -> bool:
        """Whether the invocation made the file itself."""
        return self.owns(key) and not self._entries[key].is_foreign

    def _is_followed(self, key: Key) -> bool:
        with self._lock:
            self._adopt_followed()
        return key in self._entries

    # --- what the invocation does ----------------------------------------------------------------------

    def add(self, path: str, status: os.stat_result, base: int | None = None) -> None:
        """The invocation made the file of ``status`` at the real ``path``.

        If ``base`` is given, somebody else made it, and it has so many bytes: it was renamed, or is about to
        be written to.
        """
        key = key_of(status)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                is_foreign = base is not None
                self._entries[key] = _Entry(path, base or 0, base or 0, is_foreign=is_foreign)
            elif status.st_nlink:
                entry.path = path
            if base is None:
                size = pages(status.st_size) if modes.S_ISREG(status.st_mode) else allocated(status, path)
                self._update(key, size, size)

    def follow(self, path: str) -> None:
        """Native code is about to make or change the file at the real ``path``."""
        with self._lock:
            if path not in self._followed:
                status = status_of(path)
                known = status and (key_of(status), allocated(status, path))
                if status is None or not self.owns(key_of(status)):
                    self._followed[path] = known

    def wrote(self, status: os.stat_result, written: int) -> int:
        """``written`` bytes were written to a file that now has ``status``. Returns the bytes in use."""
        with self._lock:
            if not status.st_nlink:
                self._doubtful = True  # it gives its space back when it is closed, of which nothing is heard
            return self._update(key_of(status), pages(status.st_size), pages(written) + PAGE)

    def _update(self, key: Key, size: int, most: int) -> int:
        """The file at ``key`` is ``size`` long and has grown by ``most`` at most."""
        entry = self._entries.get(key)
        if entry is None:
            return self._total
        before = entry.bytes
        entry.size = min(size, entry.size + most)
        self._total += entry.bytes - before
        if self._total > self.peak:
            if self._doubtful or self._total > self._limit >= self.peak:
                self._measure()
            self.peak = max(self.peak, self._total)
        return self._total

    def removing(self, path: str) -> None:
        """The entry at the real ``path`` is about to be removed."""
        with self._lock:
            if path in self._followed:
                self.measured()  # nobody has told what was written to it
            # The disk is to be asked before a new peak is believed.
            self._doubtful = True

    def moved(self, old: str, new: str) -> None:
        """``old`` was renamed to ``new``, both real paths."""
        with self._lock:
            for entry in self._entries.values():
                if entry.path == old or entry.path.startswith(old + "/"):
                    entry.path = new + entry.path[len(old) :]

    # --- figures ---------------------------------------------------------------------------------------

    def measured(self) -> Usage:
        """What the invocation's files hold now, from the disk."""
        with self._lock:
            self._adopt_followed()
            self._measure()
            self.peak = max(self.peak, self._total)
            return Usage(self._total, len(self._entries))

    def _adopt_followed(self) -> None:
        for path, before in list(self._followed.items()):
            status = status_of(path)
            if status is None or key_of(status) in self._entries:
                continue
            base = before[1] if before is not None and before[0] == key_of(status) else 0
            size = allocated(status, path)
            if before is None or before[0] != key_of(status) or size != base:
                self._entries[key_of(status)] = _Entry(path, base, size, is_foreign=bool(base))

    def _measure(self) -> None:
        held: dict[Key, int] | None = None
        for key, entry in list(self._entries.items()):
            status = status_of(entry.path)
            if status is not None and key_of(status) == key:
                entry.size = allocated(status, entry.path)
                continue
            if held is None:
                held = {key_of(status): allocated(status, "") for _, status in open_unlinked()}
            if key in held:
                entry.size = held[key]
            else:
                del self._entries[key]
        self._total = sum(entry.bytes for entry in self._entries.values())
        self._doubtful = held is not None and any(key in held for key in self._entries)

    def left(self) -> Iterator[Leaving]:
        """The files that are there now, as far as :meth:`measured` has found."""
        with self._lock:
            entries = list(self._entries.values())
        return (Leaving(entry.path, entry.bytes) for entry in entries)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The devices and inodes of the files."""
        with self._lock:
            return tuple(self._entries)


class Makers:
    """Which of a guard's invocations made files in the real ``/tmp``: the last few thousand of them.

    Each step is one operation on a dictionary, so no lock is needed.
    """

    def __init__(self) -> None:
        self._makers: OrderedDict[Key, Maker] = OrderedDict()

    def add(self, key: Key, maker: Maker) -> None:
        """An invocation has made the file."""
        self._makers.pop(key, None)
        self._makers[key] = maker
        while len(self._makers) > REMEMBERED:
            with suppress(KeyError):
                self._makers.popitem(last=False)

    def maker_of(self, key: Key) -> Maker | None:
        """Who made the file; None if it is not known."""
        return self._makers.get(key)
