"""One request's file system, from its first use to the wipe; and which invocation is the current one."""

from __future__ import annotations

import errno as codes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Protocol

from tmpguard.core.mounts.lookup import Namespace, namespace_of
from tmpguard.core.reports.delivery import reporter
from tmpguard.core.reports.report import Report
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.quota import Quota
from tmpguard.core.storage.volume import NO_VOLUME, Volume
from tmpguard.core.storage.wiper import wiper

from . import attachments, context, hooks
from .attachments import Attachments
from .context import activate, restore, unguarded
from .errors import os_error
from .policy import Policy
from .refusing import RefusalMixin


class EndObserver(Protocol):
    """Somebody who has to know of an invocation's end."""

    def over(self) -> None:
        """It is over; /tmp is about to be wiped. Must not raise."""

    def wiped(self, usage: Usage) -> None:
        """/tmp was wiped; it held ``usage``. Must not raise."""


class Invocation(Attachments, RefusalMixin):
    """One request's file system (C4.1). Made by :meth:`tmpguard.Guard.invocation`; makes no file operation
    until one is asked for (C4.7).

    As a context manager it is the current invocation within the block and is wiped when the block is left.
    """

    # A request that touches no file must pay next to nothing, so what only file work needs starts as a
    # class attribute and is made on first use.
    ended = False
    #: The volume behind its /tmp once there is one: what must not make one asks this and not ``volume``.
    mounted: Volume = NO_VOLUME
    #: May another invocation have the scratch directory when this one is over? Not where somebody may still
    #: hold on to it: by a descriptor, in a child process, by what was unlinked in it while it was open.
    reusable = True
    _namespace: Namespace | None = None
    _report: Report | None = None
    #: What was current before each block of this one that is entered.
    _outer: tuple[Invocation | None, ...] = ()
    _final: tuple[Usage, int] = (Usage(0, 0), 0)
    _wipe_seconds = 0.0
    _observers: tuple[EndObserver, ...] = ()

    def __init__(self, guard: Policy) -> None:
        self.guard = guard

    # --- the block -------------------------------------------------------------------------------------

    def __enter__(self) -> Invocation:
        self._outer += (activate(self),)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        *outer, before = self._outer
        self._outer = tuple(outer)
        restore(self, before)
        if outer or not self._finish():
            return
        with unguarded():
            self._wipe()
            wiper.release(self.guard.scratch)
        if self.guard.on_report is not None:
            wiper.put(self._hand_out, self.guard.scratch)

    @property
    def entered(self) -> bool:
        """Does a block of it run, and no middleware?"""
        return bool(self._outer)

    @contextmanager
    def bound(self) -> Iterator[Invocation]:
        """Make this the current invocation for one step, without ending it."""
        before = activate(self)
        try:
            yield self
        finally:
            restore(self, before)

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the invocation (C4.2, C4.4): idempotent, never raises, does not wait for the wipe.

        The wipe, the final report and ``on_report`` happen on a background thread;
        :func:`tmpguard.drain` waits for them.
        """
        self.ended = True
        if self.mounted is NO_VOLUME and self.guard.on_report is None:
            return  # no file was touched and nobody waits for the report
        if self._finish() and not self._clean_up_at_once():
            wiper.put(self._clean_up, self.guard.scratch)

    def _finish(self) -> bool:
        """Mark the end; False if another thread or an earlier call did."""
        self.ended = True
        if not is_first_to_end(self):
            return False
        self.mounted.close()
        for observer in self._observers:
            observer.over()
        return True

    def _clean_up_at_once(self) -> bool:
        """Wipe in this thread where next to nothing is to be done; False where there is more to do: many
        files or large ones, directories, a callback to run."""
        if self.guard.on_report is not None:
            return False
        begin = time.perf_counter()
        usage = self.mounted.wipe_if_small(reusable=self.reusable)
        if usage is None:
            return False
        self._close_report(usage, self.mounted.quota.peak, time.perf_counter() - begin)
        wiper.watch(self.guard.scratch)
        return True

    def _clean_up(self) -> None:
        """Wipe, make the report final and hand it out. Never raises."""
        self._wipe()
        if self.guard.on_report is not None:
            self._hand_out()

    def _hand_out(self) -> None:
        reporter.put(self.guard, self.report)

    def _wipe(self) -> None:
        usage, peak = Usage(0, 0), 0
        begin = time.perf_counter()
        if self.mounted is not NO_VOLUME:
            peak = self.mounted.quota.peak
            usage = self.mounted.wipe()
        self._close_report(usage, peak, time.perf_counter() - begin)

    def _close_report(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        self._final = (usage, max(peak, usage.bytes))
        self._wipe_seconds = wipe_seconds
        for observer in self._observers:
            observer.wiped(usage)
        if self._report is not None or self.guard.on_report is not None:
            self.report.close(*self._final, wipe_seconds)

    def observe_end(self, observer: EndObserver) -> None:
        """Have ``observer`` called when the invocation ends, and once more when its /tmp was wiped."""
        self._observers += (observer,)

    # --- what is behind /tmp ---------------------------------------------------------------------------

    @property
    def volume(self) -> Volume:
        """The volume behind its /tmp, which is mounted first if need be. Raises OSError(ESTALE) when it is
        over (C4.5)."""
        volume = self.mounted
        return self._mount() if volume is NO_VOLUME else volume

    def _mount(self) -> Volume:
        with _lock:
            if self.mounted is NO_VOLUME:
                if self.ended:
                    raise os_error(codes.ESTALE)
                volume = Volume(self.guard)
                self.mounted = volume
                if self._was_ended():
                    if self._finish():
                        wiper.put(self._clean_up, self.guard.scratch)
                    raise os_error(codes.ESTALE)
            return self.mounted

    def _was_ended(self) -> bool:
        """Asked again after a step during which another thread may have ended it."""
        return self.ended

    @property
    def quota(self) -> Quota:
        """What the invocation may still allocate (C3)."""
        return self.volume.quota

    @property
    def namespace(self) -> Namespace:
        """The invocation's view of the file system."""
        namespace = self._namespace
        if namespace is None:
            namespace = self._namespace = self._make_namespace()
        return namespace

    def _make_namespace(self) -> Namespace:
        return namespace_of(self.guard.mounts, self._directory, self.make_mount_points)

    def _directory(self) -> str:
        directory = self.volume.directory
        assert directory is not None
        return directory

    def make_mount_points(self) -> None:
        """Make the directories on which the bundle and others are mounted: a listing shows them (C5.1)."""
        if self.guard.mounts.points:
            self.namespace.scratch()
            self.volume.make_mount_points()

    def first_prefix(self) -> str | None:
        """The volume's prefix, for which it is mounted if it was not. None where there is none."""
        if self.ended:
            return None
        self.namespace.scratch()
        return self.mounted.prefix or self.mounted.checked_prefix()

    def owns(self, descriptor: int) -> bool:
        """Is ``descriptor`` a file in its /tmp?"""
        return self.mounted.owns(descriptor)

    def expose(self, descriptor: int, status: os.stat_result | None = None, real: str = "") -> None:
        """Native code may write to ``descriptor``, of a file in ``/tmp``, from now on (C3.5)."""
        self.volume.expose(descriptor, status, real, self._exceeded)

    # --- the report ------------------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """What the invocation used and was refused: live, and final after the end."""
        report = self._report
        if report is None:
            with _lock:
                if self._report is None:
                    self._report = self._new_report()
                report = self._report
        return report

    def _new_report(self) -> Report:
        report = Report(self.guard.quota_bytes, self._usage)
        report.cold_start = self.cold_start
        report.wipe_seconds = self._wipe_seconds
        return report

    def _usage(self) -> tuple[Usage, int]:
        if self.mounted is NO_VOLUME:
            return self._final
        if self.ended:
            wiper.drain()  # what it left is known when the wipe is through
            return self._final
        return self.quota.measured(), self.quota.peak


