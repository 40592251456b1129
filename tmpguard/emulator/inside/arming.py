"""Gives a process the second filter, for its writes, once it has opened a file in /tmp for writing.

write() is the most frequent call of many servers, which never write a file. So the filter that all processes
start with lets it run at full speed, and only a process that has such a file is asked about its writes.
Nobody but a process itself can give it a filter: the tracer has the thread make the calls for that in place
of what it was about to do, and puts its registers back.
"""

from __future__ import annotations

import struct

from tmpguard.kernel.syscalls import syscall

from . import filters, tracing
from .calls import MACHINE, SECCOMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: Whether the registers of this machine are known here. Otherwise the first filter has the writes, too.
POSSIBLE: Final = MACHINE == "x86_64"

_MMAP, _MUNMAP, _TGKILL = 9, 11, 234
_READ_WRITE, _PRIVATE_ANONYMOUS, _NO_FILE = 3, 0x22, (1 << 64) - 1
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_PAGE: Final = 4096
#: Where the program is in the page; before it, the structure that points to it.
_PROGRAM_AT: Final = 16

#: Registers by their position: the call's number and result, its arguments, and the next instruction.
_RAX, _ORIG_RAX, _RIP = 10, 15, 16
_ARGUMENTS: Final = (14, 13, 12, 7, 9, 8)
_SYSCALL_SIZE: Final = 2


def is_possible(thread: int) -> bool:
    """Has its process only the first filter? One of the application's own might not permit another.

    Those of a container come on top of it: this process has them, too.
    """
    return _filters_of(thread) == 1 + max(_filters_of("self"), 0)


def _filters_of(process: int | str) -> int:
    """The number of its filters; -1 if that is not told."""
    try:
        with open(f"/proc/{process}/status", "rb") as file:
            return int(file.read().partition(b"\nSeccomp_filters:")[2].split(None, 1)[0])
    except (OSError, IndexError):
        return -1


class Arming:
    """The thread ``thread`` is at the end of a call; it gives its process the filter before it goes on.

    ``finding`` is what is to be told of the call then.
    """

    def __init__(self, thread: int, finding: tuple[Any, ...] | None) -> None:
        self.finding = finding
        self._thread = thread
        self._registers = tracing.registers(thread)
        self._entering = True
        self._page = 0
        #: Signals that have arrived meanwhile.
        self.signals: list[int] = []
        self._call(_MMAP, 0, _PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, _NO_FILE, 0)

    def _call(self, number: int, *arguments: int) -> None:
        registers = list(self._registers)
        registers[_RIP] -= _SYSCALL_SIZE  # at the instruction that made the call which has just ended
        registers[_RAX], registers[_ORIG_RAX] = number, (1 << 64) - 1
        for position, value in zip(_ARGUMENTS, arguments, strict=False):
            registers[position] = value
        tracing.set_registers(self._thread, registers)

    def go_on(self) -> bool:
        """The thread enters or leaves one of the calls. False when it is as it was before."""
        entering, self._entering = self._entering, not self._entering
        if entering:
            return True
        result = tracing.result_of_call(self._thread)
        if self._page == 0 and result > 0:
            self._page = result
            program = filters.build_writes()
            head = struct.pack("@HP", len(program) // 8, result + _PROGRAM_AT)
            tracing.write_memory(self._thread, result, head.ljust(_PROGRAM_AT, b"\0") + program)
            self._call(SECCOMP, _SET_MODE_FILTER, _ALL_THREADS, result)
            return True
        if self._page > 0:
            self._call(_MUNMAP, self._page, _PAGE)
            self._page = -1
            return True
        tracing.set_registers(self._thread, self._registers)
        return False

    def send_signals(self, process: int) -> None:
        """Send the thread the signals that it did not get meanwhile."""
        for signal in self.signals:
            syscall(_TGKILL, process, self._thread, signal)
