"""What an invocation used, and what it was refused (C2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tmpguard.core import real
from tmpguard.core.callers import Location
from tmpguard.core.storage.pages import Usage

#: The operations of violations that are noticed too late to refuse them (C3.5).
NATIVE_OVERRUN: Final = "quota exceeded by a native writer"
CHILD_OVERRUN: Final = "quota exceeded by a child process"

#: Violations kept per invocation. Further ones are only counted: a loop of refusals cannot fill the memory.
MOST_KEPT: Final = 1000


class Violation(NamedTuple):
    """A refused operation (C2.3).

    ``operation`` is the call by its usual name (``open``, ``os.mkdir``). ``path`` is the path as the
    application gave it. ``errno`` is the error number that the application got, or would have got if the
    guard only watches. ``location`` is the first frame outside the standard library, installed packages and
    tmpguard. ``library`` is the frame of the library that made the call, or None if the application made it
    directly. ``remedy`` says what to do about it: the text of the exception's note (C2.4), or "". ``program``
    is the name of the process that made the call, where a whole instance is observed, and "" elsewhere.
    """

    operation: str
    path: str
    errno: int
    location: Location | None
    library: Location | None
    remedy: str = ""
    program: str = ""


class Child(NamedTuple):
    """A child process that sees the real file system (C6.3).

    ``operation`` is the call that started it, by its usual name, and ``program`` is what it started.
    ``location`` and ``library`` are as in a :class:`Violation`.
    """

    operation: str
    program: str
    location: Location | None
    library: Location | None


class Leftover(NamedTuple):
    """Something that an invocation left in a shared ``/tmp``: its path, and the number of new bytes."""

    path: str
    bytes: int


class Report:
    """What one invocation used and was refused: live while it runs, then final. Sizes are in bytes."""

    #: Whether this is the report of :func:`tmpguard.cold_start` rather than of a request.
    cold_start: bool = False
    #: The application's route that the request went to: ``GET /items/{item_id}``. "" if it is not known:
    #: before the end of the request, for what is no request, and without an ``on_report``.
    route: str = ""
    #: Determines ``leftovers`` if the next invocation has the same ``/tmp``.
    find_leftovers: Callable[[], tuple[Leftover, ...]] | None = None

    def __init__(self, quota_bytes: int, measure: Callable[[], tuple[Usage, int]]) -> None:
        self.quota_bytes = quota_bytes
        self._measure: Callable[[], tuple[Usage, int]] | None = measure
        self._final = (Usage(0, 0), 0)
        #: Seconds that the wipe took, once it has finished.
        self.wipe_seconds: float = 0.0
        self._violations: list[Violation] = []
        self._late: list[Violation] = []
        self._missed: dict[str, Violation] = {}
        #: By the path, with its name below /tmp.
        self._elsewhere: dict[str, tuple[Violation, str]] = {}
        self._made_after: tuple[Violation, ...] = ()
        self._children: dict[Child, None] = {}
        self._lock = real.RLock()
        #: The number of all refusals, including those that ``violations`` does not keep.
        self.violation_count: int = 0

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
        """Files that were looked up in vain, each once: those that are not in the bundle (C5.2), and those
        below ``/tmp`` that another invocation or the start-up had made (C7.4, ``elsewhere``).

        A look-up is not a failure: an application may check for a ``.env`` and continue without it.
        """
        with self._lock:
            elsewhere = [lookup for lookup, _ in self._elsewhere.values()]
            return (*self._missed.values(), *elsewhere, *self._made_after)

    @property
    def elsewhere(self) -> tuple[Violation, ...]:
        """Those of the look-ups that are missing a file of another invocation or of the start-up (C7.4).

        Once the invocation has ended, files that it made itself after it had looked for them are left out.
        """
        with self._lock:
            return tuple(lookup for lookup, _ in self._elsewhere.values())

    @property
    def unguarded_children(self) -> tuple[Child, ...]:
        """The child processes that saw the real file system, each program of a source line once (C6.3)."""
        with self._lock:
            return tuple(self._children)

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

    def add(self, violation: Violation, *, late: bool = False) -> None:
        """Record a refusal."""
        with self._lock:
            kept = self._late if late else self._violations
            if not late:
                self.violation_count += 1
            if len(kept) < MOST_KEPT:
                kept.append(violation)

    def has_lookup(self, path: str) -> bool:
        """Whether the look-up of ``path`` is already recorded, or no more are kept."""
        return path in self._missed or len(self._missed) >= MOST_KEPT

    def add_lookup(self, violation: Violation) -> None:
        """Record a look-up of a file that is not in the bundle."""
        with self._lock:
            self._missed.setdefault(violation.path, violation)

    def elsewhere_at(self, path: str) -> Violation | None:
        """The look-up of ``path`` if it is among ``elsewhere``; the last one if no more are kept."""
        with self._lock:
            found = self._elsewhere
            known = found.get(path) or (None if len(found) < MOST_KEPT else found[next(reversed(found))])
            return known and known[0]

    def add_elsewhere(self, violation: Violation, name: str) -> None:
        """Record a look-up of a file that another invocation or the start-up had made.

        ``name`` is where the invocation may still make it itself, as ``/a.txt`` in ``/tmp``; "" for nowhere.
        """
        with self._lock:
            self._elsewhere.setdefault(violation.path, (violation, name))

    def add_child(self, child: Child) -> None:
        """Record that ``child`` was started and sees the real file system."""
        with self._lock:
            if len(self._children) < MOST_KEPT:
                self._children[child] = None

    def settle(self, is_there: Callable[[str], bool]) -> None:
        """The invocation ends: what it made itself after all, at a name that ``is_there``, is no finding."""
        with self._lock:
            made = [path for path, (_, name) in self._elsewhere.items() if name and is_there(name)]
            self._made_after += tuple(self._elsewhere.pop(path)[0] for path in made)

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
