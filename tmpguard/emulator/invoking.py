"""``tmpguard invoke``: one call of a Python function handler, in an instance of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import click

from tmpguard.reporting import summary

from .functions import Function
from .instance import KernelInstance
from .ledger import Ledger
from .protocols import StartFailed
from .supervisor import MB


class Result(NamedTuple):
    """What the handler returned, as JSON, and whether it raised no exception."""

    text: str
    succeeded: bool


def invoke(function: Function, target: str, event: bytes, timeout: float, *, as_json: bool) -> int:
    """Call the handler once and print its result and the report. Returns the exit status."""
    try:
        json.loads(event)
    except ValueError as exc:
        raise click.ClickException(f"--event is not JSON: {exc}") from None
    try:
        result, data = asyncio.run(_invoke(function, target, event, timeout))
    except StartFailed as exc:
        if exc.output:
            click.echo(exc.output, err=True)
        raise click.ClickException(f"{target}: {exc}" + (f"\n{exc.way_out}" if exc.way_out else "")) from None
    except TimeoutError:
        raise click.ClickException(f"{target} took longer than {timeout:g} s") from None
    if as_json:
        answer = {"result" if result.succeeded else "error": json.loads(result.text), "report": data}
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(result.text, err=not result.succeeded)
        click.echo("\n".join(summary.lines(data, verbosity=0)), err=True)
    found = data["totals"]["violations"] or data["totals"]["late_writes"]
    return 1 if found or not result.succeeded else 0


async def _invoke(
    function: Function, target: str, event: bytes, timeout: float
) -> tuple[Result, dict[str, Any]]:
    settings = replace(function.settings, on_output=_on_output)
    instance = KernelInstance(settings)
    ledger = Ledger(settings.storage_size * MB, settings.project, target)
    ledger.add_start(await instance.start())
    try:
        instance.begin()
        result = await asyncio.wait_for(_call(instance.address, event), timeout)
        ledger.add_request(target, instance.finish())
        # What still runs has a moment to show itself.
        await asyncio.sleep(0.05)
        ledger.add_late_writes(target, instance.begin())
    finally:
        await instance.stop(1.0)
    return result, ledger.data()


async def _call(address: tuple[str, int], event: bytes) -> Result:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(event), event))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if not head:
        return Result(json.dumps("the process ended before the handler returned"), False)
    return Result(body.decode(), b" 200 " in head.partition(b"\r\n")[0])


def _on_output(line: str, stream: str) -> None:
    print(line, file=sys.stderr, flush=True)
