"""The report of a whole run: as data for the JSON file of ``--tmpguard-report``, and on the terminal."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from tmpguard.core.version import __version__

from .routes import IMPORT
from .violations import PATHS_SHOWN, error_name, package_of, printable, short_file, source_around

#: The version of the JSON format. It increases when a key changes its meaning or is removed.
FORMAT: Final = 1

Data = dict[str, Any]

#: The lists of each group of violations, and the maximum length of each.
LISTS: Final = ("paths", "routes", "tests")
LISTED: Final = 100

#: Two violations that agree in these keys are the same finding.
_SAME: Final = ("operation", "errno", "location", "library", "allowed")


def build(entries: Iterable[Data], root: str) -> Data:
    """The report of the run, made from the data of its requests. ``root`` is the project's directory.

    An entry may stand for several requests to a route: ``requests`` is their number then, and each of its
    findings has its own ``count``.
    """
    entries = list(entries)
    return {
        "format": FORMAT,
        "tmpguard": __version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "root": root,
        "totals": _totals(entries),
        "routes": _by(entries, "route"),
        "tests": _by(entries, "test"),
        "violations": _groups(entries, "violations", root),
        "late_writes": _groups(entries, "late_writes", root),
        "missing_files": _groups(entries, "missing_files", root),
        "children": _groups(entries, "children", root),
    }


def _totals(entries: list[Data]) -> Data:
    requests = [entry for entry in entries if entry["kind"] == "request"]
    return {
        "requests": sum(map(_requests, requests)),
        "routes": len({entry["route"] for entry in requests}),
        "tests": len({entry["test"] for entry in entries if entry["route"] != IMPORT}),
        "imports": len({entry["test"] for entry in entries if entry["route"] == IMPORT}),
        **_figures(entries),
    }


def _figures(entries: list[Data]) -> Data:
    """The peak of the request that came closest to its quota, and totals of all requests."""
    fullest = max(entries, key=_share, default=None)
    return {
        "peak_bytes": fullest["peak_bytes"] if fullest else 0,
        "quota_bytes": fullest["quota_bytes"] if fullest else 0,
        "peak_share": round(_share(fullest), 6) if fullest else 0.0,
        "bytes_left": sum(entry["bytes_left"] for entry in entries),
        "files_left": sum(entry["files_left"] for entry in entries),
        "violations": sum(_count(entry, allowed=False) for entry in entries),
        "allowed": sum(_count(entry, allowed=True) for entry in entries),
        "late_writes": sum(_occurrences(entry["late_writes"]) for entry in entries),
        "missing_files": sum(_occurrences(entry["missing_files"]) for entry in entries),
        "children": sum(_occurrences(entry["children"]) for entry in entries),
    }


def _requests(entry: Data) -> int:
    """The number of requests that ``entry`` stands for."""
    return int(entry.get("requests", 1))


def _occurrences(findings: Iterable[Data]) -> int:
    return sum(int(one.get("count", 1)) for one in findings)


def _share(entry: Data) -> float:
    return float(entry["peak_bytes"] / entry["quota_bytes"])


def _count(entry: Data, *, allowed: bool) -> int:
    """The number of violations. Those that the invocation's report did not keep count as not allowed."""
    kept = _occurrences(one for one in entry["violations"] if one["allowed"] is allowed)
    return kept if allowed else kept + entry["violation_count"] - _occurrences(entry["violations"])


def _by(entries: list[Data], key: str) -> list[Data]:
    """The figures of each route or each test, the fullest first."""
    split: dict[str, list[Data]] = {}
    for entry in entries:
        split.setdefault(entry[key], []).append(entry)
    other = "tests" if key == "route" else "routes"
    rows = [
        {
            key: name,
            "kind": mine[0]["kind"],
            "requests": sum(_requests(entry) for entry in mine if entry["kind"] == "request"),
            other: len({entry[other[:-1]] for entry in mine}),
            **_figures(mine),
        }
        for name, mine in split.items()
    ]
    return fullest_first(rows, key)


def fullest_first(rows: Iterable[Data], key: str) -> list[Data]:
    """The figures of routes or tests, whose name is their ``key``, in their order."""
    return sorted(rows, key=lambda row: (-row["peak_share"], row[key]))