def is_first_to_end(ending: object) -> bool:
    """True for one caller: the one who ends the invocation or the instance.

    Atomic without a lock, since a garbage collection or a signal handler may end another one, or this one, at
    any point; and nothing to make for a request without files.
    """
    mark = object()
    return vars(ending).setdefault("_ended_by", mark) is mark


#: The invocation that the running code belongs to, or None: the context variable's own method.
get_current: Final[Callable[[], Invocation | None]] = context.get_current


def current() -> Invocation | None:
    """The invocation that the calling code belongs to, or None."""
    return get_current()


def _prepare_fork() -> None:
    """A forked child shares its parent's invocation, and so its /tmp: there has to be one to share."""
    invocation = get_current()
    if invocation is not None and not invocation.ended:
        invocation.reusable = False
        with suppress(OSError):
            invocation.namespace.scratch()
            invocation.volume.forget_prefix()  # the child may make links there


#: For mounting volumes, and making what else there is one of for each invocation.
_lock = threading.RLock()


def _free_locks() -> None:
    """In a forked child: whoever held them is another thread, of which there is no copy here."""
    global _lock
    _lock = threading.RLock()
    attachments.free_lock()
    invocation = get_current()
    if invocation is None:
        return
    invocation.mounted.free_locks()
    if invocation._report is not None:
        invocation._report.free_lock()


hooks.register(hooks.Step.SHARE_WITH_CHILD, _prepare_fork)
hooks.register(hooks.Step.FREE_LOCKS, _free_locks)
