"""What ``tmpguard check`` finds in a project, for people and for machines."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.bundle import hidden_by
from tmpguard.core.mounts.ignore import NAME as IGNORE_FILE
from tmpguard.core.mounts.ignore import Ignore

from . import genezio
from .project import Deployable
from .survey import Finding, Survey, survey

#: Incremented when a key of the JSON is renamed, removed or changes its meaning; new keys may be added.
JSON_VERSION = 1


class Function(NamedTuple):
    """One thing that the project deploys. ``size`` is in MB, None if the size given is not valid."""

    deployable: Deployable
    size: int | None
    error: str | None
    survey: Survey | None
    findings: tuple[Finding, ...]


class Check(NamedTuple):
    """The results of a check. The deployment would refuse the project if there are any ``errors``."""

    file: str
    plan: str
    errors: tuple[str, ...]
    functions: tuple[Function, ...]
    surveys: tuple[Survey, ...]

    def as_json(self) -> dict[str, Any]:
        """The machine-readable form; docs/genezio.md documents its keys."""
        return {
            "version": JSON_VERSION,
            "file": self.file,
            "plan": self.plan,
            "valid": not self.errors,
            "errors": list(self.errors),
            "functions": [_function_as_json(function) for function in self.functions],
            "bundles": [_survey_as_json(one) for one in self.surveys],
        }


def check(path: str, plan: str) -> Check:
    """Check the project of the ``genezio.yaml`` at ``path``. Does not raise for errors in the project."""
    try:
        found = genezio.read(path)
    except ConfigurationError as exc:
        return Check(path, plan, (str(exc),), (), ())
    errors: list[str] = []
    beside = _ignore_in(os.path.realpath(os.path.dirname(os.path.abspath(path))), errors)
    functions = []
    surveys: dict[str, Survey] = {}
    for one in found:
        function = _function(one, plan, beside, surveys, errors)
        functions.append(function)
        errors += [function.error] if function.error else []
    unique = tuple(dict.fromkeys(errors))
    return Check(path, plan, unique, tuple(functions), tuple(surveys.values()))


def _ignore_in(directory: str, errors: list[str]) -> Ignore | None:
    name = os.path.join(directory, IGNORE_FILE)
    if not os.path.lexists(name):
        return None
    try:
        return Ignore.read(name)
    except ConfigurationError as exc:
        errors.append(str(exc))
        return None


def _function(
    one: Deployable, plan: str, beside: Ignore | None, surveys: dict[str, Survey], errors: list[str]
) -> Function:
    size = seen = None
    ignore = beside
    error = None
    try:
        size = one.size(plan, genezio.PLATFORM) or genezio.PLATFORM.default
    except ConfigurationError as exc:
        error = str(exc)
    try:
        directory = one.existing_directory()
        if directory is not None:
            directory = os.path.realpath(directory)
            ignore = beside or _ignore_in(directory, errors)
            hidden_by(ignore, directory, ())  # raises if a line ignores the whole bundle
            seen = surveys.get(directory) or survey(directory, ignore)
            surveys[directory] = seen
    except ConfigurationError as exc:
        error = error or str(exc)
    findings = seen.findings if seen is not None else ()
    if seen is not None and (missing := _missing_entry(one, seen, ignore)) is not None:
        findings = (missing, *findings)
    return Function(one, size, error, seen, findings)


def _missing_entry(one: Deployable, seen: Survey, ignore: Ignore | None) -> Finding | None:
    if one.entry is None:
        return None
    full = os.path.join(seen.directory, one.entry)
    if not os.path.isfile(full):
        return Finding("entry", one.entry, "the entry file does not exist")
    base = os.path.dirname(ignore.file) if ignore is not None else ""
    rule = ignore.match(os.path.relpath(full, base), False) if ignore is not None else None
    return None if rule is None else Finding("entry", one.entry, f"the entry file is left out by {rule}")


def _function_as_json(function: Function) -> dict[str, Any]:
    one = function.deployable
    return {
        "kind": one.kind,
        "name": one.name,
        "line": one.node.line,
        "storage_size_mb": function.size,
        "storage_size_line": one.size_node.line if one.size_node is not None else None,
        "entry": one.entry,
        "handler": one.handler,
        "max_concurrent_requests": one.concurrency,
        "bundle": function.survey.directory if function.survey is not None else None,
        "error": function.error,
        "findings": [finding._asdict() for finding in function.findings],
    }


def _survey_as_json(one: Survey) -> dict[str, Any]:
    return {
        "directory": one.directory,
        "ignore_file": one.ignore_file,
        "files": one.files,
        "bytes": one.bytes,
        "largest": [{"path": path, "bytes": size} for size, path in one.largest],
        "ignored": [
            {
                "line": left_out.rule.line,
                "pattern": left_out.rule.pattern,
                "paths": left_out.paths,
                "examples": list(left_out.examples),
            }
            for left_out in one.left_out
        ],
    }