def _groups(entries: list[Data], which: str, root: str) -> list[Data]:
    """The violations (or another list) of all requests, grouped by source line, the most frequent first."""
    groups: dict[str, Data] = {}
    for entry in entries:
        for violation in entry[which]:
            key = json.dumps(cause(violation))
            group = groups.get(key)
            if group is None:
                group = groups[key] = _group(violation, root)
            group["count"] += violation.get("count", 1)
            group["first"], group["last"] = period(group, violation)
            for name, value in zip(LISTS, (violation["path"], entry["route"], entry["test"]), strict=True):
                if value not in group[name] and len(group[name]) < LISTED:
                    group[name].append(value)
    return most_frequent_first(groups.values())


def most_frequent_first(groups: Iterable[Data]) -> list[Data]:
    """Groups of findings in their order."""
    return sorted(groups, key=lambda group: (group["allowed"], -group["count"], group["paths"]))


def period(one: Data, other: Data) -> tuple[str | None, str | None]:
    """When either of two findings was seen for the first and the last time, as far as that is known."""
    first = [time for time in (one.get("first"), other.get("first")) if time is not None]
    last = [time for time in (one.get("last"), other.get("last")) if time is not None]
    return min(first, default=None), max(last, default=None)


def cause(violation: Data) -> list[object]:
    """What two violations have in common that are the same finding.

    Without a line of the application that is the path and the library, whichever of its lines made the call.
    """
    if violation["location"] is not None or violation["library"] is None:
        return [violation[name] for name in _SAME]
    return [
        violation["errno"],
        violation["path"],
        package_of(violation["library"]["file"]),
        violation["allowed"],
    ]


def _group(violation: Data, root: str) -> Data:
    location, library = violation["location"], violation["library"]
    source = [] if location is None else source_around(location["file"], location["line"], around=3)
    return {
        "operation": violation["operation"],
        "errno": violation["errno"],
        "error": None if violation["errno"] is None else error_name(violation["errno"]),
        "message": None if violation["errno"] is None else os.strerror(violation["errno"]),
        "allowed": violation["allowed"],
        "count": 0,
        "first": None,
        "last": None,
        "location": _shown(location, root),
        "source": [{"line": number, "text": text} for number, text in source],
        "library": _shown(library, root),
        "remedy": violation["remedy"],
        "paths": [],
        "routes": [],
        "tests": [],
    }


def _shown(location: Data | None, root: str) -> Data | None:
    return None if location is None else {**location, "file": short_file(location["file"], root)}


# --- as text -------------------------------------------------------------------------------------------

_BAR: Final = 10

#: Rows of a table that are shown without ``-v``.
SHOWN_ROWS: Final = 10


def size(count: int) -> str:
    """A human-readable number of bytes, in the units of the storage size: 1 MB = 1,048,576 bytes."""
    if count < 1024:
        return f"{count} B"
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KB"
    unit, of = ("MB", 1 << 20) if count < 1 << 30 else ("GB", 1 << 30)
    return f"{count / of:.1f} {unit}".replace(".0 ", " ")


def percent(share: float) -> str:
    """A share as a percentage. 0.0004 is "<1%" rather than 0%, and 0.999 is ">99%" rather than 100%."""
    if 0 < share < 0.01:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.0%}"


def where(location: Data | None) -> str:
    """``app.py:12 in upload``."""
    if location is None:
        return "no line of the application"
    return f"{location['file']}:{location['line']} in {location['function']}"


def number(count: int, noun: str, plural: str = "s") -> str:
    """``1 test``, ``2 tests``; ``2 children`` with another ending for the plural."""
    return f"{count:,} {noun}" + ("" if count == 1 else plural)


