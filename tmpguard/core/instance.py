"""``lifetime="instance"``: one ``/tmp`` for all invocations of a process, as on a warm instance.

A :class:`ProcessInstance` owns the volume. The invocations of the requests, each an
:class:`InstanceInvocation`, mount it, and may do so concurrently. Each invocation has its own report, which
includes what it left behind for the next one, and its own working directory, which starts where the last
``os.chdir`` went. As on a warm instance, files that are still open when an invocation ends keep working, and
so does code that is still running. The instance ends with :meth:`tmpguard.Guard.end_instance`, with its guard
or with the process. Then everything is wiped, and code that is still running gets ESTALE (C4.5).

Each process is an instance of its own. A forked child keeps its parent's ``/tmp`` only for the invocation in
which it was forked; its next invocation begins a new instance.
"""

from __future__ import annotations

import logging
import os
import weakref
from contextlib import suppress
from contextvars import Context
from errno import ESTALE
from functools import partial
from typing import Protocol

from tmpguard.core.mounts.lookup import Namespace
from tmpguard.core.reports.report import MOST_KEPT, Leftover, Report
from tmpguard.core.storage.forgotten import Maker
from tmpguard.core.storage.pages import Entry, Usage, inventory
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.volume import NO_VOLUME, Volume
from tmpguard.core.storage.wiper import wiper

from . import originals, real
from .context import unguarded
from .errors import os_error
from .invocation import Invocation, get_current, is_first_to_end
from .layout import TMP
from .policy import Policy

logger = logging.getLogger("tmpguard")

Stock = dict[str, Entry]


class Beginning(Protocol):
    """The initial state of an instance that does not start with an empty ``/tmp`` in the bundle."""

    @property
    def cwd(self) -> str | None:
        """The working directory; None for the bundle."""

    def fill(self, directory: str) -> None:
        """Create the initial files in ``directory``, the real ``/tmp``. Called outside any invocation."""


class Era:
    """A period of an instance's lifetime, with the peak usage in bytes once it is over.

    A new era begins whenever an invocation needs to know the peak usage from then on.
    """

    __slots__ = ("following", "peak")

    def __init__(self) -> None:
        self.peak = 0
        self.following: Era | None = None

    def past_peak(self) -> int:
        """The peak usage in bytes during this era and all later ones, except the current one."""
        peak, era = 0, self
        while era.following is not None:
            peak, era = max(peak, era.peak), era.following
        return peak


