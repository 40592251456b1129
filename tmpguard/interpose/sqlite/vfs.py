"""An invocation's file system as SQLite sees it: its own VFS.

SQLite uses a VFS for everything that it does with names. Journals, WAL files, temporary files, ``ATTACH`` and
``VACUUM INTO`` therefore go where the invocation's paths lead, and ``PRAGMA database_list`` shows the names
that the application knows. SQLite's own default VFS opens the files, at the real path. For files below
``/tmp``, the functions that allocate are replaced, so that each new page is charged before it is written. All
other functions, reading and locking in particular, stay SQLite's own.

A connection keeps the VFS that it was opened with. What it does later, in any thread, is therefore done for
the invocation that opened it. Nothing here may raise: SQLite gets an error code instead.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sqlite3 as codes
import stat as modes
import weakref
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_void_p
from errno import ENOSPC, EROFS
from functools import lru_cache
from typing import ClassVar, Final

from tmpguard.core import hooks, originals
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.charging import Full
from tmpguard.interpose.files.charge import too_many
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import exists, quick_real, resolve, resolve_entry
from tmpguard.interpose.readonly import open_error, unlink_error

from . import abi, named
from .files import adopt, known_bytes, pages_at, release_all, settled
from .pages import Pages
from .view import View, keep_view, known_view

#: Directories that SQLite tries for its temporary files, after those of the environment.
_TEMPORARY: Final = ("/var/tmp", "/usr/tmp", "/tmp")
_SPELLINGS_KEPT: Final = 100


class _Slot:
    """The C structure of a VFS. It is registered for ever, and one invocation after another uses it."""

    #: The slots that no invocation uses. A class attribute, because at interpreter exit a module's names may
    #: be gone before the last view is.
    unused: ClassVar[list[_Slot]] = []

    def __init__(self, library: abi.Library) -> None:
        self.name = f"tmpguard-{next(_numbers)}"
        self.uses_uris = library.uses_uris
        self.view: weakref.ref[View] | None = None
        self._text = ctypes.create_string_buffer(self.name.encode())
        self.vfs = vfs = abi.Vfs.from_buffer_copy(library.default)
        vfs.iVersion = abi.VERSION
        vfs.zName = ctypes.addressof(self._text)
        for field, address in _thunks().items():
            setattr(vfs, field, address)
        self.address = ctypes.addressof(vfs)
        abi.keep(self._text)
        abi.keep(vfs)
        _slots[self.address] = self
        library.vfs_register(ctypes.byref(vfs), 0)

    def free(self, _: object) -> None:
        """Nothing needs the invocation's view any more: make the slot available again."""
        self.view = None
        self.unused.append(self)


_numbers: Final = itertools.count(1)
_slots: Final[dict[int, _Slot]] = {}
_over = False


def view_of(invocation: Invocation) -> View | None:
    """The VFS of ``invocation``; None if ctypes cannot reach SQLite."""
    view = known_view(invocation)
    if view is not None:
        return view
    library = abi.library()
    if library is None or _over:
        return None
    if not _slots:
        hooks.register(hooks.Step.CLOSE_DATABASES, _retire)
        named.cover(library)
    try:
        slot = _Slot.unused.pop()
    except IndexError:
        slot = _Slot(library)
    view = View(invocation, slot.name, slot.uses_uris, owner=slot)
    slot.view = weakref.ref(view, slot.free)
    keep_view(view)
    return view


def is_main(flags: int) -> bool:
    """True for a main database file, as opposed to a journal or a temporary file."""
    return bool(flags & abi.OPEN_MAIN_DB)


def _view(vfs: int) -> View:
    reference = _slots[vfs].view
    view = reference() if reference is not None else None
    if view is None:
        raise LookupError(f"the VFS {_slots[vfs].name} belongs to no invocation")
    return view


# --- opening -------------------------------------------------------------------------------------------


