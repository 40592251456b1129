"""Files that the standard library opens in native code: databases, certificates, shared memory (C6.1)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from errno import ENOENT, ENOSYS
from types import GetSetDescriptorType
from typing import TYPE_CHECKING, Any

from tmpguard.core.aliases import StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation, get_current, redirecting
from tmpguard.core.layout import SHARED_MEMORY
from tmpguard.core.presence import is_found
from tmpguard.core.reports import remedies
from tmpguard.core.watching import Watching
from tmpguard.interpose.files.target import locate

from .given import Given
from .paths import readable, resolve
from .raising import alive, refuse, reraise
from .watching.databases import database
from .watching.judging import judged, looked, quietly

if TYPE_CHECKING:
    from ssl import SSLContext

# --- dbm.gnu and dbm.ndbm: their C libraries open the files --------------------------------------------


def open_database(original: Callable[..., Any], operation: str, failure: type[OSError]) -> Any:
    """The replacement of ``dbm.gnu.open`` or ``dbm.ndbm.open`` within an invocation."""

    def guarded(
        invocation: Invocation, filename: StrOrBytesPath, flags: str = "r", mode: int = 0o666, /
    ) -> Any:
        given = Given(filename)
        if given.odd:
            return original(filename, flags, mode)  # raises the right error
        alive(invocation, operation, given.name)
        where = resolve(invocation, given, operation=operation, making="c" in flags or "n" in flags)
        if not where.mount.writable and flags[:1] != "r":
            refuse(invocation, operation, given, where)
        try:
            return original(where.real, flags, mode)
        except failure as exc:
            if exc.filename is not None:
                exc.filename = filename
            raise

    return guarded


# --- multiprocessing's locks and shared memory: native code creates them in /dev/shm (C1.6) --------------


def semaphore(original: Callable[..., None]) -> Callable[..., None]:
    """The constructor of ``multiprocessing``'s locks. Raises OSError(ENOSYS) if there is no /dev/shm."""

    @functools.wraps(original)
    def __init__(self: object, *args: object, **options: object) -> None:
        _need_shared_memory("multiprocessing.SemLock", ENOSYS, None)
        original(self, *args, **options)

    return __init__


def shm_open(original: Callable[..., int]) -> Callable[..., int]:
    """``_posixshmem.shm_open``. Raises OSError(ENOENT) if there is no /dev/shm."""

    @functools.wraps(original)
    def shm_open(path: str, *args: object, **options: object) -> int:
        _need_shared_memory("multiprocessing.SharedMemory", ENOENT, path)
        return original(path, *args, **options)

    return shm_open


def _need_shared_memory(operation: str, code: int, path: object) -> None:
    invocation = get_current()
    if invocation is not None and not invocation.guard.shared_memory:
        remedy = remedies.NO_SHARED_MEMORY
        invocation.refuse(operation, code, path, about=path or SHARED_MEMORY, remedy=remedy, advise=False)


# --- ssl: native code reads certificates, so it gets the real paths of those in /tmp ---------------------


def load_cert_chain(original: Callable[..., None]) -> Callable[..., None]:
    """:meth:`ssl.SSLContext.load_cert_chain`."""

    @functools.wraps(original)
    def load_cert_chain(
        self: SSLContext,
        certfile: StrOrBytesPath,
        keyfile: StrOrBytesPath | None = None,
        password: object = None,
    ) -> None:
        return original(self, _real(certfile), _real(keyfile), password)

    return load_cert_chain


def load_verify_locations(original: Callable[..., None]) -> Callable[..., None]:
    """:meth:`ssl.SSLContext.load_verify_locations`."""

    @functools.wraps(original)
    def load_verify_locations(
        self: SSLContext,
        cafile: StrOrBytesPath | None = None,
        capath: StrOrBytesPath | None = None,
        cadata: object = None,
    ) -> None:
        return original(self, _real(cafile), _real(capath), cadata)

    return load_verify_locations


def keylog_filename(original: GetSetDescriptorType) -> property:
    """:attr:`ssl.SSLContext.keylog_filename`: a file to which native code appends."""

    def get(self: SSLContext) -> Any:
        path = original.__get__(self)
        invocation = redirecting()
        return path if invocation is None or path is None else invocation.namespace.virtual_of(path)

    def set_(self: SSLContext, path: StrOrBytesPath | None) -> None:
        invocation = get_current()
        given = Given(path) if path is not None else None
        if isinstance(invocation, Watching) and given is not None:
            judged(database(invocation, "ssl.SSLContext", (path, "c"), {}), original.__set__, self, path)
        elif invocation is not None and given is not None and not given.odd:
            real, _ = locate(invocation, given, os.O_WRONLY | os.O_CREAT | os.O_APPEND, "ssl.SSLContext")
            try:
                original.__set__(self, given.like(real))
            except OSError as exc:
                reraise(exc, path)
        else:
            original.__set__(self, path)

    return property(get, set_, doc=original.__doc__)


def _real(path: StrOrBytesPath | None) -> Any:
    """The real path of ``path``. Raises OSError without a file name, as ``ssl`` does."""
    invocation = get_current()
    if invocation is None or path is None:
        return path
    if isinstance(invocation, Watching):
        quietly(_watch_read, invocation, path)
        return path
    given = Given(path)
    if given.odd:
        return given.name
    try:
        return given.like(readable(invocation, given, operation="ssl.SSLContext"))
    except OSError as exc:
        code = exc.errno
    raise os_error(code or 0)


def _watch_read(invocation: Watching, path: StrOrBytesPath) -> None:
    given = Given(path)
    if not given.odd and is_found(given.text):
        looked(invocation, "ssl.SSLContext", given)
