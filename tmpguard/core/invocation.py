"""One request's file system, from first use to wipe, and which invocation is the current one."""

from __future__ import annotations

import errno as codes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, ParamSpec, Protocol, TypeVar

from tmpguard.core.mounts.lookup import Namespace, namespace_of
from tmpguard.core.reports.delivery import reporter
from tmpguard.core.reports.report import Report
from tmpguard.core.storage import outlived
from tmpguard.core.storage.forgotten import Maker
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.quota import Quota
from tmpguard.core.storage.volume import NO_VOLUME, Volume
from tmpguard.core.storage.wiper import wiper

from . import context, hooks, real, speedups
from .attachments import Attachments
from .context import activate, leave, left_before, restore, unguarded
from .errors import os_error
from .layout import TMP
from .policy import Policy
from .refusing import RefusalMixin
from .speedups import InvocationFields
from .spelling import GONE

P = ParamSpec("P")
T = TypeVar("T")

#: The thread that served the request never wipes more than this.
_AT_ONCE_BYTES: Final = 1 << 20


class EndObserver(Protocol):
    """An object that is notified when an invocation ends."""

    def over(self) -> None:
        """The invocation is over, and /tmp is about to be wiped. Must not raise."""

    def wiped(self, usage: Usage) -> None:
        """/tmp was wiped, and had held ``usage``. Must not raise."""