class ProcessInstance:
    """The state that the invocations of one process share: the volume, and which of them are running."""

    #: The volume, once an invocation has accessed ``/tmp``.
    volume: Volume = NO_VOLUME

    def __init__(self, guard: Policy, beginning: Beginning | None = None) -> None:
        self._guard = guard
        self._beginning = beginning
        self.process = os.getpid()
        self.ended = False
        self._lock = real.RLock()
        #: The running invocations that access files, by ``id``. Garbage collection may end one at any point.
        self._running: dict[int, weakref.ref[InstanceInvocation]] = {}
        self._last: Stock | None = None
        #: The usage when the last of them ended, and the quota's stamp at that time. None if the usage may
        #: change unnoticed, because an unlinked file was still open.
        self._settled: tuple[Usage, int] | None = None
        self._era = Era()
        #: The usage just before the final wipe.
        self._left = Usage(0, 0)
        #: The latest invocation that ended with a file open by a descriptor.
        self.left_open_by: InstanceInvocation | None = None
        #: The invocation that is ending, while its native writers are checked.
        self._ending: InstanceInvocation | None = None
        #: The directory of the last ``os.chdir``; None before the first one (C5.3).
        self.cwd: str | None = None if beginning is None else beginning.cwd
        #: The scratch directory, for the finalizer, which must not keep the instance alive.
        self._made: list[str] = []
        finalizer = weakref.finalize(self, _discard, guard.scratch, self._made)
        finalizer.atexit = False  # at exit, the scratch root wipes everything itself

    # --- running invocations ---------------------------------------------------------------------------

    def join(self, invocation: InstanceInvocation) -> Volume:
        """Mount the volume for ``invocation``, and take an inventory of what it finds there.

        Raises OSError(ESTALE) if the instance is over.
        """
        with self._lock:
            if invocation.mounted is not NO_VOLUME:
                return invocation.mounted  # another thread was first
            volume = self._mounted()
            before = invocation.found
            self._running[id(invocation)] = weakref.ref(invocation)
            invocation.before = self.stock() if before is None else before
            invocation.mounted = volume
            return volume

    def _mounted(self) -> Volume:
        if self.volume is NO_VOLUME:
            if self.ended:
                raise os_error(ESTALE)
            volume = Volume(self._guard)
            volume.maker = Maker.INSTANCE
            assert volume.directory is not None
            if self._beginning is not None:
                with unguarded():
                    self._beginning.fill(volume.directory)
                volume.forget_prefix()  # there may be symlinks
                volume.quota.measured()
            # A signal handler or a finalizer may have mounted one in the meantime.
            if vars(self).setdefault("volume", volume) is volume:
                self._made.append(volume.directory)
            else:
                volume.wipe()
        return self.volume

    @property
    def found(self) -> Stock | None:
        """What a new invocation finds in ``/tmp``, if that is known: what the last one left.

        None if other invocations are running, so the directory has to be read. Files that code of an ended
        invocation still creates are attributed to the next one.
        """
        return self._last if not self._others() else None

    def _others(self) -> list[InstanceInvocation]:
        """The running invocations, without those that were dropped without being ended."""
        found = []
        for key, reference in self._running.copy().items():
            other = reference()
            if other is None:
                self._running.pop(key, None)
            else:
                found.append(other)
        return found

    def leave(self, invocation: InstanceInvocation) -> tuple[Usage, int, Stock]:
        """``invocation`` is over: returns the usage, its peak in bytes, and the inventory."""
        with self._lock:
            self._running.pop(id(invocation), None)
            stock = self._last = self.stock()
            usage, unlinked = self._used(stock)
            peak = max(self.peak_since(invocation.era), usage.bytes)
            if not self._others():
                self._begin_era()  # so that the next invocation need not do it
            self._settled = None if unlinked else (usage, self.volume.quota.stamp)
            return usage, peak, stock

    # --- figures ---------------------------------------------------------------------------------------

    def begin_era(self) -> Era:
        """Begin an era. If nothing was used since the last invocation ended, returns the era begun then."""
        with self._lock:
            return self._era if self.settled_usage() is not None else self._begin_era()

    def _begin_era(self) -> Era:
        over = self._era
        over.following = self._era = Era()  # first: a finalizer may end an invocation in the next line
        over.peak = self.volume.quota.restart_peak()
        return self._era

    def peak_since(self, era: Era) -> int:
        """The peak usage in bytes since ``era`` began."""
        with self._lock:
            return max(era.past_peak(), 0 if self.volume is NO_VOLUME else self.volume.quota.peak)

    def settled_usage(self) -> Usage | None:
        """The current usage, if it is known without reading the disk; otherwise None.

        It is known if no running invocation accesses files and nothing was written after the last one.
        """
        if self.volume is NO_VOLUME:
            return self._left
        usage, stamp = self._settled or (None, 0)
        return usage if stamp == self.volume.quota.stamp and not self._others() else None

    def usage(self) -> Usage:
        """The current usage, measured on disk; after the end of the instance, the usage at the end."""
        if self.ended or self.volume is NO_VOLUME:
            return self._left
        return self.volume.quota.measured()

    # --- contents of /tmp ------------------------------------------------------------------------------

    @property
    def credit(self) -> int:
        """A number that changes whenever something is written."""
        return 0 if self.volume is NO_VOLUME else self.volume.quota.balance

    def stock(self) -> Stock:
        """The entries of ``/tmp`` by path, without mount points."""
        if self.volume.directory is None:
            return {}
        head, _, tail = self.volume.directory.rpartition("/")
        with unguarded():
            try:
                parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return {}  # the directory was removed, by a clean-up of temporary files for example
            try:
                found = inventory(parent, tail)
            finally:
                originals.close(parent)
        table = self._guard.mounts
        points = {path[len(TMP) :] for path in table.points | table.ancestors}
        return {TMP + path: entry for path, entry in found.items() if path not in points}

    def _used(self, stock: Stock) -> tuple[Usage, dict[int, int]]:
        """The usage for the inventory ``stock``, and the bytes of the unlinked open files by inode."""
        once = {entry.inode: entry.bytes for entry in stock.values() if entry.linked}
        total = sum(entry.bytes for entry in stock.values() if not entry.linked) + sum(once.values())
        return self.volume.with_unlinked(Usage(total, len(stock)))

    # --- native writers --------------------------------------------------------------------------------

    def check_for(self, invocation: InstanceInvocation) -> None:
        """Check what native writers have written, at the end of ``invocation``."""
        self._ending = invocation
        try:
            self.volume.checked_prefix()
        finally:
            self._ending = None

    def exceeded(self, exposed_by: InstanceInvocation, real: str) -> None:
        """A native writer has exceeded the quota.

        It is reported on the running invocation, or else on the one that exposed the descriptor.
        """
        current = self._ending or get_current()
        if not isinstance(current, InstanceInvocation) or current.instance is not self:
            current = exposed_by
        current.record_exceeded(real)

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """Wipe ``/tmp`` and wait for it (C4.2). Idempotent; never raises."""
        self.ended = True
        if not is_first_to_end(self):
            return
        volume = self.volume
        volume.close()
        if volume is NO_VOLUME:
            return
        opener = next(iter(self._others()), self.left_open_by)
        if opener is not None:
            opener.disown(volume)
            self.left_open_by = None
        with unguarded():
            self._left = volume.wipe()
            wiper.release(self._guard.scratch)


