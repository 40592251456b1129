"""The command line, built on click and rich. :mod:`tmpguard.__main__` imports it if both are installed."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tmpguard.core.speedups import extension
from tmpguard.core.version import __version__

from . import cdk, projects
from .check import Check, CheckedFunction, check
from .options import respelled
from .platforms import PLANS
from .survey import BundleFinding, Survey

_FINDINGS: Final = 30
_UNFOLDED: Final = 10_000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="tmpguard",
    message=f"%(prog)s %(version)s, {'without' if extension is None else 'with'} its C extension",
)
def command() -> None:
    """Give each request of a web application the file system of a serverless function."""


@command.command("check")
@click.argument("paths", nargs=-1, type=click.Path(exists=True), metavar="[FILE ...]")
@click.option(
    "--plan", type=click.Choice(list(PLANS)), default="free", show_default=True, help="Genezio's plan."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 also if there are findings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check_project(paths: tuple[str, ...], plan: str, strict: bool, as_json: bool) -> None:
    """Check a project before deployment: sizes, bundles, ignored files, and what may fail.

    FILE is a Genezio project's genezio.yaml, a serverless.yml, a template of AWS SAM or CloudFormation (YAML
    or JSON), or the directory cdk.out. Without it, the first of these in the working directory is checked:
    genezio.yaml, serverless.yml, template.yaml, template.json, cdk.out.

    Exits with status 1 if the deployment would refuse the project.
    """
    results = [_checked(project_file(path), plan) for path in paths or (None,)]
    if as_json:
        found = [result.as_json() for result in results]
        write(json.dumps(found if len(found) > 1 else found[0], indent=2))
    else:
        write("\n\n".join(map(_rendered, results)))
    raise SystemExit(1 if any(one.errors or (strict and _findings(one)) for one in results) else 0)


def _checked(path: str, plan: str) -> Check:
    result = check(path, plan)
    return result._replace(errors=tuple(respelled(error, "--{name} {value}") for error in result.errors))


def _findings(result: Check) -> int:
    """The number of different findings."""
    return len({finding for function in result.functions for finding in function.findings})


def project_file(path: str | None) -> str:
    """The project file ``path``, or the one in that directory, by default the working directory."""
    if path is not None and (os.path.isfile(path) or cdk.is_assembly(path)):
        return path
    found = projects.found_in(path or ".")
    if found is None:
        raise click.UsageError(f"{projects.missing(path or '.')}: give the project file")
    return found


def _rendered(result: Check) -> str:
    # Paths are folded only on a terminal: piped output must stay searchable.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    output = io.TextIOWrapper(io.BytesIO(), _encoding(), newline="")
    console = Console(
        file=output,
        force_terminal=is_terminal or None,
        width=None if is_terminal else _UNFOLDED,
        highlight=False,
    )
    _print(result, console)
    output.seek(0)
    return "\n".join(line.rstrip() for line in output.read().splitlines())


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def write(text: str) -> None:
    """Write ``text`` to standard output. An error in writing says nothing about the project."""
    try:
        click.echo(text, color=True)
    except BrokenPipeError:
        # The reader has stopped reading. The interpreter flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:
        click.echo(f"Error: cannot write the output: {exc.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(2) from None


def escaped(text: str) -> str:
    """``text`` with everything escaped that the output cannot show: a file can have any name."""
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return text.encode(_encoding(), "backslashreplace").decode(_encoding())


def _print(result: Check, console: Console) -> None:
    seen: set[str] = set()
    for function in result.functions:
        _print_function(function, result, console)
        if function.survey is not None and function.survey.directory not in seen:
            seen.add(function.survey.directory)
            _print_survey(function.survey, console)
        _print_findings(function.findings, console)
        console.print()
    console.print(_labelled([(("error", "bold red"), error) for error in result.errors], indent=0))
    if not result.errors:
        count = _findings(result)
        summary = f"{count} {'finding' if count == 1 else 'findings'}" if count else "nothing to report"
        if not result.functions:
            summary = "nothing it deploys has a /tmp"
        console.print(Text(f"No errors; {summary}.", style="bold"))


def _print_function(function: CheckedFunction, result: Check, console: Console) -> None:
    one = function.deployable
    title = Text.assemble((f"{one.kind} ", "bold"), (escaped(one.name), "bold cyan"))
    title.append(f"  ({escaped(one.node.file.path)}:{one.node.line})", style="dim")
    console.print(title)
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    if function.size is not None:
        given = f"line {one.size_node.line}" if one.size_node is not None else "not given"
        allowed_by = f"plan {result.plan}" if result.plan else f"platform {result.platform.name}"
        rows.add_row("/tmp", f"{function.size} MB ({given}, {allowed_by})")
    for label, value in (("entry", one.entry), ("handler", one.handler), ("concurrency", one.concurrency)):
        if value is not None:
            rows.add_row(label, Text(escaped(str(value))))
    if function.survey is not None:
        rows.add_row("bundle", Text(escaped(function.survey.directory)))
        files = f"{function.survey.files:,} files, {amount(function.survey.bytes)}"
        rows.add_row("", files)
    console.print(rows)


def _print_survey(one: Survey, console: Console) -> None:
    if one.left_out:
        table = _table(
            f"left out by {os.path.basename(one.ignore_file or '')}", "line", "pattern", "paths", "such as"
        )
        for left_out in one.left_out:
            examples = ", ".join(map(escaped, left_out.examples))
            pattern = Text(escaped(left_out.rule.pattern))
            line = str(left_out.rule.line or "default")
            table.add_row(line, pattern, f"{left_out.paths:,}", Text(examples))
        console.print(table)
    if one.largest:
        table = _table("largest files", "size", "path")
        for size, path in one.largest:
            table.add_row(amount(size), Text(escaped(path)))
        console.print(table)


def _print_findings(findings: tuple[BundleFinding, ...], console: Console) -> None:
    rows = [((one.kind, "bold yellow"), f"{one.path}: {one.message}") for one in findings[:_FINDINGS]]
    console.print(_labelled(rows, indent=2))
    if len(findings) > _FINDINGS:
        console.print(f"  and {len(findings) - _FINDINGS:,} more: --json lists them all")


def _labelled(rows: list[tuple[tuple[str, str], str]], *, indent: int) -> Table:
    """A table of texts, each after its styled label."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (label, style), text in rows:
        table.add_row(Text(" " * indent).append(label, style), Text(escaped(text)))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column in ("line", "paths", "size")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def amount(size: int) -> str:
    """A size in bytes in a readable unit."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KB", "MB", "GB"):
        value /= 1024
        if value < 1024 or unit == "GB":
            break
    return f"{value:,.1f} {unit}"
