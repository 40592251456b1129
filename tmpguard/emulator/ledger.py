"""What the requests of a run used and were refused, kept in a size that does not grow with their number.

The report has the format of the testing kit's, so that its JSON, its page and its summary serve both.
"""

from __future__ import annotations

from typing import Any

from tmpguard.core.reports.report import Violation
from tmpguard.reporting.routes import START_UP, without_names
from tmpguard.reporting.tally import Tally

from .protocols import Span

Data = dict[str, Any]


def route_of(method: str, target: str) -> str:
    """``GET /items/{number}`` for ``/items/17?full=1``: the application's own routes are not known."""
    path = target.partition("?")[0].partition("#")[0]
    return f"{method} {without_names(path)}"


class Ledger:
    """Adds up spans by route."""

    def __init__(self, quota_bytes: int, root: str, name: str) -> None:
        self.quota_bytes = quota_bytes
        self._name = name
        self._tally = Tally(root)
        self.started = 0
        self.restarts = 0
        #: Requests whose findings may be those of others that ran at the same time.
        self.shared = 0

    def add_start(self, span: Span) -> None:
        """An instance has started."""
        self.started += 1
        self._add("start", START_UP, span)

    def add_request(self, route: str, span: Span, *, shared: bool = False) -> None:
        """``shared``: others ran in the instance at the same time, so that its findings may be theirs."""
        self._add("request", route, span)
        self.shared += shared and bool(span.violations)

    def add_late_writes(self, route: str, violations: tuple[Violation, ...]) -> None:
        """Found when a request to ``route`` was over."""
        if violations:
            entry = self._tally.entry("request", route, self.quota_bytes)
            self._tally.keep(entry, "late_writes", violations)

    def _add(self, kind: str, route: str, span: Span) -> None:
        entry = self._tally.entry(kind, route, self.quota_bytes)
        entry["requests"] += 1
        entry["peak_bytes"] = max(entry["peak_bytes"], span.peak_bytes)
        entry["bytes_left"] += span.used_bytes
        entry["files_left"] += span.files
        entry["violation_count"] += len(span.violations)
        self._tally.keep(entry, "violations", span.violations)

    def data(self) -> Data:
        """The report, in the format of ``--tmpguard-report``, with what was run as ``run``."""
        return self._tally.data(
            run={
                "name": self._name,
                "started": self.started,
                "restarts": self.restarts,
                "shared": self.shared,
            }
        )
