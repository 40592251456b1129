"""Unix domain sockets: each bound socket is also a file.

The functions for the methods of a socket class make the method from the one that it replaces.
"""

from __future__ import annotations

import functools
import os
import socket as _socket
import stat as modes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE, EEXIST, ENOSPC, EROFS
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import ReadableBuffer, StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation, get_current, redirecting
from tmpguard.core.mounts.table import Place
from tmpguard.core.storage.charging import Full
from tmpguard.core.watching import Watching
from tmpguard.interpose.files.charge import too_many

from .given import Given
from .paths import resolve, resolve_entry
from .raising import alive
from .readonly import making_error
from .watching.judging import Judging, begin, entry_made, finish, judged, looked, quietly

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

#: The maximum length of a socket's path, including the terminating NUL.
_ADDRESS_MAX: Final = 108
#: The maximum length of a name after ``/proc/self/fd/`` and a descriptor number.
_LONGEST_NAME: Final = _ADDRESS_MAX - 30

_Socket = _socket.socket
Method = Callable[..., Any]
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


def _watched(invocation: Watching, operation: str, address: object) -> Judging:
    """The judge of a call with the address of a local socket (C2.5)."""
    given = Given(os.fsdecode(_encoded(address)))
    yield
    if operation == "socket.bind":
        entry_made(invocation, operation, given)
    else:
        looked(invocation, operation, given)


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


def bind(original: Method) -> Method:
    """:meth:`socket.socket.bind`. Binding a Unix domain socket creates a file."""

    @functools.wraps(original)
    def bind(self: _Socket, address: _Address, /) -> Any:
        invocation = _local(self, address)
        if invocation is None:
            return original(self, address)
        if isinstance(invocation, Watching):
            return judged(_watched(invocation, "socket.bind", address), original, self, address)
        alive(invocation, "socket.bind", address)
        invocation.mounted.mend()
        with _unnamed():
            where = resolve_entry(invocation, Given(os.fsdecode(_encoded(address))), "socket.bind")
            if is_point := where.virtual in invocation.guard.mounts.points:
                originals.lstat(where.real)
        if where.last or is_point:
            raise os_error(EADDRINUSE)
        if not where.parent.writable:
            code = making_error(where, directory=False)
            if code != EROFS:
                raise os_error(EADDRINUSE if code == EEXIST else code)
            raise invocation.refusal("socket.bind", EROFS, None, about=address, where=where)
        with _short(where.real) as real:
            bound = _bind(invocation, partial(original, self), address, where, real)
            # getsockname() and the like return the address as it was given, as the kernel does.
            volume = invocation.volume
            volume.addresses = {**volume.addresses, bound: os.fsdecode(_encoded(address))}
        return None

    return bind


def _bind(invocation: Invocation, bind: Method, address: object, where: Place, real: str) -> str:
    """Bind a socket with ``bind`` to ``real``, another name of ``where.real``, within ``max_files`` (C3.6).

    Returns the address under which the kernel knows the socket.
    """
    make = partial(_make, bind, where.real, real)
    if not where.parent.charged or where.slash:  # a trailing slash is only valid for a directory
        return make()
    try:
        return invocation.quota.making(where.real, make)
    except Full:
        remedy = too_many(invocation)
        raise invocation.refusal("socket.bind", ENOSPC, None, about=address, remedy=remedy) from None


def _make(bind: Method, path: str, real: str) -> str:
    """Bind a socket with ``bind`` to ``path`` by its short name ``real``. Returns the socket's address.

    A short name that goes through a descriptor is not unique, and the file's own path may not fit into an
    address. So the socket is bound to a new entry with a random name first, which is then linked to ``path``.
    """
    directory, _, name = path.rpartition("/")
    if real == path or not name:  # the kernel refuses a trailing slash
        bind(real)
        return real
    passing = os.urandom(6).hex()
    address = f"{real.rpartition('/')[0]}/{passing}"
    bind(address)
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


def connect(original: Method) -> Method:
    """:meth:`socket.socket.connect`."""

    @functools.wraps(original)
    def connect(self: _Socket, address: _Address, /) -> Any:
        invocation = _local(self, address)
        if invocation is None:
            return original(self, address)
        if isinstance(invocation, Watching):
            return judged(_watched(invocation, "socket.connect", address), original, self, address)
        with _reached(invocation, "socket.connect", address) as real:
            return original(self, real)

    return connect


def connect_ex(original: Method) -> Method:
    """:meth:`socket.socket.connect_ex`."""

    @functools.wraps(original)
    def connect_ex(self: _Socket, address: _Address, /) -> Any:
        invocation = _local(self, address)
        if invocation is None:
            return original(self, address)
        if isinstance(invocation, Watching):
            return judged(_watched(invocation, "socket.connect_ex", address), original, self, address)
        try:
            with _reached(invocation, "socket.connect_ex", address) as real:
                return original(self, real)
        except OSError as exc:
            return exc.errno or 0

    return connect_ex


