"""Reads the reports of many runs and processes from files, and merges them into one."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.version import __version__

from . import summary
from .routes import IMPORT
from .summary import FORMAT, LISTED
from .tally import LISTS

Data = dict[str, Any]

_ALLOWED: Final = (
    "what can be merged: the JSON of pytest --tmpguard-report and tmpguard run --report, the file of a "
    "tmpguard.ReportFile, and what tmpguard report --json prints"
)

#: How the line of a ReportFile begins.
_LINE: Final = '{"format":'

# --- reading -------------------------------------------------------------------------------------------

#: The lists of rows, and what each row has a number of.
_OTHER: Final = {"routes": "tests", "tests": "routes"}

#: The figures that add up.
_SUMS: Final = ("bytes_left", "files_left", "allowed", *LISTS)
_FIGURES: Final[Mapping[str, Any]] = {
    "peak_bytes": int,
    "quota_bytes": int,
    "peak_share": (int, float),
    **dict.fromkeys(_SUMS, int),
}
_ROW: Final[Mapping[str, Any]] = {"kind": str, "requests": int, **_FIGURES}
_PLACE: Final[Mapping[str, Any]] = {"file": str, "line": int, "function": str}
_NONE: Final = type(None)
_GROUP: Final[Mapping[str, Any]] = {
    "operation": str,
    "errno": (int, _NONE),
    "error": (str, _NONE),
    "message": (str, _NONE),
    "allowed": bool,
    "count": int,
    "location": (dict, _NONE),
    "library": (dict, _NONE),
    "source": list,
    "remedy": str,
    "paths": list,
    "routes": list,
    "tests": list,
}
_REPORT: Final[Mapping[str, Any]] = {
    "created": str,
    "root": str,
    "totals": dict,
    "routes": list,
    "tests": list,
    **dict.fromkeys(LISTS, list),
}


def read(path: str, note: Callable[[str], None]) -> Iterator[Data]:
    """The reports in a file: one, or one in each line. ``note`` gets a sentence on what is skipped.

    Raises ConfigurationError, with the file and the line, for what is no report.
    """
    try:
        with open(path, encoding="utf-8") as file:
            yield from _read_lines(path, file, note)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not a text file in UTF-8; {_ALLOWED}") from None
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror}; {_ALLOWED}") from None


def _read_lines(path: str, file: Iterable[str], note: Callable[[str], None]) -> Iterator[Data]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            data = json.loads(line)
        except ValueError as exc:
            if line.startswith(_LINE):
                note(f"{where}: skipped: a line that its process could not finish")
                continue
            if line.rstrip() != "{":
                raise _no_json(path, number, exc) from None
            # A report over many lines is the only one in its file.
            yield _checked(_whole(path, number, line, file), path)
            return
        yield _checked(data, where)


def _whole(path: str, number: int, line: str, file: Iterable[str]) -> Any:
    try:
        return json.loads(line + "".join(file))
    except ValueError as exc:
        raise _no_json(path, number, exc) from None


def _no_json(path: str, number: int, exc: ValueError) -> ConfigurationError:
    if isinstance(exc, json.JSONDecodeError):
        reason, number = exc.msg, number + exc.lineno - 1
    else:
        reason = str(exc)
    return ConfigurationError(f"{path}:{number}: not JSON ({reason}); {_ALLOWED}")


def _checked(data: Any, where: str) -> Data:
    """``data``, if it is a report of the known format."""
    if not isinstance(data, dict) or "format" not in data:
        raise ConfigurationError(f"{where}: JSON, but no report of tmpguard; {_ALLOWED}")
    if data["format"] != FORMAT:
        raise ConfigurationError(
            f"{where}: format {data['format']!r}, but tmpguard {__version__} reads format {FORMAT}; use the "
            "tmpguard that wrote it, or a newer one"
        )
    _check(data, _REPORT, where, "the report")
    _check(data["totals"], {"requests": int, "imports": int, **_FIGURES}, where, "totals")
    _check_time(data["created"], where)
    for name, other in _OTHER.items():
        for number, row in enumerate(data[name]):
            _check(row, {name[:-1]: str, other: int, **_ROW}, where, f"{name}[{number}]")
    for name in LISTS:
        for number, group in enumerate(data[name]):
            _check_group(group, where, f"{name}[{number}]")
    return data


def _check_group(group: Any, where: str, what: str) -> None:
    _check(group, _GROUP, where, what)
    for name in ("location", "library"):
        if group[name] is not None:
            _check(group[name], _PLACE, where, f"{what}.{name}")
    for number, line in enumerate(group["source"]):
        _check(line, {"line": int, "text": str}, where, f"{what}.source[{number}]")
    for name in ("paths", "routes", "tests"):
        if not all(isinstance(one, str) for one in group[name]):
            raise ConfigurationError(f"{where}: {what}.{name} is no list of strings; {_ALLOWED}")
    if not group["paths"] or (group["source"] and group["location"] is None):
        raise ConfigurationError(f"{where}: {what} has no path, or source lines but no location; {_ALLOWED}")
    for name in ("first", "last"):
        if group.get(name) is not None:
            _check_time(group[name], where)


def _check(data: Any, shape: Mapping[str, Any], where: str, what: str) -> None:
    if not isinstance(data, dict):
        raise ConfigurationError(f"{where}: {what} is no object; {_ALLOWED}")
    for name, kind in shape.items():
        if name not in data:
            raise ConfigurationError(f"{where}: {what} has no {name!r}; {_ALLOWED}")
        if not isinstance(data[name], kind) or (isinstance(data[name], bool) and kind is not bool):
            raise ConfigurationError(f"{where}: {name!r} of {what} has a wrong type; {_ALLOWED}")


def _check_time(time: Any, where: str) -> None:
    try:
        datetime.fromisoformat(time)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{where}: {time!r} is no date and time in ISO 8601; {_ALLOWED}") from None


# --- merging -------------------------------------------------------------------------------------------


class Merger:
    """Adds up reports. Findings of the same source line, operation and error are one."""

    def __init__(self) -> None:
        self._reports = 0
        self._processes: set[tuple[object, object]] = set()
        self._more_processes = 0
        self._since: list[str] = []
        self._until: list[str] = []
        self._roots: set[str] = set()
        self._rows: dict[str, dict[tuple[str, str], Data]] = {"routes": {}, "tests": {}}
        self._groups: dict[str, dict[str, Data]] = {name: {} for name in LISTS}
        self._totals = _no_figures()

    def add(self, report: Data) -> None:
        """Add a report, as :func:`read` gives it."""
        self._add_origin(report)
        _add_figures(self._totals, report["totals"])
        for name, rows in self._rows.items():
            key = name[:-1]
            for row in report[name]:
                kept = rows.get((row[key], row["kind"]))
                if kept is None:
                    kept = rows[row[key], row["kind"]] = {key: row[key], "kind": row["kind"], **_no_figures()}
                _add_figures(kept, row)
                # The numbers of different tests that the reports have in common are not known.
                kept[_OTHER[name]] = max(kept.get(_OTHER[name], 0), row[_OTHER[name]])
        for name, groups in self._groups.items():
            for group in report[name]:
                self._add_group(groups, group, report["created"])

    def _add_origin(self, report: Data) -> None:
        merged = report.get("merged")
        if isinstance(merged, dict):  # the result of an earlier merge
            self._reports += merged.get("reports", 0)
            self._more_processes += merged.get("processes", 0)
            self._since += filter(None, [merged.get("since")])
            self._until += filter(None, [merged.get("until")])
            self._roots.add(report["root"])
            return
        self._reports += 1
        process = report.get("process")
        if isinstance(process, dict):
            self._processes.add((process.get("host"), process.get("pid")))
        self._since.append(report.get("since") or report["created"])
        self._until.append(report["created"])
        self._roots.add(report["root"])

    def _add_group(self, groups: dict[str, Data], group: Data, created: str) -> None:
        path = group["paths"][0] if group["paths"] else ""
        key = json.dumps(summary.cause({**group, "path": path}), sort_keys=True)
        seen = {"first": group.get("first") or created, "last": group.get("last") or created}
        kept = groups.get(key)
        if kept is None:
            groups[key] = {**group, **seen, **{name: group[name][:LISTED] for name in summary.LISTS}}
            return
        if seen["last"] >= kept["last"]:  # as the source, and the advice, were when it was last seen
            kept.update(source=group["source"], remedy=group["remedy"])
        kept["count"] += group["count"]
        kept["first"], kept["last"] = summary.period(kept, seen)
        for name in summary.LISTS:
            more = [one for one in group[name] if one not in kept[name]]
            kept[name] += more[: LISTED - len(kept[name])]

    def data(self) -> Data:
        """The merged report, in the format of its parts, with ``merged``: what was merged."""
        routes = summary.fullest_first(self._rows["routes"].values(), "route")
        tests = summary.fullest_first(self._rows["tests"].values(), "test")
        imports = next((row["tests"] for row in routes if row["route"] == IMPORT), 0)
        return {
            "format": FORMAT,
            "tmpguard": __version__,
            "python": platform.python_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "root": next(iter(self._roots)) if len(self._roots) == 1 else "",
            "totals": {
                "routes": sum(row["kind"] == "request" for row in routes),
                "tests": len(tests) - min(imports, len(tests)),
                "imports": imports,
                **self._totals,
            },
            "routes": routes,
            "tests": tests,
            **{name: summary.most_frequent_first(groups.values()) for name, groups in self._groups.items()},
            "merged": {
                "reports": self._reports,
                "processes": len(self._processes) + self._more_processes,
                "since": min(self._since, default=None),
                "until": max(self._until, default=None),
            },
        }


def _no_figures() -> Data:
    return {"requests": 0, "peak_bytes": 0, "quota_bytes": 0, "peak_share": 0.0, **dict.fromkeys(_SUMS, 0)}


def _add_figures(kept: Data, more: Data) -> None:
    for name in ("requests", *_SUMS):
        kept[name] += more[name]
    if not kept["quota_bytes"] or more["peak_share"] > kept["peak_share"]:
        kept.update({name: more[name] for name in ("peak_bytes", "quota_bytes", "peak_share")})
