"""Unix domain sockets: each bound socket is also a file."""

from __future__ import annotations

import os
import socket as _socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EEXIST, ENOSPC, EROFS
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import ReadableBuffer
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.quota import Full
from tmpguard.interpose.files.charge import too_many

from .given import Given
from .paths import resolve, resolve_entry
from .raising import alive
from .readonly import making_error

#: The maximum length of a socket's path, including the terminating NUL.
_ADDRESS_MAX: Final = 108
#: The maximum length of a name after ``/proc/self/fd/`` and a descriptor number.
_LONGEST_NAME: Final = _ADDRESS_MAX - 30

_Socket = _socket.socket
_Address = str | tuple[Any, ...] | ReadableBuffer


def _local(sock: _Socket, address: object) -> Invocation | None:
    """The current invocation if ``address`` is a path, otherwise None."""
    invocation = get_current()
    if invocation is None or not isinstance(address, (str, bytes, bytearray, memoryview)):
        return None
    if sock.family != _socket.AF_UNIX or not address:
        return None
    name = _bytes(address)
    if name.startswith(b"\0") or len(name) >= _ADDRESS_MAX:
        return None  # an abstract address; or too long, which the original reports
    return invocation


def _bytes(address: object) -> bytes:
    if isinstance(address, str):
        return os.fsencode(address)
    assert isinstance(address, (bytes, bytearray, memoryview))
    return bytes(address)


def _encoded(address: object) -> bytes:
    """The path in ``address``, which ends at the first NUL."""
    name = _bytes(address)
    return name if name.startswith(b"\0") else name.partition(b"\0")[0]


# --- giving an address ---------------------------------------------------------------------------------


def bind(self: _Socket, address: _Address, /) -> None:
    """:meth:`socket.socket.bind`. Binding a Unix domain socket creates a file."""
    invocation = _local(self, address)
    if invocation is None:
        return originals.socket_bind(self, address)
    alive(invocation, "socket.bind", address)
    with _unnamed():
        where = resolve_entry(invocation, Given(os.fsdecode(_encoded(address))), "socket.bind")
    if not where.parent.writable:
        code = making_error(where, directory=False)
        if code != EROFS:
            raise os_error(EADDRINUSE if code == EEXIST else code)
        invocation.refuse("socket.bind", EROFS, None, about=address, where=where)
    if where.last:
        raise os_error(EADDRINUSE)
    with _short(where.real) as real:
        bound = _bind(invocation, self, address, where, real)
        # getsockname() and the like return the address as it was given, as the kernel does.
        volume = invocation.volume
        volume.addresses = {**volume.addresses, bound: os.fsdecode(_encoded(address))}
    return None


def _bind(invocation: Invocation, sock: _Socket, address: object, where: Place, real: str) -> str:
    """Bind ``sock`` to ``real``, another name of ``where.real``, within ``max_files`` (C3.6).

    Returns the address under which the kernel knows the socket.
    """
    make = partial(_make, sock, where.real, real)
    if not where.parent.charged or where.slash:  # a trailing slash is only valid for a directory
        return make()
    try:
        return invocation.quota.making(where.real, make)  # type: ignore[no-any-return]
    except Full:
        invocation.refuse("socket.bind", ENOSPC, None, about=address, remedy=too_many(invocation))
        return make()


def _make(sock: _Socket, path: str, real: str) -> str:
    """Bind ``sock`` to ``path`` by its short name ``real``. Returns the socket's address.

    A short name that goes through a descriptor is not unique, and the file's own path may not fit into an
    address. So the socket is bound to a new entry with a random name first, which is then linked to ``path``.
    """
    directory, _, name = path.rpartition("/")
    if real == path or not name:  # the kernel refuses a trailing slash
        originals.socket_bind(sock, real)
        return real
    passing = os.urandom(6).hex()
    address = f"{real.rpartition('/')[0]}/{passing}"
    originals.socket_bind(sock, address)
    try:
        originals.link(f"{directory}/{passing}", path, follow_symlinks=False)
    except FileExistsError:  # another thread created it in the meantime
        raise os_error(EADDRINUSE) from None
    finally:
        originals.unlink(f"{directory}/{passing}")
    return address


@contextmanager
def _reached(invocation: Invocation, operation: str, address: object) -> Iterator[str]:
    """The real address of ``address``, within the block."""
    alive(invocation, operation, address)
    with _unnamed():
        where = resolve(invocation, Given(os.fsdecode(_encoded(address))), operation=operation)
    with _short(where.real, there=True) as real:
        yield real


