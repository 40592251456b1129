"""The VFSs that a URI can name, as in ``ATTACH 'file:/tmp/x.db?vfs=unix'``, are refused within an invocation.

SQLite looks for a VFS by its name when it attaches a database, whatever VFS the connection has. So a copy of
each is put before it in SQLite's list, which asks whose the call is before it makes a path absolute: that
comes before a file is opened. Everything else stays SQLite's own, and so does the default VFS, under another
name.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3 as codes
from collections.abc import Iterator
from errno import EPERM
from typing import Final

from tmpguard.core.invocation import redirecting
from tmpguard.core.reports import remedies

from . import abi
from .view import pending

#: The name of the default VFS, which is found by nobody else's.
_DEFAULT: Final = b"tmpguard-default"
#: Has only databases in memory.
_IN_MEMORY: Final = b"memdb"

#: The copies by their addresses, each with the address of the original's function.
_copies: Final[dict[int, tuple[abi.Vfs, int]]] = {}


def cover(library: abi.Library) -> None:
    """Put the copies in the place of the VFSs that there are."""
    originals = list(_registered(library))
    default = _copy(library.default, _DEFAULT)
    library.vfs_register(ctypes.byref(default), 1)
    for original in originals:
        name = ctypes.string_at(original.zName)
        copy = _copy(original, name)
        _copies[ctypes.addressof(copy)] = copy, original.xFullPathname
        copy.xFullPathname = abi.callback(
            "xFullPathname of a copy", abi.X_FULL_PATHNAME, _x_full_pathname, codes.SQLITE_CANTOPEN
        )
        library.vfs_register(ctypes.byref(copy), 0)


def _registered(library: abi.Library) -> Iterator[abi.Vfs]:
    """The VFSs for files, the default one first."""
    address: int | None = library.default_address
    while address:
        vfs = abi.Vfs.from_address(address)
        if ctypes.string_at(vfs.zName) != _IN_MEMORY:
            yield vfs
        address = vfs.pNext


def _copy(original: abi.Vfs, name: bytes) -> abi.Vfs:
    text = ctypes.create_string_buffer(name)
    copy = abi.Vfs.from_buffer_copy(original)
    copy.zName = ctypes.addressof(text)
    abi.keep(text)
    abi.keep(copy)
    return copy


def _x_full_pathname(vfs: int, name: int, size: int, out: int) -> int:
    invocation = redirecting()
    if invocation is not None:
        path = os.fsdecode(ctypes.string_at(name))
        pending.remedy = invocation.note("sqlite3 ATTACH", EPERM, path, remedies.named_vfs())
        return codes.SQLITE_CANTOPEN
    return int(abi.X_FULL_PATHNAME(_copies[vfs][1])(vfs, name, size, out))


def release() -> None:
    """At interpreter exit: SQLite calls no Python any more."""
    for copy, full_pathname in _copies.values():
        copy.xFullPathname = full_pathname