def sendto(original: Method) -> Method:
    """:meth:`socket.socket.sendto`: the address comes last."""

    @functools.wraps(original)
    def sendto(self: _Socket, data: ReadableBuffer, /, *rest: object) -> Any:
        invocation = _local(self, rest[-1] if rest else None)
        if invocation is None:
            return original(self, data, *rest)
        if isinstance(invocation, Watching):
            return judged(_watched(invocation, "socket.sendto", rest[-1]), original, self, data, *rest)
        with _reached(invocation, "socket.sendto", rest[-1]) as real:
            return original(self, data, *rest[:-1], real)

    return sendto


def sendmsg(original: Method) -> Method:
    """:meth:`socket.socket.sendmsg`: the address is the fourth argument."""

    @functools.wraps(original)
    def sendmsg(self: _Socket, buffers: Iterable[ReadableBuffer], /, *rest: object) -> Any:
        if len(rest) < 3:
            return original(self, buffers, *rest)
        invocation = _local(self, rest[2])
        if invocation is None:
            return original(self, buffers, *rest)
        if isinstance(invocation, Watching):
            return judged(_watched(invocation, "socket.sendmsg", rest[2]), original, self, buffers, *rest)
        with _reached(invocation, "socket.sendmsg", rest[2]) as real:
            return original(self, buffers, *rest[:2], real, *rest[3:])

    return sendmsg


# --- returning an address ------------------------------------------------------------------------------


def naming(original: Method) -> Method:
    """A method that returns an address: ``getsockname`` and ``getpeername``."""

    @functools.wraps(original)
    def call(self: _Socket, /) -> Any:
        return _virtual_address(original(self))

    return call


def receiving(original: Method) -> Method:
    """A method that returns a tuple with an address as its last item.

    These are ``recvfrom``, ``recvfrom_into``, ``recvmsg``, ``recvmsg_into``, and ``_accept``, on which
    ``accept`` is built.
    """

    @functools.wraps(original)
    def call(self: _Socket, /, *args: object, **options: object) -> Any:
        return _with_virtual_address(original(self, *args, **options))

    return call


def _with_virtual_address(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """``answer``, with its last item, the address, translated to the virtual one."""
    address = answer[-1]
    if type(address) is not str or not address:
        return answer
    return (*answer[:-1], _virtual_address(address))


def _virtual_address(address: object) -> Any:
    invocation = redirecting()
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


# --- uvloop, which creates its sockets in native code ----------------------------------------------------


def uvloop_unix_server(original: Method) -> Method:
    """``uvloop.Loop.create_unix_server``: within an invocation, it gets a socket that is bound already."""

    @functools.wraps(original)
    async def create_unix_server(
        self: object,
        protocol_factory: object,
        path: StrOrBytesPath | None = None,
        *,
        sock: object = None,
        **options: object,
    ) -> Any:
        if path is None or sock is not None or redirecting() is None:
            served = await original(self, protocol_factory, path, sock=sock, **options)
            quietly(_note_local, "socket.bind", path)
            return served
        path = os.fspath(path)
        with _closed_on_error(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)) as made:
            with suppress(OSError):  # as asyncio and uvloop do
                if path[0] not in (0, "\0") and modes.S_ISSOCK(os.stat(path).st_mode):
                    os.remove(path)
            made.bind(path)
            return await original(self, protocol_factory, sock=made, **options)

    return create_unix_server


def uvloop_unix_connection(original: Method) -> Method:
    """``uvloop.Loop.create_unix_connection``: within an invocation, it gets a socket that is connected."""

    @functools.wraps(original)
    async def create_unix_connection(
        self: AbstractEventLoop,
        protocol_factory: object,
        path: StrOrBytesPath | None = None,
        *,
        sock: object = None,
        **options: object,
    ) -> Any:
        if path is None or sock is not None or redirecting() is None:
            connected = await original(self, protocol_factory, path, sock=sock, **options)
            quietly(_note_local, "socket.connect", path)
            return connected
        with _closed_on_error(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)) as made:
            made.setblocking(False)
            await self.sock_connect(made, os.fspath(path))
            return await original(self, protocol_factory, sock=made, **options)

    return create_unix_connection


def _note_local(operation: str, path: StrOrBytesPath | None) -> None:
    """uvloop has bound or connected a socket to ``path`` in native code (C2.5)."""
    invocation = get_current()
    if isinstance(invocation, Watching) and path and os.fspath(path)[0] not in (0, "\0"):
        judging = _watched(invocation, operation, os.fspath(path))
        if begin(judging):
            finish(judging, None)


@contextmanager
def _closed_on_error(sock: _Socket) -> Iterator[_Socket]:
    try:
        yield sock
    except BaseException:
        sock.close()
        raise