def connect(self: _Socket, address: _Address, /) -> None:
    """:meth:`socket.socket.connect`."""
    invocation = _local(self, address)
    if invocation is None:
        return originals.socket_connect(self, address)
    with _reached(invocation, "socket.connect", address) as real:
        return originals.socket_connect(self, real)


def connect_ex(self: _Socket, address: _Address, /) -> int:
    """:meth:`socket.socket.connect_ex`."""
    invocation = _local(self, address)
    if invocation is None:
        return originals.socket_connect_ex(self, address)
    try:
        with _reached(invocation, "socket.connect_ex", address) as real:
            return originals.socket_connect_ex(self, real)
    except OSError as exc:
        return exc.errno or 0


def sendto(self: _Socket, data: ReadableBuffer, /, *rest: object) -> Any:
    """:meth:`socket.socket.sendto`: the address comes last."""
    invocation = _local(self, rest[-1] if rest else None)
    if invocation is None:
        return originals.socket_sendto(self, data, *rest)
    with _reached(invocation, "socket.sendto", rest[-1]) as real:
        return originals.socket_sendto(self, data, *rest[:-1], real)


def sendmsg(self: _Socket, buffers: Iterable[ReadableBuffer], /, *rest: object) -> Any:
    """:meth:`socket.socket.sendmsg`: the address is the fourth argument."""
    invocation = _local(self, rest[2]) if len(rest) > 2 else None
    if invocation is None:
        return originals.socket_sendmsg(self, buffers, *rest)
    with _reached(invocation, "socket.sendmsg", rest[2]) as real:
        return originals.socket_sendmsg(self, buffers, *rest[:2], real, *rest[3:])


# --- returning an address ------------------------------------------------------------------------------


def getsockname(self: _Socket, /) -> Any:
    """:meth:`socket.socket.getsockname`."""
    return _virtual_address(originals.socket_getsockname(self))


def getpeername(self: _Socket, /) -> Any:
    """:meth:`socket.socket.getpeername`."""
    return _virtual_address(originals.socket_getpeername(self))


def accept(self: _Socket, /) -> Any:
    """:meth:`socket.socket._accept`, on which ``accept`` is built."""
    return _with_virtual_address(originals.socket_accept(self))


def recvfrom(self: _Socket, /, *args: object, **options: object) -> Any:
    """:meth:`socket.socket.recvfrom`."""
    return _with_virtual_address(originals.socket_recvfrom(self, *args, **options))


def recvfrom_into(self: _Socket, /, *args: object, **options: object) -> Any:
    """:meth:`socket.socket.recvfrom_into`."""
    return _with_virtual_address(originals.socket_recvfrom_into(self, *args, **options))


def recvmsg(self: _Socket, /, *args: object, **options: object) -> Any:
    """:meth:`socket.socket.recvmsg`."""
    return _with_virtual_address(originals.socket_recvmsg(self, *args, **options))


def recvmsg_into(self: _Socket, /, *args: object, **options: object) -> Any:
    """:meth:`socket.socket.recvmsg_into`."""
    return _with_virtual_address(originals.socket_recvmsg_into(self, *args, **options))


def _with_virtual_address(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """``answer``, with its last item, the address, translated to the virtual one."""
    address = answer[-1]
    if type(address) is not str or not address:
        return answer
    return (*answer[:-1], _virtual_address(address))


def _virtual_address(address: object) -> Any:
    invocation = get_current()
    if invocation is None or not isinstance(address, str):
        return address
    given = invocation.mounted.addresses.get(address)
    return invocation.namespace.virtual_of(address) if given is None else given


@contextmanager
def _unnamed() -> Iterator[None]:
    """Remove the path from errors within the block, as errors of sockets have none."""
    try:
        yield
    except OSError as exc:
        if exc.filename is not None:
            del exc.filename
        raise


@contextmanager
def _short(real: str, *, there: bool = False) -> Iterator[str]:
    """A name of ``real`` that fits into a socket address: 108 bytes, which many scratch paths exceed.

    If the file is ``there``, its own name may have any length: the descriptor can refer to the file itself.
    """
    if len(os.fsencode(real)) < _ADDRESS_MAX:
        yield real
        return
    head, slash, tail = real.rpartition("/")
    if there and len(os.fsencode(tail)) > _LONGEST_NAME:
        head, slash, tail = real, "", ""
    with _unnamed():
        descriptor = originals.os_open(head, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}{slash}{tail}"
    finally:
        originals.close(descriptor)
