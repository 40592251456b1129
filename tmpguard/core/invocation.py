"""One request's file system, from its first use to the wipe; and which invocation is the current one."""

from __future__ import annotations

import errno as codes
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Context
from types import MappingProxyType, TracebackType
from typing import Any, Final, Protocol

from tmpguard.core.mounts.lookup import Namespace, view_of
from tmpguard.core.reports.delivery import reporter
from tmpguard.core.reports.report import Report
from tmpguard.core.storage.dirfd import unlocked
from tmpguard.core.storage.openfiles import open_unlinked
from tmpguard.core.storage.pages import Usage, allocated, measure
from tmpguard.core.storage.quota import Quota
from tmpguard.core.storage.wiper import wiper

from . import attachments, context, hooks, originals
from .attachments import Attachments
from .context import activate, restore, unguarded
from .errors import error
from .layout import TMP, is_below
from .policy import Policy
from .refusing import Recorder
from .spelling import descriptor_path

Retire = Callable[[Any], None]

#: More than this is never wiped by the thread that served the request.
_AT_ONCE_BYTES: Final = 1 << 20

#: Handles kept per invocation before those already collected are sorted out.
_HANDLES_KEPT: Final = 256


class EndObserver(Protocol):
    """Somebody who has to know of an invocation's end."""

    def over(self) -> None:
        """It is over; /tmp is about to be wiped. Must not raise."""

    def wiped(self, usage: Usage) -> None:
        """/tmp was wiped; it held ``usage``. Must not raise."""


