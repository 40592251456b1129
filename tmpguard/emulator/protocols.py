"""What the parts of the emulator know of each other.

The pool and the proxy see an instance through :class:`Instance`; they know neither mounts nor processes. The
kernel's side (launcher, janitor, observer) knows neither HTTP nor the queue.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from tmpguard.core.reports.report import Violation


class StartFailed(Exception):
    """An instance could not be started, or did not become ready.

    ``step`` is what was tried (``unshare``, ``exec``, ``listen``), ``reason`` what went wrong, ``way_out``
    what to do about it, and ``output`` the last lines that the command wrote.
    """

    def __init__(self, step: str, reason: str, way_out: str = "", output: str = "") -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.way_out = way_out
        self.output = output


class Span(NamedTuple):
    """What happened in an instance between two measurements: a request, or the start. Sizes are in bytes."""

    peak_bytes: int
    #: In ``/tmp`` at the end, before the wipe.
    used_bytes: int
    files: int
    violations: tuple[Violation, ...]
    #: Written after the previous span had ended (C4.5), but for what :meth:`Instance.begin` has returned.
    late_writes: tuple[Violation, ...]


class Instance(Protocol):
    """One execution environment: the application's processes and their ``/tmp``."""

    number: int
    #: Where the application listens; a loopback address that belongs to this instance alone.
    address: tuple[str, int]
    #: Completed with the exit status (negative: the signal) when the application's first process has ended.
    ended: asyncio.Future[int]

    async def start(self) -> Span:
        """Start the command and wait until it is ready. Raises StartFailed."""
        ...

    def begin(self) -> tuple[Violation, ...]:
        """A request is about to be sent while none is running: finds and wipes late writes, and thaws."""
        ...

    def measure(self) -> Span:
        """What happened since :meth:`begin`, or since the last call while requests overlap."""
        ...

    def finish(self) -> Span:
        """The last running request is answered: measures, wipes (``lifetime="invocation"``) and freezes."""
        ...

    async def stop(self, grace: float) -> None:
        """End all processes: SIGTERM, and SIGKILL after ``grace`` seconds."""
        ...
