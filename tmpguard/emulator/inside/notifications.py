"""System calls that wait for an answer: seccomp's user notification."""

from __future__ import annotations

import fcntl
import os
import struct

from tmpguard.kernel.syscalls import PIDFD_GETFD, PIDFD_OPEN, syscall

from .tracing import group_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_RECEIVE, _SEND, _IS_VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_SYNC_WAKE_UP: Final = 1
_CONTINUE: Final = 1
_received: Final = struct.Struct("=QIIiIQ6Q")
_answer: Final = struct.Struct("=QqiI")


class Notification:
    """A call that a thread waits in. Exactly one of the answers has to be given."""

    __slots__ = ("_listener", "_number", "arguments", "call", "thread")

    def __init__(
        self, listener: int, number: int, thread: int, call: int, arguments: tuple[int, ...]
    ) -> None:
        self._listener = listener
        self._number = number
        self.thread = thread
        self.call = call
        self.arguments = arguments

    def let_through(self) -> None:
        """Let the kernel carry it out."""
        self._send(0, _CONTINUE)

    def answer(self, code: int = 0) -> None:
        """Return 0 from it, or the error ``code``."""
        self._send(-code, 0)

    def _send(self, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._listener, _SEND, _answer.pack(self._number, 0, error, flags))
        except OSError:
            return  # the thread has been killed

    def is_waiting(self) -> bool:
        """Does the thread still wait? Otherwise its number may be that of another one."""
        try:
            fcntl.ioctl(self._listener, _IS_VALID, self._number.to_bytes(8, "little"))
        except OSError:
            return False
        return True

    def copy_descriptor(self, descriptor: int) -> int:
        """A descriptor of our own for an open file of the calling process. Raises OSError."""
        process = syscall(PIDFD_OPEN, group_of(self.thread), 0)
        try:
            return syscall(PIDFD_GETFD, process, descriptor & 0xFFFFFFFF, 0)
        finally:
            os.close(process)


def prepare(listener: int) -> None:
    """Have the kernel wake the other side directly, where it can (Linux 6.6): it is much faster."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
    except OSError:
        return


def receive(listener: int) -> Notification | None:
    """The next waiting call; None if it is gone already."""
    buffer = bytearray(_received.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError:
        return None
    number, thread, _, call, _, _, *arguments = _received.unpack(buffer)
    return Notification(listener, number, thread, call, tuple(arguments))