class Invocation(Attachments, Recorder):
    """One request's file system (C4.1). Made by :meth:`tmpguard.Guard.invocation`; makes no file operation
    until one is asked for (C4.7).

    As a context manager it is the current invocation within the block and is wiped when the block is left.
    """

    # A request that touches no file must pay next to nothing, so what only file work needs starts as a
    # class attribute and is made on first use.
    ended = False
    #: Is it that of a start, :func:`tmpguard.cold_start`, and not of a request?
    cold_start = False
    #: The real directory behind /tmp while a path below it may be translated by its text alone: the
    #: directory exists, the invocation made no symlink, and it has not ended. None otherwise.
    prefix: str | None = None
    _namespace: Namespace | None = None
    _quota: Quota | None = None
    _report: Report | None = None
    _scratch: str | None = None
    _handles: list[tuple[weakref.ref[Any], Retire]] | None = None
    #: What was current before each block of this one that is entered.
    _outer: tuple[Invocation | None, ...] = ()
    _final: tuple[Usage, int] = (Usage(0, 0), 0)
    _wipe_seconds = 0.0
    #: The real addresses of local sockets, and what the application bound them to.
    addresses: Mapping[str, str] = MappingProxyType({})
    #: May another invocation have the scratch directory when this one is over? Not where somebody may still
    #: hold on to it: by a descriptor, in a child process, by what was unlinked in it while it was open.
    reusable = True
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
            self.guard.scratch.release()
        if self.guard.on_report is not None:
            wiper.put(self._hand_out, self.guard.scratch)

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
        if self._scratch is None and self.guard.on_report is None:
            return  # no file was touched and nobody waits for the report
        if self._finish() and not self._clean_up_at_once():
            wiper.put(self._clean_up, self.guard.scratch)

    def _finish(self) -> bool:
        """Mark the end; False if another thread or an earlier call did."""
        self.ended = True
        self.prefix = None
        # Atomic without a lock: a garbage collection may end another invocation at any point of this.
        mine = object()
        if self.__dict__.setdefault("_ender", mine) is not mine:
            return False
        for handle, retire in self._handles or ():
            retire(handle())
        if self._veiled_prefix is not None and self._quota is not None:
            self._quota.check()
        for observer in self._observers:
            observer.over()
        return True

    def _clean_up_at_once(self) -> bool:
        """Wipe a scratch directory that holds next to nothing: cheaper than to wake the background thread.

        False where there is more to do: many files or large ones, directories, a callback to run.
        """
        quota, directory = self._quota, self._scratch
        if self.guard.on_report is not None or quota is None or directory is None:
            return False
        peak = quota.peak
        if peak > _AT_ONCE_BYTES:
            return False
        begin = time.perf_counter()
        usage = self.guard.scratch.discard_small(directory, reusable=self.reusable)
        if usage is None:
            return False
        self._close_report(usage, peak, time.perf_counter() - begin)
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
        peak = self._quota.peak if self._quota is not None else 0
        usage = Usage(0, 0)
        begin = time.perf_counter()
        if self._scratch is not None:
            usage = self.guard.scratch.discard(self._scratch)
            usage = usage._replace(files=usage.files - self._mount_points_made)
        self._close_report(usage, peak, time.perf_counter() - begin)

    def _close_report(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        self._final = (usage, max(peak, usage.bytes))
        self._wipe_seconds = wipe_seconds
        for observer in self._observers:
            observer.wiped(usage)
        if self._report is not None or self.guard.on_report is not None:
            self.report.close(*self._final, wipe_seconds)

    def keep_handle(self, file: Any, retire: Retire) -> None:
        """Remember ``file``, which is open for writing: at the end ``retire`` is called with it, or with None
        where it was collected by then (C4.5)."""
        handles = self._handles
        if handles is None:
            handles = self._handles = []
        elif len(handles) > _HANDLES_KEPT:
            handles[:] = [kept for kept in handles if kept[0]() is not None]
        handles.append((weakref.ref(file), retire))

    # --- what is behind /tmp ---------------------------------------------------------------------------

    @property
    def namespace(self) -> Namespace:
        """The invocation's view of the file system. Raises OSError(ESTALE) when it is over (C4.5)."""
        namespace = self._namespace
        if namespace is None:
            namespace = view_of(self.guard.mounts, self._make_scratch, self.make_mount_points)
            self._namespace = namespace
        return namespace

    @property
    def quota(self) -> Quota:
        """What the invocation may still allocate (C3)."""
        quota = self._quota
        if quota is None:
            self.namespace.scratch()
            quota = self._quota
            assert quota is not None
        return quota

    def has_scratch(self) -> bool:
        """Was anything done in /tmp, so that there is a scratch directory?"""
        return self._scratch is not None

    def first_prefix(self) -> str | None:
        """Make the scratch directory if there was none: the prefix from then on. None where there is none."""
        if self._scratch is None and not self.ended:
            self.namespace.scratch()
        return self.prefix or self.checked_prefix()

    # --- native writers --------------------------------------------------------------------------------

    #: The prefix while a file is exposed: whoever asks for it finds what native code has written meanwhile.
    _veiled_prefix: str | None = None

    def expose(self, descriptor: int, status: os.stat_result | None = None, real: str = "") -> None:
        """Native code may write to ``descriptor``, of a file in ``/tmp``, from now on (C3.5)."""
        quota = self.quota
        status = status or originals.fstat(descriptor)
        quota.expose(descriptor, status, real or descriptor_path(descriptor), self._exceeded)
        with quota.lock:
            if self.prefix is not None and not self.ended:
                self._veiled_prefix, self.prefix = self.prefix, None

    def share(self) -> None:
        """A child process starts, and has what is exposed."""
        if self._scratch is not None:
            self.quota.share()

    def checked_prefix(self) -> str | None:
        """The prefix while files are exposed, after a look at them; None where there is none."""
        quota = self._quota
        if quota is None or self._veiled_prefix is None or self.ended:
            return None
        exposed = quota.check()
        with quota.lock:
            prefix = self._veiled_prefix
            if not exposed:
                self._veiled_prefix, self.prefix = None, prefix
        if "ended" in self.__dict__:  # since the check above, by another thread
            self.prefix = None
        return prefix

    def forget_prefix(self) -> None:
        """From now on the text of a path alone does not tell where it leads: there is a link."""
        quota = self.quota
        if self.prefix is None and self._veiled_prefix is None:
            return  # without the lock, for which a fork would wait
        with quota.lock:
            self.prefix = self._veiled_prefix = None

    # --- making it -------------------------------------------------------------------------------------

    def _make_scratch(self) -> str:
        with _scratch_lock:
            if self._scratch is None:
                if self.ended:
                    raise error(codes.ESTALE)
                # In no invocation: the backstop must not take it for the application's own.
                directory = Context().run(self.guard.scratch.make)
                self._quota = Quota(self.guard.quota_bytes, self.guard.max_files, self._measure)
                self._scratch = directory
                if "ended" in self.__dict__:  # since the check above, by another thread
                    if self._finish():
                        wiper.put(self._clean_up, self.guard.scratch)
                    raise error(codes.ESTALE)
                self.prefix = directory
            return self._scratch

    _mount_points_made = 0

    def make_mount_points(self) -> None:
        """Make the directories on which the bundle and others are mounted: a listing shows them (C5.1)."""
        table = self.guard.mounts
        if self._mount_points_made or not table.points:
            return
        made = sorted((table.points | table.ancestors) - {TMP}, key=len)
        made = [path for path in made if table.mount_of(path.rpartition("/")[0]) is table.scratch]
        root = self.namespace.scratch()
        status = originals.stat(root)
        with unlocked(root):  # whatever the application made of its mode
            for path in made:
                with suppress(FileExistsError):
                    originals.mkdir(root + path[len(TMP) :], 0o755)
        originals.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))  # they were always there
        self._mount_points_made = len(made)

    def _measure(self) -> Usage:
        """What the scratch directory and the unlinked files that are still open hold, from the disk."""
        assert self._scratch is not None
        head, _, tail = self._scratch.rpartition("/")
        parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            usage = measure(parent, tail)
        finally:
            originals.close(parent)
        unlinked = [found for found in open_unlinked() if is_below(found[0], self._scratch)]
        files = usage.files + len(unlinked) - self._mount_points_made
        if unlinked and self.guard.max_files is not None:
            files += len(set(_removed_around([path for path, _ in unlinked], self._scratch)))
        return Usage(usage.bytes + sum(allocated(status, "") for _, status in unlinked), files)

    def owns(self, descriptor: int) -> bool:
        """Is ``descriptor`` a regular file in this invocation's scratch directory?"""
        return self._scratch is not None and is_below(descriptor_path(descriptor), self._scratch)

    @property
    def volume(self) -> Attachments:
        """What belongs to its /tmp: the same for all invocations that share one."""
        return self

    def observe_end(self, observer: EndObserver) -> None:
        """Have ``observer`` called when the invocation ends, and once more when its /tmp was wiped."""
        self._observers += (observer,)

    # --- the report ------------------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """What the invocation used and was refused: live, and final after the end."""
        report = self._report
        if report is None:
            with _scratch_lock:
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
        if self._scratch is None:
            return self._final
        if self.ended:
            wiper.drain()  # what it left is known when the wipe is through
            return self._final
        return self.quota.measured(), self.quota.peak


