"""``lifetime="instance"``: one ``/tmp`` for all invocations of a process, as on a warm instance.

An :class:`Instance` owns the scratch directory, the quota and the open files; it is an invocation that no
code ever runs for. The invocations of the requests, each an :class:`InstanceInvocation`, share it, concurrent
ones too, and have of their own the working directory and the report. On it is what each left behind for the
next. What a warm instance keeps is kept here as well: files that are still open when an invocation ends go on
working, and so does code that still runs. The end is that of the instance:
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
from collections.abc import Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final

from tmpguard.core.mounts.lookup import Namespace, view_of
from tmpguard.core.reports.report import KEPT, Leftover, Report
from tmpguard.core.storage.openfiles import open_unlinked
from tmpguard.core.storage.pages import Entry, Usage, allocated, inventory
from tmpguard.core.storage.quota import Quota
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.wiper import wiper

from . import originals
from .attachments import Attachments
from .context import unguarded
from .invocation import Invocation, Retire, get_current
from .layout import TMP, is_below
from .policy import Policy

logger = logging.getLogger("tmpguard")

Stock = dict[str, Entry]

#: For making an instance.
_lock: Final = threading.Lock()


class Instance(Invocation):
    """What the invocations of one process share."""

    reusable = False

    def __init__(self, guard: Policy) -> None:
        super().__init__(guard)
        self.process = os.getpid()
        self._lock = threading.RLock()
        #: Those that use files, by their ids. A garbage collection may end one at any point.
        self._running: dict[int, weakref.ref[InstanceInvocation]] = {}
        self._last: Stock | None = None
        #: The directory, for the finalizer, which must not hold the instance.
        self._made: list[str] = []
        finalizer = weakref.finalize(self, _discard, guard.scratch, self._made)
        finalizer.atexit = False  # then the root wipes what is left by itself

    def _make_scratch(self) -> str:
        directory = super()._make_scratch()
        self._made[:] = [directory]
        return directory

    @property
    def directory(self) -> str | None:
        """The real directory behind ``/tmp``, None while no invocation has asked for it."""
        return self._scratch

    def join(self, invocation: InstanceInvocation) -> None:
        """``invocation`` begins to use files: it gets to know what is there before it."""
        with self._lock:
            if invocation.before is not None:
                return  # by another thread of it
            invocation.before = invocation.found
            if self._quota is not None:
                # The most in use at one time is found out anew for each that runs at the time.
                peak = self._quota.restart_peak()
                for other in self._others():
                    other.peak = max(other.peak, peak)
            self._running[id(invocation)] = weakref.ref(invocation)
            if invocation.before is None:
                invocation.before = self.stock()

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

    @property
    def credit(self) -> int:
        """A number that is another one once something was written."""
        return self._quota.balance if self._quota is not None else 0

    def leave(self, invocation: InstanceInvocation) -> tuple[Usage, int, Stock]:
        """``invocation`` is over: what is used, the most that was used during it, and what is there now."""
        with self._lock:
            self._running.pop(id(invocation), None)
            stock = self._last = self.stock()
            usage = self._used(stock)
            peak = self._quota.peak if self._quota is not None else 0
            return usage, max(peak, invocation.peak, usage.bytes), stock

    def stock(self) -> Stock:
        """The entries of ``/tmp`` by their paths; the mount points are none."""
        if self._scratch is None:
            return {}
        head, _, tail = self._scratch.rpartition("/")
        with unguarded():
            try:
                parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return {}  # somebody cleaned up temporary files
            try:
                found = inventory(parent, tail)
            finally:
                originals.close(parent)
        table = self.guard.mounts
        points = {path[len(TMP) :] for path in table.points | table.ancestors}
        return {TMP + path: entry for path, entry in found.items() if path not in points}

    def _used(self, stock: Stock) -> Usage:
        once = {entry.inode: entry.bytes for entry in stock.values() if entry.linked}
        total = sum(entry.bytes for entry in stock.values() if not entry.linked) + sum(once.values())
        directory = self._scratch
        unlinked = [status for path, status in open_unlinked() if directory and is_below(path, directory)]
        return Usage(total + sum(allocated(status, "") for status in unlinked), len(stock) + len(unlinked))

    def end(self) -> None:
        """Wipe ``/tmp``: idempotent, never raises, waits for the wipe."""
        if self._finish():
            with unguarded():
                self._wipe()
                self.guard.scratch.release()

    def _close_report(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        self._final = (usage, peak)

    #: The invocation that ends, while it is looked whether a native writer of its took too much.
    _ending: InstanceInvocation | None = None

    def check_for(self, invocation: InstanceInvocation) -> None:
        """Look for native writers when ``invocation`` ends."""
        self._ending = invocation
        try:
            self.checked_prefix()
        finally:
            self._ending = None

    def _record(self, operation: str, code: int, path: Any, *args: Any, **more: Any) -> None:
        """What is found for all of them is told to the one that runs."""
        current = self._ending or get_current()
        if isinstance(current, InstanceInvocation) and current.shares(self):
            current._record(operation, code, path, *args, **more)
        else:
            super()._record(operation, code, path, *args, **more)


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
    #: The entries of /tmp when it began; None until it uses files.
    before: Stock | None = None
    _leftovers: tuple[Leftover, ...] = ()
    #: The most in use while it ran, up to the last time that another one began.
    peak = 0

    def __init__(self, guard: Policy, instance: Instance) -> None:
        super().__init__(guard)
        self._instance = instance
        self.found = instance.found
        self._credit = instance.credit

    def shares(self, instance: Instance) -> bool:
        """Is it one of the ``instance``'s?"""
        return self._instance is instance

    # --- what is the instance's ------------------------------------------------------------------------

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Is there no /tmp any more? Not before the instance's end."""
        return self._instance.ended

    @property
    def prefix(self) -> str | None:
        return None if self.before is None else self._instance.prefix

    @prefix.setter
    def prefix(self, value: str | None) -> None:
        self._instance.prefix = value  # a link that one invocation makes is there for all of them

    @property
    def _scratch(self) -> str | None:  # type: ignore[override]
        return self._instance.directory

    @property
    def quota(self) -> Quota:
        self._join()
        return self._instance.quota

    @property
    def namespace(self) -> Namespace:
        namespace = self._namespace
        if namespace is None:
            self._join()
            instance = self._instance
            namespace = view_of(self.guard.mounts, instance._make_scratch, instance.make_mount_points)
            self._namespace = namespace
        if namespace.root is None:
            namespace.root = self._instance.directory
        return namespace

    def first_prefix(self) -> str | None:
        if not self.ended:
            self.namespace.scratch()
        return self.prefix or self._instance.checked_prefix()

    def forget_prefix(self) -> None:
        self._instance.forget_prefix()

    def expose(self, descriptor: int, status: os.stat_result | None = None, real: str = "") -> None:
        self._join()
        self._instance.expose(descriptor, status, real)

    @property
    def addresses(self) -> Mapping[str, str]:
        return self._instance.addresses

    @addresses.setter
    def addresses(self, value: Mapping[str, str]) -> None:
        self._instance.addresses = value  # a socket may listen for the requests to come

    def make_mount_points(self) -> None:
        self._instance.make_mount_points()

    def keep_handle(self, file: Any, retire: Retire) -> None:
        self._instance.keep_handle(file, retire)

    def _join(self) -> None:
        if self.before is None and not self._over:
            self._instance.join(self)

    @property
    def volume(self) -> Attachments:
        return self._instance

    # --- the end ---------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the invocation: idempotent, never raises. What it left is looked at here and now, before the
        next one adds to it."""
        if self._finish():
            self._wipe()
            if self.guard.on_report is not None:
                wiper.put(self._hand_out, self.guard.scratch)

    def _finish(self) -> bool:
        mine = object()
        if self.__dict__.setdefault("_ender", mine) is not mine:
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
        self._instance.check_for(self)
        if self.found is not None and self._credit != self._instance.credit:
            self._join()  # it only wrote to files that an earlier one had opened
        if self.before is not None:
            usage, peak, now = self._instance.leave(self)
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
        return _added(before, self._instance.stock())

    def _usage(self) -> tuple[Usage, int]:
        if self._over:
            return self._final
        if self._instance.directory is None:
            return Usage(0, 0), 0
        quota = self._instance.quota
        return quota.measured(), max(self.peak, quota.peak)


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