class Invocation(InvocationFields, Attachments, RefusalMixin):
    """One request's file system (C4.1). Created by :meth:`tmpguard.Guard.invocation`.

    It performs no file operation until the application does (C4.7). As a context manager (``with`` or
    ``async with``), it is the current invocation within the block, and is wiped when the block exits. As a
    decorator, it runs each call of the function as a new invocation.
    """

    # A request that accesses no files must cost next to nothing. So attributes that only file operations need
    # are class attributes, which instance attributes replace on first use.
    #: True if it only watches: nothing is redirected, refused or wiped (C2.5). See :mod:`.watching`.
    watches = False
    #: The volume behind /tmp, if it has been mounted. Unlike ``volume``, reading this never mounts it.
    mounted: Volume = NO_VOLUME
    #: True if another invocation may reuse the scratch directory. False if something may still refer to it: a
    #: descriptor, a child process, or a file that was unlinked while open.
    reusable = True
    #: The namespace, if it has been created. Unlike ``namespace``, reading this never creates it.
    made_namespace: Namespace | None = None
    _report: Report | None = None
    #: For each active ``with`` block of this invocation, the invocation that was current before it.
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
        if get_current() is not self and self._is_below_current():
            leave(self, before)
        else:
            restore(self, before)
        if outer or not self._finish():
            return
        self._wipe_here()
        self._announce()

    def _wipe_here(self) -> None:
        """Wipe in this thread, and wait for it."""
        if self.mounted is NO_VOLUME and not self.guard.scratch.claims:
            self._close_report(*self._final, 0.0)  # no files were accessed, so there is nothing to wipe
        else:
            with unguarded():
                self._wipe()
                wiper.release(self.guard.scratch)

    def _is_below_current(self) -> bool:
        """Whether the current invocation was entered within a block of this one."""
        seen, pending = set(), [get_current()]
        while pending:
            found = pending.pop()
            if found is self:
                return True
            if found is not None and found not in seen:
                seen.add(found)
                pending += [*found._outer, left_before(found)]
        return False

    async def __aenter__(self) -> Invocation:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, value, traceback)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Wrap a function, coroutine function or generator function: each call is a new invocation."""
        from .decorating import decorated  # rarely needed, and imports inspect

        return decorated(function, self._another)

    def _another(self) -> Invocation:
        """A new invocation of the same kind."""
        another: Invocation = self.guard.invocation()
        return another

    @property
    def entered(self) -> bool:
        """True within a ``with`` block of the invocation; false if a middleware runs it."""
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
        """End the invocation (C4.2, C4.4). Idempotent; never raises; does not wait for the wipe.

        The wipe, the final report and ``on_report`` are left to a background thread. :func:`tmpguard.drain`
        waits for it.
        """
        self.ended = True
        if self.mounted is NO_VOLUME and self.guard.on_report is None:
            return  # no files were accessed, and nobody waits for the report
        if self._finish() and not self._clean_up_at_once():
            wiper.put(self._clean_up, self.guard.scratch)

    def _finish(self) -> bool:
        """Mark the invocation as ended. Returns False if another thread or an earlier call has done so."""
        self.ended = True
        if not is_first_to_end(self):
            return False
        if self._report is not None:
            self.settle(self._report)
        volume = self.mounted
        if volume is not NO_VOLUME and not is_first_to_end(volume):
            volume = self._unmount()  # it was mounted too late, by a thread that also removes it
        if volume is not NO_VOLUME:
            volume.close()
            self.disown(volume)
        for observer in self._observers:
            observer.over()
        return True

    def disown(self, volume: Volume) -> None:
        """``volume`` is closed: its files still open by a descriptor are refused from now on (C4.5)."""
        if volume.directory is None:
            return
        for key, path in volume.quota.still_open():
            name = TMP + path.removesuffix(GONE).removeprefix(volume.directory)
            outlived.remember(key, outlived.Outlived(volume.directory, name, self))

    def _clean_up_at_once(self) -> bool:
        """Wipe in this thread if that is quick. Returns False if there is more to do: many or large files,
        directories, or a callback."""
        if self.guard.on_report is not None or self.mounted is NO_VOLUME:
            return False
        begin = real.perf_counter()
        peak = self.mounted.quota.peak
        if peak > _AT_ONCE_BYTES:
            return False
        usage = self.mounted.wipe_if_small(reusable=self.reusable)
        if usage is None:
            return False
        self._close_report(usage, peak, real.perf_counter() - begin)
        wiper.watch(self.guard.scratch)
        return True

    def _clean_up(self) -> None:
        """Wipe, finalize the report and pass it to ``on_report``. Never raises."""
        self._wipe()
        if self.guard.on_report is not None:
            self._hand_out()

    def _announce(self) -> None:
        """Pass the final report to ``on_report``, if there is one, on another thread."""
        if self.guard.on_report is not None:
            wiper.put(self._hand_out, self.guard.scratch)

    def _hand_out(self) -> None:
        reporter.put(self.guard, self.report)

    def _wipe(self) -> None:
        usage, peak = Usage(0, 0), 0
        begin = real.perf_counter()
        if self.mounted is not NO_VOLUME:
            peak = self.mounted.quota.peak
            usage = self.mounted.wipe()
        self._close_report(usage, peak, real.perf_counter() - begin)

    def _close_report(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        self._final = (usage, max(peak, usage.bytes))
        self._wipe_seconds = wipe_seconds
        for observer in self._observers:
            observer.wiped(usage)
        if self._report is not None or self.guard.on_report is not None:
            self.report.close(*self._final, wipe_seconds)

    def observe_end(self, observer: EndObserver) -> None:
        """Notify ``observer`` when the invocation ends, and again when /tmp has been wiped."""
        self._observers += (observer,)

    # --- what is behind /tmp ---------------------------------------------------------------------------

    @property
    def volume(self) -> Volume:
        """The volume behind /tmp, which is mounted on first use.

        Raises OSError(ESTALE) if the invocation is over (C4.5).
        """
        volume = self.mounted
        return self._mount() if volume is NO_VOLUME else volume

    def _mount(self) -> Volume:
        self.touched = True  # before ``ended`` is read: whoever ends it sets that one first
        with _lock:
            if self.mounted is NO_VOLUME:
                if self.ended:
                    raise os_error(codes.ESTALE)
                volume = Volume(self.guard)
                if self.cold_start:
                    volume.maker = Maker.START
                # A signal handler or a finalizer may have mounted one in the meantime.
                if vars(self).setdefault("mounted", volume) is not volume:
                    volume.wipe()
                if self._was_ended():
                    if self._finish():
                        wiper.put(self._clean_up, self.guard.scratch)
                    elif self.mounted is volume and is_first_to_end(volume):
                        # The thread that ended the invocation did not see it.
                        self._unmount()
                        volume.close()
                        wiper.put(volume.discard, self.guard.scratch)
                    raise os_error(codes.ESTALE)
            return self.mounted

    def _unmount(self) -> Volume:
        """From now on, late code gets ESTALE because it cannot mount a volume either."""
        vars(self).pop("mounted", None)
        return self.mounted

    def _was_ended(self) -> bool:
        """Read ``ended`` again, after a step during which another thread may have set it."""
        return self.ended

    @property
    def quota(self) -> Quota:
        """The quota of /tmp (C3). Raises OSError(ESTALE) if the invocation is over."""
        volume = self.mounted  # as ``volume`` does, but without the extra call for each write
        return (self._mount() if volume is NO_VOLUME else volume).quota

    @property
    def namespace(self) -> Namespace:
        """The invocation's view of the file system."""
        namespace = self.made_namespace
        if namespace is None:
            namespace = vars(self).setdefault("made_namespace", self._make_namespace())
        return namespace

    def _make_namespace(self) -> Namespace:
        return namespace_of(self.guard.mounts, self._directory, self.make_mount_points)

    def change_directory(self, virtual: str) -> None:
        """Make the canonical path ``virtual`` the working directory (C5.3)."""
        self.namespace.cwd = virtual

    def _directory(self) -> str:
        directory = self.volume.directory
        assert directory is not None
        return directory

    def make_mount_points(self) -> None:
        """Create the mount points below /tmp, so that listings show them (C5.1)."""
        if self.guard.mounts.points:
            self.namespace.scratch()
            self.volume.make_mount_points()

    def first_prefix(self) -> str | None:
        """Mount the volume if necessary, and return its prefix; None if it has none."""
        if self.ended:
            return None
        self.namespace.scratch()
        return self.mounted.prefix or self.mounted.checked_prefix()

    @property
    def uses_tmp(self) -> bool:
        """Whether the invocation has used files in its ``/tmp``."""
        return self.mounted is not NO_VOLUME

    def owns(self, descriptor: int) -> bool:
        """Whether ``descriptor`` refers to a file in this invocation's /tmp."""
        return self.mounted.owns(descriptor)

    def expose(self, descriptor: int, status: os.stat_result | None = None, real: str = "") -> None:
        """From now on, native code may write to ``descriptor``, a file in ``/tmp`` (C3.5)."""
        self.volume.expose(descriptor, status, real, self._exceeded)

    # --- the report ------------------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """What the invocation used and what it was refused: live until the end, then final."""
        report = self._report
        if report is None:
            report = vars(self).setdefault("_report", self._new_report())
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
            wiper.drain()  # the final usage is known only after the wipe
            self._await_end()
            return self._final
        return self.quota.measured(), self.quota.peak

    def _await_end(self) -> None:
        """Wait until the thread that ends the invocation has wiped what little it held.

        Not for ever: the caller may be a finalizer or a signal handler in that very thread.
        """
        deadline = real.monotonic() + _ENDING_SECONDS
        while "_final" not in vars(self) and real.monotonic() < deadline:
            real.sleep(0.001)


