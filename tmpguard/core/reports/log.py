"""Logs violations on the logger ``tmpguard``: one warning each, rate-limited per source line.

A record's text is for people. Its fields, given as ``extra=``, are for machines, and their names are stable:

``tmpguard_operation``, ``tmpguard_path``, ``tmpguard_remedy`` as the violation has them; ``tmpguard_errno``,
the number, and ``tmpguard_error``, its name (``EROFS``); ``tmpguard_file``, ``tmpguard_line`` and
``tmpguard_function``, the application's line; ``tmpguard_library``, the library's line as text;
``tmpguard_refused``, false where the guard only watches; ``tmpguard_late``, true for a late write;
``tmpguard_repeated``, the number of further violations that were not logged. Missing values are None.

A source line that is refused again and again is logged at most once per ``log_interval`` of the guard. The
violations in between are counted. The next record of that line, or one at the interpreter's exit, gives the
count.
"""

from __future__ import annotations

import errno as codes
import logging
import os
import threading
import weakref
from contextvars import Context
from typing import Final

from tmpguard.core import hooks, real

from .report import Violation

#: Seconds during which further violations of a logged line are only counted.
INTERVAL: Final = 60.0

#: The most lines remembered at one time.
LINES: Final = 1000

logger = logging.getLogger("tmpguard")

#: Has the attribute ``now`` while the running thread logs a violation.
_logging: Final = threading.local()

Key = tuple[str, int, int, bool]


#: A violation, whether it was a late write, whether it was refused, and how many more there were.
LogEntry = tuple[Violation, bool, bool, int]


class _Line:
    """A logged source line: the time until which it is only counted, and the count."""

    __slots__ = ("count", "last", "until")

    last: tuple[Violation, bool, bool]

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0


class Journal:
    """Logs the refusals of a guard's invocations, at most once per source line in ``interval`` seconds."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.restart()
        _journals.add(self)

    def restart(self) -> None:
        """Start afresh, as in a forked child: the counts are the parent's, and the lock may be held."""
        self._lock = real.RLock()  # reentrant: garbage collection under the lock may log, too
        self._lines: dict[Key, _Line] = {}

    def log(self, violation: Violation, *, late: bool, refused: bool) -> None:
        """Log ``violation`` now, or count it for later.

        Does nothing inside a logging handler that is itself refused, which would otherwise recurse.
        """
        if hasattr(_logging, "now"):
            return
        _logging.now = True
        try:
            # Do not call handlers under the lock: a handler that is refused itself comes back here.
            entries = [(violation, late, refused, 0)]
            if self.interval:
                entries = self._due(violation, late, refused)
            for entry in entries:
                _log(*entry)
        finally:
            del _logging.now

    def _due(self, violation: Violation, late: bool, refused: bool) -> list[LogEntry]:
        """The entries to log when ``violation`` arrives; none if it is only counted."""
        place = violation.location or violation.library
        key = (place.file, place.line, violation.errno, late) if place else ("", 0, violation.errno, late)
        now = real.monotonic()
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                made_room = self._make_room(now)
                self._lines[key] = _Line(now + self.interval)
                return [*made_room, (violation, late, refused, 0)]
            if now < line.until:
                line.count += 1
                line.last = (violation, late, refused)
                return []
            repeated, line.count = line.count, 0
            line.until = now + self.interval
            return [(violation, late, refused, repeated)]

    def _make_room(self, now: float) -> list[LogEntry]:
        """Forget the lines that have been quiet; if there are none, those that were logged first."""
        if len(self._lines) < LINES:
            return []
        quiet = [key for key, line in self._lines.items() if not line.count and now >= line.until]
        forgotten = [self._lines.pop(key) for key in quiet or list(self._lines)[: LINES // 10]]
        return [(*line.last, line.count) for line in forgotten if line.count]

    def sum_up(self) -> None:
        """Log what has only been counted so far: for each line, a record of its last violation."""
        with self._lock:
            entries = [(*line.last, line.count) for line in self._lines.values() if line.count]
            for line in self._lines.values():
                line.count = 0
        for entry in entries:
            _log(*entry)


_journals: Final[weakref.WeakSet[Journal]] = weakref.WeakSet()


def restart() -> None:
    """Forget what all guards have logged and counted."""
    for journal in list(_journals):
        journal.restart()


def _finish() -> None:
    """At the interpreter's exit: log what has only been counted."""
    for journal in list(_journals):
        Context().run(journal.sum_up)


hooks.register(hooks.Step.FORGET_LOGGED_LINES, restart)
hooks.register(hooks.Step.SUM_UP_LOG, _finish)


def _fields(violation: Violation, late: bool, refused: bool, repeated: int) -> dict[str, object]:
    location, library = violation.location, violation.library
    fields = {
        "operation": violation.operation,
        "path": violation.path,
        "errno": violation.errno,
        "error": codes.errorcode.get(violation.errno),
        "file": location and location.file,
        "line": location and location.line,
        "function": location and location.function,
        "library": library and str(library),
        "remedy": violation.remedy or None,
        "refused": refused,
        "late": late,
        "repeated": repeated,
    }
    return {f"tmpguard_{name}": value for name, value in fields.items()}


def _log(violation: Violation, late: bool, refused: bool, repeated: int = 0) -> None:
    place = violation.location or violation.library
    logger.warning(
        "tmpguard: %s%s %r: [Errno %d] %s%s (%s)%s",
        "" if refused else "would refuse ",
        violation.operation,
        violation.path,
        violation.errno,
        os.strerror(violation.errno),
        # If a library swallows the error, the log is all that shows what to do.
        f", {_encodable(violation.remedy)}" if violation.remedy else "",
        place or "no Python frame of the application",
        f", and {repeated} more from there since it was last logged" if repeated else "",
        extra=_fields(violation, late, refused, repeated),
    )


def _encodable(text: str) -> str:
    """``text`` as a handler can write it: the bytes of a path that are not UTF-8 are surrogates in it."""
    return text.encode("utf-8", "backslashreplace").decode()
