"""One request's file system, from its first use to the wipe; and which invocation is the current one."""

from __future__ import annotations

import errno as codes
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Context
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from . import remedies
from .context import activate, get_current, restore, unguarded
from .directories import unlocked
from .interpose import originals
from .lookup import Namespace, view_of
from .mounts import TMP, Place, error, is_below
from .quota import Quota, open_unlinked
from .report import Origin, Report, Violation, is_bytecode, is_importing, locate
from .reporter import reporter
from .usage import Usage, allocated, measure
from .wiper import wiper

if TYPE_CHECKING:
    from types import TracebackType

    from .children import Children
    from .guard import Guard
    from .interpose.charge import Charge

#: Is a warning being logged by the running thread?
_telling: Final = threading.local()

#: More than this is never wiped by the thread that served the request.
_AT_ONCE_BYTES: Final = 1 << 20

#: The operations that ask whether there is a file, and do not read it.
_LOOKUPS: Final = frozenset(
    f"os.{name}"
    for name in ("stat", "lstat", "access", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
)

#: Handles kept per invocation before those already collected are sorted out.
_HANDLES_KEPT: Final = 256


#: The operation of a violation by code that writes to a descriptor below Python.
EXCEEDED: Final = "quota exceeded by a native writer"


class Invocation:
    """One request's file system (C4.1). Made by :meth:`tmpguard.Guard.invocation`; makes no file operation
    until one is asked for (C4.7).

    As a context manager it is the current invocation within the block and is wiped when the block is left.
    """

    # A request that touches no file must pay next to nothing, so what only file work needs starts as a
    # class attribute and is made on first use.
    ended = False
    #: Is it that of a start, :func:`tmpguard.cold_start`, and not of a request?
    cold_start = False
    #: What a remedy adds about it.
    start_note = ""
    #: The real directory behind /tmp while a path below it may be translated by its text alone: the
    #: directory exists, the invocation made no symlink, and it has not ended. None otherwise.
    prefix: str | None = None
    _namespace: Namespace | None = None
    _quota: Quota | None = None
    _report: Report | None = None
    _scratch: str | None = None
    _handles: list[tuple[weakref.ref[Any], Charge]] | None = None
    #: What was current before each block of this one that is entered.
    _outer: tuple[Invocation | None, ...] = ()
    _final: tuple[Usage, int] = (Usage(0, 0), 0)
    _wipe_seconds = 0.0
    _let_through = 0
    #: The real addresses of local sockets, and what the application bound them to.
    addresses: Mapping[str, str] = MappingProxyType({})
    #: May another invocation have the scratch directory when this one is over? Not where somebody may still
    #: hold on to it: by a descriptor, in a child process, by what was unlinked in it while it was open.
    reusable = True
    _children: Children | None = None

    def __init__(self, guard: Guard) -> None:
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
        for handle, charge in self._handles or ():
            _retire(handle(), charge)
        if self._veiled_prefix is not None and self._quota is not None:
            self._quota.check()
        if self._children is not None:
            self._children.over()
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
        if self._children is not None:
            self._children.last_look(usage)
        if self._report is not None or self.guard.on_report is not None:
            self.report.close(*self._final, wipe_seconds)

    def keep_handle(self, file: Any, charge: Charge) -> None:
        """Remember a file that is open for writing: past the end it refuses with ESTALE (C4.5)."""
        handles = self._handles
        if handles is None:
            handles = self._handles = []
        elif len(handles) > _HANDLES_KEPT:
            handles[:] = [kept for kept in handles if kept[0]() is not None]
        handles.append((weakref.ref(file), charge))

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

    def _exceeded(self, real: str) -> None:
        """A native writer took more than there is; the quota has found it out."""
        path = TMP + real.removesuffix(" (deleted)")[len(self._scratch or real) :]
        self._record(EXCEEDED, codes.ENOSPC, path, self.exceeded_remedy())

    def exceeded_remedy(self) -> str:
        """What to do about a native writer that took more than there is (C2.4)."""
        size = self.guard.storage_size
        return (
            f"{EXCEEDED}: /tmp holds more than its {size} MB (storage_size={size}); "
            "remove files or allow more"
        )

    def exceeded(self, path: Any) -> OSError:
        """The error for it, where nobody else tells it to the application: when the file is closed."""
        return self._refusal(codes.ENOSPC, path, None, self.exceeded_remedy())

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
    def children(self) -> Children:
        """Its child processes."""
        children = self._children
        if children is None:
            with _scratch_lock:
                if self._children is None:
                    self._children = self._new_children()
                children = self._children
        return children

    def _new_children(self) -> Children:
        from .children import Children, Views

        return Children(self, Views())

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

    def refuse(
        self,
        operation: str,
        code: int,
        path: Any,
        second: Any = None,
        *,
        about: Any = None,
        remedy: str = "",
        advise: bool = True,
    ) -> None:
        """Record a violation (C2.3) and raise its OSError with a note that says what to do (C2.4).

        ``path`` and ``second`` go into the error as the caller spelled them; ``about`` is the path to record
        where the error bears another one or none. ``advise`` says whether the table of remedies may know a
        better one. Returns where the guard only watches: the operation then
        goes through (C2.5).
        """
        subject = path if about is None else about
        # An import does without its bytecode where it cannot write: that is nothing to report.
        if not (code == codes.EROFS and is_bytecode(subject) and is_importing()):
            shown = self._shown(subject)
            remedy = remedies.advice(self, operation, code, shown, remedy) if advise else remedy
            self._record(operation, code, shown, remedy)
        if self.guard.enforce:
            raise self._refusal(code, path, second, remedy)
        self._let_through = threading.get_ident()

    def absent(self, operation: str, path: Any, why: str, *, there: bool = True) -> None:
        """Raise the ENOENT of a path that is not in the bundle, with a note that says ``why`` (C5.2).

        Recorded as a violation, or among the look-ups where it was only asked whether it is there; not where
        ``there`` is nothing on the disk either, or the operation has no name. Returns where the guard only
        watches.
        """
        remedy = f"not in the bundle: {why}" if there else ""
        if operation in _LOOKUPS:
            if there and not self.report.has_lookup(self._shown(path)):
                location, library = locate()
                found = Violation(operation, self._shown(path), codes.ENOENT, location, library, remedy)
                self.report.add_lookup(found)
        elif operation and there:
            self._record(operation, codes.ENOENT, path, remedy)
        if self.guard.enforce:
            raise self._refusal(codes.ENOENT, path, None, remedy)

    def was_let_through(self) -> bool:
        """Has this thread just been let through by :meth:`refuse`? Asked by the backstop, and told once."""
        if self._let_through != threading.get_ident():
            return False
        self._let_through = 0
        return True

    def note(
        self, operation: str, code: int, path: Any, remedy: str = "", origin: Origin | None = None
    ) -> None:
        """Record a violation whose error somebody else raises; ``origin`` is its line if not this."""
        shown = self._shown(path)
        advice = remedies.advice(self, operation, code, shown, remedy)
        self._record(operation, code, shown, advice, origin=origin)

    def stale(self, operation: str, path: Any = None) -> OSError:
        """The ESTALE that a file operation for a finished invocation gets; recorded as late (C4.5)."""
        remedy = "the invocation that this code runs for is over"
        self._record(operation, codes.ESTALE, self._shown(path), remedy, late=True)
        return self._refusal(codes.ESTALE, path, None, remedy)

    def _refusal(self, code: int, path: Any, second: Any, remedy: str) -> OSError:
        message = os.strerror(code)
        if path is None:
            refusal = OSError(code, message)
        elif second is None:
            refusal = OSError(code, message, spelled(path))
        else:
            refusal = OSError(code, message, spelled(path), None, spelled(second))
        if remedy:
            refusal.add_note(f"tmpguard: {remedy}")
        return refusal

    def _record(
        self,
        operation: str,
        code: int,
        path: str,
        remedy: str,
        *,
        late: bool = False,
        origin: Origin | None = None,
    ) -> None:
        location, library = origin or locate()
        violation = Violation(operation, path, code, location, library, remedy)
        self.report.add(violation, late=late)
        if hasattr(_telling, "now"):
            return  # a logging handler that was itself refused must not start it over again
        _telling.now = True
        try:
            self.guard.journal.tell(violation, late=late, refused=self.guard.enforce or late)
        finally:
            del _telling.now

    def _shown(self, path: Any) -> str:
        """A path as the report shows it: a descriptor by the path that it was opened by (C7.1)."""
        if path is None:
            return ""
        if isinstance(path, int):
            real = descriptor_path(path)
            return self.namespace.path_of(path, real) if real else f"descriptor {path}"
        return printable(path)

    def remedy_for(self, place: Place | None, path: Any) -> str:
        """What to do instead of writing to ``path``: "only /tmp is writable; write to /tmp/a.txt" (C2.4)."""
        spelled = printable(path)
        if place is not None and is_below(place.virtual, TMP + "/package"):
            tail = place.virtual[len(TMP + "/package") :].lstrip("/")
            return f"{TMP}/package is the read-only bundle; write to {TMP}/{tail}".rstrip("/")
        if spelled.startswith("/"):
            project = self.namespace.working_directory()
            inside = is_below(spelled, project) and project != "/"
            spelled = os.path.relpath(spelled, project) if inside else spelled.rstrip("/").rpartition("/")[2]
        parts = [part for part in spelled.split("/") if part not in ("", ".", "..")]
        return f"only /tmp is writable; write to {'/'.join([TMP, *parts])}"


def _removed_around(paths: Iterable[str], root: str) -> Iterator[str]:
    """The directories below ``root`` that are gone, but for what is open of that which was in them."""
    for path in paths:
        directory = os.path.dirname(path)
        while is_below(directory, root) and not originals.access(directory, os.F_OK):
            yield directory
            directory = os.path.dirname(directory)


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
    invocation = get_current()
    if invocation is None:
        return
    if invocation._quota is not None:
        invocation._quota.lock = threading.RLock()
    if invocation._report is not None:
        invocation._report.free_lock()


os.register_at_fork(before=_prepare_fork, after_in_child=_free_locks)


def spelled(path: Any) -> Any:
    """A path as it stands in an error: as it was given, and what a PathLike gave for itself (C2.1)."""
    if path is None or isinstance(path, (str, bytes, int, bytearray, memoryview)):
        return path
    return os.fspath(path)


def printable(path: Any) -> str:
    """A path as text, whatever it is."""
    try:
        return os.fsdecode(path)
    except TypeError:
        return repr(path)


def descriptor_path(descriptor: int) -> str:
    """The real path that ``descriptor`` was opened by, "" where it has none or is not open."""
    try:
        return originals.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


class _StaleWrite:
    """Stands for ``write`` on a file whose invocation is over."""

    def __init__(self, invocation: Invocation, name: Any) -> None:
        self._invocation = invocation
        self._name = name

    def __call__(self, *args: Any) -> int:
        raise self._invocation.stale("write", self._name)


class _StaleClose:
    """Stands for ``close`` there: what was written too late is lost, and the close is none the worse."""

    def __init__(self, file: Any) -> None:
        self._file = weakref.ref(file)

    def __call__(self) -> None:
        file = self._file()
        if file is not None:
            with suppress(OSError):
                type(file).close(file)


def _retire(file: Any, charge: Charge) -> None:
    """Take what the file still holds in its buffers, and have every later write refused."""
    with suppress(OSError, ValueError):
        if file is not None and not file.closed:
            file.flush()
    charge.quota = None
    if file is None or _is_gone(file):
        return
    for door in (file, getattr(file, "buffer", None)):
        if door is not None:
            door.write = _StaleWrite(charge.invocation, file.name)
            door.close = _StaleClose(door)


def _is_gone(file: Any) -> bool:
    """Is it closed, or was the file that it buffered taken out of it?"""
    try:
        return bool(file.closed)
    except ValueError:
        return True
