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

from tmpguard.core.version import __version__

from .check import Check, Function, check
from .genezio import NAME
from .platforms import PLANS
from .survey import Finding, Survey

_FINDINGS: Final = 30
_UNFOLDED: Final = 10_000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tmpguard")
def command() -> None:
    """Give each request of a web application the file system of a serverless function."""


@command.command("check")
@click.argument("path", default=NAME, type=click.Path(exists=True, dir_okay=False), metavar="[GENEZIO.YAML]")
@click.option("--plan", type=click.Choice(list(PLANS)), default="free", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check_project(path: str, plan: str, as_json: bool) -> None:
    """Check a Genezio project before deployment: sizes, bundle, ignored files, and what may fail.

    Exits with status 1 if the deployment would refuse the project.
    """
    result = check(path, plan)
    _write(json.dumps(result.as_json(), indent=2) if as_json else _rendered(result))
    raise SystemExit(1 if result.errors else 0)


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


def _write(text: str) -> None:
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


def shown(text: str) -> str:
    """``text`` with everything escaped that the output cannot show: a file can have any name."""
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
    return escaped.encode(_encoding(), "backslashreplace").decode(_encoding())


def _print(result: Check, console: Console) -> None:
    seen: set[str] = set()
    for function in result.functions:
        _print_function(function, result.plan, console)
        if function.survey is not None and function.survey.directory not in seen:
            seen.add(function.survey.directory)
            _print_survey(function.survey, console)
        _print_findings(function.findings, console)
        console.print()
    console.print(_labelled([(("error", "bold red"), error) for error in result.errors], indent=0))
    if not result.errors:
        count = len({finding for function in result.functions for finding in function.findings})
        summary = f"{count} {'finding' if count == 1 else 'findings'}" if count else "nothing to report"
        if not result.functions:
            summary = "nothing it deploys has a /tmp"
        console.print(Text(f"No errors; {summary}.", style="bold"))


def _print_function(function: Function, plan: str, console: Console) -> None:
    one = function.deployable
    title = Text.assemble((f"{one.kind} ", "bold"), (shown(one.name), "bold cyan"))
    title.append(f"  ({shown(one.node.file.path)}:{one.node.line})", style="dim")
    console.print(title)
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    if function.size is not None:
        given = f"line {one.size_node.line}" if one.size_node is not None else "not given"
        rows.add_row("/tmp", f"{function.size} MB ({given}, plan {plan})")
    for label, value in (("entry", one.entry), ("handler", one.handler), ("concurrency", one.concurrency)):
        if value is not None:
            rows.add_row(label, Text(shown(str(value))))
    if function.survey is not None:
        rows.add_row("bundle", Text(shown(function.survey.directory)))
        files = f"{function.survey.files:,} files, {amount(function.survey.bytes)}"
        rows.add_row("", files)
    console.print(rows)


def _print_survey(one: Survey, console: Console) -> None:
    if one.left_out:
        table = _table(
            f"left out by {os.path.basename(one.ignore_file or '')}", "line", "pattern", "paths", "such as"
        )
        for left_out in one.left_out:
            examples = ", ".join(map(shown, left_out.examples))
            pattern = Text(shown(left_out.rule.pattern))
            table.add_row(str(left_out.rule.line), pattern, f"{left_out.paths:,}", Text(examples))
        console.print(table)
    if one.largest:
        table = _table("largest files", "size", "path")
        for size, path in one.largest:
            table.add_row(amount(size), Text(shown(path)))
        console.print(table)


def _print_findings(findings: tuple[Finding, ...], console: Console) -> None:
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
        table.add_row(Text(" " * indent).append(label, style), Text(shown(text)))
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
