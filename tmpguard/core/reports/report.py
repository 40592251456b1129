"""What an invocation used, and what it was refused (C2.3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from tmpguard.core.callers import Location
from tmpguard.core.storage.pages import Usage

#: The operations of violations that are noticed when it is too late to refuse them (C3.5).
NATIVE_OVERRUN: Final = "quota exceeded by a native writer"
CHILD_OVERRUN: Final = "quota exceeded by a child process"

#: Violations kept per invocation; more are only counted, so that a loop of refusals cannot fill the memory.
KEPT: Final = 1000


class Violation(NamedTuple):
    """A refused operation (C2.3).

    ``operation`` is the call by its usual name (``open``, ``os.mkdir``), ``path`` the path as the application
    gave it, ``errno`` the number it got (or would have got where the guard only watches), ``location`` the
    first frame outside the standard library, installed packages and tmpguard, ``library`` the frame of the
    library that made the call, None where the application made it itself, ``remedy`` what to do about it, ""
    where there is nothing to say: the text of the exception's note (C2.4).
    """

    operation: str
    path: str
    errno: int
    location: Location | None
    library: Location | None
    remedy: str = ""


class Leftover(NamedTuple):
    """What an invocation left in the ``/tmp`` that it shares: a path, and the bytes that are new there."""

    path: str
    bytes: int


class Report:
    """What one invocation used and was refused: live while it runs, final after its end. Sizes in bytes."""

    #: Is it the report of :func:`tmpguard.cold_start`, and of no request?
    cold_start = False
    #: Finds out ``leftovers``, where the next invocation has the same ``/tmp``.
    find_leftovers: Callable[[], tuple[Leftover, ...]] | None = None

    def __init__(self, quota_bytes: int, measure: Callable[[], tuple[Usage, int]]) -> None:
        self.quota_bytes = quota_bytes
        self._measure: Callable[[], tuple[Usage, int]] | None = measure
        self._final = (Usage(0, 0), 0)
        #: Seconds that the wipe took, once it is through.
        self.wipe_seconds = 0.0
        self._violations: list[Violation] = []
        self._late: list[Violation] = []
        self._missed: dict[str, Violation] = {}
        self._lock = threading.Lock()
        #: Every refusal, those past the first thousand included that ``violations`` no longer keeps.
        self.violation_count = 0

    @property
    def used_bytes(self) -> int:
        """The bytes that the invocation's ``/tmp`` holds; after the end, what was left in it (C3.2)."""
        return self._usage()[0].bytes

    @property
    def files(self) -> int:
        """The files, directories and links in the invocation's ``/tmp``; after the end, those left in it."""
        return self._usage()[0].files

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were in use at one time."""
        return self._usage()[1]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The refused operations in their order, the first thousand of them (C2.3)."""
        with self._lock:
            return tuple(self._violations)

    @property
    def late_writes(self) -> tuple[Violation, ...]:
        """File operations by code that still ran for the invocation after its end (C4.5)."""
        with self._lock:
            return tuple(self._late)

    @property
    def lookups(self) -> tuple[Violation, ...]:
        """Files that are not in the bundle and were asked for but not read, each once (C5.2).

        No failure by itself: an application asks whether there is a ``.env``, and goes on without.
        """
        with self._lock:
            return tuple(self._missed.values())

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """With ``lifetime="instance"``: what is in ``/tmp`` and was not when the invocation began to use
        files, new entries and growth, the thousand largest, the largest first. What concurrent invocations
        made in the meantime is among it. Else nothing: nothing is left for anybody."""
        return () if self.find_leftovers is None else self.find_leftovers()

    def _usage(self) -> tuple[Usage, int]:
        measure = self._measure
        return self._final if measure is None else measure()

    def free_lock(self) -> None:
        """In a forked child: who held it is not there."""
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
        """Is it known already that ``path`` was asked for, or are enough of them kept?"""
        return path in self._missed or len(self._missed) >= KEPT

    def add_lookup(self, violation: Violation) -> None:
        """Record that a file was asked for that is not in the bundle."""
        with self._lock:
            self._missed.setdefault(violation.path, violation)

    def close(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        """The invocation is over: what is told from now on is what it left behind."""
        self._final = (usage, peak)
        self.wipe_seconds = wipe_seconds
        self._measure = None

    def __repr__(self) -> str:
        return (
            f"<Report {self.used_bytes} of {self.quota_bytes} bytes, {self.files} files, "
            f"{len(self._violations)} violations, {len(self._late)} late writes>"
        )