def lines(data: Data, *, verbosity: int) -> Iterator[str]:
    """The summary for the terminal: complete tables with ``-v``, no tables with ``-q``."""
    totals = data["totals"]
    yield (
        f"{number(totals['requests'], 'request')} to {number(totals['routes'], 'route')} "
        + _origin(data)
        + (f", {number(totals['imports'], 'import')}" if totals["imports"] else "")
        + f": {number(totals['violations'], 'violation')}"
        + (f" (and {totals['allowed']} allowed)" if totals["allowed"] else "")
        + f", {number(totals['late_writes'], 'late write')}, "
        + (f"{number(totals['missing_files'], 'missing file')}, " if totals["missing_files"] else "")
        + (f"{number(totals['children'], 'unguarded child', 'ren')}, " if totals["children"] else "")
        + f"at most {size(totals['peak_bytes'])} "
        f"of {size(totals['quota_bytes'])} used"
    )
    for key in ("route", "test") if verbosity >= 0 else ():
        if key == "test" and not data["tests"] and _has_no_tests(data):
            continue
        yield ""
        yield from _table(key, data[key + "s"], verbose=verbosity > 0)
    for key, title in _SECTIONS:
        if data[key]:
            yield ""
            yield title
            for group in data[key]:
                yield from _group_lines(group)


def _origin(data: Data) -> str:
    """What made the requests, or served them."""
    if "merged" in data:
        return f"in {number(data['merged']['reports'], 'report')}{span(data['merged'])}"
    if "run" in data:
        return f"of {data['run']['name']}"
    return f"by {number(data['totals']['tests'], 'test')}"


def span(merged: Data) -> str:
    """`` from 3 processes, 2026-11-01 to 2026-11-07``, as far as that is known."""
    processes, since, until = merged["processes"], merged["since"], merged["until"]
    by = f" from {number(processes, 'process', 'es')}" if processes else ""
    return by + (f", {_days(since, until)}" if since and until else "")


def _days(first: str, last: str) -> str:
    first, last = first[:10], last[:10]
    return first if first == last else f"{first} to {last}"


#: The lists of groups, and their titles on the terminal.
_SECTIONS: Final = (
    ("violations", "violations by line"),
    ("late_writes", "late writes by line"),
    ("missing_files", "missing files that another request or the start-up had made, by line"),
    ("children", "child processes that were not guarded, by line"),
)


def _has_no_tests(data: Data) -> bool:
    return "run" in data or "merged" in data


def _table(key: str, rows: list[Data], *, verbose: bool) -> Iterator[str]:
    shown = rows if verbose else _of_interest(rows)
    width = max([len(row[key]) for row in shown] + [len(key) + 5])
    title = f"{key}s by use"
    yield f"{title:<{width}}  {'peak':>9}  {'of quota':<{_BAR + 14}}  {'left':>6}  {'late':>4}  violations"
    for row in shown:
        filled = round(min(row["peak_share"], 1) * _BAR)
        bar = "█" * filled + "·" * (_BAR - filled)
        share = f"{percent(row['peak_share']):>4} of {size(row['quota_bytes'])}"
        refused = f"{row['violations']}" + (f" (+{row['allowed']} allowed)" if row["allowed"] else "")
        yield (
            f"{row[key]:<{width}}  {size(row['peak_bytes']):>9}  {bar} {share:<13}  {row['files_left']:>6}  "
            f"{row['late_writes']:>4}  {refused}"
        )
    if len(shown) < len(rows):
        yield f"and {len(rows) - len(shown)} more (-v shows them)"


def _of_interest(rows: list[Data]) -> list[Data]:
    """The fullest rows, and all rows with findings, in the order of ``rows``."""
    return [
        row for place, row in enumerate(rows) if place < SHOWN_ROWS or any(row[key] for key, _ in _SECTIONS)
    ]


def _group_lines(group: Data) -> Iterator[str]:
    allowed = ", allowed" if group["allowed"] else ""
    what = f"{group['operation']} {group['error'] or ''}".rstrip()
    yield f"  {where(group['location'])}: {what} ({group['count']}x{allowed})"
    paths = ", ".join(repr(path) for path in group["paths"][:PATHS_SHOWN])
    more = len(group["paths"]) - PATHS_SHOWN
    yield f"    {paths}" + (f" and {more} more" if more > 0 else "")
    if group["first"]:
        yield f"    seen {seen(group)}"
    if group["remedy"]:
        yield f"    {printable(group['remedy'])}"


def seen(group: Data) -> str:
    """When a group of findings was seen: ``2026-11-01 10:00 to 2026-11-07 09:30 UTC``."""
    first, last = (group[name][:16].replace("T", " ") for name in ("first", "last"))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"
