"""Files that the standard library opens in native code: ``dbm`` databases and certificates (C6.1)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tmpguard.core.aliases import StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation, get_current

from .given import Given
from .paths import readable, resolve
from .raising import alive, refuse

if TYPE_CHECKING:
    from ssl import SSLContext

# --- dbm.gnu and dbm.ndbm, whose C libraries open the files --------------------------------------------


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


# --- ssl, which reads certificates in native code: it gets the real paths of those in /tmp ---------------


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


def _real(path: StrOrBytesPath | None) -> Any:
    """The real path of ``path``. Raises OSError without a file name, as ``ssl`` does."""
    invocation = get_current()
    if invocation is None or path is None:
        return path
    given = Given(path)
    if given.odd:
        return given.name
    try:
        return given.like(readable(invocation, given, operation="ssl.SSLContext"))
    except OSError as exc:
        code = exc.errno
    raise os_error(code or 0)
