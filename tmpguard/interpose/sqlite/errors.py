"""SQLite's errors state what was refused and what to do instead (C2.3, C2.4).

``_sqlite3`` sets an attribute with the error code on each error that it raises. A descriptor replaces this
attribute, so that notes can be added to an error without a Python frame around each statement.
"""

from __future__ import annotations

import sqlite3
from errno import EROFS
from typing import Final

from tmpguard.core.invocation import redirecting
from tmpguard.core.reports import remedies

from .view import known_view, pending

_NAME: Final = "sqlite_errorcode"
_PRIMARY: Final = 0xFF
_NO_TABLE: Final = "no such table"
_REFUSALS: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
)


class ErrorCode:
    """Replaces :attr:`sqlite3.Error.sqlite_errorcode`."""

    def __get__(self, error: sqlite3.Error | None, kind: type | None = None) -> object:
        if error is not None and _NAME in vars(error):
            return vars(error)[_NAME]
        raise AttributeError(f"{kind.__name__ if kind else 'Error'!r} object has no attribute {_NAME!r}")

    def __set__(self, error: sqlite3.Error, code: object) -> None:
        vars(error)[_NAME] = code
        raised, pending.raised = pending.raised, None
        if raised is not None:
            raise raised
        if isinstance(code, int) and redirecting() is not None:
            if code & _PRIMARY in _REFUSALS:
                _add_remedy(error, code)
            elif code == sqlite3.SQLITE_ERROR and str(error).startswith(_NO_TABLE):
                remedies.add_note(error, _replaced())

    def __delete__(self, error: sqlite3.Error) -> None:
        if vars(error).pop(_NAME, None) is None:
            raise AttributeError(_NAME)


def _replaced() -> str:
    """The remedy for a missing table whose database another invocation had created (C7.4)."""
    invocation = redirecting()
    view = known_view(invocation) if invocation is not None else None
    return "" if view is None or view.invocation.ended else view.replaced()


def _add_remedy(error: sqlite3.Error, code: int) -> None:
    remedy, pending.remedy = pending.remedy, ""
    if code & _PRIMARY == sqlite3.SQLITE_READONLY:
        remedy = _read_only() if code != sqlite3.SQLITE_READONLY_DBMOVED else ""
    remedies.add_note(error, remedy)


def _read_only() -> str:
    """Record a write to a database outside /tmp, and return the remedy.

    SQLite knows that it opened the database read-only, so it refuses the write without asking the VFS. If
    there are several such databases, it does not report which one it was; the last one is named.
    """
    invocation = redirecting()
    view = known_view(invocation) if invocation is not None else None
    if view is None or not view.read_only:
        return ""
    given = list(view.read_only.values())[-1]
    return view.invocation.note("sqlite3 write", EROFS, given)
