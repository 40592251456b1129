"""SQLite and dbm databases, for an invocation that only watches (C2.5).

Native code opens and writes these files. A SQLite connection gets an authorizer, which SQLite asks about each
statement that it prepares; it allows all of them. An authorizer of the application takes its place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from errno import EPERM, EROFS
from typing import Any, Final
from urllib.parse import unquote

from tmpguard.core import originals
from tmpguard.core.callers import calling_frame
from tmpguard.core.invocation import get_current
from tmpguard.core.reports import remedies
from tmpguard.core.storage.ledger import status_of
from tmpguard.core.watching import Watching
from tmpguard.interpose.given import Given, text_of
from tmpguard.interpose.paths import resolve

from .judging import Judging, begin, find_elsewhere, find_parent, finish, is_charged, is_late, looked, quietly

#: The suffixes of the files of a database: SQLite's journals, and those of dbm's databases.
_FILES: Final = ("", "-journal", "-wal", "-shm", ".db", ".pag", ".dir")

#: The statements that change a database. SQLite's own tables are changed with the schema.
_WRITES: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


def database(
    invocation: Watching, operation: str, args: tuple[Any, ...], options: Mapping[str, Any]
) -> Judging:
    """The judge of a call that opens the file ``args[0]`` in native code, with dbm's flags in ``args[1]``."""
    given = Given(args[0], wanted=None)
    flags = str(args[1]) if len(args) > 1 else "r"
    return _opening(invocation, operation, given, writes=flags[:1] != "r")


def _opening(invocation: Watching, operation: str, given: Given, *, writes: bool) -> Judging:
    if given.odd:
        return
    where = resolve(invocation, given, making=True)
    charged = is_charged(invocation, where.virtual, where.mount)
    before = status_of(where.real)
    if charged and not invocation.is_late:
        for suffix in _FILES:
            invocation.ledger.follow(where.real + suffix)
    yield
    if not writes:
        if before is not None:
            looked(invocation, operation, given)
    elif is_late(invocation, operation, given.name):
        pass
    elif charged:
        if before is not None:
            find_elsewhere(invocation, operation, given.name, where.virtual, before, replaced=True)
        else:
            find_parent(invocation, operation, given.name, where.real)
    elif not where.mount.writable:
        invocation.refuse(operation, EROFS, given.name, where=where)


# --- SQLite --------------------------------------------------------------------------------------------


class _Database:
    """The database that a connection is about to open: its judge, and the authorizer of the connection."""

    def __init__(self, invocation: Watching, name: object, uri: object) -> None:
        self._name = name
        #: Whether a write to it would be refused.
        self._is_refused = False
        self._judging: Judging | None = None
        path, _ = _parts(name, bool(uri))
        if path:
            self._begin(invocation, Given(path))

    def _begin(self, invocation: Watching, given: Given) -> None:
        where = resolve(invocation, given, making=True)
        is_new = status_of(where.real) is None
        is_refused = not where.mount.writable and not is_charged(invocation, where.virtual, where.mount)
        # An existing database outside the writable mounts can be read. If there is none, it cannot be made.
        judging = _opening(invocation, "sqlite3.connect", given, writes=is_new or not is_refused)
        self._judging = judging if begin(judging) else None
        self._is_refused = is_refused and not is_new

    def opened(self, connection: sqlite3.Connection) -> None:
        """The connection was made."""
        if self._judging is not None:
            finish(self._judging, None)
        authorizer = _Authorizer(self._name, is_refused=self._is_refused)
        originals.SqliteConnection.set_authorizer(connection, authorizer)


class _Authorizer:
    """Allows everything, and records what would be refused: for the invocation that is current then."""

    def __init__(self, name: object, *, is_refused: bool) -> None:
        self._names: dict[str, object] = {"main": name} if is_refused else {}
        self._attached: tuple[object, bool] = ("", False)
        #: The line that prepared the last refused statement. SQLite asks several times for one.
        self._last: tuple[object, ...] = ()

    def __call__(self, action: int, first: str | None, second: str | None, schema: str | None, _: Any) -> int:
        if action in _WRITES or action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_ALTER_TABLE):
            quietly(self._judge, action, first, schema)
        return sqlite3.SQLITE_OK

    def _judge(self, action: int, first: str | None, schema: str | None) -> None:
        invocation = get_current()
        if not isinstance(invocation, Watching):
            return
        if action == sqlite3.SQLITE_ATTACH:
            self._attach(invocation, first)
            return
        schema = first if action == sqlite3.SQLITE_ALTER_TABLE else schema
        if schema in (None, "temp"):
            return
        name, is_refused = (
            self._attached if schema != "main" else (self._names.get("main"), "main" in self._names)
        )
        frame = calling_frame()
        line = (id(invocation), schema, frame and frame.f_code, frame and frame.f_lasti)
        if is_refused and line != self._last:
            self._last = line
            if not is_late(invocation, "sqlite3 write", name):
                invocation.refuse("sqlite3 write", EROFS, None, about=name)

    def _attach(self, invocation: Watching, name: str | None) -> None:
        path, query = _parts(name or "", True)
        if not path:
            return
        if "vfs=" in query:
            invocation.refuse("sqlite3 ATTACH", EPERM, None, about=path, remedy=remedies.named_vfs())
            return
        given = Given(path)
        where = resolve(invocation, given, making=True)
        charged = is_charged(invocation, where.virtual, where.mount)
        is_refused = not charged and not where.mount.writable
        self._attached = name, is_refused
        if charged:
            for suffix in _FILES:
                invocation.ledger.follow(where.real + suffix)
        elif is_refused and status_of(where.real) is None:
            invocation.refuse("sqlite3 ATTACH", EROFS, None, about=name)


def connect(
    invocation: Watching,
    original: Callable[..., sqlite3.Connection],
    name: Any,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
) -> sqlite3.Connection:
    """:func:`sqlite3.connect`, which is ``original``."""
    opening = quietly(_Database, invocation, name, options.get("uri", False))
    connection = original(name, *args, **options)
    if opening is not None:
        quietly(opening.opened, connection)
    return connection


def initialize(
    invocation: Watching,
    connection: sqlite3.Connection,
    init: Callable[..., None],
    name: Any,
    options: Mapping[str, Any],
) -> None:
    """The constructor of :class:`sqlite3.Connection`, which is ``init``."""
    opening = quietly(_Database, invocation, name, options.get("uri", False))
    init(name, **options)
    if opening is not None:
        quietly(opening.opened, connection)


def _parts(database: Any, uri: bool) -> tuple[str, str]:
    """The path of a database and the query of its URI; "" for one in memory, or that is only read."""
    name = text_of(database)
    query = ""
    if uri and name.startswith("file:"):
        name, _, query = name[len("file:") :].partition("?")
        name = unquote(name.partition("#")[0])
        if name.startswith("//"):
            name = "/" + name[2:].partition("/")[2]
    if name == ":memory:" or any(part in query for part in ("mode=memory", "mode=ro", "immutable=1")):
        return "", query
    return name, query
