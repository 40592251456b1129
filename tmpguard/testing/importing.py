"""``tmpguard import MODULE``: what would be refused while an application is imported, before any request."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final

import click

from tmpguard.config.cli import command as group
from tmpguard.config.options import Options, respelled
from tmpguard.config.platforms import PLANS, PLATFORMS
from tmpguard.core.callers import Location
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.layout import SOURCE_ROOT
from tmpguard.core.reports.report import Report, Violation
from tmpguard.guard import cold_start
from tmpguard.reporting.violations import Occurrence, error_name, group_text, grouped, place, source_around

_IMPORTER: Final = (SOURCE_ROOT, os.path.dirname(importlib.__file__), "<frozen importlib")


@group.command("import")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option("--storage-size", type=int, metavar="MB", help="The size of /tmp. Default: the platform's.")
@click.option("--plan", type=click.Choice(list(PLANS)), help="Genezio's plan. Default: free.")
@click.option("--platform", type=click.Choice(list(PLATFORMS)), help="Default: genezio.")
@click.option("--enforce", is_flag=True, help="Refuse what the platform refuses, instead of only listing it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_modules(modules: tuple[str, ...], enforce: bool, as_json: bool, **given: Any) -> None:
    """Import an application as a cold start, and list what would be refused.

    MODULE is what the server imports, such as shop.main or mysite.wsgi. The working directory is searched for
    it first. Without --enforce, the import goes on after a finding, and so makes the files that it makes.

    Exits with status 1 if there is a finding or the import fails.
    """
    sys.path.insert(0, os.getcwd())
    findings = logging.getLogger("tmpguard")
    findings.addHandler(logging.NullHandler())  # they are listed at the end
    findings.propagate = False
    options: Options = {"enforce": enforce}
    options.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    try:
        start = cold_start(**options)
    except ConfigurationError as exc:
        raise click.UsageError(respelled(str(exc), "--{name} {value}")) from None
    failure = ""
    loaded = [name for name in modules if name in sys.modules]
    with start:
        try:
            for name in modules:
                importlib.import_module(name)
        except (Exception, SystemExit) as exc:
            failure = _told(exc)
    report = start.report
    name = ", ".join(modules)
    if as_json:
        click.echo(json.dumps(_as_data(name, report, failure), indent=2))
    else:
        click.echo("\n\n".join(_as_text(name, report, failure, loaded)))
    raise SystemExit(1 if failure or report.violations else 0)


def _told(error: BaseException) -> str:
    """The traceback of an import that failed, without the frames of tmpguard and of the importer."""
    told: traceback.TracebackException | None
    told = whole = traceback.TracebackException.from_exception(error)
    while told is not None:
        frames = [frame for frame in told.stack if not frame.filename.startswith(_IMPORTER)]
        told.stack = traceback.StackSummary.from_list(frames)
        told = told.__cause__ or told.__context__
    return "".join(whole.format()).rstrip()


def _as_text(name: str, report: Report, failure: str, loaded: list[str]) -> Iterator[str]:
    root = os.getcwd()
    found = [Occurrence(violation, f"import of {name}") for violation in report.violations]
    yield from (group_text(group, root) for group in grouped(found))
    for child in report.unguarded_children:
        at = "" if child.location is None else f" at {place(child.location, root)}"
        yield f"{child.operation} {child.program!r}{at}: a child process, which was not guarded"
    if loaded:
        yield f"{', '.join(loaded)}: loaded by tmpguard itself before, so nothing of it was seen"
    if failure:
        yield f"the import failed:\n{failure}"
    count = len(report.violations)
    until = ", until it failed" if failure else ""
    yield f"{name}: {count or 'no'} {'finding' if count == 1 else 'findings'} at import{until}"


def _as_data(name: str, report: Report, failure: str) -> dict[str, Any]:
    return {
        "version": 1,
        "module": name,
        "failure": failure or None,
        "findings": [_finding(violation) for violation in report.violations],
        "children": [
            {
                **child._asdict(),
                "location": _location(child.location),
                "library": _location(child.library),
            }
            for child in report.unguarded_children
        ],
    }


def _finding(violation: Violation) -> dict[str, Any]:
    return {
        "operation": violation.operation,
        "path": violation.path,
        "errno": violation.errno,
        "error": error_name(violation.errno),
        "location": _location(violation.location),
        "library": _location(violation.library),
        "remedy": violation.remedy or None,
    }


def _location(found: Location | None) -> dict[str, Any] | None:
    if found is None:
        return None
    source = [{"line": line, "text": text} for line, text in source_around(found.file, found.line)]
    return {**found._asdict(), "source": source}
