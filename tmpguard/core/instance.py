"""``lifetime="instance"``: one ``/tmp`` for all invocations of a process, as on a warm instance.

An :class:`Instance` owns the volume. The invocations of the requests, each an :class:`InstanceInvocation`,
mount it, concurrent ones too, and have of their own the working directory and the report. On it is what each
left behind for the next. What a warm instance keeps is kept here as well: files that are still open when an
invocation ends go on working, and so does code that still runs. The end is that of the instance:
:meth:`tmpguard.Guard.end_instance`, the guard's own end or that of the process. Then everything is wiped, and
late code gets ESTALE (C4.5).

Each process is an instance: a forked child goes on with its parent's ``/tmp`` only for the invocation in
which it was forked, and begins a new one with the next.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from contextvars import Context
from errno import ESTALE
from functools import partial
from typing import Final

from tmpguard.core.mounts.lookup import Namespace
from tmpguard.core.reports.report import KEPT, Leftover, Report
from tmpguard.core.storage.openfiles import open_unlinked
from tmpguard.core.storage.pages import Entry, Usage, allocated, inventory
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.volume import NO_VOLUME, Volume
from tmpguard.core.storage.wiper import wiper

from . import originals
from .context import unguarded
from .errors import os_error
from .invocation import Invocation, get_current, is_first_to_end
from .layout import TMP, is_below
from .policy import Policy

logger = logging.getLogger("tmpguard")

Stock = dict[str, Entry]

#: For making an instance.
_lock: Final = threading.Lock()


class Instance:
    """What the invocations of one process share: the volume, and who is running on it."""

    def __init__(self, guard: Policy) -> None:
        self._guard = guard
        self.process = os.getpid()
        self.ended = False
        #: The volume, once an invocation has used files.
        self.volume: Volume = NO_VOLUME
        self._lock = threading.RLock()
        #: Those that use files, by their ids. A garbage collection may end one at any point.
        self._running: dict[int, weakref.ref[InstanceInvocation]] = {}
        self._last: Stock | None = None
        #: The invocation that ends, while it is looked whether a native writer of its took too much.
        self._ending: InstanceInvocation | None = None
        #: The directory, for the finalizer, which must not hold the instance.
        self._made: list[str] = []
        finalizer = weakref.finalize(self, _discard, guard.scratch, self._made)
        finalizer.atexit = False  # then the root wipes what is left by itself

    # --- who is running --------------------------------------------------------------------------------

    def join(self, invocation: InstanceInvocation) -> Volume:
        """The volume for ``invocation``, which begins to use files and gets to know what is there before it.

        Raises OSError(ESTALE) when the instance is over.
        """
        with self._lock:
            if invocation.mounted is not NO_VOLUME:
                return invocation.mounted  # by another thread of it
            volume = self._mounted()
            before = invocation.found
            # The most in use at one time is found out anew for each that runs at the time.
            peak = volume.quota.restart_peak()
            for other in self._others():
                other.peak = max(other.peak, peak)
            self._running[id(invocation)] = weakref.ref(invocation)
            invocation.before = self.stock() if before is None else before
            invocation.mounted = volume
            return volume

    def _mounted(self) -> Volume:
        if self.volume is NO_VOLUME:
            if self.ended:
                raise os_error(ESTALE)
            self.volume = volume = Volume(self._guard)
            assert volume.directory is not None
            self._made[:] = [volume.directory]
        return self.volume

    @property
    def found(self) -> Stock | None:
        """What an invocation finds that begins now: what the last one left, where no other one runs.

        None where that has to be looked at. What code of an ended invocation still makes is the next one's.
        """
        return self._last if not self._others() else None

    def _others(self) -> list[InstanceInvocation]:
        """The invocations that run; one that was dropped without an end does not."""
        found = []
        for key, reference in self._running.copy().items():
            other = reference()
            if other is None:
                self._running.pop(key, None)
            else:
                found.append(other)
        return found

    def leave(self, invocation: InstanceInvocation) -> tuple[Usage, int, Stock]:
        """``invocation`` is over: what is used, the most that was used during it, and what is there now."""
        with self._lock:
            self._running.pop(id(invocation), None)
            stock = self._last = self.stock()
            usage = self._used(stock)
            return usage, max(self.volume.quota.peak, invocation.peak, usage.bytes), stock

    # --- what is there ---------------------------------------------------------------------------------

    @property
    def credit(self) -> int:
        """A number that is another one once something was written."""
        return 0 if self.volume is NO_VOLUME else self.volume.quota.balance

    def stock(self) -> Stock:
        """The entries of ``/tmp`` by their paths; the mount points are none."""
        if self.volume.directory is None:
            return {}
        head, _, tail = self.volume.directory.rpartition("/")
        with unguarded():
            try:
                parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return {}  # somebody cleaned up temporary files
            try:
                found = inventory(parent, tail)
            finally:
                originals.close(parent)
        table = self._guard.mounts
        points = {path[len(TMP) :] for path in table.points | table.ancestors}
        return {TMP + path: entry for path, entry in found.items() if path not in points}

    def _used(self, stock: Stock) -> Usage:
        once = {entry.inode: entry.bytes for entry in stock.values() if entry.linked}
        total = sum(entry.bytes for entry in stock.values() if not entry.linked) + sum(once.values())
        directory = self.volume.directory
        unlinked = [status for path, status in open_unlinked() if directory and is_below(path, directory)]
        return Usage(total + sum(allocated(status, "") for status in unlinked), len(stock) + len(unlinked))

    # --- native writers --------------------------------------------------------------------------------

    def check_for(self, invocation: InstanceInvocation) -> None:
        """Look for native writers when ``invocation`` ends."""
        self._ending = invocation
        try:
            self.volume.checked_prefix()
        finally:
            self._ending = None

    def exceeded(self, exposed_by: InstanceInvocation, real: str) -> None:
        """A native writer took more than there is: it is on the report of the invocation that runs, or else
        of the one that gave the descriptor away."""
        current = self._ending or get_current()
        if not isinstance(current, InstanceInvocation) or current.instance is not self:
            current = exposed_by
        current.record_exceeded(real)

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """Wipe ``/tmp``: idempotent, never raises, waits for the wipe."""
        self.ended = True
        if not is_first_to_end(self):
            return
        volume = self.volume
        volume.close()
        if volume is NO_VOLUME:
            return
        with unguarded():
            volume.wipe()
            wiper.release(self._guard.scratch)


def _discard(root: ScratchRoot, made: list[str]) -> None:
    """The guard is gone without an end.

    The collector of cycles calls this anywhere, within the setting of a context variable too, where Python
    3.11 does not survive that another one sets it: the background thread does the work.
    """
    wiper.put(partial(_discard_now, root, made), root)


def _discard_now(root: ScratchRoot, made: list[str]) -> None:
    for directory in made:
        root.discard(directory)


class Instances:
    """The instance of each process in which a guard is used: one at a time, and another after a fork."""

    def __init__(self, guard: Policy) -> None:
        self._guard = guard
        #: The last one that was made, None where there was none yet.
        self.last: Instance | None = None

    def current(self) -> Instance:
        """That of a new invocation: a new one where there was none, or where it is over or the parent's."""
        last = self.last
        if last is None or last.ended or last.process != os.getpid():
            with _lock:
                if self.last is last:
                    self.last = Instance(self._guard)
                assert self.last is not None
                return self.last
        return last


