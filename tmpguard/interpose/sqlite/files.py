"""The files that SQLite has open within an invocation. Their growth is charged (C3.5).

SQLite's own table of functions for an open file is exchanged for a copy in which the functions that allocate
are replaced. The replacements charge first and then call SQLite's own functions.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3 as codes
from collections.abc import Callable
from ctypes import c_void_p
from errno import ENOSPC
from typing import Final

from tmpguard.core import originals, real
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.ledger import Key, key_of
from tmpguard.core.storage.pages import PAGE, allocated
from tmpguard.core.storage.quota import Quota
from tmpguard.interpose.files.charge import full_remedy, too_many

from . import abi
from .pages import Pages
from .view import View


class Methods:
    """A table of SQLite's own functions for open files, and its copy with the replacements."""

    def __init__(self, address: int) -> None:
        self.address = address
        own = abi.IoMethods.from_address(address)
        self.close = abi.X_CLOSE(own.xClose)
        self.write = abi.X_WRITE(own.xWrite)
        self.truncate = abi.X_TRUNCATE(own.xTruncate)
        copy = abi.IoMethods()
        size = ctypes.sizeof(abi.IoMethods) if own.iVersion >= abi.VERSION else abi.IoMethods.xFetch.offset
        ctypes.memmove(ctypes.addressof(copy), address, size)
        for field, thunk in _thunks().items():
            if getattr(copy, field):
                setattr(copy, field, thunk)
        if copy.xShmMap:
            self.shm_map = abi.X_SHM_MAP(own.xShmMap)
            self.shm_unmap = abi.X_SHM_UNMAP(own.xShmUnmap)
        self.replaced = ctypes.addressof(copy)
        abi.keep(copy)


class Opened:
    """A file that SQLite has open.

    ``buffer`` holds its real name, whose address SQLite keeps. ``pages`` is None if the file is not charged.
    """

    __slots__ = ("buffer", "methods", "pages", "real", "recorded", "view", "virtual")

    def __init__(
        self,
        view: View,
        virtual: str,
        real: str,
        *,
        buffer: ctypes.Array[ctypes.c_char],
        methods: Methods,
        pages: Pages | None,
    ) -> None:
        self.view = view
        self.virtual = virtual
        self.real = real
        self.buffer = buffer
        self.methods = methods
        self.pages = pages
        self.recorded = False


_methods: Final[dict[int, Methods]] = {}
_opened: Final[dict[int, Opened]] = {}
#: The allocated pages of open charged files, by device and inode. Each file has one entry, however many
#: connections and invocations of an instance have it open. The last user removes the entry, because its inode
#: may be another file's from then on. A weak reference would not do: a traceback may keep the pages alive.
_pages: Final[dict[Key, Pages]] = {}
_lock: Final = real.RLock()


def pages_at(real: str, file: int) -> Pages:
    """The allocated pages of the charged file at ``real``, which was just opened as ``file``."""
    with _lock:
        status = originals.lstat(real)
        key = key_of(status)
        pages = _pages.get(key)
        if pages is None:
            pages = Pages(key)
            pages.look(real, status)
            _pages[key] = pages
        pages.users.add(file)
        return pages


def _release(pages: Pages, file: int) -> None:
    """``file`` is about to be closed. May be called again, after a signal handler raised."""
    with _lock:
        pages.users.discard(file)
        if not pages.users and _pages.get(pages.key) is pages:
            del _pages[pages.key]


def known_bytes(status: os.stat_result, real: str) -> int:
    """The charged size in bytes of the file with this ``status``."""
    pages = _pages.get(key_of(status))
    return pages.bytes if pages is not None else allocated(status, real)


def _shrunk(inode: int) -> None:
    """The file with this ``inode`` was truncated by code other than SQLite."""
    with _lock:
        for pages in list(_pages.values()):
            if pages.inode == inode:
                pages.forget()


