"""What a run shows: a line for each request, the application's own output, and a live line of status.

Lines are collected and written a few times a second: a request does not wait for the terminal.
"""

from __future__ import annotations

import asyncio
import errno as codes
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol, TextIO

from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from tmpguard.config.cli import escaped
from tmpguard.core.reports.report import Violation
from tmpguard.reporting import summary
from tmpguard.reporting.summary import number, size
from tmpguard.reporting.tally import finding_data
from tmpguard.reporting.violations import short_file

from .http.turns import Done
from .protocols import Span, StartFailed

Data = dict[str, Any]

#: Seconds between two writes.
PAUSE: Final = 0.05
#: Request lines without findings that one write shows in whole; more are counted.
AT_ONCE: Final = 100
#: Findings of one request that are shown in whole.
_FINDINGS: Final = 10
_BAR: Final = 8
_PATH: Final = 40


class Status(NamedTuple):
    """For the live line, of all functions together."""

    instances: int
    most: int
    busy: int
    waiting: int
    restarts: int
    requests: int
    violations: int


class Line:
    """Text in styles. rich's own takes twenty times as long to write, as it looks where to break lines."""

    __slots__ = ("_segments",)

    def __init__(self, text: str = "", style: str = "") -> None:
        self._segments: list[Segment] = []
        self.append(text, style)

    def append(self, text: str, style: str = "") -> Line:
        """Go on with ``text``."""
        if text:
            self._segments.append(Segment(text, Style.parse(style) if style else None))
        return self

    def append_line(self, line: Line) -> None:
        """Go on with the text of another one."""
        self._segments += line._segments

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        return self._segments


class _Lines:
    """Lines one below the other."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in self._lines:
            yield from line.__rich_console__(console, options)
            yield _NEW_LINE


_NEW_LINE: Final = Segment.line()


class Terminal(Protocol):
    """Where a run is shown. ``name`` is the function's, "" if there is only one."""

    def say(self, text: str, *, trouble: bool = False) -> None: ...

    def listening(self, name: str, address: str, command: str, about: str) -> None: ...

    def started(self, name: str, instance: int, span: Span, seconds: float) -> None: ...

    def start_failed(self, name: str, failed: StartFailed, *, last: bool) -> None:
        """``last``: the run ends with it."""
        ...

    def ended(self, name: str, instance: int, reason: str, *, crashed: bool) -> None: ...

    def request(self, name: str, route: str, done: Done, quota: int, when: float) -> None: ...

    def late_writes(self, name: str, instance: int, violations: tuple[Violation, ...]) -> None: ...

    def output(self, name: str, instance: int, stream: str, line: str) -> None: ...

    def summary(self, data: Data, written: list[str]) -> None: ...

    def open(self, status: Callable[[], Status]) -> None: ...

    def close(self) -> None: ...