def _discard(root: ScratchRoot, made: list[str]) -> None:
    """The guard was garbage-collected without having been ended.

    The background thread does the work, because the garbage collector may call this anywhere, even while a
    context variable is being set. Setting another one there crashes Python 3.11.
    """
    wiper.put(partial(_discard_now, root, made), root)


def _discard_now(root: ScratchRoot, made: list[str]) -> None:
    for directory in made:
        root.discard(directory)


class Instances:
    """The instances of a guard: one at a time per process, and a new one after a fork."""

    def __init__(self, guard: Policy) -> None:
        self._guard = guard
        #: The latest instance; None if there has been none.
        self.last: ProcessInstance | None = None
        #: The initial state of each new instance.
        self.beginning: Beginning | None = None

    def set_aside(self) -> ProcessInstance | None:
        """Have the next invocation begin a new instance. Returns the latest one, without ending it."""
        last, self.last = self.last, None
        return last

    def current(self) -> ProcessInstance:
        """The instance for a new invocation. It is created if the latest has ended or is the parent's."""
        last = self.last
        if last is None or last.ended or last.process != os.getpid():
            made = ProcessInstance(self._guard, self.beginning)
            # Atomic: another thread, a signal handler or a finalizer may have been first.
            self.last = made if self.last is last else self.last
            assert self.last is not None
            return self.last
        return last


