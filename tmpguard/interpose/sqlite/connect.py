"""SQLite connections to the invocation's databases. SQLite itself opens its files in native code."""

from __future__ import annotations

import os
import sqlite3
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytesPath
from tmpguard.core.context import unguarded
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import SOURCE_PREFIX
from tmpguard.core.watching import Watching
from tmpguard.interpose.given import Given
from tmpguard.interpose.raising import alive
from tmpguard.interpose.watching import databases
from tmpguard.interpose.wrapper import StandIn

from .fallback import Authorizer, Resolved, limit, translated
from .view import View, connecting

T = TypeVar("T")
AnyConnection = TypeVar("AnyConnection", bound=sqlite3.Connection)

_ARGUMENTS: Final = (
    *("timeout", "detect_types", "isolation_level", "check_same_thread"),
    *("factory", "cached_statements", "uri"),
)
#: True if all arguments but the database are keyword-only.
_KEYWORDS_ONLY: Final = sys.version_info >= (3, 15)
#: The interpreter's own warning, which it would attribute to a line of tmpguard.
_POSITIONAL: Final = (
    "Passing more than 1 positional argument to {} is deprecated. Parameters 'timeout', 'detect_types', "
    "'isolation_level', 'check_same_thread', 'factory', 'cached_statements' and 'uri' will become "
    "keyword-only parameters in Python 3.15."
)


def _warn_of_positions(name: str) -> None:
    if sys.version_info >= (3, 13):
        warnings.warn(_POSITIONAL.format(name), DeprecationWarning, skip_file_prefixes=(SOURCE_PREFIX,))


def connect(
    original: Callable[..., sqlite3.Connection],
    invocation: Invocation,
    database: StrOrBytesPath,
    *args: Any,
    **options: Any,
) -> sqlite3.Connection:
    """:func:`sqlite3.connect`: the invocation's own database below ``/tmp``, a read-only one elsewhere."""
    foreign = original is not originals.sqlite_connect
    if args and not foreign:
        if _KEYWORDS_ONLY:
            return original(database, *args, **options)  # raises the right error
        _warn_of_positions("sqlite3.connect()")
    if isinstance(invocation, Watching):
        if not foreign:
            args, options = (), {**dict(zip(_ARGUMENTS, args, strict=False)), **options}
        return databases.connect(invocation, original, database, args, options)
    if len(args) < 5:
        options.setdefault("factory", Connection)
    factory = args[4] if len(args) > 4 else options["factory"]
    if not isinstance(factory, type) or Connection in factory.__mro__:
        if foreign:
            return original(database, *args, **options)
        # As the original does; Connection translates the name.
        made: sqlite3.Connection = factory(database, *args, **options)
        return made
    args, options = (), {**dict(zip(_ARGUMENTS, args, strict=False)), **options}
    way = _Way(invocation, database, args, options)
    return way.contain(way.call(original))


class Connection(originals.SqliteConnection, metaclass=StandIn, told="sqlite3.Connection"):
    """:class:`sqlite3.Connection`. :func:`connect` returns one within an invocation."""

    original = originals.SqliteConnection

    def __init__(self, database: StrOrBytesPath, *args: Any, **options: Any) -> None:
        if args and len(args) <= len(_ARGUMENTS) and not _KEYWORDS_ONLY:
            _warn_of_positions("_sqlite3.Connection()")
            args, options = (), {**dict(zip(_ARGUMENTS, args, strict=False)), **options}
        invocation = get_current()
        if isinstance(invocation, Watching) and not args:
            databases.initialize(invocation, self, super().__init__, database, options)
            return
        if invocation is None or isinstance(database, Resolved) or args:
            super().__init__(database, *args, **options)
            return
        way = _Way(invocation, database, args, options)
        way.call(super().__init__)
        way.contain(self)


_UNKNOWN: Final = object()
_vfs: Any = _UNKNOWN
#: The views of connections that cannot hold a reference to theirs. They are kept for ever.
_held: Final[list[View]] = []


def vfs_module() -> ModuleType | None:
    """The module that implements the VFS with ctypes, imported on first use; None without ctypes."""
    global _vfs
    if _vfs is _UNKNOWN:
        with unguarded():
            try:
                from . import vfs as sqlite_vfs

                _vfs = sqlite_vfs
            except ImportError:
                _vfs = None
    return _vfs  # type: ignore[no-any-return]


class _Way:
    """How one connection is made: its arguments, and what it needs afterwards."""

    def __init__(
        self,
        invocation: Invocation,
        database: StrOrBytesPath,
        args: tuple[object, ...],
        options: dict[str, object],
    ) -> None:
        alive(invocation, "sqlite3.connect", database)
        invocation.mounted.mend()  # SQLite's error would not say what is missing
        self._invocation = invocation
        self._given = self._target = database
        self._args = args
        self._options = options
        self._charged = False
        self._guarded = False
        self._view: View | None = None
        given = Given(database)
        if given.odd:
            return  # the original raises the right error
        uri = bool(options.get("uri", False))
        module = vfs_module()
        view = module.view_of(invocation) if module is not None else None
        if view is None:
            self._target, uri, self._charged = translated(invocation, database, uri)
            self._guarded = True
        else:
            own = _with_vfs(given.text, uri or view.uses_uris, view.name)
            if own is None:
                self._guarded = True  # an in-memory database that connections share by name
            else:
                self._target, self._view, uri = Resolved(own), view, True
        self._options = {**options, "uri": uri}

    def call(self, make: Callable[..., T]) -> T:
        """Make the connection with ``make``."""
        if self._view is None:
            return make(self._target, *self._args, **self._options)
        before = connecting.get()
        connecting.set(("sqlite3.connect", self._given))
        try:
            return make(self._target, *self._args, **self._options)
        finally:
            connecting.set(before)

    def contain(self, connection: AnyConnection) -> AnyConnection:
        """Confine the new ``connection`` to the invocation."""
        if self._view is not None:
            try:
                connection._tmpguard_view = self._view  # type: ignore[attr-defined]
            except AttributeError:
                _held.append(self._view)
        if self._charged:
            limit(self._invocation, connection)
        if self._guarded:
            authorizer = Authorizer(self._invocation)
            originals.SqliteConnection.set_authorizer(connection, authorizer)
            instance: Any = connection
            with suppress(AttributeError, TypeError):
                instance.set_authorizer = authorizer.setter(connection)
        return connection


def _with_vfs(name: str, uri: bool, vfs: str) -> str | None:
    """The database as a URI that names ``vfs``; None if it must use a VFS that it shares with others."""
    if not uri or not name.startswith("file:"):
        quoted = quote(os.fsencode(name))
        return f"file:{'//' if name.startswith('/') else ''}{quoted}?vfs={vfs}"
    base, mark, fragment = name.partition("#")
    path, _, query = base.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    in_memory = asked.get("mode") == "memory" or path == "file::memory:"
    if asked.get("vfs") == "memdb" or (in_memory and asked.get("cache") == "shared"):
        return None
    # SQLite uses the last vfs parameter, so locking is the default's, whatever VFS was asked for.
    return f"{base}{'&' if '?' in base else '?'}vfs={vfs}{mark}{fragment}"
