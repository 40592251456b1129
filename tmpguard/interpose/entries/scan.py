"""What ``os.scandir`` returns within an invocation: entries with the application's own paths (C7.1)."""

from __future__ import annotations

import itertools
import operator
import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tmpguard.core import originals, real
from tmpguard.core.aliases import StrOrBytes
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import resolve
from tmpguard.interpose.raising import reraise
from tmpguard.interpose.wrapper import Told

if TYPE_CHECKING:
    from tmpguard.core.invocation import Invocation
    from tmpguard.core.mounts.private import Leaving


#: Entries read at a time. The first is read alone, because many callers only check whether there is one.
_BATCH: Final = 256


class Listing:
    """An open directory, and which of its entries are visible.

    ``entries`` is the original iterator. ``given`` is the path as the application spelled it. ``base`` is the
    canonical path if the directory was given as a descriptor. ``virtual`` is the canonical path if that is
    known. ``veil`` says which names to leave out. ``genuine`` means that the original entries can be returned
    as they are, except symlinks.
    """

    __slots__ = (
        "base",
        "entries",
        "genuine",
        "has_mounts",
        "invocation",
        "prefix",
        "veil",
        "virtual",
    )

    def __init__(
        self,
        entries: os._ScandirIterator[Any],
        invocation: Invocation,
        given: StrOrBytes,
        base: str | None,
        virtual: str | None,
        has_mounts: bool,
        veil: Leaving | None,
        genuine: bool,
    ) -> None:
        self.entries = entries
        self.invocation = invocation
        self.base = base
        self.virtual = virtual
        self.has_mounts = has_mounts
        self.veil = veil
        self.genuine = genuine and not has_mounts
        self.prefix = _prefix_of(given)

    def read(self, most: int) -> list[Any] | None:
        """Read up to ``most`` entries and return the visible ones; None after the last entry."""
        batch: list[Any] = list(itertools.islice(self.entries, most))
        if not batch:
            return None
        if self.veil is not None:
            batch = unveiled(batch, self.veil)
        if self.genuine:
            return [DirEntry.of(entry, self) if entry.is_symlink() else entry for entry in batch]
        return [DirEntry.of(entry, self) for entry in batch]


def _prefix_of(directory: StrOrBytes) -> StrOrBytes:
    """The text before the name in the paths of the entries of ``directory``."""
    if isinstance(directory, bytes):
        return directory if not directory or directory.endswith(b"/") else directory + b"/"
    return directory if not directory or directory.endswith("/") else directory + "/"


class _Batches:
    """An iterator over a listing in batches: each item is an iterator over a list of entries.

    Threads may share a scan, and reading releases the interpreter's lock. So all threads get the same batch
    until it is exhausted: no entry is lost or returned twice.

    The entries are stored here and not in their listing, which they refer to: the original iterator should be
    freed together with the last of them.
    """

    __slots__ = ("_batch", "_listing", "_lock", "_size", "_unread")

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._lock = real.RLock()
        self._size = 1
        self._batch: list[Any] = []
        self._unread = iter(self._batch)

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Iterator[Any]:
        with self._lock:
            while not operator.length_hint(self._unread):
                batch = self._listing.read(self._size)
                if batch is None:
                    raise StopIteration
                self._size = _BATCH
                self._batch = batch
                self._unread = iter(batch)
            return self._unread

    def close(self) -> None:
        with self._lock:  # older interpreters crash if one thread closes the iterator while another one reads
            self._listing.entries.close()
            self._batch.clear()


def unveiled(batch: list[Any], veil: Leaving) -> list[Any]:
    """The entries in ``batch`` that are visible."""
    names = [entry.name for entry in batch]
    if names and isinstance(names[0], bytes):
        names = list(map(os.fsdecode, names))
    hidden = veil.hidden(names)
    if not hidden:
        return batch
    return [entry for entry, name in zip(batch, names, strict=True) if name not in hidden]


class Scan(itertools.chain[Any], metaclass=Told, told="posix.ScandirIterator"):
    """The iterator of :func:`os.scandir`: also a context manager, and closable.

    It chains the batches in C, so that getting the next entry does not call a Python function.
    """

    _batches: _Batches

    def __new__(cls, *args: object) -> Scan:
        raise TypeError("cannot create 'posix.ScandirIterator' instances")

    @classmethod
    def of(cls, listing: Listing) -> Scan:
        """A scan of an open directory. The class cannot be called, as the original cannot."""
        batches = _Batches(listing)
        made = cls.from_iterable(batches)
        assert isinstance(made, Scan)
        made._batches = batches
        return made

    def close(self) -> None:
        """Close the directory. Idempotent."""
        self._batches.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("cannot pickle 'posix.ScandirIterator' object")


class DirEntry(metaclass=Told, told="posix.DirEntry"):
    """Has everything that :class:`os.DirEntry` has. Symlinks are followed within the invocation's view."""

    __slots__ = ("_entry", "_followed", "_listing")

    _entry: os.DirEntry[Any]
    _listing: Listing
    #: The status of the target, once it has been needed.
    _followed: os.stat_result | None

    def __new__(cls) -> DirEntry:
        raise TypeError("cannot create 'posix.DirEntry' instances")

    @classmethod
    def of(cls, entry: os.DirEntry[Any], listing: Listing) -> DirEntry:
        """The replacement of an original entry. The class cannot be called, as the original cannot."""
        made: DirEntry = object.__new__(cls)
        made._entry = entry
        made._listing = listing
        made._followed = None
        return made

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("cannot pickle 'posix.DirEntry' object")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return os.DirEntry  # cannot be subclassed, but isinstance() must still return True (C7.2)

    @property
    def name(self) -> Any:
        return self._entry.name

    @property
    def path(self) -> Any:
        return self._listing.prefix + self._entry.name

    def __fspath__(self) -> Any:
        return self._listing.prefix + self._entry.name

    def inode(self) -> int:
        return self._entry.inode()

    def is_symlink(self) -> bool:
        return self._entry.is_symlink()

    def is_junction(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        entry = self._entry
        if follow_symlinks and self._leads_elsewhere():
            return self._is(modes.S_ISDIR)
        return entry.is_dir(follow_symlinks=False)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        if follow_symlinks and self._leads_elsewhere():
            return self._is(modes.S_ISREG)
        return self._entry.is_file(follow_symlinks=False)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if self._leads_elsewhere():
            if follow_symlinks:
                try:
                    return self._status()
                except OSError as exc:
                    reraise(exc, self.path)
            if not self._entry.is_symlink():
                return originals.lstat(self._real())
        try:
            return self._entry.stat(follow_symlinks=False)
        except OSError as exc:
            reraise(exc, self.path)

    def _leads_elsewhere(self) -> bool:
        """Whether the entry is a symlink or a mount point."""
        if self._entry.is_symlink():
            return True
        listing = self._listing
        if not listing.has_mounts:
            return False
        return f"{listing.virtual}/{os.fsdecode(self.name)}" in listing.invocation.guard.mounts.points

    def _virtual(self) -> str:
        base = self._listing.base
        return f"{base}/{self.name}" if base is not None else os.fsdecode(self.path)

    def _real(self) -> str:
        return resolve(self._listing.invocation, Given(self._virtual())).real

    def _status(self) -> os.stat_result:
        """The status of the entry's target, as of the first call."""
        if self._followed is None:
            self._followed = originals.stat(self._real())
        return self._followed

    def _is(self, kind: Callable[[int], bool]) -> bool:
        try:
            return kind(self._status().st_mode)
        except FileNotFoundError:
            return False
        except OSError as exc:
            reraise(exc, self.path)

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"
