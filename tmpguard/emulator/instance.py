"""One execution environment whose storage the kernel enforces: the supervisor's side of it."""

from __future__ import annotations

import asyncio
import errno as codes
import itertools
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tmpguard.core.layout import PACKAGE, SOURCE_ROOT, TMP, is_below
from tmpguard.core.mounts.bundle import interpreter_places
from tmpguard.core.mounts.ignore import Ignore
from tmpguard.core.reports import remedies
from tmpguard.core.reports.log import logger
from tmpguard.core.reports.report import Violation

from . import findings
from .found import Found
from .held import held_files
from .ignored import ignored_entries
from .inside.peak import SIZE, Peak
from .kept import find_program, kept_below_tmp
from .launching import Processes
from .output import OnOutput, Output
from .protocols import Span, StartFailed
from .refusals import start_failed
from .tmp import Tmp

_MB: Final = 1_048_576
_HOOKS: Final = os.path.join(SOURCE_ROOT, "emulator", "hooks")
#: Seconds for the last lines of a command that has ended.
_LAST_WORDS: Final = 2.0

#: Counts the loopback addresses that were given away. Each start gets one of its own, so that no connection
#: of an earlier instance is in its way.
_addresses: Final = itertools.count()


@dataclass(frozen=True)
class InstanceSettings:
    """How an instance is started. ``storage_size`` is in MB, times are in seconds."""

    command: tuple[str, ...]
    project: str
    number: int = 0
    storage_size: int = 128
    max_files: int | None = None
    ignore: Ignore | None = None
    writable: tuple[str, ...] = ()
    #: Whether the platform has /tmp/package (C5.1) and /dev/shm (C1.6).
    package: bool = True
    shared_memory: bool = True
    #: "invocation" wipes /tmp when the instance is idle again, "instance" never does.
    lifetime: str = "invocation"
    #: Stop all processes while no request runs.
    freeze: bool = False
    observer: bool = True
    #: The means of observation that are tried, in this order.
    means: tuple[str, ...] = ("ptrace", "notify")
    start_timeout: float = 30.0
    #: None for this process's own.
    environment: Mapping[str, str] | None = None
    #: Called for each line that the processes print; None to keep only the last ones, for errors.
    on_output: OnOutput | None = field(default=None, compare=False)


