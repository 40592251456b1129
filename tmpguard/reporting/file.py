"""``tmpguard.ReportFile``: keeps the reports of processes in production in a file."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Final

from tmpguard.config.options import StrPath, checked_seconds
from tmpguard.core import originals, real
from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.reports import delivery
from tmpguard.core.reports.report import Child, Report, Violation

from .routes import START_UP
from .tally import ALL_FINDINGS, Tally

logger = logging.getLogger("tmpguard")

#: Seconds between two lines of a process that has nothing new to say.
INTERVAL: Final = 600.0

#: Seconds that :meth:`ReportFile.write` waits for a line that is being written.
_PATIENCE: Final = 30

#: Shown in place of a route for what is no request, such as a decorated function.
_NO_ROUTE: Final = "(invocation)"

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class ReportFile:
    """Appends what the requests of a process used and were refused to a file: an ``on_report``.

    ::

        findings = tmpguard.ReportFile("/var/log/shop/tmpguard.jsonl")
        app.add_middleware(TmpGuardMiddleware, enforce=False, on_report=findings)

    Each line of the file is a report in JSON, in the format of ``pytest --tmpguard-report``. It adds up all
    requests since the previous line of the process. ``tmpguard report`` merges the lines of many processes
    and days. Any number of processes may append to one file, on a file system of this machine. The file may
    be moved away at any time: each line is appended to what has the name then. The guard does not restrict
    the writing.

    :param path: The file. It is created if it does not exist.
    :param root: The project's directory. Source files in it are shown relative to it.
    :param interval: A finding that the process has not seen yet is written at once, any other ones after at
        most this many seconds if there are more requests. What is left is written at the interpreter's exit,
        at the end of an ASGI server's lifespan, and by :func:`tmpguard.drain`.

    Raises ConfigurationError for an invalid option, and if the file cannot be opened. If a line cannot be
    written later, that is logged, and its figures are part of the next one.
    """

    def __init__(self, path: StrPath, *, root: StrPath = ".", interval: float = INTERVAL) -> None:
        self.interval: float = checked_seconds("interval", interval)
        with unguarded():
            self.path: str = _absolute("path", path)
            self.root: str = _absolute("root", root)
            try:
                _append(self.path, b"")
            except OSError as exc:
                raise ConfigurationError(
                    f"ReportFile({self.path!r}): {exc.strerror}: give a file that this process may write"
                ) from None
        self._lock = real.RLock()
        self._restart()
        delivery.holding.add(self)

    def _restart(self) -> None:
        #: What a forked child has inherited is its parent's.
        self._process = os.getpid()
        self._known: set[object] = set()
        self._due = 0.0
        self._begin()

    def _begin(self) -> None:
        self._tally = Tally(self.root)
        self._since = _now()
        self._is_empty = True

    def __call__(self, report: Report) -> None:
        """Add a finished report."""
        with self._lock, unguarded():
            if self._process != os.getpid():
                self._restart()
            is_new = self._add(report)
            if is_new or real.monotonic() >= self._due:
                self._write()

    def write(self) -> None:
        """Append what has been added since the last line, if there is anything."""
        # At the exit, the thread that holds the lock may wait for a disk that does not answer.
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            with unguarded():
                if self._process == os.getpid() and not self._is_empty:
                    self._write()
        finally:
            self._lock.release()

    def _add(self, report: Report) -> bool:
        """Returns True if a finding is new."""
        kind, route = ("start", START_UP) if report.cold_start else ("request", report.route or _NO_ROUTE)
        entry = self._tally.entry(kind, route, report.quota_bytes)
        entry["requests"] += 1
        entry["peak_bytes"] = max(entry["peak_bytes"], report.peak_bytes)
        entry["bytes_left"] += report.used_bytes
        entry["files_left"] += report.files
        entry["violation_count"] += report.violation_count
        self._is_empty = False
        now = _now()
        is_new = False
        for which, found in (
            ("violations", report.violations),
            ("late_writes", report.late_writes),
            ("missing_files", report.elsewhere),
            ("children", report.unguarded_children),
        ):
            if found:
                self._tally.keep(entry, which, found, now)
                is_new |= self._are_new(which, found)
        return is_new

    def _are_new(self, which: str, found: tuple[Violation, ...] | tuple[Child, ...]) -> bool:
        """Whether a source line is among them that the process has not seen yet."""
        seen = {(which, one.operation, one.location, one.library) for one in found} - self._known
        if len(self._known) < ALL_FINDINGS:
            self._known |= seen
            return bool(seen)
        return False

    def _write(self) -> None:
        self._due = real.monotonic() + self.interval
        process = {"host": os.uname().nodename, "pid": self._process}
        data = self._tally.data(since=self._since, process=process)
        # The empty line ends what a process that was killed may have left unfinished.
        line = f"\n{json.dumps(data, separators=(',', ':'))}\n".encode()
        try:
            _append(self.path, line)
        except OSError as exc:
            logger.warning(
                "tmpguard: cannot append a report to %r: %s; make room, or let this process write there; "
                "it is tried again with the first request after %.0f seconds",
                self.path,
                exc.strerror,
                self.interval,
            )
        else:
            self._begin()


def _append(path: str, line: bytes) -> None:
    """Append ``line`` in one step, so that no other process's line comes in between. Raises OSError."""
    descriptor = originals.os_open(path, _FLAGS, 0o666)
    try:
        while line:  # more than once only where the disk becomes full, which raises then
            line = line[originals.write(descriptor, line) :]
    finally:
        originals.close(descriptor)


def _absolute(name: str, path: object) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str) or not str(path):
        raise ConfigurationError(f"ReportFile({name}={path!r}): give a path, a str or a Path")
    return os.path.abspath(os.fspath(path))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
