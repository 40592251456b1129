"""Violations as text: the operation, the source lines and the remedy."""

from __future__ import annotations

import errno as codes
import linecache
import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tmpguard.core.callers import LIBRARIES, Location
from tmpguard.core.reports.report import Violation

#: Source lines shown before and after the line in question.
AROUND: Final = 2

#: The most paths that are listed for one line.
PATHS_SHOWN: Final = 5

_ADVICE: Final = 'To allow expected violations: @pytest.mark.tmpguard(allow=["EROFS", "*/pattern/of/a/path"])'
_ADVICE_AT_IMPORT: Final = (
    "To allow expected violations at import, in the ini file: tmpguard_allow = */pattern/of/a/path"
)


class Occurrence(NamedTuple):
    """A violation, the route of the request in which it occurred, and the first line of its view."""

    violation: Violation
    route: str
    view: Location | None = None


def printable(text: str) -> str:
    """``text`` in one line: the names in it may contain any characters."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def error_name(number: int) -> str:
    """``EROFS`` for 30."""
    return codes.errorcode.get(number, str(number))


def error_text(number: int) -> str:
    """``[Errno 30] EROFS: Read-only file system``."""
    return f"[Errno {number}] {error_name(number)}: {os.strerror(number)}"


def source_around(file: str, line: int, around: int = AROUND) -> list[tuple[int, str]]:
    """The source lines around ``line`` with their line numbers, without their common indentation.

    Empty if the source is not available.
    """
    lines = linecache.getlines(file)
    if not 0 < line <= len(lines):
        return []
    first, last = max(1, line - around), min(len(lines), line + around)
    shown = [(number, lines[number - 1].rstrip().expandtabs()) for number in range(first, last + 1)]
    cut = min((len(text) - len(text.lstrip()) for _, text in shown if text), default=0)
    return [(number, text[cut:]) for number, text in shown]


def short_file(file: str, root: str) -> str:
    """``file`` relative to ``root`` or to a library directory, if it is below one of them."""
    return _below((root.rstrip("/") + "/", *_libraries()), file)


def _libraries() -> list[str]:
    """The directories of libraries, those within others first."""
    return sorted(LIBRARIES, key=len, reverse=True)


def _below(directories: Iterable[str], file: str) -> str:
    """``file`` relative to the first of ``directories`` that it is in."""
    for directory in directories:
        if file.startswith(directory):
            return file[len(directory) :]
    return file


def place(location: Location, root: str) -> str:
    """``app/views.py:12 in upload``."""
    return f"{short_file(location.file, root)}:{location.line} in {location.function}"


class Group(NamedTuple):
    """Violations of one line that differ only in the path. ``view`` is that of the route, if it is known."""

    violation: Violation
    route: str
    view: Location | None
    paths: list[str]
    times: int


def package_of(file: str) -> str:
    """The package or module of a library that ``file`` is in: ``logging``."""
    return _below(_libraries(), file).lstrip("/").partition("/")[0].removesuffix(".py")


def grouped(occurrences: Iterable[Occurrence]) -> list[Group]:
    """``occurrences``, grouped by line and route; by path and library where no line is known."""
    groups: dict[object, Group] = {}
    for violation, route, view in occurrences:
        key: object = violation._replace(path="", remedy=""), route
        if violation.location is None and violation.library is not None:
            key = violation.errno, violation.path, package_of(violation.library.file), route
        group = groups.get(key) or Group(violation, route, view, [], 0)
        if violation.path not in group.paths:
            group.paths.append(violation.path)
        groups[key] = group._replace(times=group.times + 1)
    return list(groups.values())


def failure_text(
    occurrences: Sequence[Occurrence],
    late: Sequence[Occurrence],
    root: str,
    *,
    missing: Sequence[Occurrence] = (),
    marker: bool = True,
) -> str:
    """The failure message for these violations, late writes and missing files of other requests.

    Without ``marker``, it is that for an import.
    """
    parts = [_headline([*occurrences, *late, *missing], root)]
    parts += [group_text(group, root) for group in grouped(occurrences)]
    if late:
        parts.append("After the end of the request:")
        parts += [group_text(group, root) for group in grouped(late)]
    if missing:
        parts.append("Files that another request or the start-up had made:")
        parts += [group_text(group, root) for group in grouped(missing)]
    if occurrences or late:
        parts.append(_ADVICE if marker else _ADVICE_AT_IMPORT)
    return "\n\n".join(parts)


def _headline(occurrences: Sequence[Occurrence], root: str) -> str:
    """The first line, which pytest's short summary shows."""
    violation = occurrences[0].violation
    by = "" if violation.location is None else f" at {place(violation.location, root)}"
    more = f" (and {len(occurrences) - 1} more)" if len(occurrences) > 1 else ""
    return f"tmpguard: {error_name(violation.errno)} {violation.operation} {violation.path!r}{by}{more}"


def group_text(group: Group, root: str) -> str:
    violation = group.violation
    times = f" ({group.times} times)" if group.times > 1 else ""
    lines = [f"{violation.operation} {group.paths[0]!r}: {error_text(violation.errno)}{times}"]
    if len(group.paths) > 1:
        others = ", ".join(repr(path) for path in group.paths[1:PATHS_SHOWN])
        more = len(group.paths) - PATHS_SHOWN
        lines.append(f"  also:    {others}" + (f" and {more} more" if more > 0 else ""))
    lines.append(f"  in:      {group.route}")
    if violation.location is None:
        by = "" if group.view is None else f"; the view is {place(group.view, root)}"
        lines.append(f"  by:      no line of the application is known{by}")
    else:
        lines.append(f"  by:      {place(violation.location, root)}")
        lines += _source_text(violation.location)
    if violation.library is not None:
        lines.append(f"  through: {place(violation.library, root)}")
    if violation.remedy:
        lines.append(f"  remedy:  {printable(violation.remedy)}")
    return "\n".join(lines)


def _source_text(location: Location) -> list[str]:
    return [
        f"    {'>' if number == location.line else ' '} {number:>5} | {text}".rstrip()
        for number, text in source_around(location.file, location.line)
    ]
