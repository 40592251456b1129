"""What ``tmpguard check`` finds in a project, for people and for machines."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.bundle import hidden_by
from tmpguard.core.mounts.ignore import IGNORE_FILE, Ignore

from . import genezio, projects, sam
from .platforms import Platform
from .project import Deployable
from .projects import Project
from .survey import BundleFinding, Survey, survey

#: Incremented when a key of the JSON is renamed, removed or changes its meaning; new keys may be added.
JSON_VERSION = 1


class CheckedFunction(NamedTuple):
    """One thing that the project deploys. ``size`` is in MB, None if the size given is not valid."""

    deployable: Deployable
    size: int | None
    error: str | None
    survey: Survey | None
    findings: tuple[BundleFinding, ...]


class Check(NamedTuple):
    """The results of a check. The deployment would refuse the project if there are any ``errors``."""

    file: str
    platform: Platform
    #: None where the platform has no plans.
    plan: str | None
    errors: tuple[str, ...]
    functions: tuple[CheckedFunction, ...]
    surveys: tuple[Survey, ...]

    def as_json(self) -> dict[str, Any]:
        """The machine-readable form; docs/genezio.md documents its keys."""
        return {
            "version": JSON_VERSION,
            "file": self.file,
            "platform": self.platform.name,
            "plan": self.plan,
            "valid": not self.errors,
            "errors": list(self.errors),
            "functions": [_function_as_json(function) for function in self.functions],
            "bundles": [_survey_as_json(one) for one in self.surveys],
        }


def check(path: str, plan: str) -> Check:
    """Check the project of the project file ``path``, or of the directory ``cdk.out``.

    Does not raise for errors in the project.
    """
    try:
        project = projects.read(path)
    except ConfigurationError as exc:
        platform = _platform_of(path)
        return Check(path, platform, plan if platform.plans else None, (str(exc),), (), ())
    return _Checker(path, project, plan).check()


def _platform_of(path: str) -> Platform:
    """The platform of a file that could not be read, by its name."""
    known = (*projects.NAMES[1:], ".template", ".template.json")
    return sam.PLATFORM if path.endswith(known) else genezio.PLATFORM


class _Checker:
    """Checks the project of one file, in which several functions may have the same bundle."""

    def __init__(self, path: str, project: Project, plan: str) -> None:
        self._path = path
        self._project = project
        self._platform = project.platform
        self._plan = plan
        self._errors: list[str] = []
        #: By the directory and the patterns: functions that are packaged apart have different ones.
        self._surveys: dict[tuple[str, object], Survey] = {}
        self._has_ignore = project.platform is genezio.PLATFORM
        directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        self._beside = self._ignore_in(directory)

    def check(self) -> Check:
        functions = []
        for one in self._project.functions:
            function = self._function(one)
            functions.append(function)
            self._errors += [function.error] if function.error else []
        errors = tuple(dict.fromkeys(self._errors))
        plan = self._plan if self._platform.plans else None
        return Check(
            self._path, self._platform, plan, errors, tuple(functions), tuple(self._surveys.values())
        )

    def _ignore_in(self, directory: str) -> Ignore | None:
        name = os.path.join(directory, IGNORE_FILE)
        if not self._has_ignore or not os.path.lexists(name):
            return None
        try:
            return Ignore.read(name)
        except ConfigurationError as exc:
            self._errors.append(str(exc))
            return None

    def _function(self, one: Deployable) -> CheckedFunction:
        size = seen = error = None
        ignore = one.ignore or self._beside
        findings: tuple[BundleFinding, ...] = ()
        try:
            if one.size_is_computed:
                findings = (_computed(one),)
            else:
                size = one.size(self._plan, self._platform) or self._platform.default
        except ConfigurationError as exc:
            error = str(exc)
        try:
            directory = one.existing_directory()
            if directory is not None:
                directory = os.path.realpath(directory)
                ignore = ignore or self._ignore_in(directory)
                hidden_by(ignore, directory, ())  # raises if a line ignores the whole bundle
                key = directory, ignore.rules if ignore is not None else None
                seen = self._surveys.get(key) or survey(directory, ignore, self._project.left_out)
                self._surveys[key] = seen
        except ConfigurationError as exc:
            error = error or str(exc)
        findings += tuple(BundleFinding("pattern", f"line {line}", text) for line, text in one.unevaluated)
        if seen is not None:
            findings += seen.findings
            if (missing := _missing_entry(one, seen, ignore)) is not None:
                findings = (missing, *findings)
        return CheckedFunction(one, size, error, seen, findings)


def _computed(one: Deployable) -> BundleFinding:
    assert one.size_node is not None
    where = f"line {one.size_node.line}"
    return BundleFinding("size", where, f"the size is {one.size_node.described()}: it was not checked")


def _missing_entry(one: Deployable, seen: Survey, ignore: Ignore | None) -> BundleFinding | None:
    if one.entry is None:
        return None
    full = os.path.join(seen.directory, one.entry)
    if not os.path.isfile(full):
        return BundleFinding("entry", one.entry, "the entry file does not exist")
    base = os.path.dirname(ignore.file) if ignore is not None else ""
    rule = ignore.match(os.path.relpath(full, base), False) if ignore is not None else None
    return (
        None if rule is None else BundleFinding("entry", one.entry, f"the entry file is left out by {rule}")
    )


def _function_as_json(function: CheckedFunction) -> dict[str, Any]:
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
