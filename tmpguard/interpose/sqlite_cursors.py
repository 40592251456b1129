"""Cursors that tell, with SQLite's own error, what was refused and what to do instead (C2.3, C2.4)."""

from __future__ import annotations

import sqlite3
from errno import EROFS
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sqlite_vfs import View

_REFUSALS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
_PRIMARY = 0xFF


def tell(view: View | None, error: sqlite3.Error, database: Any = None) -> None:
    """Add what was refused to SQLite's ``error``; a write to a read-only database is recorded by it."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if view is None or code not in _REFUSALS:
        return
    if code == sqlite3.SQLITE_READONLY and view.read_only:
        # SQLite knows that it opened it for reading only, and asks nobody. Of several it does not say which.
        names = list(view.read_only.values())
        given = database if database in names else names[-1]
        view.note("sqlite3 write", EROFS, given, view.invocation.remedy_for(None, given))
    if view.remedy:
        error.add_note(f"tmpguard: {view.remedy}")
        view.remedy = ""


class _Telling:
    """Mixed into a class of cursors."""

    connection: Any

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)  # type: ignore[misc]
        except sqlite3.DatabaseError as exc:
            self.connection._tell(exc)
            raise

    def executemany(self, *args: Any, **options: Any) -> Any:
        try:
            return super().executemany(*args, **options)  # type: ignore[misc]
        except sqlite3.DatabaseError as exc:
            self.connection._tell(exc)
            raise

    def executescript(self, *args: Any, **options: Any) -> Any:
        try:
            return super().executescript(*args, **options)  # type: ignore[misc]
        except sqlite3.DatabaseError as exc:
            self.connection._tell(exc)
            raise


def telling(kind: Any) -> Any:
    """The class of cursors ``kind``, as one that tells."""
    if not isinstance(kind, type) or not issubclass(kind, sqlite3.Cursor) or issubclass(kind, _Telling):
        return kind  # SQLite says what it wants
    made = vars(kind).get("_tmpguard_telling") or _OF_CURSOR.get(kind)
    if made is None:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        made = type(kind.__name__, (_Telling, kind), names)
        if kind is sqlite3.Cursor:
            _OF_CURSOR[kind] = made
        else:
            owner: Any = kind
            owner._tmpguard_telling = made  # lives and dies with it
    return made


_OF_CURSOR: dict[Any, Any] = {}