class KernelInstance:
    """Implements :class:`~tmpguard.emulator.protocols.Instance`. Make it where an event loop runs."""

    def __init__(self, settings: InstanceSettings) -> None:
        self.settings = settings
        self.number = settings.number
        self.address: tuple[str, int] = ("", 0)
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        #: False where the instance has this machine's own /tmp, so that there can be no other (a container).
        self.owns_storage = True
        #: How findings are made ("ptrace", "notify" or ""), and why not by better means.
        self.observation = ("", "")
        self._ready: asyncio.Future[tuple[str, int]] = loop.create_future()
        self._output = Output(settings.on_output)
        self._processes: Processes | None = None
        self._tmp: Tmp | None = None
        self._project = os.path.realpath(settings.project)
        self._mounted: tuple[str, ...] = ()
        memory = os.memfd_create("tmpguard-peak", os.MFD_CLOEXEC)
        os.ftruncate(memory, SIZE)
        self._memory, self._peak = memory, Peak(memory)
        self._peak.set_active(True)
        self._starting = True
        self._frozen = False
        self._found = Found()
        #: The paths of the late writes that the last :meth:`begin` has returned.
        self._late: frozenset[str] = frozenset()
        #: What removed files cost that are still open, as far as that has been told.
        self._held_bytes = 0
        self._closed = False

    # --- the start -------------------------------------------------------------------------------------

    async def start(self) -> Span:
        """Start the command and wait until it is ready. Raises StartFailed."""
        try:
            orders = await asyncio.to_thread(self._orders)
            # In this thread: the kernel ends the launcher with the thread that has started it.
            self._processes = Processes(orders, self._memory, self._on_message)
            for stream, descriptor in self._processes.streams().items():
                self._output.add(descriptor, stream)
            self.address = await asyncio.wait_for(self._ready, self.settings.start_timeout)
        except TimeoutError:
            await self._abandon()
            raise StartFailed(
                "listen",
                f"the command did not listen on a TCP port within {self.settings.start_timeout:g} s",
                "give it more time with --start-timeout, or the server's option for a host and a port",
                self._output.last_lines(),
            ) from None
        except StartFailed as exc:
            await self._abandon()
            exc.output = exc.output or self._output.last_lines()
            raise
        except BaseException:
            await self._abandon()
            raise
        span = self.finish()
        if self._tmp is not None:
            self._held_bytes = self._tmp.held_bytes
        self._starting = False
        return span

    async def _abandon(self) -> None:
        if self._processes is not None:
            self._processes.kill()
            await self._finish_processes()
        self._close()

    def _orders(self) -> dict[str, Any]:
        """What the launcher is to do. Raises StartFailed."""
        settings = self.settings
        environment = dict(os.environ if settings.environment is None else settings.environment)
        program = find_program(settings.command[0], environment, os.getcwd())
        if program is None:
            raise StartFailed(
                "exec",
                f"{settings.command[0]}: {os.strerror(codes.ENOENT)}",
                "give the command as a shell would find it: it is looked up in PATH",
            )
        project = self._project
        writable = [os.path.realpath(path) for path in settings.writable]
        kept = kept_below_tmp(program, settings.command, environment, project)
        kept = [path for path in kept if path not in writable]
        inside = [*interpreter_places(), *writable]
        environment_root = environment.get("VIRTUAL_ENV") or os.path.dirname(os.path.dirname(program))
        if environment_root != project and not is_below(project, environment_root):
            inside.append(environment_root)
        inside = [place for place in inside if is_below(place, project) and place != project]
        self._mounted = tuple(
            path
            for path in [*kept, *writable, *([PACKAGE] if settings.package else [])]
            if is_below(path, TMP)
        )
        directory = PACKAGE if settings.package else project
        return {
            "project": os.fsencode(project),
            "directory": os.fsencode(directory),
            "package": settings.package,
            "kept": [os.fsencode(path) for path in kept],
            "writable": [os.fsencode(path) for path in writable],
            "hidden": [os.fsencode(name) for name in ignored_entries(settings.ignore, project, inside)],
            "hidden in package": (
                [os.fsencode(name) for name in ignored_entries(settings.ignore, project)]
                if settings.package
                else []
            ),
            "size": settings.storage_size * _MB,
            "files": settings.max_files or 0,
            "shared memory": settings.shared_memory,
            "program": os.fsencode(program),
            "command": [os.fsencode(word) for word in settings.command],
            "environment": _encoded(_environment(environment, directory, settings.observer)),
            "observe": list(settings.means) if settings.observer else [],
            "address": _new_address(),
        }

    # --- what the janitor says -------------------------------------------------------------------------

    def _on_message(self, message: tuple[Any, ...] | None, descriptor: int) -> None:
        kind, *rest = message or ("gone",)
        if kind == "finding":
            self._found.add(findings.finding_of(rest), self._circumstances())
        elif kind == "message":
            self._found.locate(*rest)
        elif kind == "tmp":
            self.owns_storage = rest[1]
            self._tmp = Tmp(descriptor, rest[0], self._mounted if self.owns_storage else None)
        elif kind == "observed":
            self.observation = rest[0], rest[1]
        elif kind == "ready":
            if not self._ready.done():
                self._ready.set_result((rest[0], rest[1]))
        elif kind == "refused":
            self._fail(start_failed(rest[0], rest[1], rest[2]))
        elif kind in ("ended", "gone"):
            self._on_end(rest[0] if rest else -signal.SIGKILL)

    def _on_end(self, status: int) -> None:
        self._fail(_ended_early(status))
        if not self.ended.done():
            self.ended.set_result(status)

    def _fail(self, failure: StartFailed) -> None:
        if not self._ready.done():
            self._ready.set_exception(failure)

    def _circumstances(self) -> findings.Circumstances:
        settings = self.settings
        return findings.Circumstances(
            project=self._project,
            has_package=settings.package,
            size=settings.storage_size if self._tmp is None else self._tmp.size() // _MB,
            files=settings.max_files,
            starting=self._starting,
            full_of_files=self._tmp is not None and self._tmp.is_full_of_files(),
        )

    # --- requests --------------------------------------------------------------------------------------

    def begin(self) -> tuple[Violation, ...]:
        """A request is about to be sent while none is running: finds and wipes late writes, and thaws."""
        self._receive()
        late = self._found.take()
        tmp = self._tmp if self.settings.lifetime == "invocation" else None
        if tmp is not None and (late or not tmp.is_empty()):
            late = self._late_writes(late, self.paths())
            self._wipe()
            late += self._held(tmp)
        self._late = frozenset(one.path for one in late)
        self._peak.start_period()
        self._peak.set_active(True)
        if self._frozen:
            self._send_signal("signal all", signal.SIGCONT)
            self._frozen = False
        return late

    def paths(self) -> list[str]:
        """The files that are in /tmp now: the first thousand."""
        return [] if self._tmp is None else self._tmp.paths()

    def _held(self, tmp: Tmp) -> tuple[Violation, ...]:
        """The removed files that are still open, once they cost more than before."""
        before, self._held_bytes = self._held_bytes, tmp.held_bytes
        if tmp.held_bytes <= before or self._processes is None:
            return ()
        return tuple(
            Violation("keep open", one.path, codes.ESTALE, None, None, remedies.held(one.size), one.program)
            for one in held_files(self._processes.pid, tmp.device())
        )

    def _late_writes(self, found: tuple[Violation, ...], paths: list[str]) -> tuple[Violation, ...]:
        """What was refused late, and each of the files that are there, with its line where that was seen.

        A file that was opened late and is gone is no concern: nobody finds it.
        """
        lines = {one.path: one for one in found if one.errno == codes.ESTALE}
        refused = tuple(one for one in found if one.errno != codes.ESTALE)
        unseen = Violation("write", "", codes.ESTALE, None, None, remedies.OVER)
        return (*refused, *(lines.get(path, unseen._replace(path=path)) for path in paths))

    def measure(self) -> Span:
        """What happened since :meth:`begin`, or since the last call while requests overlap."""
        self._receive()
        used, files = (0, 0) if self._tmp is None else self._tmp.usage()
        found = self._found.take()
        late: tuple[Violation, ...] = ()
        if any(one.errno == codes.ESTALE for one in found):  # told late: it was written before
            late = tuple(one for one in found if one.errno == codes.ESTALE and one.path not in self._late)
            found = tuple(one for one in found if one.errno != codes.ESTALE)
        span = Span(max(self._peak.highest(), used), used, files, found, late)
        self._peak.start_period()
        return span

    def finish(self) -> Span:
        """The last running request is answered: measures, wipes (``lifetime="invocation"``) and freezes."""
        span = self.measure()
        if self.settings.lifetime == "invocation":
            if self._tmp is not None and not self._tmp.was_empty:
                self._wipe()
            self._peak.set_active(False)
        if self.settings.freeze:
            self._send_signal("signal all", signal.SIGSTOP)
            self._frozen = True
        return span

    def _wipe(self) -> None:
        """Empty /tmp. An instance in which this fails is no use any more: it ends."""
        try:
            if self._tmp is not None:
                self._tmp.wipe()
        except OSError as exc:
            logger.error("instance %d is ended: its /tmp cannot be emptied: %s", self.number, exc)
            if self._processes is not None:
                self._processes.kill()

    def _receive(self) -> None:
        if self._processes is not None:
            self._processes.receive()

    def _send_signal(self, command: str, number: int) -> None:
        if self._processes is not None:
            self._processes.send(command, int(number))

    # --- the end ---------------------------------------------------------------------------------------

    async def stop(self, grace: float) -> None:
        """End all processes: SIGTERM, and SIGKILL after ``grace`` seconds."""
        if self._processes is None:
            self._close()
            return
        if not self.ended.done():
            self._send_signal("signal", signal.SIGTERM)
            self._send_signal("signal all", signal.SIGCONT)
            await asyncio.wait([self.ended], timeout=grace)
        self._processes.kill()
        await self._finish_processes()
        self._close()

    async def _finish_processes(self) -> None:
        assert self._processes is not None
        await self._processes.gone
        await self._output.finish(_LAST_WORDS)
        if not self.ended.done():
            self.ended.set_result(-signal.SIGKILL)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._peak.close()
        os.close(self._memory)
        if self._tmp is not None:
            self._tmp.close()
            self._tmp = None
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # it is told, or of no interest any more


