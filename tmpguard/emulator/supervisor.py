"""Ties a run together: pools and proxies of the functions, the terminal, the reports and the signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from tmpguard.core.reports.report import Violation
from tmpguard.reporting import output

from . import watching
from .dashboard import PREFIX, About, Dashboard
from .functions import Function
from .http.framing import Refused
from .http.pool import Pool
from .http.proxy import Proxy
from .http.turns import Done
from .instance import KernelInstance
from .ledger import Ledger, route_of
from .protocols import Instance, Span, StartFailed
from .terminal import Status, Terminal

#: Seconds between two looks at the project's files.
_WATCH: Final = 0.5
#: Seconds until what a request used is added to the report and shown.
_BOOKED: Final = 0.05
#: Rounds of the event loop before it stops to listen.
_ROUNDS: Final = 6
MB: Final = 1_048_576

Make = Callable[[Function, int, Callable[[str, str], None]], Instance]


def kernel_instance(function: Function, number: int, on_output: Callable[[str, str], None]) -> Instance:
    """An instance of ``function`` whose storage the kernel enforces."""
    return KernelInstance(replace(function.settings, number=number, on_output=on_output))


def _not_listening(host: str, port: int | None, exc: OSError) -> StartFailed:
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    return StartFailed("listen", f"{host}:{port}: {reason}", "give another port with --port")


class Service:
    """One function: its instances, and the port on which it is served."""

    def __init__(
        self,
        function: Function,
        terminal: Terminal,
        make: Make = kernel_instance,
        *,
        with_dashboard: bool = True,
    ) -> None:
        self.function = function
        self.name = function.name
        self.terminal = terminal
        settings = function.settings
        self.quota = settings.storage_size * MB
        self.ledger = Ledger(self.quota, settings.project, function.name or function.command)
        self.requests = 0
        self.violations = 0
        self.instances: dict[int, Instance] = {}
        self._make = make
        #: The route of the last request that each instance answered, to which its late writes belong.
        self._last: dict[int, str] = {}
        self._observed = False
        #: Requests that are over but not booked yet, and when.
        self._finished: list[tuple[Done, float]] = []
        self._booking: asyncio.TimerHandle | None = None
        self.pool = Pool(self._new_instance, function.limits, self)
        about = About(
            function.name or function.command,
            settings.storage_size,
            function.limits.instances,
            function.limits.concurrency,
        )
        self._dashboard = Dashboard(about, self.ledger, self._status)
        self._with_dashboard = with_dashboard
        self.proxy = Proxy(
            self.pool,
            self._on_done,
            on_refused=self._on_refused,
            request_timeout=function.request_timeout,
            local_prefix=PREFIX,
            local=self._dashboard.handle if with_dashboard else None,
        )
        self._server: asyncio.Server | None = None

    def _new_instance(self, number: int) -> Instance:
        def on_output(line: str, stream: str) -> None:
            self.terminal.output(self.name, number, stream, line)

        instance = self.instances[number] = self._make(self.function, number, on_output)
        return instance

    async def start(self, host: str) -> None:
        """Start the first instance and listen. Raises StartFailed."""
        port = self.function.port
        if port is not None:
            self._server = await self._bind(host, port)
        instance = await self.pool.start()
        if self._server is None:
            port = instance.address[1]
            self._server = await self._bind(host, port)
        try:
            await self._server.start_serving()
        except OSError as exc:  # another process has bound it too, and listened first
            raise _not_listening(host, port, exc) from None
        self.proxy.start()
        address = self._server.sockets[0].getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.terminal.listening(
            self.name, f"http://{shown}:{address[1]}", self.function.command, self._about()
        )

    async def _bind(self, host: str, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(self.proxy.client, host, port, backlog=1024, start_serving=False)
        except OSError as exc:
            raise _not_listening(host, port, exc) from None

    def _status(self) -> dict[str, Any]:
        """For the dashboard."""
        return {
            "requests": self.requests,
            "findings": self.violations,
            "waiting": self.pool.waiting,
            "restarts": self.pool.restarts,
            "instances": [
                {
                    "number": member.number,
                    "state": member.state.value,
                    "running": member.running,
                    "served": member.served,
                }
                for member in sorted(self.pool.members, key=lambda member: member.number)
            ],
        }

    def _about(self) -> str:
        limits = self.function.limits
        most = "1 instance" if limits.instances == 1 else f"up to {limits.instances} instances"
        at_once = "1 request" if limits.concurrency == 1 else f"{limits.concurrency} requests"
        about = f"/tmp of {self.function.settings.storage_size} MB, {most}, {at_once} at once in each"
        return about + (f"; live: {PREFIX.decode()}" if self._with_dashboard else "")

    async def stop(self, grace: float) -> None:
        """Answer what runs, then end everything."""
        if self._server is not None:
            # Connections that were made and not accepted yet would be reset with the socket. asyncio accepts
            # them in a round of its loop, and needs two more before its server may be closed.
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)
            self._server.close()
        await self.proxy.drain(grace)
        await self.pool.stop()
        await self.proxy.close()
        self._book_all()
        self._dashboard.close()

    # --- what happens ---

    def on_started(self, number: int, span: Span, seconds: float) -> None:
        self.ledger.add_start(span)
        self.violations += len(span.violations)
        self._dashboard.add_findings(span)
        self.terminal.started(self.name, number, span, seconds)
        self._say_how_it_is_observed(number)

    def _say_how_it_is_observed(self, number: int) -> None:
        """Once, if refusals cannot be seen as well as usual."""
        means, why_not = getattr(self.instances[number], "observation", ("ptrace", ""))
        if self._observed or not self.function.settings.observer:
            return
        self._observed = True
        if not means:
            self.terminal.say(f"refusals are enforced, but cannot be reported here: {why_not}", trouble=True)
        elif why_not:
            self.terminal.say(f"refusals are observed by user notification: {why_not}")

    def on_start_failed(self, number: int, failed: StartFailed) -> None:
        self.terminal.start_failed(self.name, failed, last=False)

    def on_ended(self, number: int, reason: str, *, crashed: bool) -> None:
        self._book_all()
        self.ledger.restarts = self.pool.restarts
        self.terminal.ended(self.name, number, reason, crashed=crashed)

    def on_late_writes(self, number: int, violations: tuple[Violation, ...]) -> None:
        self._book_all()
        self._add_late(number, violations)

    def _add_late(self, number: int, violations: tuple[Violation, ...]) -> None:
        self.ledger.add_late_writes(self._last.get(number, ""), violations)
        self.violations += len(violations)
        self._dashboard.add_findings(late=len(violations))
        self.terminal.late_writes(self.name, number, violations)

    def _on_done(self, done: Done) -> None:
        """Booked a moment later, many at a time: the next request does not wait for it."""
        self._finished.append((done, time.time()))
        if self._booking is None:
            self._booking = asyncio.get_running_loop().call_later(_BOOKED, self._book_all)

    def _book_all(self) -> None:
        if self._booking is not None:
            self._booking.cancel()
            self._booking = None
        finished, self._finished = self._finished, []
        for done, when in finished:
            self._book(done, when)

    def _book(self, done: Done, when: float) -> None:
        route = route_of(done.method, done.target)
        self.requests += 1
        self.violations += len(done.span.violations)
        if done.span.late_writes and done.number is not None:
            self._add_late(done.number, done.span.late_writes)
        self.ledger.add_request(route, done.span, shared=done.shared)
        if done.number is not None:
            self._last[done.number] = route
        if self._with_dashboard:
            self._dashboard.add_request(done, when)
        self.terminal.request(self.name, route, done, self.quota, when)

    def _on_refused(self, refused: Refused) -> None:
        self.terminal.say(f"a request was refused with {refused.status}: {refused.reason}")


class Supervisor:
    """A whole run."""

    def __init__(
        self,
        functions: Sequence[Function],
        terminal: Terminal,
        *,
        host: str = "127.0.0.1",
        report: str | None = None,
        reload: bool = False,
        with_dashboard: bool = True,
        make: Make = kernel_instance,
    ) -> None:
        self._terminal = terminal
        self._host = host
        self._report = report
        self._reload = reload
        self.services = [Service(one, terminal, make, with_dashboard=with_dashboard) for one in functions]
        self._ending = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Serve until a signal comes. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        self._terminal.open(self._status)
        try:
            status = await self._serve()
        finally:
            if self._watcher is not None:
                self._watcher.cancel()
            grace = self.services[0].function.limits.grace
            await asyncio.gather(*(one.stop(grace) for one in self.services), return_exceptions=True)
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        if not status:
            self._write_reports()
        self._terminal.close()
        return status

    async def _serve(self) -> int:
        starting = [asyncio.ensure_future(one.start(self._host)) for one in self.services]
        ended: asyncio.Task[object] = asyncio.ensure_future(self._ending.wait())
        try:
            for service, task in zip(self.services, starting, strict=True):
                await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    return 130
                try:
                    task.result()
                except StartFailed as exc:
                    self._terminal.start_failed(service.name, exc, last=True)
                    return 1
            if self._reload:
                self._watcher = asyncio.ensure_future(self._watch())
            await ended
            return 0
        finally:
            tasks: list[asyncio.Task[Any]] = [ended, *starting]
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _on_signal(self) -> None:
        if self._ending.is_set():
            # At once: the instances end with this process.
            self._terminal.close()
            os._exit(130)
        self._ending.set()
        self._terminal.say("ending; once more ends it at once")

    def _status(self) -> Status:
        pools = [one.pool for one in self.services]
        return Status(
            instances=sum(len(pool.members) for pool in pools),
            most=sum(one.function.limits.instances for one in self.services),
            busy=sum(pool.busy for pool in pools),
            waiting=sum(pool.waiting for pool in pools),
            restarts=sum(pool.restarts for pool in pools),
            requests=sum(one.requests for one in self.services),
            violations=sum(one.violations for one in self.services),
        )

    # --- reports ---

    def _write_reports(self) -> None:
        for service in self.services:
            data = service.ledger.data()
            written: list[str] = []
            if self._report is not None:
                name = f"{self._report}-{service.name}" if service.name else self._report
                try:
                    written = output.write(data, name)
                except OSError as exc:
                    self._terminal.say(f"cannot write the report: {exc}", trouble=True)
            if data["totals"]["requests"] or data["violations"] or written:
                self._terminal.summary(data, written)

    # --- changes ---

    async def _watch(self) -> None:
        """Start the instances of a function anew when its project has changed."""
        left_out = self._own_files()
        before = [
            await asyncio.to_thread(watching.state_of, *self._project(one), left_out) for one in self.services
        ]
        while True:
            await asyncio.sleep(_WATCH)
            for number, service in enumerate(self.services):
                now = await asyncio.to_thread(watching.state_of, *self._project(service), left_out)
                changes = watching.changed(before[number], now)
                if changes:
                    before[number] = now
                    name = os.path.relpath(changes[0], service.function.settings.project)
                    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
                    self._terminal.say(f"{name}{more} has changed: starting anew")
                    service.pool.replace()

    def _project(self, service: Service) -> tuple[str]:
        return (service.function.settings.project,)

    def _own_files(self) -> list[str]:
        if self._report is None:
            return []
        stem = os.path.splitext(os.path.abspath(self._report))[0]
        return [f"{stem}{ending}" for ending in output.SUFFIXES]


def run(
    functions: Sequence[Function], terminal: Terminal, make: Make = kernel_instance, **options: Any
) -> int:
    """Serve ``functions`` until the user ends it. Returns the exit status."""

    async def main() -> int:
        return await Supervisor(functions, terminal, make=make, **options).run()

    with suppress(KeyboardInterrupt):
        return asyncio.run(main())
    return 130