def adopt(
    view: View,
    virtual: str,
    real: str,
    file: int,
    *,
    buffer: ctypes.Array[ctypes.c_char],
    pages: Pages | None,
) -> None:
    """Take over ``file``, the address of the file that SQLite's default VFS has just opened."""
    table = c_void_p.from_address(file).value
    if not table:
        return  # it could not be opened
    if pages is not None:
        view.invocation.quota.on_shrunk = _shrunk
    methods = _methods.get(table) or _methods.setdefault(table, Methods(table))
    _opened[file] = Opened(view, virtual, real, buffer=buffer, methods=methods, pages=pages)
    c_void_p.from_address(file).value = methods.replaced


def release_all() -> None:
    """At interpreter exit, return the files to SQLite, which closes them when Python no longer runs."""
    for file, opened in list(_opened.items()):
        c_void_p.from_address(file).value = opened.methods.address
        abi.keep(opened.buffer)


def _x_close(file: int) -> int:
    opened = _opened[file]
    try:
        return _close(opened, file)
    finally:
        _opened.pop(file, None)
        if c_void_p.from_address(file).value:  # a signal handler raised before SQLite had closed it
            c_void_p.from_address(file).value = opened.methods.address
            opened.methods.close(file)
        if opened.pages is not None:
            _release(opened.pages, file)


def _close(opened: Opened, file: int) -> int:
    pages, invocation = opened.pages, opened.view.invocation
    c_void_p.from_address(file).value = opened.methods.address

    def change() -> int:
        return int(opened.methods.close(file))

    if pages is None:
        return change()
    _release(pages, file)  # before: once it is closed, another file may get its inode
    if pages.nameless and not invocation.ended:
        # With the lock: a measurement in between would give the bytes back twice.
        return settled(invocation.quota, change, lambda: invocation.quota.freed(pages.bytes))
    return change()


def _late(opened: Opened, operation: str, code: int) -> int:
    """The invocation is over: the write fails, and is recorded once per open file (C4.5)."""
    if not opened.recorded:
        opened.recorded = True
        opened.view.invocation.stale(operation, opened.virtual)
    return code


def _x_write(file: int, data: int, size: int, offset: int) -> int:
    opened = _opened[file]
    pages = opened.pages
    if opened.view.invocation.ended:
        return _late(opened, "sqlite3 write", codes.SQLITE_IOERR_WRITE)
    if pages is not None and offset + size > pages.end:
        return _grow(opened, pages, file, data, size, offset)
    return int(opened.methods.write(file, data, size, offset))


def _grow(opened: Opened, pages: Pages, file: int, data: int, size: int, offset: int) -> int:
    """Write what fits. The file keeps it, and SQLite gets SQLITE_FULL (C3.4)."""
    invocation = opened.view.invocation
    quota = invocation.quota
    with quota.lock:
        fits, expected = _charge(quota, pages, size, offset)
        code = codes.SQLITE_FULL
        try:
            code = int(opened.methods.write(file, data, fits, offset)) if fits else codes.SQLITE_OK
            if fits and code == codes.SQLITE_OK:
                pages.add(offset, fits)
        finally:
            if code != codes.SQLITE_OK or quota.stamp != expected:
                quota.doubt()
    if fits < size:
        # Outside the lock: a log handler may write to /tmp as well.
        opened.view.note("sqlite3 write", ENOSPC, opened.virtual, full_remedy(invocation))
    return code if code or fits == size else codes.SQLITE_FULL


