"""SQLite's C interface for custom file systems, through ctypes, as far as :mod:`.vfs` needs it.

The functions are looked up in the library that the interpreter's own ``_sqlite3`` is linked with. If they
cannot be reached (no ctypes, or SQLite linked in without its symbols), :func:`library` returns None.
"""

from __future__ import annotations

import _sqlite3
import _thread
import ctypes
import logging
import sqlite3
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tmpguard.core.layout import SOURCE_ROOT

from .view import pending

if TYPE_CHECKING:
    from _ctypes import CFuncPtr

logger: Final = logging.getLogger("tmpguard")

OPEN_READONLY: Final = 0x1
OPEN_READWRITE: Final = 0x2
OPEN_CREATE: Final = 0x4
OPEN_DELETEONCLOSE: Final = 0x8
OPEN_EXCLUSIVE: Final = 0x10
OPEN_CHANGING: Final = OPEN_READWRITE | OPEN_CREATE | OPEN_DELETEONCLOSE | OPEN_EXCLUSIVE
OPEN_MAIN_DB: Final = 0x100
ACCESS_READWRITE: Final = 1
VERSION: Final = 3

X_OPEN: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
X_DELETE: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
X_ACCESS: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_void_p)
X_FULL_PATHNAME: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_void_p)
X_DL_OPEN: Final = CFUNCTYPE(c_void_p, c_void_p, c_void_p)
X_CLOSE: Final = CFUNCTYPE(c_int, c_void_p)
X_WRITE: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
X_TRUNCATE: Final = CFUNCTYPE(c_int, c_void_p, c_int64)
X_SHM_MAP: Final = CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p)
X_SHM_UNMAP: Final = CFUNCTYPE(c_int, c_void_p, c_int)


class Vfs(ctypes.Structure):
    """``sqlite3_vfs``: a file system. Its functions are plain addresses, so that each can be replaced."""

    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_void_p),
        ("pAppData", c_void_p),
        *[
            (name, c_void_p)
            for name in (
                *("xOpen", "xDelete", "xAccess", "xFullPathname"),
                *("xDlOpen", "xDlError", "xDlSym", "xDlClose"),
                *("xRandomness", "xSleep", "xCurrentTime", "xGetLastError"),
                *("xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall", "xNextSystemCall"),
            )
        ],
    ]


class IoMethods(ctypes.Structure):
    """``sqlite3_io_methods``: the operations on an open file."""

    _fields_ = [
        ("iVersion", c_int),
        *[
            (name, c_void_p)
            for name in (
                *("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize"),
                *("xLock", "xUnlock", "xCheckReservedLock", "xFileControl"),
                *("xSectorSize", "xDeviceCharacteristics"),
                *("xShmMap", "xShmLock", "xShmBarrier", "xShmUnmap", "xFetch", "xUnfetch"),
            )
        ],
    ]


class Library(NamedTuple):
    """The functions of the SQLite that the interpreter uses, and its default file system."""

    vfs_register: Callable[[Any, int], int]
    default: Vfs
    default_address: int
    uses_uris: bool
    #: Addresses of a function that only returns SQLITE_OK and of one that only returns an error.
    succeeds: int
    fails: int


@lru_cache(maxsize=1)
def library() -> Library | None:
    """The interpreter's SQLite; None if it cannot be reached or is not as expected."""
    try:
        handle = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        register, find, threadsafe = (
            handle.sqlite3_vfs_register,
            handle.sqlite3_vfs_find,
            handle.sqlite3_threadsafe,
        )
        handle.sqlite3_libversion.restype = c_char_p
        version = handle.sqlite3_libversion().decode()
        if handle.sqlite3_initialize() or not threadsafe() or version != sqlite3.sqlite_version:
            return None
        find.restype, find.argtypes = c_void_p, [c_char_p]
        address = find(None)
        register.argtypes = [POINTER(Vfs), c_int]
        uses_uris = bool(handle.sqlite3_compileoption_used(b"USE_URI"))
        succeeds, fails = (_address(handle.sqlite3_initialize), _address(threadsafe))
    except (OSError, AttributeError):
        return None
    default = Vfs.from_address(address) if address else None
    if default is None or default.iVersion < VERSION:
        return None
    return Library(register, default, address, uses_uris, succeeds, fails)


def _address(function: CFuncPtr) -> int:
    address = ctypes.cast(function, c_void_p).value
    assert address
    return address


def keep(thing: object) -> None:
    """Keep ``thing`` alive for ever: SQLite may use its address even after all modules are torn down."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _is_from_a_signal(exc: BaseException) -> bool:
    """Was it raised by a signal handler of the application, as a time limit or an exit is?"""
    traceback = exc.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and not traceback.tb_frame.f_code.co_filename.startswith(SOURCE_ROOT)


class _Later(int):
    """Makes this thread raise an exception behind its next call.

    That is what the interpreter does with an exception from another thread. Reading the attribute ``raised``
    asks for it: a property's function in C is called without the check that follows a call. It is an int
    because that function is passed the object. If a debugger or a coverage tool traces this code, its own
    calls come in between: the exception is printed and dropped.
    """

    raised: object

    @staticmethod
    def of(exc: BaseException) -> _Later:
        class Again(BaseException):
            """The interpreter takes a class, and raises what its call returns."""

            def __new__(cls) -> Any:
                return exc

        thread = ctypes.c_ulong(_thread.get_ident())
        ask = partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, thread, ctypes.py_object(Again))
        kind = type("_Later", (_Later,), {"raised": property(ask)})
        made: _Later = kind()
        return made


_callbacks: Final[dict[str, int]] = {}


def callback(
    name: str,
    prototype: Callable[..., CFuncPtr],
    function: Callable[..., int | None],
    failure: int | None,
) -> int:
    """The address of ``function`` as a C callback. If it raises, it returns the error code ``failure``."""

    def call(*args: int | None) -> int | None:
        try:
            return function(*args)
        except BaseException as exc:
            # Else ctypes would return 0, which is SQLite's success.
            if not isinstance(exc, KeyboardInterrupt) and not _is_from_a_signal(exc):
                logger.exception("tmpguard: the callback %s for SQLite failed", name)
            elif failure == sqlite3.SQLITE_IOERR_CLOSE:
                # SQLite ignores what becomes of a close. After this line nothing may be called: it would
                # raise here, where ctypes drops it.
                _Later.of(exc).raised  # noqa: B018
            else:
                pending.raised = exc
        return failure

    if name not in _callbacks:
        thunk = prototype(call)
        keep(thunk)
        _callbacks[name] = _address(thunk)
    return _callbacks[name]
