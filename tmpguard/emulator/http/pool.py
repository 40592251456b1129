"""The instances of one function, and the requests that wait for one of them.

Instances are started on demand, up to a number, and end when they have been idle for a while; the last one
stays warm. Each runs a number of requests at once. What does not fit waits in a queue with a time limit. An
instance that ends by itself is replaced.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Final, NamedTuple, Protocol

from tmpguard.core.reports.report import Violation

from ..protocols import Instance, Span, StartFailed
from .upstream import Upstream

#: Seconds until an application that does not start, or ends again and again, is started once more.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0

#: An instance that ends so many seconds after its start counts like one that did not start.
_SHORT_LIFE: Final = 5.0

#: Why a request is refused, or an instance ended, at the end.
ENDING: Final = "tmpguard is ending"

_NO_SPAN: Final = Span(0, 0, 0, (), ())


class State(Enum):
    """What a member of the pool is doing."""

    STARTING = "starting"
    READY = "ready"
    #: Serves what it has begun, and gets nothing new.
    RETIRING = "retiring"
    ENDED = "ended"


class Job(Protocol):
    """A request that wants an instance."""

    def dispatch(self, member: Member) -> None:
        """Go ahead in ``member``."""
        ...

    def refuse(self, reason: str) -> None:
        """No instance was free in time."""
        ...


class Limits(NamedTuple):
    """How many there may be, and how long things may take in seconds."""

    instances: int = 1
    concurrency: int = 1
    queue_timeout: float = 30.0
    #: The most requests that wait.
    queue_length: int = 1000
    #: 0 for ever.
    idle_timeout: float = 0.0
    #: For the requests that run when everything ends.
    grace: float = 5.0


class Events(Protocol):
    """Who wants to know what happens in the pool."""

    def on_started(self, number: int, span: Span, seconds: float) -> None: ...

    def on_start_failed(self, number: int, failed: StartFailed) -> None: ...

    def on_ended(self, number: int, reason: str, *, crashed: bool) -> None: ...

    def on_late_writes(self, number: int, violations: tuple[Violation, ...]) -> None:
        """Written by a request that had been answered (C4.5)."""
        ...


class Member:
    """An instance in the pool."""

    __slots__ = (
        "begun",
        "connections",
        "idle_since",
        "instance",
        "last_words",
        "number",
        "overlaps",
        "running",
        "served",
        "state",
    )

    def __init__(self, instance: Instance, number: int) -> None:
        self.instance = instance
        self.number = number
        self.state = State.STARTING
        #: The requests that run in it now, and those that it has served.
        self.running = 0
        self.served = 0
        #: How often a request was begun while others ran.
        self.overlaps = 0
        #: When it became ready.
        self.begun = 0.0
        self.idle_since = 0.0
        #: Idle connections to it, the one that was used last at the end.
        self.connections: list[Upstream] = []
        #: What had happened in it when it ended by itself, for the request that was running.
        self.last_words = _NO_SPAN

    def drop_connections(self) -> None:
        connections, self.connections = self.connections, []
        for one in connections:
            one.abort()


class Pool:
    """The instances that :class:`Job` are sent to. Everything runs in one event loop."""

    def __init__(self, make: Callable[[int], Instance], limits: Limits, events: Events) -> None:
        self._make = make
        self._limits = limits
        self._events = events
        self.members: list[Member] = []
        self.restarts = 0
        self._queue: deque[tuple[float, Job]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        #: Why the application does not start, and when it is tried again.
        self._failed: StartFailed | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def busy(self) -> int:
        """The requests that are running."""
        return sum(member.running for member in self.members)

    # --- starting and ending ---

    async def start(self) -> Instance:
        """Start the first instance. Raises StartFailed."""
        member = self._add()
        await self._bring_up(member)
        return member.instance

    async def stop(self) -> None:
        """End all instances. The requests that run have until the end of the grace."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        self._refuse_all(ENDING)
        tasks = [self._dismiss(member, ENDING) for member in list(self.members)]
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _add(self) -> Member:
        taken = {member.number for member in self.members}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        member = Member(self._make(number), number)
        self.members.append(member)
        return member

    async def _bring_up(self, member: Member) -> None:
        begun = time.monotonic()
        try:
            span = await member.instance.start()
        except BaseException:
            self._remove(member)
            raise
        member.begun = member.idle_since = time.monotonic()
        if member.state is State.STARTING:
            member.state = State.READY
        self._failed = None
        self._events.on_started(member.number, span, member.begun - begun)
        member.instance.ended.add_done_callback(lambda future: self._on_ended(member, future))

    async def _start_another(self, member: Member) -> None:
        try:
            await self._bring_up(member)
        except StartFailed as exc:
            if not self._closing:
                self._on_start_failed(member, exc)
            return
        if self._closing:
            return
        if member.state is State.RETIRING:
            self._dismiss(member, "it is out of date")
        self._serve_queue()

    def _on_start_failed(self, member: Member, exc: StartFailed) -> None:
        self._failed = exc
        self._failures += 1
        self._events.on_start_failed(member.number, exc)
        if not self._alive():
            self._refuse_all(f"the application does not start: {exc}")
            self._start_later()

    def _alive(self) -> int:
        """The instances that serve, or will serve, new requests."""
        return sum(member.state in (State.STARTING, State.READY) for member in self.members)

    def _start_later(self) -> None:
        """Start an instance after a pause that becomes longer as long as it fails."""
        if self._retry is None and not self._closing:
            pause = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
            self._retry = asyncio.get_running_loop().call_later(pause, self._start_again)

    def _start_again(self) -> None:
        self._retry = None
        if not self._alive() and not self._closing:
            self._spawn(self._start_another(self._add()))

    def _grow(self) -> None:
        """Start as many instances as the queue needs, up to the limit."""
        if self._closing or self._retry is not None:
            return
        starting = sum(member.state is State.STARTING for member in self.members)
        wanted = math.ceil(len(self._queue) / self._limits.concurrency) - starting
        for _ in range(min(wanted, self._limits.instances - self._alive())):
            self._spawn(self._start_another(self._add()))

    def _remove(self, member: Member) -> None:
        member.state = State.ENDED
        member.drop_connections()
        if member in self.members:
            self.members.remove(member)

    def _dismiss(self, member: Member, reason: str) -> asyncio.Task[None]:
        """End ``member``; from now on it counts no more."""
        was_up = member.state is not State.STARTING
        if was_up and not member.running:
            self._find_late_writes(member)  # there is no next request to find them
        member.state = State.ENDED
        member.drop_connections()
        return self._spawn(self._end(member, reason if was_up else ""))

    async def _end(self, member: Member, reason: str) -> None:
        try:
            await member.instance.stop(self._limits.grace)
        finally:
            self._remove(member)
            if reason:
                self._events.on_ended(member.number, reason, crashed=False)

    def _on_ended(self, member: Member, ended: asyncio.Future[int]) -> None:
        """The application in an instance has ended by itself."""
        if member.state is State.ENDED or self._closing or ended.cancelled():
            return
        self.restarts += 1
        with suppress(OSError, ValueError):
            # Before the instance is closed: what led to this may be among it.
            member.last_words = member.instance.measure()
        self._remove(member)
        self._events.on_ended(member.number, ending(ended.result()), crashed=True)
        self._spawn(member.instance.stop(0))  # whatever processes it has left
        was_used = member.served or member.running
        if time.monotonic() - member.begun < _SHORT_LIFE and not was_used:
            self._failures += 1
            self._failed = StartFailed("run", ending(ended.result()))
        if not self._alive():
            if self._failures:
                self._start_later()
            else:
                self._spawn(self._start_another(self._add()))
        self._grow()

    def replace(self) -> None:
        """The project has changed: start an instance anew, and end the present ones once they are idle."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for member in list(self.members):
            self._retire(member, "the project has changed")
        self._failures = 0
        self._failed = None
        self._spawn(self._start_another(self._add()))

    def retire(self, member: Member, reason: str) -> None:
        """Send nothing more to ``member``, and end it when it is idle. Another one takes its place."""
        self._retire(member, reason)
        if not self._alive() and not self._closing and self._retry is None:
            self._spawn(self._start_another(self._add()))

    def _retire(self, member: Member, reason: str) -> None:
        if member.state is State.READY and not member.running:
            self._dismiss(member, reason)
        elif member.state in (State.READY, State.STARTING):
            member.state = State.RETIRING

    # --- requests ---

    def submit(self, job: Job) -> None:
        """Run ``job`` now or when an instance is free; it is refused where that takes too long."""
        if not self._queue:
            member = self._free()
            if member is not None:
                self._dispatch(job, member)
                return
        if self._closing:
            job.refuse(ENDING)
        elif self._failed is not None and not self._alive():
            job.refuse(f"the application does not start: {self._failed}")
        elif len(self._queue) >= self._limits.queue_length:
            job.refuse(f"{len(self._queue):,} requests are waiting for an instance already")
        else:
            self._queue.append((time.monotonic() + self._limits.queue_timeout, job))
            self._grow()

    def _free(self) -> Member | None:
        concurrency = self._limits.concurrency
        for member in self.members:
            if member.running < concurrency and member.state is State.READY:
                return member
        return None

    def _dispatch(self, job: Job, member: Member) -> None:
        if not member.running:
            self._find_late_writes(member)
        member.overlaps += member.running > 0
        member.running += 1
        job.dispatch(member)

    def _find_late_writes(self, member: Member) -> None:
        late = member.instance.begin()
        if late:
            self._events.on_late_writes(member.number, late)

    def cancel(self, job: Job) -> None:
        """``job`` need not run any more; it must not have been dispatched."""
        self._queue = deque(one for one in self._queue if one[1] is not job)

    def release(self, member: Member) -> Span:
        """A request of ``member`` is over. Returns what happened since the last one was."""
        member.running -= 1
        member.served += 1
        self._failures = 0
        if member.state is State.ENDED:
            span, member.last_words = member.last_words, _NO_SPAN
            return span
        if member.running:
            span = member.instance.measure()
        else:
            span = member.instance.finish()
            member.idle_since = time.monotonic()
            if member.state is State.RETIRING:
                self._dismiss(member, "it is out of date")
        if self._queue:
            self._serve_queue()
        return span

    def _serve_queue(self) -> None:
        while self._queue and (member := self._free()) is not None:
            self._dispatch(self._queue.popleft()[1], member)

    def _refuse_all(self, reason: str) -> None:
        queue, self._queue = self._queue, deque()
        for _, job in queue:
            job.refuse(reason)

    def sweep(self, now: float) -> None:
        """To be called from time to time: ends what has waited or been idle for too long."""
        while self._queue and self._queue[0][0] <= now:
            _, job = self._queue.popleft()
            job.refuse(self._why_full())
        idle_timeout = self._limits.idle_timeout
        if not idle_timeout:
            return
        idle = [
            member
            for member in self.members
            if member.state is State.READY and not member.running and now - member.idle_since >= idle_timeout
        ]
        # The one that was started first stays, as it is the first to be used.
        for member in reversed(idle):
            if self._alive() > 1:
                self._dismiss(member, f"it was idle for {idle_timeout:g} s")

    def _why_full(self) -> str:
        limits = self._limits
        return (
            f"no instance was free within {limits.queue_timeout:g} s: {limits.instances} "
            f"{'instance' if limits.instances == 1 else 'instances'} with {limits.concurrency} at once each "
            f"ran {self.busy}, and {len(self._queue)} more are waiting"
        )


def ending(status: int) -> str:
    """How a process ended, by its exit status or the negative number of the signal."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"it was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
