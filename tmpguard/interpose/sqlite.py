"""SQLite, which opens files by itself."""

from __future__ import annotations

import sqlite3
from errno import EROFS
from typing import Any
from urllib.parse import quote, unquote

from ..invocation import Invocation, get_current
from . import originals
from .paths import alive, exists, place, text
from .wrapper import StandIn


def connect(invocation: Invocation, database: Any, *args: Any, **options: Any) -> Any:
    """:func:`sqlite3.connect`: below ``/tmp`` a database of the quota's size, elsewhere a read-only one."""
    alive(invocation, "sqlite3.connect", database)
    target, args, options, charged = _resolved(invocation, database, args, options)
    if len(args) < 5:
        options.setdefault("factory", Connection)
    connection = originals.sqlite_connect(target, *args, **options)
    _contain(invocation, connection, charged)
    return connection


class Resolved(str):
    """A database name that was translated: what is opened by it is not translated again."""


class Connection(originals.SqliteConnection, metaclass=StandIn):
    """:class:`sqlite3.Connection`, for those who call or subclass it themselves."""

    original = originals.SqliteConnection
    _authorizer: _Authorizer | None = None

    def __init__(self, database: Any, *args: Any, **options: Any) -> None:
        invocation = get_current()
        if invocation is None or isinstance(database, Resolved):
            super().__init__(database, *args, **options)
            return
        alive(invocation, "sqlite3.Connection", database)
        target, args, options, charged = _resolved(invocation, database, args, options)
        super().__init__(target, *args, **options)
        _contain(invocation, self, charged)

    def set_authorizer(self, authorizer_callback: Any) -> None:
        """The application's own authorizer is asked after tmpguard's, which stays."""
        if self._authorizer is None:
            super().set_authorizer(authorizer_callback)
        else:
            self._authorizer.then = authorizer_callback


Connection.__module__ = "sqlite3"


def _resolved(
    invocation: Invocation, database: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any], bool]:
    if len(args) > 6:  # uri was given by its position
        args, options = args[:6], {**options, "uri": args[6]}
    target, uri, charged = _database(invocation, database, bool(options.get("uri", False)))
    return target, args, {**options, "uri": uri}, charged


def _contain(invocation: Invocation, connection: Any, charged: bool) -> None:
    if charged:
        _limit(invocation, connection)
    authorizer = _Authorizer(invocation)
    originals.SqliteConnection.set_authorizer(connection, authorizer)
    if Connection in type(connection).__mro__:
        connection._authorizer = authorizer


class _Authorizer:
    """Denies what would have SQLite open another file: ATTACH, and VACUUM INTO, which attaches too.

    SQLite would open it by the path in the statement, past the invocation's view of the file system.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.then: Any = None

    def __call__(self, action: int, name: str | None, *rest: Any) -> int:
        if action != sqlite3.SQLITE_ATTACH or not name or name == ":memory:" or "mode=memory" in name:
            return sqlite3.SQLITE_OK if self.then is None else self.then(action, name, *rest)
        self._invocation.note("sqlite3 ATTACH", EROFS, name)
        return sqlite3.SQLITE_DENY if self._invocation.guard.enforce else sqlite3.SQLITE_OK


def _database(invocation: Invocation, database: Any, uri: bool) -> tuple[Any, bool, bool]:
    """What to connect to, whether that is a URI, and whether it is charged to the quota."""
    name = text(database)
    query = ""
    if uri and name.startswith("file:"):
        name, _, query = name[len("file:") :].partition("?")
        name = unquote(name.partition("#")[0])
        if name.startswith("//"):
            name = "/" + name[2:].partition("/")[2]
    if not name or name == ":memory:" or "mode=memory" in query:
        return database, uri, False
    try:
        where = place(invocation, name, operation="sqlite3.connect")
    except OSError:
        return Resolved("/dev/null/nowhere"), False, False  # SQLite has its own words for it
    if not where.mount.writable and "mode=ro" not in query and "immutable=1" not in query:
        if not exists(where.real):
            # SQLite says itself that it is unable to open the file; the report says why.
            invocation.note("sqlite3.connect", EROFS, database)
        if not invocation.guard.enforce:
            return Resolved(f"file:{quote(where.real)}{'?' if query else ''}{query}"), True, False
        query = "&".join(
            [part for part in query.split("&") if part and not part.startswith("mode=")] + ["mode=ro"]
        )
    return Resolved(f"file:{quote(where.real)}{'?' if query else ''}{query}"), True, where.mount.charged


def _limit(invocation: Invocation, connection: Any) -> None:
    """Give SQLite its share of the quota: it says "database or disk is full" at the limit."""

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
        pass  # no database, or locked: the application will be told so by its own statement
    finally:
        pragma(f"busy_timeout = {patience}")
