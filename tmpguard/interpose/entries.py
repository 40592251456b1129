"""What ``os.scandir`` gives within an invocation: entries that bear the application's own paths (C7.1)."""

from __future__ import annotations

import os
import stat as modes
from typing import TYPE_CHECKING, Any, NoReturn

from . import originals
from .paths import place, reraise

if TYPE_CHECKING:
    from ..invocation import Invocation


class Scan:
    """The iterator of :func:`os.scandir`: also a context manager, and closable."""

    __slots__ = ("_around", "_base", "_entries", "_invocation", "_prefix")

    def __init__(
        self, entries: Any, invocation: Invocation, given: Any, base: str | None, around: str | None
    ) -> None:
        self._entries = entries
        self._invocation = invocation
        self._base = base
        #: Where it is, if there are mount points in it.
        self._around = around
        separator = b"/" if isinstance(given, bytes) else "/"
        self._prefix = given + separator if given and not given.endswith(separator) else given

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> DirEntry:
        return _new_entry(next(self._entries), self)

    def close(self) -> None:
        self._entries.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._entries.close()


class VeiledScan(Scan):
    """The same without the names that ``veil`` leaves out (C5.2, C1.5)."""

    __slots__ = ("_suspects", "_veil")

    def __init__(self, *args: Any) -> None:
        *rest, self._veil = args
        super().__init__(*rest)
        self._suspects = self._veil.suspects

    def __next__(self) -> DirEntry:
        for entry in self._entries:
            name = entry.name
            if isinstance(name, bytes):
                if self._suspects(os.fsdecode(name)) and self._veil.hides(os.fsdecode(name), entry):
                    continue
            elif self._suspects(name) and self._veil.hides(name, entry):
                continue
            return _new_entry(entry, self)
        raise StopIteration


class DirEntry:
    """Answers all that :class:`os.DirEntry` answers; a link is followed within the invocation's view."""

    __slots__ = ("_entry", "_scan")

    _entry: Any
    _scan: Scan

    def __new__(cls) -> DirEntry:
        raise TypeError("cannot create 'posix.DirEntry' instances")

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
        return self._scan._prefix + self._entry.name

    def __fspath__(self) -> Any:
        return self._scan._prefix + self._entry.name

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
        scan = self._scan
        if scan._around is None:
            return False
        return f"{scan._around}/{os.fsdecode(self.name)}" in scan._invocation.guard.mounts.points

    def _virtual(self) -> str:
        return f"{self._scan._base}/{self.name}" if self._scan._base is not None else os.fsdecode(self.path)

    def _real(self) -> str:
        return place(self._scan._invocation, self._virtual()).real

    def _is(self, kind: Any) -> bool:
        try:
            return bool(kind(originals.stat(self._real()).st_mode))
        except FileNotFoundError:
            return False
        except OSError as exc:
            reraise(exc, self.path)

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"


DirEntry.__module__ = "posix"


def _new_entry(entry: Any, scan: Scan) -> DirEntry:
    made: DirEntry = object.__new__(DirEntry)
    made._entry = entry
    made._scan = scan
    return made
