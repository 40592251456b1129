"""Gives each instance a loopback address of its own: an application may insist on its port.

All of 127/8 is loopback. bind() to a TCP port on any address becomes bind() to the same port on the
instance's address, so any number of instances can have port 3000. The janitor binds the application's own
socket, of which it makes a copy, and answers the call. listen() is let through; it says where the application
listens.
"""

from __future__ import annotations

import _socket
import errno as codes
import os

from . import calls, tracing
from .family import Family
from .lookup import look_up
from .notifications import Notification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    Address = tuple[str, int]

_MAPPED: Final = "::ffff:"
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_6: Final = "::1"


class Ports:
    """The ports of an instance whose own address is ``address``.

    ``refused`` is called for a socket in a read-only directory, with the thread and the path. ``can_see`` is
    false where no call waits for an answer: the application has the addresses then that it asks for.
    """

    def __init__(
        self, address: str, refused: Callable[[int, bytes], None], family: Family, *, can_see: bool
    ) -> None:
        self._family = family
        self._can_see = can_see
        self._own = address
        self._refused = refused
        #: Sockets on which listen() was called.
        self._listening: list[_socket.socket] = []
        self._chosen: Address | None = None

    def on_call(self, call: Notification) -> None:
        """Answer a bind() or a listen()."""
        try:
            socket = _socket.socket(fileno=call.copy_descriptor(call.arguments[0]))
        except OSError as exc:
            if exc.errno == codes.EPERM:
                self._can_see = False  # pidfd_getfd() is not permitted
            call.let_through()  # no descriptor, or no socket: the kernel says so
            return
        if socket.family == _socket.AF_UNIX and call.call == calls.BIND:
            socket.close()
            self._bind_path(call)
        elif socket.family not in (_socket.AF_INET, _socket.AF_INET6) or socket.type != _socket.SOCK_STREAM:
            socket.close()
            call.let_through()
        elif call.call == calls.BIND:
            self._bind(call, socket)
            socket.close()
        else:
            self._listening.append(socket)
            call.let_through()

    def _bind(self, call: Notification, socket: _socket.socket) -> None:
        _, address, size, *_ = call.arguments
        name = tracing.read_memory(call.thread, address, min(size, 128))
        port = int.from_bytes(name[2:4], "big")
        if not port or len(name) < 16 or not call.is_waiting():
            call.let_through()
            return
        code = _bind(socket, self._own, port)
        if code == codes.EACCES:
            code = _bind(socket, self._own, 0)  # a port of root's alone; only the proxy needs to know
        if code in (codes.EADDRNOTAVAIL, codes.EAFNOSUPPORT):
            call.let_through()
        else:
            call.answer(code)

    def _bind_path(self, call: Notification) -> None:
        """The kernel binds it; whether it will refuse to is found out here, as no answer of its is seen."""
        _, address, size, *_ = call.arguments
        path = tracing.read_memory(call.thread, address, min(size, 128))[2:].partition(b"\0")[0]
        if path and _is_read_only(call.thread, path):
            self._refused(call.thread, path)
        call.let_through()

    def found(self) -> Address | None:
        """Where the application listens; None as long as it does not."""
        found = []
        for socket in list(self._listening):
            if socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                found.append(_reachable(socket))
        # A port that the application did not choose is seldom the one that it is reached by.
        if not self._can_see:
            found += self._family.listening()
        own = [address for address in found if address[0] == self._own]
        return next(iter(own or found), None)

    def close(self) -> None:
        """Forget the sockets. They are kept until the application is ready."""
        while self._listening:
            self._listening.pop().close()


def _is_read_only(thread: int, path: bytes) -> bool:
    """Would making ``path`` be refused because of a read-only file system, and for no other reason first?"""
    try:
        with look_up(thread, b"/proc/%d/cwd" % thread, path, follows=False) as place:
            return place.target < 0 and bool(os.fstatvfs(place.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _bind(socket: _socket.socket, address: str, port: int) -> int:
    """Bind the socket; 0, or the error."""
    if socket.family == _socket.AF_INET6:
        address = _LOOPBACK_6 if _is_only_6(socket) else _MAPPED + address
    try:
        socket.bind((address, port))
    except OSError as exc:
        return exc.errno or codes.EINVAL
    return 0


def _is_only_6(socket: _socket.socket) -> bool:
    return socket.family == _socket.AF_INET6 and bool(
        socket.getsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY)
    )


def _reachable(socket: _socket.socket) -> Address:
    """The address by which a listening socket is reached from this machine."""
    host, port, *_ = socket.getsockname()
    host = host.removeprefix(_MAPPED)
    if host in ("0.0.0.0", "::"):
        host = _LOOPBACK_6 if _is_only_6(socket) else _LOOPBACK
    return host, port