def _ended_early(status: int) -> StartFailed:
    how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    way_out = ""
    if status == 0:
        way_out = "keep the server in the foreground: without its option to become a daemon"
    return StartFailed("listen", f"the command ended with {how} before it listened on a TCP port", way_out)


def _environment(given: Mapping[str, str], directory: str, observed: bool) -> dict[str, str]:
    """The application's environment: the user's, with the hooks, and with /tmp for temporary files."""
    environment = {
        name: value
        for name, value in given.items()
        if name not in ("TMPDIR", "TEMP", "TMP") or is_below(os.path.normpath(value), TMP)
    }
    environment["PWD"] = directory  # gunicorn and Node go by it
    environment.setdefault("PYTHONUNBUFFERED", "1")  # its output goes to a pipe
    if observed:
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{_HOOKS}/python" + (f":{path}" if path else "")
        options = environment.get("NODE_OPTIONS")
        environment["NODE_OPTIONS"] = (
            f"{options} " if options else ""
        ) + f'--require "{_HOOKS}/node/hook.cjs"'
    return environment


def _encoded(environment: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}


def _new_address() -> str:
    """A loopback address that no other instance has, of this process or, most likely, of another one."""
    process, number = os.getpid(), next(_addresses)
    return f"127.{64 + (process >> 8) % 128}.{process % 256}.{2 + number % 250}"
