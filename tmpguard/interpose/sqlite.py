"""SQLite, which opens files by itself: connections to the invocation's databases."""

from __future__ import annotations

import os
import sqlite3
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from ..context import get_current, unguarded
from ..invocation import Invocation
from . import originals
from .paths import alive, is_odd, text
from .sqlite_cursors import tell, telling
from .sqlite_fallback import Authorizer, Resolved, limit, translated
from .wrapper import StandIn


def connect(invocation: Invocation, database: Any, *args: Any, **options: Any) -> Any:
    """:func:`sqlite3.connect`: below ``/tmp`` the invocation's own database, elsewhere a read-only one."""
    if len(args) < 5:
        options.setdefault("factory", Connection)
    factory = args[4] if len(args) > 4 else options["factory"]
    if isinstance(factory, type) and Connection in factory.__mro__:
        return originals.sqlite_connect(database, *args, **options)  # translates the name by itself
    way = _Way(invocation, database, args, options)
    return way.contain(way.call(originals.sqlite_connect))


class Connection(originals.SqliteConnection, metaclass=StandIn):
    """:class:`sqlite3.Connection`, and what :func:`connect` gives within an invocation."""

    original = originals.SqliteConnection
    _authorizer: Authorizer | None = None
    _tmpguard_view: Any = None
    _tmpguard_database: Any = None

    def __init__(self, database: Any, *args: Any, **options: Any) -> None:
        invocation = get_current()
        if invocation is None or isinstance(database, Resolved):
            super().__init__(database, *args, **options)
            return
        way = _Way(invocation, database, args, options)
        way.call(super().__init__)
        way.contain(self)

    def _tell(self, error: sqlite3.Error) -> None:
        tell(self._tmpguard_view, error, self._tmpguard_database)

    def cursor(self, *args: Any, **options: Any) -> Any:
        if self._tmpguard_view is None:
            return super().cursor(*args, **options)
        if not args and not options:
            return super().cursor(_Cursor)
        options.update(zip(("factory",), args, strict=False))
        return super().cursor(*args[1:], **{**options, "factory": telling(options["factory"])})

    def execute(self, *args: Any) -> Any:
        return Connection.cursor(self).execute(*args)

    def executemany(self, *args: Any) -> Any:
        return Connection.cursor(self).executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return Connection.cursor(self).executescript(*args)

    def commit(self) -> None:
        try:
            super().commit()
        except sqlite3.DatabaseError as exc:
            self._tell(exc)
            raise

    def __exit__(self, *exc_info: Any) -> Any:
        try:
            return super().__exit__(*exc_info)
        except sqlite3.DatabaseError as exc:
            self._tell(exc)
            raise

    def blobopen(self, *args: Any, **options: Any) -> Any:
        try:
            return super().blobopen(*args, **options)
        except sqlite3.DatabaseError as exc:
            self._tell(exc)
            raise

    def set_authorizer(self, *args: Any, **options: Any) -> None:
        """Where tmpguard has one of its own, the application's is asked after it."""
        own = self._authorizer
        if own is None:
            super().set_authorizer(*args, **options)
            return
        own.then = args[0] if args else options["authorizer_callback"]
        super().set_authorizer(own)


_Cursor: Final = telling(sqlite3.Cursor)
Connection.__module__ = "sqlite3"

_UNKNOWN: Final = object()
_vfs: Any = _UNKNOWN
#: The file systems of connections that cannot hold theirs: they are not used again.
_held: Final[list[Any]] = []


def _vfs_module() -> ModuleType | None:
    """What serves SQLite by ctypes, which is imported when it is first needed; None where there is none."""
    global _vfs
    if _vfs is _UNKNOWN:
        with unguarded():
            try:
                from . import sqlite_vfs

                _vfs = sqlite_vfs
            except ImportError:
                _vfs = None
    return _vfs  # type: ignore[no-any-return]


class _Way:
    """How one connection is made: with which arguments, and what it needs afterwards."""

    def __init__(
        self, invocation: Invocation, database: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        alive(invocation, "sqlite3.connect", database)
        if len(args) > 6:  # uri was given by its position
            args, options = args[:6], {**options, "uri": args[6]}
        self._invocation = invocation
        self._given = self._target = database
        self._args = args
        self._options = options
        self._charged = False
        self._guarded = False
        self._view: Any = None
        if is_odd(database):
            return  # the original refuses it by itself
        uri = bool(options.get("uri", False))
        module = _vfs_module()
        view = module.view_of(invocation) if module is not None else None
        if view is None:
            self._target, uri, self._charged = translated(invocation, database, uri)
            self._guarded = True
        else:
            own = _with_vfs(text(database), uri or view.uses_uris, view.name)
            if own is None:
                self._guarded = True  # shared by name with connections of others
            else:
                self._target, self._view, uri = Resolved(own), view, True
        self._options = {**options, "uri": uri}

    def call(self, make: Any) -> Any:
        """Have ``make`` make the connection."""
        if self._view is None:
            return make(self._target, *self._args, **self._options)
        module = _vfs_module()
        assert module is not None
        before = module.connecting.get()
        module.connecting.set(("sqlite3.connect", self._given))
        try:
            return make(self._target, *self._args, **self._options)
        except sqlite3.DatabaseError as exc:
            tell(self._view, exc)
            raise
        finally:
            module.connecting.set(before)

    def contain(self, connection: Any) -> Any:
        """Give the new ``connection`` what keeps it within the invocation."""
        if self._view is not None:
            try:
                connection._tmpguard_view = self._view
                connection._tmpguard_database = self._given
            except AttributeError:
                _held.append(self._view)
        if self._charged:
            limit(self._invocation, connection)
        if self._guarded:
            authorizer = Authorizer(self._invocation)
            originals.SqliteConnection.set_authorizer(connection, authorizer)
            if Connection in type(connection).__mro__:
                connection._authorizer = authorizer
        return connection


def _with_vfs(name: str, uri: bool, vfs: str) -> str | None:
    """The database as a URI that names ``vfs``; None where it has to be in one that others have, too."""
    if not uri or not name.startswith("file:"):
        quoted = quote(os.fsencode(name))
        return f"file:{'//' if name.startswith('/') else ''}{quoted}?vfs={vfs}"
    base, mark, fragment = name.partition("#")
    path, _, query = base.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    in_memory = asked.get("mode") == "memory" or path == "file::memory:"
    if asked.get("vfs") == "memdb" or (in_memory and asked.get("cache") == "shared"):
        return None
    # SQLite goes by the last one: whatever way of locking was asked for, it is the default.
    return f"{base}{'&' if '?' in base else '?'}vfs={vfs}{mark}{fragment}"