class Lines:
    """For people."""

    def __init__(self, root: str, file: TextIO | None = None) -> None:
        self._root = root
        self._console = Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._live: Live | None = None
        self._status: Callable[[], Status] | None = None
        #: What is to be shown, as functions that make the lines when they are written; and whether it may be
        #: left out among very many.
        self._pending: list[tuple[Callable[[], Iterable[Line]], bool]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._last_status: Status | None = None
        #: The findings whose remedy and line have been shown.
        self._known: set[tuple[object, ...]] = set()
        self._broken = False

    # --- writing ---

    def open(self, status: Callable[[], Status]) -> None:
        self._status = status
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self._tick()

    def _tick(self) -> None:
        """Keep the line of status current."""
        self.flush()
        self._timer = asyncio.get_running_loop().call_later(5 * PAUSE, self._tick)

    def _add(self, *lines: Line) -> None:
        self._add_later(lambda: lines)

    def _add_later(self, lines: Callable[[], Iterable[Line]], *, routine: bool = False) -> None:
        self._pending.append((lines, routine))
        if self._live is not None:
            return
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(PAUSE, self.flush)
            except RuntimeError:  # before or after the loop
                self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        if self._live is None:
            self._timer = None
        pending, self._pending = self._pending, []
        if self._broken:
            return
        try:
            if pending:
                self._console.print(_Lines(_thinned(pending)), end="")
            self._show_status()
        except (OSError, SystemExit):  # which is what rich makes of a broken pipe
            self._broken = True  # nobody reads any more

    def _show_status(self) -> None:
        if self._live is None or self._status is None:
            return
        status = self._status()
        if status != self._last_status:
            self._last_status = status
            self._live.update(_status_line(status), refresh=True)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        self.flush()

    # --- what is shown ---

    def say(self, text: str, *, trouble: bool = False) -> None:
        self._add(Line(f"tmpguard: {shown_lines(text)}", style="bold red" if trouble else "bold"))

    def listening(self, name: str, address: str, command: str, about: str) -> None:
        label = f"{name}: " if name else ""
        line = Line(f"tmpguard: {label}", "bold").append(address, "bold cyan")
        line.append(f"  {escaped(command)}", style="bold")
        line.append(f"  {about}", style="dim")
        self._add(line)

    def started(self, name: str, instance: int, span: Span, seconds: float) -> None:
        what = f"instance {instance} is ready after {_seconds(seconds)}"
        if span.peak_bytes:
            what += f", /tmp had {size(span.peak_bytes)} in {number(span.files, 'file')} of the start-up"
        self._add(Line(f"{_label(name)}{what}", style="dim"))
        self._findings(span.violations, "at the start-up")

    def start_failed(self, name: str, failed: StartFailed, *, last: bool) -> None:
        for line in failed.output.splitlines()[-20:]:
            self._add(Line(f"  | {escaped(line)}"))
        self.say(
            f"{_label(name)}{'cannot start' if last else 'an instance cannot start'}: {failed}", trouble=True
        )
        if failed.way_out:
            self._add(Line(f"  {escaped(failed.way_out)}"))

    def ended(self, name: str, instance: int, reason: str, *, crashed: bool) -> None:
        text = f"{_label(name)}instance {instance} has ended: {reason}"
        if crashed:
            self.say(text, trouble=True)
        else:
            self._add(Line(text, style="dim"))

    def request(self, name: str, route: str, done: Done, quota: int, when: float) -> None:
        routine = not done.span.violations and not done.trouble
        self._add_later(lambda: self._request_lines(name, done, quota, when), routine=routine)

    def _request_lines(self, name: str, done: Done, quota: int, when: float) -> Iterator[Line]:
        target = escaped(done.target)
        if len(target) > _PATH:
            target = target[: _PATH - 1] + "…"
        line = Line()
        line.append(time.strftime("%H:%M:%S ", time.localtime(when)), style="dim")
        line.append(f"{name} " if name else "", style="cyan")
        line.append(f"{done.method:<6} {target:<{_PATH}} ")
        line.append(f"{done.status} ", style=_style_of(done.status))
        line.append(f"{_seconds(done.seconds):>8} ", style="dim")
        line.append_line(_bar(done.span.peak_bytes, quota))
        found = len(done.span.violations)
        if found:
            line.append(f"  {number(found, 'finding')}", style="bold red")
        if done.span.files:
            line.append(f"  {number(done.span.files, 'file')} left", style="dim")
        if done.waited >= 0.05:
            line.append(f"  waited {_seconds(done.waited)}", style="yellow")
        if done.trouble:
            line.append(f"  {escaped(done.trouble)}", style="yellow")
        yield line
        yield from self._finding_lines(
            done.span.violations, "in one of the requests that ran" if done.shared else ""
        )

    def late_writes(self, name: str, instance: int, violations: tuple[Violation, ...]) -> None:
        late = f"{number(len(violations), 'late write')} in instance {instance}, after the response"
        self._add(Line(f"{_label(name)}{late}", style="bold yellow"))
        self._findings(violations, "")

    def _findings(self, violations: tuple[Violation, ...], about: str) -> None:
        self._add(*self._finding_lines(violations, about))

    def _finding_lines(self, violations: tuple[Violation, ...], about: str) -> Iterator[Line]:
        for one in violations[:_FINDINGS]:
            place = one.location or one.library
            where = "no line of the application"
            if place is not None:
                where = f"{short_file(place.file, self._root)}:{place.line} in {place.function}"
            error = codes.errorcode.get(one.errno, str(one.errno))
            line = Line()
            line.append(f"         {escaped(one.operation)} {escaped(repr(one.path))} ", style="red")
            line.append(f"{error}", style="bold red")
            line.append(f"  {escaped(where)}")
            key = (one.operation, one.errno, one.location, one.library, one.remedy)
            if one.remedy and key not in self._known and len(self._known) < 1000:
                self._known.add(key)
                line.append(f"\n           {escaped(one.remedy)}", style="green")
            if about:
                line.append(f"  ({about})", style="dim")
            yield line
        if len(violations) > _FINDINGS:
            yield Line(f"         and {len(violations) - _FINDINGS:,} more", style="red")

    def output(self, name: str, instance: int, stream: str, line: str) -> None:
        label = f"{name} {instance}" if name else str(instance)
        text = Line()
        text.append(f"{label} | ", style="magenta" if stream == "stderr" else "blue")
        text.append(escaped(line.replace("\t", "    ")))
        self._add(text)

    def summary(self, data: Data, written: list[str]) -> None:
        lines = list(summary.lines(data, verbosity=0))
        self._add(Line("\n".join(["", *map(escaped, lines)])))
        if shared := data["run"]["shared"]:
            beside = f"{number(shared, 'request')} with findings ran beside others: they may be theirs"
            self._add(Line(f"\n{beside}"))
        if written:
            self._add(Line(f"\nwritten: {', '.join(map(escaped, written))}"))


class JsonLines:
    """For machines: one object a line on standard output."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout
        self._pending: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._broken = False

    def _add(self, event: str, when: float | None = None, **data: Any) -> None:
        when = time.time() if when is None else when
        self._pending.append(json.dumps({"event": event, "time": round(when, 3), **data}))
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(PAUSE, self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        self._timer = None
        pending, self._pending = self._pending, []
        if pending and not self._broken:
            try:
                self._file.write("\n".join(pending) + "\n")
                self._file.flush()
            except OSError:
                self._broken = True

    def open(self, status: Callable[[], Status]) -> None:
        pass

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()

    def say(self, text: str, *, trouble: bool = False) -> None:
        self._add("message", text=text, trouble=trouble)

    def listening(self, name: str, address: str, command: str, about: str) -> None:
        self._add("listening", function=name, address=address, command=command)

    def started(self, name: str, instance: int, span: Span, seconds: float) -> None:
        self._add("started", function=name, instance=instance, seconds=round(seconds, 6), **_span_data(span))

    def start_failed(self, name: str, failed: StartFailed, *, last: bool) -> None:
        self._add(
            "start failed",
            function=name,
            step=failed.step,
            reason=failed.reason,
            way_out=failed.way_out,
            output=failed.output,
        )

    def ended(self, name: str, instance: int, reason: str, *, crashed: bool) -> None:
        self._add("ended", function=name, instance=instance, reason=reason, crashed=crashed)

    def request(self, name: str, route: str, done: Done, quota: int, when: float) -> None:
        self._add(
            "request",
            when,
            function=name,
            method=done.method,
            target=done.target,
            route=route,
            status=done.status,
            seconds=round(done.seconds, 6),
            waited=round(done.waited, 6),
            request_bytes=done.request_bytes,
            response_bytes=done.response_bytes,
            instance=done.number,
            trouble=done.trouble,
            shared=done.shared,
            quota_bytes=quota,
            **_span_data(done.span),
        )

    def late_writes(self, name: str, instance: int, violations: tuple[Violation, ...]) -> None:
        self._add("late writes", function=name, instance=instance, late_writes=_list(violations))

    def output(self, name: str, instance: int, stream: str, line: str) -> None:
        self._add("output", function=name, instance=instance, stream=stream, line=line)

    def summary(self, data: Data, written: list[str]) -> None:
        self._add("summary", report=data, written=written)


def _span_data(span: Span) -> Data:
    return {
        "peak_bytes": span.peak_bytes,
        "bytes_left": span.used_bytes,
        "files_left": span.files,
        "violations": _list(span.violations),
    }


def _list(violations: tuple[Violation, ...]) -> list[Data]:
    return [finding_data(one) | {"count": 1} for one in violations]


def _thinned(pending: list[tuple[Callable[[], Iterable[Line]], bool]]) -> Iterator[Line]:
    """The lines, but of very many requests without findings only some, and the number of the others."""
    left_out = 0
    room = AT_ONCE
    for lines, routine in pending:
        if routine and room <= 0:
            left_out += 1
            continue
        room -= routine
        if left_out:
            yield Line(f"         and {number(left_out, 'more request')}", style="dim")
            left_out = 0
        yield from lines()
    if left_out:
        yield Line(f"         and {number(left_out, 'more request')}", style="dim")


def shown_lines(text: str) -> str:
    """``text`` with everything escaped that a terminal would obey, but for the ends of its lines."""
    return "\n".join(map(escaped, text.split("\n")))


def _label(name: str) -> str:
    return f"{name}: " if name else ""


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _style_of(status: int) -> str:
    return "green" if status < 300 else "cyan" if status < 400 else "yellow" if status < 500 else "bold red"


def _bar(peak: int, quota: int) -> Line:
    share = min(peak / quota, 1.0)
    filled = min(_BAR, max(round(share * _BAR), 1 if peak else 0))
    style = "red" if share >= 0.95 else "yellow" if share >= 0.75 else "blue"
    bar = Line()
    bar.append("█" * filled, style=style)
    bar.append("·" * (_BAR - filled), style="dim")
    bar.append(f" {size(peak) if peak else '-':>8}", style="" if peak else "dim")
    return bar


def _status_line(status: Status) -> Line:
    line = Line(f" {status.instances} of {status.most} instances ", "reverse")
    line.append(f"  {status.busy} busy  {status.waiting} waiting  {status.restarts} restarts")
    line.append(f"  {number(status.requests, 'request')}  ")
    line.append(number(status.violations, "finding"), style="bold red" if status.violations else "green")
    line.append("  Ctrl-C ends it", style="dim")
    return line
