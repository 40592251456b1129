"""Ways into the file system that are no function of ``os``: mmap, sockets, SQLite, dbm."""

from __future__ import annotations

import mmap as mmap_module
import os
import socket as _socket
import sqlite3
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EEXIST, ENOSPC, EROFS
from typing import Any, Final
from urllib.parse import quote, unquote

from ..invocation import Invocation, get_current
from ..mounts import error
from ..quota import Full, fill_holes
from . import originals
from .charge import full
from .paths import alive, entry, exists, place, text
from .refusals import making_error
from .wrapper import StandIn

# --- mmap ----------------------------------------------------------------------------------------------


class mmap(originals.mmap, metaclass=StandIn):
    """:class:`mmap.mmap`; a writable mapping of a file below ``/tmp`` is charged when it is made.

    Its pages are allocated then: past a real tmpfs's size the kernel would send SIGBUS at the first touch,
    here OSError(ENOSPC) comes before (C3.5).
    """

    original = originals.mmap
    _invocation: Invocation | None = None

    def __new__(cls, fileno: int, length: int, *args: Any, **options: Any) -> mmap:
        invocation = get_current()
        charged = False
        if invocation is not None and fileno != -1:
            charged = _allocate_mapped(invocation, fileno, length, args, options)
        self = super().__new__(cls, fileno, length, *args, **options)
        if charged:
            self._invocation = invocation
        return self

    def resize(self, newsize: int, /) -> None:
        invocation = self._invocation
        before = len(self)
        if invocation is None or newsize <= before:
            super().resize(newsize)
            return
        with invocation.quota.lock:
            invocation.quota.charge_most(newsize - before)
            super().resize(newsize)
            for page in range(before, newsize, mmap_module.PAGESIZE):
                self[page] = 0  # touched now, so that what was charged is what the disk holds
            self[newsize - 1] = 0


def _allocate_mapped(
    invocation: Invocation, fd: int, length: int, args: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    """Allocate what a shared, writable mapping of a charged file covers; is it one?"""
    flags = args[0] if args else options.get("flags", mmap_module.MAP_SHARED)
    protection = (
        args[1] if len(args) > 1 else options.get("prot", mmap_module.PROT_READ | mmap_module.PROT_WRITE)
    )
    access = options.get("access", args[2] if len(args) > 2 else mmap_module.ACCESS_DEFAULT)
    if access in (mmap_module.ACCESS_READ, mmap_module.ACCESS_COPY):
        return False
    if access == mmap_module.ACCESS_DEFAULT and not (
        flags & mmap_module.MAP_SHARED and protection & mmap_module.PROT_WRITE
    ):
        return False
    status = originals.fstat(fd)
    if not modes.S_ISREG(status.st_mode) or not invocation.owns(fd):
        return False
    alive(invocation, "mmap.mmap", fd)
    offset = options.get("offset", args[3] if len(args) > 3 else 0)
    size = max(0, min(length or status.st_size - offset, status.st_size - offset))
    if not size:
        return True
    quota = invocation.quota
    with quota.lock:
        try:
            quota.charge_whole(fd, size, offset)
        except Full:
            invocation.refuse("mmap.mmap", ENOSPC, None, about=fd, remedy=full(invocation))
        fill_holes(fd, offset, size)
    return True


mmap.__module__ = "mmap"


# --- sockets -------------------------------------------------------------------------------------------


def _local(sock: _socket.socket, address: Any) -> Invocation | None:
    """The invocation in which ``address`` is a path, None where it is not one."""
    invocation = get_current()
    if invocation is None or sock.family != _socket.AF_UNIX or not address:
        return None
    return None if text(address).startswith("\0") else invocation


def bind(self: _socket.socket, address: Any, /) -> None:
    """:meth:`socket.socket.bind`: a local socket is a file, too."""
    invocation = _local(self, address)
    if invocation is None:
        return originals.socket_bind(self, address)
    alive(invocation, "socket.bind", address)
    where = entry(invocation, address)
    if not where.parent.writable:
        code = making_error(where, directory=False)
        if code != EROFS:
            raise error(EADDRINUSE if code == EEXIST else code)
        remedy = invocation.remedy_for(where, address)
        invocation.refuse("socket.bind", EROFS, None, about=address, remedy=remedy)
    with _short(where.real) as real:
        return originals.socket_bind(self, real)


def connect(self: _socket.socket, address: Any, /) -> None:
    """:meth:`socket.socket.connect`."""
    invocation = _local(self, address)
    if invocation is None:
        return originals.socket_connect(self, address)
    alive(invocation, "socket.connect", address)
    with _short(place(invocation, address).real) as real:
        return originals.socket_connect(self, real)


def getsockname(self: _socket.socket, /) -> Any:
    """:meth:`socket.socket.getsockname`."""
    return _virtual_address(self, originals.socket_getsockname(self))


def getpeername(self: _socket.socket, /) -> Any:
    """:meth:`socket.socket.getpeername`."""
    return _virtual_address(self, originals.socket_getpeername(self))


def _virtual_address(sock: _socket.socket, address: Any) -> Any:
    invocation = _local(sock, address)
    if invocation is None or not isinstance(address, str):
        return address
    return invocation.namespace.virtual_of(address)


@contextmanager
def _short(real: str) -> Iterator[str]:
    """A name of ``real`` that fits into a socket address: 108 bytes, less than many a scratch path."""
    if len(os.fsencode(real)) < 108:
        yield real
        return
    head, _, tail = real.rpartition("/")
    descriptor = originals.os_open(head, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{tail}"
    finally:
        originals.close(descriptor)


# --- SQLite --------------------------------------------------------------------------------------------


def sqlite_connect(invocation: Invocation, database: Any, *args: Any, **options: Any) -> Any:
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
        where = place(invocation, name)
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


# --- dbm, ioctl ----------------------------------------------------------------------------------------


def dbm_open(original: Any, operation: str, failure: type[OSError]) -> Any:
    """What ``dbm.gnu.open`` and ``dbm.ndbm.open`` are within an invocation."""

    def guarded(invocation: Invocation, filename: Any, flags: str = "r", mode: int = 0o666, /) -> Any:
        alive(invocation, operation, filename)
        where = place(invocation, filename)
        if not where.mount.writable and flags[:1] != "r":
            invocation.refuse(operation, EROFS, filename, remedy=invocation.remedy_for(where, filename))
        try:
            return original(where.real, flags, mode)
        except failure as exc:
            if exc.filename is not None:
                exc.filename = filename
            raise

    return guarded


_FICLONE: Final = 0x40049409


def ioctl(invocation: Invocation, fd: Any, request: int, *args: Any) -> Any:
    """:func:`fcntl.ioctl`: a clone of a file allocates as its copy would."""
    descriptor = fd if isinstance(fd, int) else fd.fileno()
    if request != _FICLONE or not args or not invocation.owns(descriptor):
        return originals.fcntl_ioctl(fd, request, *args)
    source = args[0] if isinstance(args[0], int) else args[0].fileno()
    quota = invocation.quota
    with quota.lock:
        quota.charge_whole(descriptor, originals.fstat(source).st_size, 0)
        return originals.fcntl_ioctl(fd, request, *args)
