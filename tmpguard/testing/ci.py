"""Findings where a CI reads them: annotations of GitHub Actions, and properties of a test for JUnit's XML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tmpguard.core.layout import is_below
from tmpguard.reporting.summary import number
from tmpguard.reporting.violations import Group, Occurrence, error_name, grouped, place

#: GitHub shows this many annotations of a kind for one step, and drops the others.
SHOWN: Final = 10


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the run is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def github(data: dict[str, Any], environment: Mapping[str, str], *, late_writes_fail: bool) -> Iterator[str]:
    """The commands that annotate the lines of unexpected findings, the most frequent first.

    Late writes are warnings unless they fail their test.
    """
    root, workspace = data["root"], environment.get("GITHUB_WORKSPACE", "")
    for which, kind in (("violations", "error"), ("late_writes", "error" if late_writes_fail else "warning")):
        groups = [group for group in data[which] if not group["allowed"]]
        for group in groups[:SHOWN]:
            properties = {**_position(group["location"], root, workspace), "title": _title(group, which)}
            given = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
            yield f"::{kind} {given}::{_escaped(_message(group))}"


def _position(location: dict[str, Any] | None, root: str, workspace: str) -> dict[str, object]:
    if location is None:
        return {}
    file = os.path.join(root, location["file"])
    if workspace and is_below(file, workspace):
        file = os.path.relpath(file, workspace)
    return {"file": file, "line": location["line"]}


def _title(group: dict[str, Any], which: str) -> str:
    late = "late write, " if which == "late_writes" else ""
    return f"tmpguard: {late}{group['error']} {group['operation']}"


def _message(group: dict[str, Any]) -> str:
    more = len(group["paths"]) - 1
    paths = repr(group["paths"][0]) + (f" and {number(more, 'more path')}" if more else "")
    times = f", {group['count']} times" if group["count"] > 1 else ""
    seen = f"{group['operation']} {paths}: {group['message']} (in {group['routes'][0]}{times})"
    return f"{seen}\n{group['remedy']}" if group["remedy"] else seen


def _escaped(value: object, more: str = "") -> str:
    """``value`` for a workflow command: what would end it, or one of its properties, as ``%0A``."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def properties(occurrences: Iterable[tuple[str, Occurrence, bool]], root: str) -> Iterator[tuple[str, str]]:
    """The properties of a test, one for each finding. Each occurrence comes with its kind, and if it is
    allowed.
    """
    found: dict[tuple[str, bool], list[Occurrence]] = {}
    for kind, occurrence, is_allowed in occurrences:
        found.setdefault((kind, is_allowed), []).append(occurrence)
    for (kind, is_allowed), some in found.items():
        for group in grouped(some):
            yield f"tmpguard_{kind}", _line(group, root) + (", allowed" if is_allowed else "")


def _line(group: Group, root: str) -> str:
    violation = group.violation
    by = "" if violation.location is None else f" at {place(violation.location, root)}"
    times = f" ({group.times} times)" if group.times > 1 else ""
    return f"{error_name(violation.errno)} {violation.operation} {group.paths[0]!r}{by}{times}"
