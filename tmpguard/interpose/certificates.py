"""``ssl`` has certificates read below Python: it is given the real paths of those in ``/tmp`` (C6.1)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..context import get_current
from ..mounts import error
from .paths import is_odd, like, readable


def load_cert_chain(original: Callable[..., None]) -> Callable[..., None]:
    """:meth:`ssl.SSLContext.load_cert_chain`."""

    @functools.wraps(original)
    def load_cert_chain(self: Any, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        return original(self, _real(certfile), _real(keyfile), password)

    return load_cert_chain


def load_verify_locations(original: Callable[..., None]) -> Callable[..., None]:
    """:meth:`ssl.SSLContext.load_verify_locations`."""

    @functools.wraps(original)
    def load_verify_locations(self: Any, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        return original(self, _real(cafile), _real(capath), cadata)

    return load_verify_locations


def _real(path: Any) -> Any:
    """The real path behind ``path``; raises OSError without a file's name, as ``ssl`` does."""
    invocation = get_current()
    if invocation is None or path is None or is_odd(path):
        return path
    try:
        return like(path, readable(invocation, path, operation="ssl.SSLContext"))
    except OSError as exc:
        code = exc.errno
    raise error(code or 0)
