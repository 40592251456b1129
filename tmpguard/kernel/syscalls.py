"""System calls that Python does not wrap. All of them raise OSError.

Linux only. It also runs in a fresh interpreter (:mod:`~tmpguard.kernel.freestanding`), so it must not import
the rest of tmpguard.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would take longer than everything else
    from typing import Final

# The numbers of these are the same on all current architectures.
OPEN_TREE: Final = 428
MOVE_MOUNT: Final = 429
PIDFD_OPEN: Final = 434
CLOSE_RANGE: Final = 436
PIDFD_GETFD: Final = 438
MOUNT_SETATTR: Final = 442

CLONE_NEWNS: Final = 0x20000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000

AT_FDCWD: Final = -100

_libc = ctypes.CDLL(None, use_errno=True)
_word, _text = ctypes.c_long, ctypes.c_char_p
_libc.syscall.restype = _word
_libc.mount.argtypes = (_text, _text, _text, ctypes.c_ulong, _text)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def checked(result: int, path: str | None = None) -> int:
    """Return ``result``; raise OSError if it means that the call failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Make the system call with this number."""
    # Whole registers: an int would leave the upper half undefined.
    words = [_word(value) if isinstance(value, int) else value for value in arguments]
    return checked(_libc.syscall(_word(number), *words))


def unshare(flags: int) -> None:
    """unshare(2): move to new namespaces of the kinds in ``flags``."""
    checked(_libc.unshare(flags))


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    """mount(2)."""
    checked(_libc.mount(source, target, kind, flags, data))


def unmount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    checked(_libc.umount2(target, flags))


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2)."""
    return checked(_libc.prctl(option, first, second, 0, 0))
