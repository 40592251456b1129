"""Sees refused changes without ptrace: by making the same call, where it can do no harm.

Where ptrace is not permitted, a call waits for an answer before the kernel carries it out, so its result is
not seen. But if each place that it would change is on a read-only mount, the janitor can make the very same
call: it changes nothing and has the same error. What is refused for lack of space is not seen in this way.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from contextlib import ExitStack, suppress
from errno import ELOOP, EROFS, EXDEV

from tmpguard.kernel.syscalls import syscall

from . import tracing
from .calls import CALLS, MACHINE, OPENAT2, SystemCall
from .lookup import Place, look_up
from .notifications import Notification
from .observer import Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_AT_FDCWD: Final = -100

#: Calls that change the directory of a path rather than what is there.
_IN_PARENT: Final = frozenset({"mkdir", "mknod", "rmdir", "unlink", "rename", "link", "symlink"})

#: Arguments that are other texts: a link's target, an attribute's name.
_TEXTS: Final = {"symlink": 0, "setxattr": 1, "removexattr": 1}

#: Arguments that point to the application's memory and do not matter, by call.
_TIMES: Final = {"x86_64": {132: 1, 235: 1, 261: 2, 280: 2}, "aarch64": {88: 2}}.get(MACHINE, {})

#: Calls that change a link itself, always or by a flag in the given argument.
_LINKS: Final = {"x86_64": {94, 189, 198}, "aarch64": {6, 15}}.get(MACHINE, set())
_NO_FOLLOW: Final = {
    "x86_64": {260: 4, 452: 3, 280: 3, 463: 2, 466: 2},
    "aarch64": {54: 4, 452: 3, 88: 3, 463: 2, 466: 2},
}.get(MACHINE, {})
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_SYMLINK_FOLLOW: Final = 0x400
#: Flags with which open() makes a file, and follows no symlink.
_NEW: Final = os.O_CREAT | os.O_EXCL
_SETXATTRAT, _REMOVEXATTRAT = 463, 466


class Replay:
    """Answers the calls that wait, and reports to ``observer`` those that will be refused."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        if os.geteuid() != 0:
            _drop_capabilities()

    def on_call(self, notification: Notification) -> None:
        """Let the call through, once its error is known."""
        call = CALLS.get(notification.call)
        if call is not None:
            arguments = notification.arguments
            self._observer.on_announced(notification.thread, call, arguments)
            code = 0
            with suppress(OSError):  # its memory or a place cannot be looked at: it is as good as gone
                code = _error_of(notification, call, arguments)
            if code == EROFS and notification.is_waiting():
                self._observer.on_refusal(notification.thread, call, arguments, code)
        notification.let_through()


def _error_of(notification: Notification, call: SystemCall, arguments: tuple[int, ...]) -> int:
    """The error of a call all of whose places are on read-only mounts; 0 if there is none, or one is not."""
    thread = notification.thread
    if call.descriptor >= 0 or (call.number in _TIMES and not arguments[call.paths[0][1]]):
        descriptor = arguments[max(call.descriptor, 0)]
        return _error_on_descriptor(notification, call, descriptor)
    with ExitStack() as places:
        found = [
            places.enter_context(_place(thread, call, arguments, number)) for number in range(len(call.paths))
        ]
        if all(_is_harmless(call, place) for place in found[: _changed(call)]):
            return _made(thread, call, arguments, found)
    return 0


def _error_on_descriptor(notification: Notification, call: SystemCall, descriptor: int) -> int:
    copy = notification.copy_descriptor(descriptor)
    try:
        if not os.fstatvfs(copy).f_flag & os.ST_RDONLY:
            return 0
        given = list(notification.arguments)
        given[max(call.descriptor, 0)] = copy
        return _error(call, [*map(_signed, given)], notification.thread)
    finally:
        os.close(copy)


def _place(thread: int, call: SystemCall, arguments: tuple[int, ...], number: int) -> Place:
    """The place of one of the paths of a call, by its number."""
    directory, position = call.paths[number]
    path = tracing.read_text(thread, arguments[position])
    start = _start(thread, _AT_FDCWD if directory < 0 else arguments[directory])
    only_parent = call.name in _IN_PARENT and number < _changed(call)
    if call.number == OPENAT2:
        _check_way(thread, start, path, arguments[2])
    return look_up(thread, start, path, follows=_follows(thread, call, arguments), only_parent=only_parent)


