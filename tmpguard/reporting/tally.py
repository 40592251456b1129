"""Adds up what requests used and were refused, in a size that does not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tmpguard.core.callers import Location
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import Child, Violation

from . import summary

Data = dict[str, Any]

#: Routes that are told apart, and the different findings that are kept of each and of all.
ROUTES: Final = 500
FINDINGS: Final = 300
ALL_FINDINGS: Final = 5000

_OTHERS: Final = "(other routes)"

#: The lists of findings that a route has.
LISTS: Final = ("violations", "late_writes", "missing_files", "children")


class Tally:
    """Adds up requests by route. ``root`` is the project's directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._entries: dict[tuple[str, int], Data] = {}
        self._findings: dict[tuple[object, ...], Data] = {}

    def entry(self, kind: str, route: str, quota_bytes: int) -> Data:
        """The sums of the requests to ``route`` that had this quota, which the caller adds to."""
        if (route, quota_bytes) not in self._entries and len(self._entries) >= ROUTES:
            route = _OTHERS
        entry = self._entries.get((route, quota_bytes))
        if entry is None:
            entry = self._entries[route, quota_bytes] = {
                "test": "",
                "kind": kind,
                "route": route,
                "requests": 0,
                "quota_bytes": quota_bytes,
                "peak_bytes": 0,
                "bytes_left": 0,
                "files_left": 0,
                "violation_count": 0,
                **{name: [] for name in LISTS},
            }
        return entry

    def keep(
        self, entry: Data, which: str, found: Sequence[Violation] | Sequence[Child], time: str | None = None
    ) -> None:
        """Add findings to the list ``which`` of ``entry``. ``time`` is when they were seen, if known."""
        for one in found:
            key = (entry["route"], entry["quota_bytes"], which, one)
            kept = self._findings.get(key)
            if kept is None:
                if len(entry[which]) >= FINDINGS or len(self._findings) >= ALL_FINDINGS:
                    continue
                kept = self._findings[key] = {**finding_data(one), "count": 0, "first": time}
                entry[which].append(kept)
            kept["count"] += 1
            kept["last"] = time

    def data(self, **more: object) -> Data:
        """The report, in the format of ``--tmpguard-report``, with ``more`` keys. It knows of no tests."""
        data = summary.build(self._entries.values(), self.root)
        data["tests"] = []
        data["totals"]["tests"] = 0
        for which in LISTS:
            for group in data[which]:
                group["tests"] = []
        return {**data, **more}


def finding_data(found: Violation | Child) -> Data:
    """A finding as plain data."""
    if isinstance(found, Child):
        found = Violation(*found[:2], 0, *found[2:], remedies.CHILD_UNGUARDED)
    return {
        "operation": found.operation,
        "path": found.path,
        "errno": found.errno or None,
        "location": _location_data(found.location),
        "library": _location_data(found.library),
        "remedy": found.remedy,
        "allowed": False,
    }


def _location_data(location: Location | None) -> Data | None:
    return None if location is None else location._asdict()
