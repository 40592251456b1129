"""What an invocation used, and what it was refused (C2.3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from tmpguard.core.callers import Location
from tmpguard.core.storage.pages import Usage

#: The operations of violations that are noticed too late to refuse them (C3.5).
NATIVE_OVERRUN: Final = "quota exceeded by a native writer"
CHILD_OVERRUN: Final = "quota exceeded by a child process"

#: Violations kept per invocation. Further ones are only counted: a loop of refusals cannot fill the memory.
KEPT: Final = 1000


class Violation(NamedTuple):
    """A refused operation (C2.3).

    ``operation`` is the call by its usual name (``open``, ``os.mkdir``). ``path`` is the path as the
    application gave it. ``errno`` is the error number that the application got, or would have got if the
    guard only watches. ``location`` is the first frame outside the standard library, installed packages and
    tmpguard. ``library`` is the frame of the library that made the call, or None if the application made it
    directly. ``remedy`` says what to do about it: the text of the exception's note (C2.4), or "".
    """

    operation: str
    path: str
    errno: int
    location: Location | None
    library: Location | None
    remedy: str = ""


class Leftover(NamedTuple):
    """Something that an invocation left in a shared ``/tmp``: its path, and the number of new bytes."""

    path: str
    bytes: int


class Report:
    """What one invocation used and was refused: live while it runs, then final. Sizes are in bytes."""

    #: Whether this is the report of :func:`tmpguard.cold_start` rather than of a request.
    cold_start = False
    #: Determines ``leftovers`` if the next invocation has the same ``/tmp``.
    find_leftovers: Callable[[], tuple[Leftover, ...]] | None = None

    def __init__(self, quota_bytes: int, measure: Callable[[], tuple[Usage, int]]) -> None:
        self.quota_bytes = quota_bytes
        self._measure: Callable[[], tuple[Usage, int]] | None = measure
        self._final = (Usage(0, 0), 0)
        #: Seconds that the wipe took, once it has finished.
        self.wipe_seconds = 0.0
        self._violations: list[Violation] = []
        self._late: list[Violation] = []
        self._missed: dict[str, Violation] = {}
        self._lock = threading.Lock()
        #: The number of all refusals, including those that ``violations`` does not keep.
        self.violation_count = 0

    @property
    def used_bytes(self) -> int:
        """The bytes in the invocation's ``/tmp``; after its end, those left in it (C3.2)."""
        return self._usage()[0].bytes

    @property
    def files(self) -> int:
        """The files, directories and links in the invocation's ``/tmp``; after its end, those left in it."""
        return self._usage()[0].files

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were in use at one time."""
        return self._usage()[1]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The refused operations in order, up to the first thousand (C2.3)."""
        with self._lock:
            return tuple(self._violations)

    @property
    def late_writes(self) -> tuple[Violation, ...]:
        """File operations by code that still ran for the invocation after its end (C4.5)."""
        with self._lock:
            return tuple(self._late)

    @property
    def lookups(self) -> tuple[Violation, ...]:
        """Files that are not in the bundle and were looked up but not read, each once (C5.2).

        A look-up is not a failure: an application may check for a ``.env`` and continue without it.
        """
        with self._lock:
            return tuple(self._missed.values())

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """With ``lifetime="instance"``: what was added to ``/tmp`` since the invocation began to use files.

        These are new entries and growth, the thousand largest of them, largest first. They include what
        concurrent invocations made in the meantime. Empty with any other ``lifetime``: nothing outlives the
        invocation.
        """
        return () if self.find_leftovers is None else self.find_leftovers()

    def _usage(self) -> tuple[Usage, int]:
        measure = self._measure
        return self._final if measure is None else measure()

    def free_lock(self) -> None:
        """In a forked child: the thread that held the lock does not exist there."""
        self._lock = threading.Lock()

    def add(self, violation: Violation, *, late: bool = False) -> None:
        """Record a refusal."""
        with self._lock:
            kept = self._late if late else self._violations
            if not late:
                self.violation_count += 1
            if len(kept) < KEPT:
                kept.append(violation)

    def has_lookup(self, path: str) -> bool:
        """Whether the look-up of ``path`` is already recorded, or no more are kept."""
        return path in self._missed or len(self._missed) >= KEPT

    def add_lookup(self, violation: Violation) -> None:
        """Record a look-up of a file that is not in the bundle."""
        with self._lock:
            self._missed.setdefault(violation.path, violation)

    def close(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        """The invocation has ended: from now on the report gives what it left behind."""
        self._final = (usage, peak)
        self.wipe_seconds = wipe_seconds
        self._measure = None

    def __repr__(self) -> str:
        return (
            f"<Report {self.used_bytes} of {self.quota_bytes} bytes, {self.files} files, "
            f"{len(self._violations)} violations, {len(self._late)} late writes>"
        )
