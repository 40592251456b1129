"""``tmpguard run`` and ``tmpguard invoke``. What they need is imported when they are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from tmpguard.config.cli import command as group
from tmpguard.config.cli import project_file
from tmpguard.config.options import LIFETIMES, respelled
from tmpguard.config.platforms import PLANS, PLATFORMS
from tmpguard.core.errors import ConfigurationError

_Function = TypeVar("_Function", bound=Callable[..., None])

_MISSING: Final = "tmpguard run needs httptools: pip install 'tmpguard[run]'"


def _storage(function: _Function) -> _Function:
    """The options that both commands have."""
    for option in reversed(
        (
            click.option(
                "--storage-size", type=int, metavar="MB", help="The size of /tmp. Default: the platform's."
            ),
            click.option("--plan", type=click.Choice(list(PLANS)), default="free", show_default=True),
            click.option(
                "--platform", type=click.Choice(list(PLATFORMS)), default="genezio", show_default=True
            ),
            click.option(
                "--project", metavar="DIR", help="The directory that is deployed. Default: this one."
            ),
            click.option(
                "--writable",
                multiple=True,
                metavar="DIR",
                help="A directory that stays writable, without a limit.",
            ),
            click.option(
                "--start-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="S"
            ),
            click.option("--no-observer", is_flag=True, help="Enforce the storage, but report no refusals."),
        )
    ):
        function = option(function)
    return function


@group.command("run")
@_storage
@click.option("--instances", type=click.IntRange(1), metavar="N", help="At most. Default: 4.")
@click.option(
    "--concurrency", type=click.IntRange(1), metavar="C", help="Requests at once in each. Default: 1."
)
@click.option(
    "--lifetime", type=click.Choice(list(LIFETIMES)), help="When /tmp is wiped. Default: the platform's."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the port that the server asks for.")
@click.option(
    "--idle-timeout", type=click.FloatRange(0), metavar="S", help="Until an idle instance ends. Default: 60."
)
@click.option(
    "--request-timeout", type=click.FloatRange(0), metavar="S", help="For one request. Default: none."
)
@click.option("--queue-timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="S")
@click.option("--freeze", is_flag=True, help="Stop an instance between two requests, as AWS Lambda does.")
@click.option("--report", metavar="FILE", help="Write a report as FILE.json and FILE.html at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--no-dashboard", is_flag=True, help="Serve no page at /__tmpguard__/.")
@click.option("--reload", is_flag=True, help="Start anew when a file of the project changes.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG ...]]")
def run_command(
    command: tuple[str, ...], as_json: bool, report: str | None, reload: bool, **options: Any
) -> None:
    """Serve an application unchanged, in storage that the kernel enforces.

    COMMAND starts its server. Without one, the functions of the project's genezio.yaml are served.
    """
    try:
        from . import functions, supervisor, terminal
    except ModuleNotFoundError as exc:
        raise _missing(exc) from None
    try:
        with_dashboard = not options.pop("no_dashboard")
        given = functions.RunOptions(observer=not options.pop("no_observer"), **options)
        notes: list[str] = []
        if command:
            served = [functions.of_command(command, given)]
        else:
            served, notes = functions.of_project(given)
    except ConfigurationError as exc:
        raise _error(exc) from None
    shown = terminal.JsonLines() if as_json else terminal.Lines(served[0].settings.project)
    for note in notes:
        shown.say(note)
    raise SystemExit(
        supervisor.run(
            served,
            shown,
            host=given.host,
            report=report,
            reload=reload,
            with_dashboard=with_dashboard,
        )
    )


@group.command("invoke")
@_storage
@click.option(
    "--event", metavar="FILE", help="The event as JSON; - for standard input. Default: an empty object."
)
@click.option("--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print the result and the report as one JSON object.")
@click.option("--function", metavar="NAME", help="The function of the project file that has the handler.")
@click.option("--file", metavar="FILE", help="The project file. Default: the one in this directory.")
@click.argument("target", metavar="[MODULE:FUNCTION]", required=False)
def invoke_command(
    target: str | None,
    function: str | None,
    file: str | None,
    event: str | None,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a Python function handler once, in storage that the kernel enforces.

    Without MODULE:FUNCTION, it is the handler of a function in the project file, with the storage size, the
    bundle and the platform that the file gives.

    Its result goes to standard output, the report to standard error. Exits with status 1 if there was a
    finding or the handler raised an exception.
    """
    try:
        from . import functions, invoking
    except ModuleNotFoundError as exc:
        raise _missing(exc) from None
    if target is not None and (function is not None or file is not None):
        raise click.UsageError("give either MODULE:FUNCTION or --function and --file")
    if target is not None and not target.rpartition(":")[0]:
        raise click.UsageError(f"{target!r} is not MODULE:FUNCTION: give both, as in shop.handlers:resize")
    try:
        given = functions.RunOptions(observer=not options.pop("no_observer"), **options)
        if target is None:
            chosen, target = functions.of_handler(project_file(file), function, given)
        else:
            chosen = functions.of_command(functions.handler_command(target), given)
    except ConfigurationError as exc:
        raise _error(exc) from None
    raise SystemExit(invoking.invoke(chosen, target, _event(event), timeout, as_json=as_json))


def _event(name: str | None) -> bytes:
    if name is None:
        return b"{}"
    try:
        if name == "-":
            return sys.stdin.buffer.read()
        with open(name, "rb") as file:
            return file.read()
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        text = f"--event {name}: {reason}: give a file with the event as JSON, or - for standard input"
        raise click.ClickException(text) from None


def _error(exc: ConfigurationError) -> click.ClickException:
    """An error of an option, spelled as on the command line."""
    return click.ClickException(respelled(str(exc), "--{name} {value}").replace("--project=", "--project "))


def _missing(exc: ModuleNotFoundError) -> click.ClickException:
    if exc.name != "httptools":
        raise exc
    return click.ClickException(_MISSING)
