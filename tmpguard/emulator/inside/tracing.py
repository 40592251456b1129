"""ptrace(2), as far as the observer needs it. A process has one tracer: the thread that seized it."""

from __future__ import annotations

import ctypes
import os
import struct

from tmpguard.kernel.syscalls import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_CONT, _SYSCALL, _SEIZE, _LISTEN = 7, 24, 0x4206, 0x4208
_GET_EVENT_MESSAGE, _GET_SIGINFO, _GET_SYSCALL_INFO = 0x4201, 0x4202, 0x420E
_OPTIONS: Final = (
    1 | 2 | 4 | 8 | 0x10 | 0x40 | 0x80 | 0x100000
)  # SYSGOOD FORK VFORK CLONE EXEC EXIT SECCOMP EXITKILL

#: What a stop's status has in its third byte. The first: fork, vfork and clone.
EVENTS_START: Final = frozenset({1, 2, 3})
EVENT_EXEC: Final = 4
EVENT_EXIT: Final = 6
EVENT_SECCOMP: Final = 7
EVENT_STOP: Final = 128
#: The signal of a stop at a system call.
SYSCALL_STOP: Final = 5 | 0x80

#: For waitpid(): threads, too.
WALL: Final = 0x40000000

#: read_memory() stops at the end of a page: what follows it may not be mapped.
_PAGE: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_word, _pointer = ctypes.c_ulong, ctypes.c_void_p
_ptrace = _libc["ptrace"]
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, _pointer, _pointer)
_ptrace.restype = ctypes.c_long

_info = ctypes.create_string_buffer(88)
_info_address: Final = ctypes.addressof(_info)
_entered: Final = struct.Struct("=7QI").unpack_from
_returned: Final = struct.Struct("=q").unpack_from
_BODY: Final = 24


def seize(process: int) -> None:
    """Become the tracer of ``process`` and of all that it will start. Raises OSError."""
    checked(_ptrace(_SEIZE, process, None, _OPTIONS))


def go_on(thread: int, signal: int = 0) -> None:
    """Let a stopped thread run, with ``signal`` delivered."""
    _ptrace(_CONT, thread, None, signal)


def go_on_to_call(thread: int, signal: int = 0) -> None:
    """Let it run until it enters or leaves a system call."""
    _ptrace(_SYSCALL, thread, None, signal)


def stay_stopped(thread: int) -> None:
    """Leave it in the stop of its whole process by SIGSTOP."""
    _ptrace(_LISTEN, thread, None, None)


def entered_call(thread: int) -> tuple[int, ...]:
    """The call at whose entry the thread is: its number, its six arguments and the filter's data."""
    _ptrace(_GET_SYSCALL_INFO, thread, 88, _info_address)
    return _entered(_info, _BODY)


def result_of_call(thread: int) -> int:
    """What the call that the thread is leaving returns: a negative error number if it failed."""
    _ptrace(_GET_SYSCALL_INFO, thread, 88, _info_address)
    return _returned(_info, _BODY)[0]  # type: ignore[no-any-return]


def new_thread(thread: int) -> int:
    """The thread that a thread in such a stop has started."""
    message = ctypes.c_ulong()
    _ptrace(_GET_EVENT_MESSAGE, thread, None, ctypes.addressof(message))
    return message.value


def fault_address(thread: int) -> int:
    """Where the thread has accessed memory that is not there, in the stop for the signal that tells it so."""
    information = ctypes.create_string_buffer(128)
    _ptrace(_GET_SIGINFO, thread, None, ctypes.addressof(information))
    return int.from_bytes(information.raw[16:24], "little")


# --- registers (x86-64) --------------------------------------------------------------------------------

_GET_REGISTERS, _SET_REGISTERS = 12, 13
_registers: Final = struct.Struct("=27Q")


def registers(thread: int) -> tuple[int, ...]:
    """All registers of a stopped thread."""
    buffer = ctypes.create_string_buffer(_registers.size)
    checked(_ptrace(_GET_REGISTERS, thread, None, ctypes.addressof(buffer)))
    return _registers.unpack(buffer.raw)


def set_registers(thread: int, values: tuple[int, ...] | list[int]) -> None:
    """Set them."""
    buffer = ctypes.create_string_buffer(_registers.pack(*values), _registers.size)
    _ptrace(_SET_REGISTERS, thread, None, ctypes.addressof(buffer))


# --- memory --------------------------------------------------------------------------------------------


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


_read = _libc["process_vm_readv"]
_read.argtypes = (ctypes.c_long, ctypes.POINTER(_Piece), _word, ctypes.POINTER(_Piece), _word, _word)
_read.restype = ctypes.c_ssize_t
_write = _libc["process_vm_writev"]
_write.argtypes, _write.restype = _read.argtypes, _read.restype


def read_memory(thread: int, address: int, size: int) -> bytes:
    """``size`` bytes of another process's memory, or fewer where the rest is not there."""
    buffer = ctypes.create_string_buffer(size)
    local, remote = _Piece(ctypes.addressof(buffer), size), _Piece(address, size)
    got = _read(thread, local, 1, remote, 1, 0)
    return buffer.raw[:got] if got > 0 else b""


def write_memory(thread: int, address: int, data: bytes) -> None:
    """Write into another process's memory."""
    buffer = ctypes.create_string_buffer(data, len(data))
    local, remote = _Piece(ctypes.addressof(buffer), len(data)), _Piece(address, len(data))
    checked(_write(thread, local, 1, remote, 1, 0))


def read_text(thread: int, address: int) -> bytes:
    """The text at ``address``, without the NUL that ends it."""
    text = b""
    while len(text) < 4096 and address:
        size = _PAGE - address % _PAGE
        piece = read_memory(thread, address, size)
        end = piece.find(b"\0")
        if end >= 0 or not piece:
            return text + piece[: max(end, 0)]
        text += piece
        address += size
    return text


def group_of(thread: int) -> int:
    """The process that has this thread; 0 if there is none any more."""
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            return int(file.read().partition(b"\nTgid:")[2].split(None, 1)[0])
    except (OSError, IndexError):
        return 0


def mapped_file(thread: int, address: int) -> str:
    """The file that is mapped into its memory there; "" if there is none."""
    try:
        with open(f"/proc/{thread}/maps") as file:
            for line in file:
                place, *_, name = line.rstrip("\n").split(None, 5)
                start, end = (int(number, 16) for number in place.split("-"))
                if start <= address < end:
                    return name if name.startswith("/") else ""
    except OSError:
        pass
    return ""


def link_of(path: str) -> str:
    """Where a link of /proc leads; "" if it is gone."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