class InstanceInvocation(Invocation):
    """One request of an instance. It mounts the instance's volume instead of one of its own."""

    _over = False
    #: The entries of /tmp when the invocation first accessed it.
    before: Stock | None = None
    _leftovers: tuple[Leftover, ...] = ()
    #: The most that was in use before its last look, in bytes.
    _peak = 0
    #: Is it over, and is it still to be found out what was used at its end?
    _is_unsettled = False

    def __init__(self, guard: Policy, instance: ProcessInstance) -> None:
        super().__init__(guard)
        self.instance = instance
        self.found = instance.found
        self._credit = instance.credit
        self.era = instance.begin_era()

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """True once /tmp is gone, which is not before the end of the instance."""
        return self.instance.ended

    # --- mounting the instance's volume ----------------------------------------------------------------

    def _mount(self) -> Volume:
        return self.instance.join(self)

    def _make_namespace(self) -> Namespace:
        namespace = super()._make_namespace()
        namespace.cwd = self.instance.cwd
        if not self._over:
            with suppress(OSError):  # everything outside /tmp can still be read
                namespace.scratch()  # mounted now, because other invocations may have created files there
        return namespace

    def change_directory(self, virtual: str) -> None:
        """Change the working directory, also for later invocations of the instance (C5.3)."""
        super().change_directory(virtual)
        self.instance.cwd = virtual

    def owns(self, descriptor: int) -> bool:
        """Whether ``descriptor`` refers to a file in the instance's /tmp."""
        return self.instance.volume.owns(descriptor)  # includes descriptors left open by earlier invocations

    def record_exceeded(self, real: str) -> None:
        """Record that a native writer of this invocation has exceeded the quota with the file ``real``."""
        super()._exceeded(real)

    def _exceeded(self, real: str) -> None:
        self.instance.exceeded(self, real)

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the invocation. Idempotent; never raises. What it left is measured here, before the next
        invocation adds to it."""
        if self._finish():
            self._wipe()
            self._announce()

    def _finish(self) -> bool:
        if not is_first_to_end(self):
            return False
        if self._report is not None:
            self.settle(self._report)
        try:
            # In a new, empty context: a finalizer may be ending this invocation.
            Context().run(self._look_back)
        except OSError:
            logger.exception("tmpguard: could not measure what an invocation left behind")
        self._over = True
        self.before = self.found = {}  # no longer needed
        if self.mounted is not NO_VOLUME and self.mounted.quota.still_open():
            self.instance.left_open_by = self
        return True

    def _look_back(self) -> None:
        self.instance.check_for(self)
        if self.found is not None and self._credit != self.instance.credit and not self.ended:
            self._mount()  # it only wrote to files that an earlier invocation had opened
        if self.before is not None:
            usage, peak, now = self.instance.leave(self)
            self._final = usage, peak
            self._leftovers = _added(self.before, now)
        else:
            self._look_at_others()
        self.era = Era()  # holds none of those that follow

    def _look_at_others(self) -> None:
        """Determine the usage at the end of an invocation that accessed no files.

        This performs no file operation (C4.7) if nobody needs the figures, or if they have not changed.
        """
        usage = self.instance.settled_usage()
        self._peak = self.era.past_peak() if usage is not None else self.instance.peak_since(self.era)
        if usage is None and (self._report is not None or self.guard.on_report is not None):
            usage = self.instance.usage()
        self._final = usage or Usage(0, 0), self._peak
        self._is_unsettled = usage is None

    def _wipe(self) -> None:
        self._close_report(*self._final, 0.0)

    # --- the report ------------------------------------------------------------------------------------

    def _new_report(self) -> Report:
        report = super()._new_report()
        report.find_leftovers = self._find_leftovers
        return report

    def _find_leftovers(self) -> tuple[Leftover, ...]:
        before = self.before
        if self._over or before is None:
            return self._leftovers
        return _added(before, self.instance.stock())

    def _usage(self) -> tuple[Usage, int]:
        if self._over and not self._is_unsettled:
            return self._final
        usage = self.instance.usage()
        figures = usage, max(usage.bytes, self._peak if self._over else self.instance.peak_since(self.era))
        if self._over:
            self._final, self._is_unsettled = figures, False
        return figures


def _added(before: Stock, now: Stock) -> tuple[Leftover, ...]:
    """The entries that are new or have grown, with the growth in bytes: the thousand largest."""
    # A new hard link to a file that was there before adds no data.
    counted = {
        entry.inode
        for path, entry in now.items()
        if entry.linked and path in before and before[path].inode == entry.inode
    }
    found = []
    for path in sorted(now):
        entry, old = now[path], before.get(path)
        size = entry.bytes - old.bytes if old is not None else entry.bytes
        if entry.linked and old is None:
            size = 0 if entry.inode in counted else size
            counted.add(entry.inode)
        if old is None or size > 0:
            found.append(Leftover(path, size))
    found.sort(key=lambda leftover: -leftover.bytes)
    return tuple(found[:MOST_KEPT])
