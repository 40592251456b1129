"""``tmpguard report``: merges the reports of many runs and processes into one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import click

from tmpguard.config.cli import command as group
from tmpguard.config.cli import escaped, write
from tmpguard.core.errors import ConfigurationError

from . import output as files
from . import summary
from .merging import Merger, read


class _Unusable(click.ClickException):
    exit_code = 2

    def format_message(self) -> str:
        return escaped(self.message)


@group.command("report")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print the merged report as JSON.")
@click.option(
    "--output",
    metavar="FILE",
    help="Write a page to FILE; JSON if its name ends with .json, or with --json.",
)
@click.option("-v", "--verbose", is_flag=True, help="List all routes and tests, not only the fullest.")
def report_command(files: tuple[str, ...], as_json: bool, output: str | None, verbose: bool) -> None:
    """Merge reports of many processes and days, and list what to mend.

    FILE is the JSON of pytest --tmpguard-report and tmpguard run --report, the file of a tmpguard.ReportFile
    in production, or what an earlier --json has printed.

    Exits with status 2 for a file that is no report.
    """
    paths = _different(files)
    if output is not None and os.path.realpath(output) in map(os.path.realpath, paths):
        raise click.UsageError(f"--output {output} is one of the files to merge: give another file")
    try:
        data = merged(paths)
    except ConfigurationError as exc:
        raise _Unusable(str(exc)) from None
    if output is not None:
        _write_to(output, data, as_json=as_json)
    elif as_json:
        write(json.dumps(data, indent=1))
    if output is not None or not as_json:
        lines = summary.lines(data, verbosity=int(verbose))
        write("\n".join(map(escaped, lines)))
    if output is not None:
        write(f"\nwritten: {escaped(output)}")


def merged(paths: Iterable[str]) -> summary.Data:
    """The reports in these files, as one. Raises ConfigurationError for a file that is no report."""
    merger = Merger()
    for path in paths:
        for report in read(path, lambda text: click.echo(f"tmpguard: {escaped(text)}", err=True)):
            merger.add(report)
    return merger.data()


def _different(files: Iterable[str]) -> list[str]:
    """``files``, each once, however often and by whichever name it is given."""
    return list({os.path.realpath(file): file for file in files}.values())


def _write_to(output: str, data: summary.Data, *, as_json: bool) -> None:
    try:
        files.write_one(data, output, as_json=as_json or output.endswith(".json"))
    except OSError as exc:
        raise _Unusable(f"--output {output}: {exc.strerror}: give a file that can be written") from None