def is_first_to_end(ending: object) -> bool:
    """Whether the caller is the first to end ``ending``, an invocation or an instance.

    Atomic without a lock, because a garbage collection or a signal handler may end it at any point. Creating
    a lock would also cost time in every request.
    """
    mark = object()
    return vars(ending).setdefault("_ended_by", mark) is mark


#: The invocation that the running code belongs to, or None: the context variable's own method.
get_current: Final[Callable[[], Invocation | None]] = context.get_current


def current() -> Invocation | None:
    """The invocation that the calling code belongs to, or None."""
    return get_current()


def redirecting() -> Invocation | None:
    """The invocation for which calls are redirected; None outside, or within one that only watches (C2.5)."""
    invocation = get_current()
    return None if invocation is None or invocation.watches else invocation


def _prepare_fork() -> None:
    """Mount /tmp before a fork: the child shares the invocation, so there must be a volume to share."""
    invocation = redirecting()
    if invocation is not None and not invocation.ended:
        invocation.reusable = False
        with suppress(OSError):
            invocation.namespace.scratch()
            invocation.volume.forget_prefix()  # the child may create symlinks there


#: How long another thread waits for the end of an invocation to be complete.
_ENDING_SECONDS: Final = 1

#: Held while a volume is mounted.
_lock: Final = real.RLock()


hooks.register(hooks.Step.SHARE_WITH_CHILD, _prepare_fork)
speedups.configure(context.current_variable, Invocation, NO_VOLUME)
