"""Has a Python process write down the stack of a thread to which the kernel has just refused a call.

Each Python of the instance registers faulthandler for one signal (``hooks/python/sitecustomize.py``). The
signal is sent to the very thread while it is stopped at the end of the refused call. faulthandler's handler,
which is C and safe at any point, then writes the thread's stack to a descriptor that is not open; the tracer
reads each piece where it is passed to write(). Without a refusal this costs nothing, and it knows the line
also where native code made the call.
"""

from __future__ import annotations

import os
import re

from tmpguard.kernel.syscalls import syscall

from . import tracing
from .calls import CALLS, DESCRIPTOR, MACHINE, SIGRETURN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: By this message a process says that it has registered faulthandler.
HELLO: Final = b"python"

#: The signal. The hook has the same.
SIGNAL: Final = 60

#: Signals that stop a process: SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU.
STOPPING: Final = frozenset({19, 20, 21, 22})

_TGKILL: Final = {"x86_64": 234, "aarch64": 131}.get(MACHINE, -1)
_FRAME: Final = re.compile(rb'  File "(.*)", line (\d+) in (.*)')

#: Files of Python's standard library and of installed packages, whatever Python the application runs on.
LIBRARY: Final = re.compile(rb"^<|/(site|dist)-packages/|/lib(64)?/python3\.\d+/")

#: Frames that are kept of one stack.
_LARGEST: Final = 100


def request(process: int, thread: int) -> bool:
    """Send the signal; false if the thread would not handle it."""
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            status = file.read()
        if not _has_signal(status, b"SigCgt:") or _has_signal(status, b"SigBlk:"):
            return False
        if os.path.lexists(f"/proc/{thread}/fd/{DESCRIPTOR}"):
            return False  # the process has so many open
        syscall(_TGKILL, process, thread, SIGNAL)
    except OSError:
        return False
    return True


def _has_signal(status: bytes, field: bytes) -> bool:
    return bool(int(status.partition(field)[2].split(None, 1)[0], 16) >> SIGNAL - 1 & 1)


class Stack:
    """A stack that is being written down up to the application, and the ``finding`` that it belongs to."""

    def __init__(self, finding: tuple[Any, ...]) -> None:
        self.finding = finding
        self._text = b""
        self._entering = True

    def take(self, thread: int) -> bool:
        """The thread enters or leaves a call: take what it writes. False once that is enough."""
        entering, self._entering = self._entering, not self._entering
        if not entering:
            return True
        number, _, address, size, *_ = tracing.entered_call(thread)
        if number == SIGRETURN or number not in CALLS:
            return False
        piece = tracing.read_memory(thread, address, min(size, 4096))
        self._text += piece
        if not piece.endswith(b"\n"):
            return True
        # Nobody asks for the frames that called the application, and each piece costs two stops.
        frame = _FRAME.fullmatch(self._text, self._text.rstrip(b"\n").rfind(b"\n") + 1, len(self._text) - 1)
        is_application = frame is not None and not LIBRARY.search(frame[1])
        return not is_application and self._text.count(b"\n") <= _LARGEST

    @property
    def frames(self) -> list[tuple[str, int, str]]:
        """File, line and function of each frame, the innermost first."""
        found = _FRAME.findall(self._text)
        return [(os.fsdecode(file), int(line), os.fsdecode(name)) for file, line, name in found]
