"""Turns what the observer saw into violations: the application's line, and what to do (C2.3, C2.4)."""

from __future__ import annotations

import errno as codes
import os
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tmpguard.core.callers import Location
from tmpguard.core.layout import PACKAGE, is_below
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import Violation

Frame = tuple[str, int, str]

#: Files of Python's standard library and of installed packages, whatever Python the application runs on.
_LIBRARY: Final = re.compile(r"^<|/(site|dist)-packages/|/lib(64)?/python3\.\d+/|^node:|/node_modules/")
#: Where a library's own modules begin in a file's path.
_ROOTS: Final = re.compile(r".*/(?:(?:site|dist)-packages|lib(?:64)?/python3\.\d+(?:/lib-dynload)?)/")

#: What servers and programs try on their own and do without.
_NOISE: Final = re.compile(r"(^|/)(gunicorn\.ctl$|__pycache__(/|$))")
_CACHES: Final = re.compile(r"^/(home/[^/]+|root)/\.(cache|config|local|npm)(/|$)")


class Finding(NamedTuple):
    """What the observer saw: paths as given, the process, where it was, and the stack, innermost first."""

    operation: str
    code: int
    paths: tuple[str, ...]
    process: int
    program: str
    directory: str
    frames: tuple[Frame, ...]


class Circumstances(NamedTuple):
    """What a violation's text depends on. ``size`` in MB."""

    project: str
    has_package: bool
    size: int
    files: int | None
    starting: bool
    full_of_files: bool


def finding_of(message: Sequence[object]) -> Finding:
    """The finding in the observer's message."""
    operation, code, paths, process, program, directory, frames = message
    texts = tuple(os.fsdecode(path) for path in paths)  # type: ignore[attr-defined]
    shown = tuple(tuple(frame) for frame in frames)  # type: ignore[attr-defined]
    return Finding(operation, code, texts, process, program, directory, shown)  # type: ignore[arg-type]


def is_noise(finding: Finding) -> bool:
    """Whether nobody needs to know: a server's or a program's own attempt that it does without."""
    absolute = os.path.normpath(os.path.join(finding.directory, finding.paths[0] if finding.paths else ""))
    if _NOISE.search(absolute):
        return True
    origin = origin_of(finding.frames, "")[0]
    return origin is None and _CACHES.search(absolute) is not None


def origin_of(frames: Sequence[Frame], project: str) -> tuple[Location | None, Location | None]:
    """The application's line and that of the library that made the call, if one did."""
    own = next((frame for frame in frames if not _LIBRARY.search(frame[0])), None)
    library = frames[0] if frames and frames[0] is not own else None
    return _location(own, project), _location(library, project)


def _location(frame: Frame | None, project: str) -> Location | None:
    """The frame with the project's own path: the application runs in a copy of its mounts."""
    if frame is None:
        return None
    file = frame[0]
    if project and is_below(file, PACKAGE):
        file = project + file[len(PACKAGE) :]
    return Location(file, frame[1], frame[2])


def violation_of(finding: Finding, circumstances: Circumstances) -> Violation:
    """The violation that a report has."""
    path = finding.paths[0] if finding.paths else ""
    origin = origin_of(finding.frames, circumstances.project)
    package, functions = _library_of(finding.frames)
    remedy = remedies.advice(
        finding.operation,
        finding.code,
        path,
        _plain_remedy(finding, path, package, circumstances),
        project=finding.directory or circumstances.project,
        functions=functions,
        package=package,
        at_start=circumstances.starting,
    )
    return Violation(finding.operation, path, finding.code, *origin, remedy, finding.program)


def _plain_remedy(finding: Finding, path: str, package: str, circumstances: Circumstances) -> str:
    if finding.code == codes.ESTALE:
        return remedies.OVER
    if finding.code == codes.ENOSPC:
        if circumstances.full_of_files:
            return remedies.too_many_files(circumstances.files)
        return remedies.full(circumstances.size)
    change = remedies.Change(finding.operation, path, package)
    directory = finding.directory or circumstances.project
    absolute = os.path.normpath(os.path.join(directory, path))
    if circumstances.has_package and is_below(absolute, PACKAGE) and os.path.isabs(path):
        return remedies.in_bundle(change, absolute)
    if circumstances.starting:
        return remedies.at_start(change)
    return remedies.outside(change, directory)


def _library_of(frames: Sequence[Frame]) -> tuple[str, tuple[str, ...]]:
    """The installed package that made the call, "" for none, and the library functions on the way to it."""
    functions = []
    package = ""
    for file, _, function in frames:
        if not _LIBRARY.search(file):
            break
        module = _ROOTS.sub("", file).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        functions.append(f"{module}.{function}")
        if not package and re.search(r"/(site|dist)-packages/", file):
            package = module.partition(".")[0]
    return package, tuple(functions)
