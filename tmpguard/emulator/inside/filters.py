"""Builds seccomp filters: which system calls the janitor is asked about."""

from __future__ import annotations

import ctypes
import struct

from tmpguard.kernel.syscalls import prctl, syscall

from .calls import (
    ARCHITECTURE,
    BIND,
    CHANGES,
    DESCRIPTOR,
    IO_URING_SETUP,
    LISTEN,
    MACHINE,
    OPEN_CHANGES,
    SECCOMP,
    WRITES,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Instruction = tuple[int, int, int, int]

_ALLOW: Final = 0x7FFF0000
_TRACE: Final = 0x7FF00000
_USER_NOTIFY: Final = 0x7FC00000
_ERROR_ENOSYS: Final = 0x00050000 | 38

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 8
_WAIT_KILLABLE_RECEIVE: Final = 0x20
_PR_SET_NO_NEW_PRIVS: Final = 38


def build(*, changes: str, writes: bool, ports: bool) -> bytes:
    """The filter as the kernel wants it.

    ``changes`` is what happens to calls that change a file system: "trace" for the tracer, "notify" for the
    listener, "" for nothing. ``writes`` adds the calls on open files to those. ``ports`` sends bind() and
    listen() to the listener.
    """
    program = _start()
    for number in (BIND, LISTEN) if ports else ():
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _USER_NOTIFY)]
    if changes:
        # It would make changes that no filter sees. Every user of it has another way.
        program += [(_EQUAL, 0, 1, IO_URING_SETUP), (_RETURN, 0, 0, _ERROR_ENOSYS)]
        action = _TRACE if changes == "trace" else _USER_NOTIFY
        for call in (CHANGES | WRITES if writes else CHANGES).values():
            data = call.frees if changes == "trace" else 0
            if call.flags < 0:
                program += [(_EQUAL, 0, 1, call.number), (_RETURN, 0, 0, action | data)]
            else:
                program += [
                    (_EQUAL, 0, 4, call.number),
                    (_LOAD, 0, 0, _ARGUMENTS + 8 * call.flags),
                    (_ANY_BIT, 0, 1, OPEN_CHANGES),
                    (_RETURN, 0, 0, action),
                    (_RETURN, 0, 0, _ALLOW),
                ]
    return _assembled(program)


def build_writes() -> bytes:
    """The second filter: the calls on open files, for the tracer."""
    program = _start()
    program += [
        (_LOAD, 0, 0, _ARGUMENTS),
        (_EQUAL, 0, 1, DESCRIPTOR),  # a stack that is being written down
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call in WRITES.values():
        program += [(_EQUAL, 0, 1, call.number), (_RETURN, 0, 0, _TRACE | call.frees)]
    return _assembled(program)


def _start() -> list[Instruction]:
    """Let through what this machine's own numbers do not apply to."""
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURE),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if MACHINE == "x86_64":
        program += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ALLOW)]  # the x32 numbers
    return program


def _assembled(program: list[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in (*program, (_RETURN, 0, 0, _ALLOW)))


def install(program: bytes, *, listen: bool) -> int:
    """Install the filter in this process, for good; with ``listen``, returns the listener's descriptor."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    memory = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(memory))
    if not listen:
        return syscall(SECCOMP, _SET_MODE_FILTER, 0, head)
    try:
        return syscall(SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE_RECEIVE, head)
    except OSError:  # Linux before 5.19
        return syscall(SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, head)
