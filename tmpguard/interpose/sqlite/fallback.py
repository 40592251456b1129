"""SQLite without :mod:`.vfs`: guarded by real paths, an authorizer and a page limit.

This is used if ctypes cannot reach SQLite's functions. The authorizer is also used for in-memory databases
that connections share by name, because those belong to SQLite's default VFS.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from errno import EROFS
from typing import Any
from urllib.parse import quote, unquote

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytesPath
from tmpguard.core.invocation import Invocation
from tmpguard.interpose.given import Given, text_of
from tmpguard.interpose.paths import exists, resolve

#: An authorizer: takes the action, its two arguments, the database and the trigger or view.
Callback = Callable[[int, str | None, str | None, str | None, str | None], int]


class Resolved(str):
    """A database name that has been translated. It is not translated again."""


class Authorizer:
    """Denies statements that make SQLite open another file: ATTACH, and VACUUM INTO, which attaches too.

    SQLite would open it at the path in the statement, bypassing the invocation's view of the file system.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        #: The application's own authorizer, if it has set one.
        self.then: Callback | None = None

    def setter(self, connection: sqlite3.Connection) -> Callable[[Callback | None], None]:
        """Replaces ``connection.set_authorizer``: the application's authorizer runs after this one."""
        held = weakref.ref(connection)

        def set_authorizer(authorizer_callback: Callback | None) -> None:
            connection = held()
            if connection is not None:
                originals.SqliteConnection.set_authorizer(connection, self)  # raises if it is not allowed
                self.then = authorizer_callback

        return set_authorizer

    def __call__(self, action: int, name: str | None, *rest: str | None) -> int:
        if action != sqlite3.SQLITE_ATTACH or name in ("", ":memory:") or "mode=memory" in (name or ""):
            return sqlite3.SQLITE_OK if self.then is None else self.then(action, name, *rest)
        self._invocation.note("sqlite3 ATTACH", EROFS, name or "a bound parameter")
        return sqlite3.SQLITE_DENY


def translated(
    invocation: Invocation, database: StrOrBytesPath, uri: bool
) -> tuple[StrOrBytesPath, bool, bool]:
    """The database to connect to, whether that is a URI, and whether it is charged to the quota."""
    name = text_of(database)
    query = ""
    if uri and name.startswith("file:"):
        name, _, query = name[len("file:") :].partition("?")
        name = unquote(name.partition("#")[0])
        if name.startswith("//"):
            name = "/" + name[2:].partition("/")[2]
    if not name or name == ":memory:" or "mode=memory" in query:
        return database, uri, False
    try:
        where = resolve(invocation, Given(name), operation="sqlite3.connect")
    except OSError:
        return Resolved("/dev/null/nowhere"), False, False  # SQLite raises its own error for it
    if not where.mount.writable and "mode=ro" not in query and "immutable=1" not in query:
        if not exists(where.real):
            # SQLite reports that it is unable to open the file; the violation records why.
            invocation.note("sqlite3.connect", EROFS, database)
        query = "&".join(
            [part for part in query.split("&") if part and not part.startswith("mode=")] + ["mode=ro"]
        )
    return Resolved(f"file:{quote(where.real)}{'?' if query else ''}{query}"), True, where.mount.charged


def limit(invocation: Invocation, connection: sqlite3.Connection) -> None:
    """Limit SQLite to the rest of the quota: at the limit it reports "database or disk is full"."""

    def pragma(text: str) -> Any:
        cursor = originals.SqliteConnection.cursor(connection)
        cursor.row_factory = None
        row = cursor.execute(f"PRAGMA {text}").fetchone()
        cursor.close()
        return row[0] if row else None

    patience = pragma("busy_timeout")
    try:
        pragma("busy_timeout = 0")
        page = pragma("page_size")
        free = max(0, invocation.guard.quota_bytes - invocation.quota.measured().bytes)
        pragma(f"max_page_count = {max(1, pragma('page_count') + free // page)}")
    except originals.SqliteError:
        pass  # not a database, or locked: the application's own statement will raise the error
    finally:
        pragma(f"busy_timeout = {patience}")