def _start(thread: int, directory: int) -> bytes:
    """The directory from which a relative path leads."""
    start = b"cwd" if _signed(directory) == _AT_FDCWD else b"fd/%d" % (directory & 0xFFFFFFFF)
    return b"/proc/%d/%s" % (thread, start)


def _changed(call: SystemCall) -> int:
    """How many of its paths, from the first on, are changed: not the old name of link()."""
    return 1 if call.name == "link" else len(call.paths)


def _follows(thread: int, call: SystemCall, arguments: tuple[int, ...]) -> bool:
    """Does the call follow a symlink at the end of its path?"""
    if call.name == "link":
        return call.paths[0][0] >= 0 and bool(arguments[4] & _AT_SYMLINK_FOLLOW)
    if call.name == "open":
        flags = arguments[call.flags] if call.flags >= 0 else 0  # creat()
        if call.number == OPENAT2:
            flags, _, _ = _how(thread, arguments[2])
        return not flags & os.O_NOFOLLOW and flags & _NEW != _NEW
    return not _is_about_link(call, arguments)


def _how(thread: int, address: int) -> tuple[int, int, int]:
    """The flags, the mode and the flags of the look-up that openat2() is given."""
    flags, mode, resolve = struct.unpack("=3Q", tracing.read_memory(thread, address, 24).ljust(24, b"\0"))
    return flags, mode, resolve


def _check_way(thread: int, start: bytes, path: bytes, how: int) -> None:
    """Raise OSError if openat2() is told not to go where the path leads."""
    *_, resolve = _how(thread, how)
    if not resolve:
        return
    directory = os.open(start, os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(syscall(OPENAT2, directory, path, struct.pack("=3Q", os.O_PATH, 0, resolve), 24))
    except OSError as exc:
        if exc.errno in (ELOOP, EXDEV):
            raise
    finally:
        os.close(directory)


def _is_harmless(call: SystemCall, place: Place) -> bool:
    """Is what the call would change there on a read-only mount, and no device?"""
    if place.target < 0:
        return _is_read_only(place.parent)
    mode = os.fstat(place.target).st_mode
    if call.name == "open" and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False
    return _is_read_only(place.target)


def _is_about_link(call: SystemCall, arguments: tuple[int, ...]) -> bool:
    position = _NO_FOLLOW.get(call.number, -1)
    return call.number in _LINKS or (position >= 0 and bool(arguments[position] & _AT_SYMLINK_NOFOLLOW))


def _is_read_only(descriptor: int) -> bool:
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def _made(thread: int, call: SystemCall, arguments: tuple[int, ...], places: list[Place]) -> int:
    given: list[int | bytes | ctypes.Array[ctypes.c_char]] = [*map(_signed, arguments)]
    for (directory, position), place in zip(call.paths, places, strict=True):
        given[position] = place.path if directory >= 0 else place.whole_path()
        if directory >= 0:
            given[directory] = place.parent
    return _error(call, given, thread)


def _error(call: SystemCall, given: list[int | bytes | ctypes.Array[ctypes.c_char]], thread: int) -> int:
    """Make the call with ``given`` as its arguments; 0, or its error."""
    if call.number in (_SETXATTRAT, _REMOVEXATTRAT):
        return EROFS
    if call.name in _TEXTS:
        text = given[_TEXTS[call.name]]
        assert isinstance(text, int)
        given[_TEXTS[call.name]] = tracing.read_text(thread, text)
        if call.name == "setxattr":
            given[2:4] = [b"", 0]
    elif call.number in _TIMES:
        given[_TIMES[call.number]] = 0
    elif call.number == OPENAT2:
        how, size = given[2], given[3]
        assert isinstance(how, int)
        assert isinstance(size, int)
        given[2] = tracing.read_memory(thread, how, min(size, 4096))
    try:
        result = syscall(call.number, *given)
    except OSError as exc:
        return exc.errno or 0
    if call.name == "open":
        os.close(result)  # opened for reading after all: O_CREAT of a file that is there
    return 0


def _signed(value: int) -> int:
    """A register as a number; one that may be an int, as AT_FDCWD is, where it fits."""
    for bits in (32, 64):
        if 1 << bits - 1 <= value < 1 << bits:
            return value - (1 << bits)
    return value


def _drop_capabilities() -> None:
    """Have this thread no more rights than the application has, which lost them when it was executed."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    number = {"x86_64": (125, 126), "aarch64": (90, 91)}[os.uname().machine]
    syscall(number[0], header, data)
    values = list(struct.unpack("=6I", data.raw))
    values[0] = values[3] = 0  # the effective sets
    syscall(number[1], header, struct.pack("=6I", *values))