#: The invocation that the running code belongs to, or None: the context variable's own method.
get_current: Final[Callable[[], Invocation | None]] = context.get_current


def current() -> Invocation | None:
    """The invocation that the calling code belongs to, or None."""
    return get_current()


def _removed_around(paths: Iterable[str], root: str) -> Iterator[str]:
    """The directories below ``root`` that are gone, but for what is open of that which was in them."""
    for path in paths:
        directory = os.path.dirname(path)
        while is_below(directory, root) and _is_gone(directory):
            yield directory
            directory = os.path.dirname(directory)


def _is_gone(path: str) -> bool:
    try:
        originals.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass  # it may not be searched, so it is there
    return False


def _prepare_fork() -> None:
    """A forked child shares its parent's invocation, and so its /tmp: there has to be one to share."""
    invocation = get_current()
    if invocation is not None and not invocation.ended:
        invocation.reusable = False
        with suppress(OSError):
            invocation.namespace.scratch()
            invocation.forget_prefix()  # it may make links there


#: For making scratch directories, and what else there is one of for each invocation.
_scratch_lock = threading.RLock()


def _free_locks() -> None:
    """In a forked child: whoever held them is another thread, of which there is no copy here."""
    global _scratch_lock
    _scratch_lock = threading.RLock()
    attachments.free_lock()
    invocation = get_current()
    if invocation is None:
        return
    if invocation._quota is not None:
        invocation._quota.lock = threading.RLock()
    if invocation._report is not None:
        invocation._report.free_lock()


hooks.register(hooks.Step.SHARE_WITH_CHILD, _prepare_fork)
hooks.register(hooks.Step.FREE_LOCKS, _free_locks)
