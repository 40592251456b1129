"""Local sockets: each is a file, too."""

from __future__ import annotations

import os
import socket as _socket
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EEXIST, EROFS
from typing import Any

from ..invocation import Invocation, get_current
from ..mounts import error
from . import originals
from .paths import alive, entry, place, text
from .refusals import making_error


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
    where = entry(invocation, address, operation="socket.bind")
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
    with _short(place(invocation, address, operation="socket.connect").real) as real:
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