def _charge(quota: Quota, pages: Pages, size: int, offset: int) -> tuple[int, int]:
    """Charge as much of a write as fits. Returns its bytes, and the stamp of the quota after that charge.

    A signal handler that changes /tmp meanwhile makes a charge fail although it would fit: it is tried again.
    """
    for _ in range(_TRIES):
        new, stamp = pages.new(offset, size), quota.stamp
        if quota.take(len(new) * PAGE):
            return size, stamp + 1
        affordable = max(0, quota.balance // PAGE)
        if affordable < len(new):
            fits, stamp = max(0, min(size, new[affordable] * PAGE - offset)), quota.stamp
            if not fits or quota.take(len(pages.new(offset, fits)) * PAGE):
                return fits, stamp + (fits > 0)
    return 0, quota.stamp


#: How often a charge is tried that handlers of signals come in between.
_TRIES: Final = 10


def _x_truncate(file: int, size: int) -> int:
    opened = _opened[file]
    pages, invocation = opened.pages, opened.view.invocation
    if invocation.ended:
        return _late(opened, "sqlite3 truncate", codes.SQLITE_IOERR_TRUNCATE)
    if pages is None:
        return int(opened.methods.truncate(file, size))
    quota = invocation.quota

    def change() -> int:
        return int(opened.methods.truncate(file, size))

    return settled(quota, change, lambda: quota.freed(pages.cut(size), pages.inode, True))


def settled(quota: Quota, change: Callable[[], int], settle: Callable[[], None]) -> int:
    """Run ``change``, a function of SQLite, and ``settle``, one step that gives what it freed to the credit.

    If a signal handler or a finalizer comes in between, or raises, the next charge measures the disk.
    """
    with quota.lock:
        expected = quota.stamp
        try:
            code = change()
            if code == codes.SQLITE_OK:
                settle()
                expected += 1
        except BaseException:
            expected = -1
            raise
        finally:
            if quota.stamp != expected:
                quota.doubt()
        return code


# --- the index of a WAL --------------------------------------------------------------------------------


def _x_shm_map(file: int, region: int, size: int, extend: int, out: int) -> int:
    opened = _opened[file]
    invocation = opened.view.invocation

    def call() -> int:
        return int(opened.methods.shm_map(file, region, size, extend, out))

    if opened.pages is None or invocation.ended:
        return call()
    quota, real, virtual = invocation.quota, opened.real + "-shm", opened.virtual + "-shm"
    with quota.lock:
        before, stamp = _bytes_at(real), quota.stamp
        cost = max(0, (region + 1) * size - before) if extend else 0
        if not quota.take(cost):
            opened.view.note("sqlite3 write", ENOSPC, virtual, full_remedy(invocation))
            return codes.SQLITE_IOERR_SHMSIZE
        try:
            code: int = quota.making(real, call)
        except Full:
            opened.view.note("sqlite3 write", ENOSPC, opened.virtual + "-shm", too_many(invocation))
            quota.freed(cost)
            return codes.SQLITE_CANTOPEN
        quota.freed(before + cost - _bytes_at(real))
        if quota.stamp != stamp + 2 + (quota.max_files is not None):
            quota.doubt()
        return code


def _x_shm_unmap(file: int, delete: int) -> int:
    opened = _opened[file]
    invocation = opened.view.invocation
    if opened.pages is None or invocation.ended:
        return int(opened.methods.shm_unmap(file, delete))
    real = opened.real + "-shm"
    quota = invocation.quota

    def change() -> int:
        return int(opened.methods.shm_unmap(file, delete))

    def settle() -> None:
        if status is not None and _status_of(real) is None:
            # Its bytes are freed once nothing has it open, such as a connection to a replaced database.
            quota.unlinked(status, size)
        else:
            quota.freed(0)

    with quota.lock:
        status = _status_of(real)
        size = 0 if status is None else allocated(status, real)
        return settled(quota, change, settle)


def _bytes_at(real: str) -> int:
    status = _status_of(real)
    return 0 if status is None else allocated(status, real)


def _status_of(real: str) -> os.stat_result | None:
    try:
        return originals.lstat(real)
    except FileNotFoundError:
        return None


def _thunks() -> dict[str, int]:
    return {
        "xClose": abi.callback("xClose", abi.X_CLOSE, _x_close, codes.SQLITE_IOERR_CLOSE),
        "xWrite": abi.callback("xWrite", abi.X_WRITE, _x_write, codes.SQLITE_IOERR_WRITE),
        "xTruncate": abi.callback("xTruncate", abi.X_TRUNCATE, _x_truncate, codes.SQLITE_IOERR_TRUNCATE),
        "xShmMap": abi.callback("xShmMap", abi.X_SHM_MAP, _x_shm_map, codes.SQLITE_IOERR_SHMMAP),
        "xShmUnmap": abi.callback("xShmUnmap", abi.X_SHM_UNMAP, _x_shm_unmap, codes.SQLITE_IOERR),
    }
