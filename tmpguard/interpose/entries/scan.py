"""What ``os.scandir`` gives within an invocation: entries that bear the application's own paths (C7.1)."""

from __future__ import annotations

import itertools
import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import resolve
from tmpguard.interpose.raising import reraise
from tmpguard.interpose.wrapper import Told

if TYPE_CHECKING:
    from tmpguard.core.invocation import Invocation
    from tmpguard.core.mounts.bundle import Unlisted, Veil


#: Entries that are read at a time. The first one comes alone: many a caller wants to know if there is any.
_BATCH: Final = 256


class Listing:
    """What a scan reads: the directory, and what of it is seen.

    ``entries`` is the original iterator. ``given`` is the path as the application spelled it, ``base`` the
    canonical one of a directory that was given by its descriptor, ``virtual`` that of any, as far as known.
    ``veil`` leaves names out, ``genuine`` says that the original entries are right but for links.
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
        veil: Veil | Unlisted | None,
        genuine: bool,
    ) -> None:
        self.entries = entries
        self.invocation = invocation
        self.base = base
        self.virtual = virtual
        self.has_mounts = has_mounts
        self.veil = veil
        self.genuine = genuine and not has_mounts
        separator: Any = b"/" if isinstance(given, bytes) else "/"
        self.prefix: Any = given + separator if given and not given.endswith(separator) else given

    def batches(self, current: list[list[Any]]) -> Iterator[list[Any]]:
        """The entries that are seen, some at a time; those that were given out last are in ``current``.

        They are not kept here: entries hold their listing, and the original iterator is to go with the last.
        """
        size = 1
        batch: list[Any]
        while batch := list(itertools.islice(self.entries, size)):
            size = _BATCH
            if self.veil is not None:
                batch = unveiled(batch, self.veil)
            if self.genuine:
                batch = [DirEntry.of(entry, self) if entry.is_symlink() else entry for entry in batch]
            else:
                batch = [DirEntry.of(entry, self) for entry in batch]
            current[:] = [batch]
            yield batch


def unveiled(batch: list[Any], veil: Veil | Unlisted) -> list[Any]:
    """Those of the entries of a directory that are seen."""
    names = [entry.name for entry in batch]
    if names and isinstance(names[0], bytes):
        names = list(map(os.fsdecode, names))
    hidden = veil.hidden(names)
    if not hidden:
        return batch
    return [entry for entry, name in zip(batch, names, strict=True) if name not in hidden]


class Scan(itertools.chain[Any], metaclass=Told, told="posix.ScandirIterator"):
    """The iterator of :func:`os.scandir`: also a context manager, and closable.

    It is a chain of lists, so that the next entry costs no call of a function in Python.
    """

    _entries: Any
    _current: list[list[Any]]

    def __new__(cls, *args: object) -> Scan:
        raise TypeError("cannot create 'posix.ScandirIterator' instances")

    @classmethod
    def of(cls, listing: Listing) -> Scan:
        current: list[list[Any]] = []
        made = cls.from_iterable(listing.batches(current))
        assert isinstance(made, Scan)
        made._entries = listing.entries
        made._current = current
        return made

    def close(self) -> None:
        self._entries.close()
        for batch in self._current:
            batch.clear()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("cannot pickle 'posix.ScandirIterator' object")


class DirEntry(metaclass=Told, told="posix.DirEntry"):
    """Answers all that :class:`os.DirEntry` answers; a link is followed within the invocation's view."""

    __slots__ = ("_entry", "_listing")

    _entry: Any
    _listing: Listing

    def __new__(cls) -> DirEntry:
        raise TypeError("cannot create 'posix.DirEntry' instances")

    @classmethod
    def of(cls, entry: os.DirEntry[Any], listing: Listing) -> DirEntry:
        made: DirEntry = object.__new__(cls)
        made._entry = entry
        made._listing = listing
        return made

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("cannot pickle 'posix.DirEntry' object")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return os.DirEntry  # it cannot be subclassed, and isinstance must stay true (C7.2)

    @property
    def name(self) -> Any:
        return self._entry.name

    @property
    def path(self) -> Any:
        return self._listing.prefix + self._entry.name

    def __fspath__(self) -> Any:
        return self._listing.prefix + self._entry.name

    def inode(self) -> int:
        return self._entry.inode()  # type: ignore[no-any-return]

    def is_symlink(self) -> bool:
        return self._entry.is_symlink()  # type: ignore[no-any-return]

    def is_junction(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        entry = self._entry
        if follow_symlinks and self._leads_elsewhere():
            return self._is(modes.S_ISDIR)
        return entry.is_dir(follow_symlinks=False)  # type: ignore[no-any-return]

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        if follow_symlinks and self._leads_elsewhere():
            return self._is(modes.S_ISREG)
        return self._entry.is_file(follow_symlinks=False)  # type: ignore[no-any-return]

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if self._leads_elsewhere():
            if follow_symlinks:
                try:
                    return originals.stat(self._real())
                except OSError as exc:
                    reraise(exc, self.path)
            if not self._entry.is_symlink():
                return originals.lstat(self._real())
        try:
            return self._entry.stat(follow_symlinks=False)  # type: ignore[no-any-return]
        except OSError as exc:
            reraise(exc, self.path)

    def _leads_elsewhere(self) -> bool:
        """Is it a link, or a directory on which another file system is mounted?"""
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

    def _is(self, kind: Callable[[int], bool]) -> bool:
        try:
            return kind(originals.stat(self._real()).st_mode)
        except FileNotFoundError:
            return False
        except OSError as exc:
            reraise(exc, self.path)

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"