def _x_open(vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
    c_void_p.from_address(file).value = None
    view = _view(vfs)
    virtual = _text(name) if name else ""
    if view.invocation.ended:
        view.invocation.stale(*view.given(virtual, is_main(flags)))
        return codes.SQLITE_CANTOPEN
    try:
        operation, _ = view.given(virtual, is_main(flags))
        where = _leading(view, virtual or _temporary(view), follow=False, operation=operation)
    except OSError:
        return codes.SQLITE_CANTOPEN
    parameters = _parameters(name) if name and flags & abi.OPEN_MAIN_DB else b""
    if not where.mount.writable:
        passing = _passing(view, where, flags)
        if passing < 0:
            return codes.SQLITE_CANTOPEN
        if passing != flags:
            parameters += b"readonly_shm\0001\0"
            flags = passing
    real = os.fsencode(where.real)
    if len(real) + len("-journal") > _default().longest:
        return codes.SQLITE_CANTOPEN
    # SQLite expects four zero bytes before a name, and the parameters after it.
    buffer = ctypes.create_string_buffer(bytes(4) + real + b"\0" + parameters + bytes(4))

    def call() -> int:
        default = _default()
        return int(default.open(default.address, ctypes.addressof(buffer) + 4, file, flags, out))

    creating = where.mount.charged and bool(flags & abi.OPEN_CREATE)
    is_new = creating and is_main(flags) and not exists(real)
    code = _making(view, where, flags, call) if creating else call()
    if is_new and code == codes.SQLITE_OK:
        view.created[where.virtual] = view.given(where.virtual, True)
    elif code == codes.SQLITE_CANTOPEN and where.mount.charged and is_main(flags):
        view.missing(where.virtual, making=creating)
    pages = None
    if where.mount.charged and code == codes.SQLITE_OK:
        pages = Pages(nameless=True) if flags & abi.OPEN_DELETEONCLOSE else pages_at(where.real, file)
    adopt(view, where.virtual, where.real, file, buffer=buffer, pages=pages)
    return code


def _making(view: View, where: Place, flags: int, call: Callable[[], int]) -> int:
    """Run ``call``, which may create a file, within ``max_files`` (C3.6)."""
    try:
        code: int = view.invocation.quota.making(where.real, call)
        return code
    except FileNotFoundError:
        return codes.SQLITE_CANTOPEN
    except Full:
        operation, given = view.given(where.virtual, is_main(flags))
        view.note(operation, ENOSPC, given, too_many(view.invocation))
        return codes.SQLITE_CANTOPEN


def _passing(view: View, where: Place, flags: int) -> int:
    """The flags that a read-only mount permits: SQLite opens a file that it may not write as read-only.

    -1 if SQLite does not fall back to that, as for a directory.
    """
    if not flags & (abi.OPEN_READWRITE | abi.OPEN_CREATE):
        return flags
    creating = flags & abi.OPEN_CREATE
    code = open_error(where, os.O_RDWR | os.O_CREAT if creating else os.O_RDWR)
    if code != EROFS:
        return -1 if code else flags  # a device may be written (C1.3)
    if creating and not exists(where.real):
        operation, given = view.given(where.virtual, is_main(flags))
        view.note(operation, EROFS, given, where=where)
    else:
        view.read_only.pop(where.virtual, None)  # moves the entry to the end
        view.read_only[where.virtual] = view.given(where.virtual, is_main(flags))[1]
    return flags & ~abi.OPEN_CHANGING | abi.OPEN_READONLY


def _temporary(view: View) -> str:
    """A path for a temporary file, in the first writable directory, as SQLite chooses it."""
    for directory in (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *_TEMPORARY):
        with suppress(OSError):
            if directory:
                where = resolve(view.invocation, Given(directory))
                if where.mount.writable and modes.S_ISDIR(originals.stat(where.real).st_mode):
                    return f"{where.virtual}/etilqs_{os.urandom(8).hex()}"
    raise os_error(EROFS)


def _parameters(name: int) -> bytes:
    """The URI parameters after a database's name: keys and values, each terminated by a zero byte."""
    start = at = name + len(ctypes.string_at(name)) + 1
    while key := ctypes.string_at(at):
        at += len(key) + 1
        at += len(ctypes.string_at(at)) + 1
    return ctypes.string_at(start, at - start)


# --- names ---------------------------------------------------------------------------------------------


def _x_delete(vfs: int, name: int, sync: int) -> int:
    view = _view(vfs)
    invocation = view.invocation
    if invocation.ended:
        return codes.SQLITE_IOERR_DELETE_NOENT  # everything has been wiped
    virtual = _text(name)
    try:
        where = _quick(view, virtual) or resolve_entry(invocation, Given(virtual))
        status = originals.lstat(where.real)
    except FileNotFoundError:
        return codes.SQLITE_IOERR_DELETE_NOENT
    if not where.parent.writable and unlink_error(where) == EROFS:
        view.note("sqlite3 unlink", EROFS, virtual, where=where)
        return codes.SQLITE_IOERR_DELETE
    buffer = ctypes.create_string_buffer(os.fsencode(where.real))
    default = _default()

    def call() -> int:
        return int(default.delete(default.address, ctypes.addressof(buffer), sync))

    if not where.mount.charged:
        return call()
    with invocation.quota.lock:
        size = known_bytes(status, where.real)
        return settled(invocation.quota, call, lambda: invocation.quota.unlinked(status, size))


def _x_access(vfs: int, name: int, flags: int, out: int) -> int:
    view = _view(vfs)
    ctypes.c_int.from_address(out).value = 0
    if view.invocation.ended:
        return codes.SQLITE_OK
    try:
        where = _leading(view, _text(name), making=True)
    except OSError:
        return codes.SQLITE_OK
    if where.why:
        return codes.SQLITE_OK  # not in the bundle
    if flags == abi.ACCESS_READWRITE and not where.mount.writable:
        return codes.SQLITE_OK
    buffer = ctypes.create_string_buffer(os.fsencode(where.real))
    default = _default()
    return int(default.access(default.address, ctypes.addressof(buffer), flags, out))


def _x_full_pathname(vfs: int, name: int, size: int, out: int) -> int:
    view = _view(vfs)
    given = _text(name)
    try:
        virtual = _leading(view, given, making=True).virtual
    except OSError:
        return codes.SQLITE_CANTOPEN
    encoded = os.fsencode(virtual) + b"\0"
    if len(encoded) > size:
        return codes.SQLITE_CANTOPEN
    if len(view.spelled) > _SPELLINGS_KEPT:
        view.spelled.clear()
    view.spelled[virtual] = given
    ctypes.memmove(out, encoded, len(encoded))
    return codes.SQLITE_OK


def _x_dl_open(vfs: int, name: int) -> int | None:
    path = _text(name)
    if "/" in path:
        path = resolve(_view(vfs).invocation, Given(path)).real
    buffer = ctypes.create_string_buffer(os.fsencode(path))
    default = _default()
    handle: int | None = default.dl_open(default.address, ctypes.addressof(buffer))
    return handle


def _leading(
    view: View, path: str, *, follow: bool = True, operation: str = "", making: bool = False
) -> Place:
    """Where ``path`` leads."""
    return _quick(view, path) or resolve(
        view.invocation, Given(path), follow=follow, operation=operation, making=making
    )


def _quick(view: View, path: str) -> Place | None:
    """Where most paths below /tmp lead, by their text alone. Each transaction looks for its journal."""
    real = quick_real(view.invocation, path)
    if real is None or path.endswith("/"):
        return None
    mount = view.invocation.guard.mounts.scratch
    return Place(path, real, mount, mount, "", False)


def _text(name: int) -> str:
    return os.fsdecode(ctypes.string_at(name))


# --- callbacks -----------------------------------------------------------------------------------------


class _Default:
    """SQLite's default VFS, which does the actual work."""

    def __init__(self, library: abi.Library) -> None:
        vfs = library.default
        self.address = library.default_address
        self.longest: int = vfs.mxPathname
        self.open = abi.X_OPEN(vfs.xOpen)
        self.delete = abi.X_DELETE(vfs.xDelete)
        self.access = abi.X_ACCESS(vfs.xAccess)
        self.dl_open = abi.X_DL_OPEN(vfs.xDlOpen)


@lru_cache(maxsize=1)
def _default() -> _Default:
    library = abi.library()
    assert library is not None  # otherwise there would be no view
    return _Default(library)


def _thunks() -> dict[str, int]:
    return {
        "xOpen": abi.callback("xOpen", abi.X_OPEN, _x_open, codes.SQLITE_CANTOPEN),
        "xDelete": abi.callback("xDelete", abi.X_DELETE, _x_delete, codes.SQLITE_IOERR_DELETE),
        "xAccess": abi.callback("xAccess", abi.X_ACCESS, _x_access, codes.SQLITE_IOERR_ACCESS),
        "xFullPathname": abi.callback(
            "xFullPathname", abi.X_FULL_PATHNAME, _x_full_pathname, codes.SQLITE_CANTOPEN
        ),
        "xDlOpen": abi.callback("xDlOpen", abi.X_DL_OPEN, _x_dl_open, None),
    }


def _retire() -> None:
    """At interpreter exit, make sure that connections closed later call no Python and miss the real /tmp."""
    global _over
    _over = True
    library = abi.library()
    if library is None:
        return
    release_all()
    named.release()
    for slot in _slots.values():
        vfs = slot.vfs
        vfs.xOpen = vfs.xAccess = vfs.xFullPathname = library.fails
        vfs.xDelete = library.succeeds
        vfs.xDlOpen = library.default.xDlOpen