class InstanceInvocation(Invocation):
    """One request of an instance."""

    _over = False
    #: The entries of /tmp when it began to use files.
    before: Stock | None = None
    _leftovers: tuple[Leftover, ...] = ()
    #: The most in use while it ran, up to the last time that another one began.
    peak = 0

    def __init__(self, guard: Policy, instance: Instance) -> None:
        super().__init__(guard)
        self.instance = instance
        self.found = instance.found
        self._credit = instance.credit

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Is there no /tmp any more? Not before the instance's end."""
        return self.instance.ended

    # --- mounting the instance's volume ----------------------------------------------------------------

    def _mount(self) -> Volume:
        return self.instance.join(self)

    def _make_namespace(self) -> Namespace:
        namespace = super()._make_namespace()
        if not self._over:
            with suppress(OSError):  # what is not in /tmp can be read all the same
                namespace.scratch()  # what others have made there is to be found
        return namespace

    def owns(self, descriptor: int) -> bool:
        return self.instance.volume.owns(descriptor)  # one that an earlier invocation left open, too

    def record_exceeded(self, real: str) -> None:
        super()._exceeded(real)

    def _exceeded(self, real: str) -> None:
        self.instance.exceeded(self, real)

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the invocation: idempotent, never raises. What it left is looked at here and now, before the
        next one adds to it."""
        if self._finish():
            self._wipe()
            if self.guard.on_report is not None:
                wiper.put(self._hand_out, self.guard.scratch)

    def _finish(self) -> bool:
        if not is_first_to_end(self):
            return False
        try:
            # In a context of its own, without an invocation: it may be a finalizer that ends this one.
            Context().run(self._look_back)
        except OSError:
            logger.exception("tmpguard could not look at what an invocation left behind")
        self._over = True
        self.before = self.found = {}  # what it knew is not needed any more
        return True

    def _look_back(self) -> None:
        self.instance.check_for(self)
        if self.found is not None and self._credit != self.instance.credit and not self.ended:
            self._mount()  # it only wrote to files that an earlier one had opened
        if self.before is not None:
            usage, peak, now = self.instance.leave(self)
            self._final = usage, peak
            self._leftovers = _added(self.before, now)

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
        if self._over:
            return self._final
        volume = self.instance.volume
        if volume is NO_VOLUME:
            return Usage(0, 0), 0
        return volume.quota.measured(), max(self.peak, volume.quota.peak)


def _added(before: Stock, now: Stock) -> tuple[Leftover, ...]:
    """What is there now and was not before: entries and growth in bytes, the thousand largest of them."""
    # The data of a file that was there are no more for a second name of it.
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
    return tuple(found[:KEPT])
