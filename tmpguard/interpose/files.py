"""``open()`` within an invocation: raw files that charge the quota, under standard buffers (C3.5, C7.2)."""

from __future__ import annotations

import io
import operator
import os
import sys
import warnings
from collections.abc import Callable
from errno import ENOSPC, EROFS
from functools import partial
from typing import Any, Final, NamedTuple

from ..invocation import Invocation, get_current
from ..mounts import Place
from ..quota import Quota
from ..scratch import allocated, pages
from . import originals
from .paths import alive, is_odd, like, place, quick_real, readable, refuse, reraise
from .refusals import open_error
from .wrapper import quick

_open = originals.open
_write = originals.FileIO.write
_init = originals.FileIO.__init__


class Unopened(str):
    """A path that an opener stands for: it is not itself opened, and the backstop lets it pass."""


class _FileIOType(type):
    """Files that were opened outside an invocation are instances of :class:`io.FileIO` as well."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, originals.FileIO)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, originals.FileIO)


class FileIO(originals.FileIO, metaclass=_FileIOType):  # type: ignore[metaclass]
    """:class:`io.FileIO`; opened for writing below ``/tmp`` it charges the invocation's quota.

    Raises OSError(EROFS) outside the writable mounts (C2.1), OSError(ENOSPC) past the quota (C3.4) and
    OSError(ESTALE) when the invocation is over (C4.5).
    """

    #: The invocation whose quota it charges; None where writing is free.
    invocation: Invocation | None = None
    #: The same invocation's quota until that is over.
    _quota: Quota | None = None
    #: The offset of the next write while the file was empty at first and only ever appended to: then the
    #: cost of a write is known exactly. None where it is not.
    _end: int | None = None
    _anonymous = False

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        invocation = get_current()
        if invocation is None:
            _init(self, file, mode, closefd, opener)
            return
        plan = plan_of(mode)
        if plan is None or type(file) is int or opener is not None:
            alive(invocation, "open", file)
            self._open_by(invocation, file, mode, closefd, opener)
            return
        real, charged = locate(invocation, file, plan.flags)
        self._open(invocation, real, os.fspath(file), plan, charged)

    def _open(self, invocation: Invocation, real: Any, name: Any, plan: Plan, charged: bool) -> None:
        """Open the real path ``real`` under the application's ``name``."""
        try:
            if charged:
                opening(invocation, real, plan.flags, lambda: _init(self, real, plan.raw_mode))
            else:
                _init(self, real, plan.raw_mode)
        except OSError as exc:
            reraise(exc, name)
        self.name = name
        if charged:
            self._charge(invocation)
            if plan.flags & (os.O_TRUNC | os.O_EXCL):
                self._end = 0

    def _charge(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self._quota = invocation.quota
        invocation.keep_handle(self)

    def _open_by(self, invocation: Invocation, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        """Take up a descriptor, or what ``opener`` gives for ``file``; a file of the scratch is charged."""
        if opener is None:
            _init(self, file, mode, closefd)
        else:
            name = os.fspath(file) if type(file) is not int else file
            try:
                _init(self, Unopened(name), mode, closefd, lambda _, flags: opener(name, flags))
            except OSError as exc:
                reraise(exc, name)
            self.name = name
        if self.writable() and invocation.owns(self.fileno()):
            self._charge(invocation)
            self._anonymous = not originals.fstat(self.fileno()).st_nlink

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        quota = self._quota
        if quota is None:
            return self._write_free(data)
        kind = type(data)
        size = len(data) if kind is bytes or kind is bytearray else memoryview(data).nbytes
        with quota.lock:
            end = self._end
            if end is not None:
                # What is new are the pages between the one it ends in now and the one it will end in.
                cost = ((end + size + 4095) & -4096) - ((end + 4095) & -4096)
                if cost <= quota.credit:
                    quota.credit -= cost
                    written = _write(self, data)
                    self._end = end + written if written is not None else None
                    return written
            return self._write_charged(quota, data, size)

    def _write_free(self, data: Any) -> int | None:
        invocation = self.invocation
        if invocation is not None:
            raise invocation.stale("write", self.name)
        return _write(self, data)

    def _write_charged(self, quota: Quota, data: Any, size: int) -> int | None:
        """Write what fits (C3.4); the lock is held."""
        invocation = self.invocation
        assert invocation is not None
        try:
            fits = quota.charge(self.fileno(), size)
        except OSError as exc:
            if exc.errno != ENOSPC:
                raise
            invocation.refuse("write", ENOSPC, None, remedy=full(invocation), about=self.name)
            fits = size
        written = _write(self, data if fits == size else memoryview(data).cast("B")[:fits])
        if self._end is not None:
            self._end = self._end + written if written is not None else None
        return written

    def retire(self) -> None:
        """The invocation is over: every later write is refused (C4.5)."""
        self._quota = None

    def seek(self, offset: int, whence: int = 0, /) -> int:
        # From here on its end is no longer known without asking the disk.
        self._end = None
        return super().seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        invocation, quota = self.invocation, self._quota
        if invocation is None:
            return super().truncate(size)
        if quota is None:
            raise invocation.stale("truncate", self.name)
        self._end = None
        change = super().truncate
        return quota.changing(self.fileno(), lambda: change(size))  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._anonymous and not self.closed:
            self._anonymous = False
            quota = self._quota
            if quota is not None and self.closefd:
                status = originals.fstat(self.fileno())
                quota.unlinked(status, pages(status.st_size))
        super().close()


FileIO.__name__ = FileIO.__qualname__ = "FileIO"
FileIO.__module__ = "_io"


def full(invocation: Invocation) -> str:
    """What to do when ``/tmp`` is full (C2.4)."""
    size = invocation.guard.storage_size
    return f"/tmp is full: all of its {size} MB (storage_size={size}) are used; remove files or allow more"


# --- modes ---------------------------------------------------------------------------------------------

_QUICK_MODES: Final = frozenset({"r", "rt", "rb"})
_WRITING: Final = os.O_WRONLY | os.O_RDWR
_FLAGS: Final = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "x": os.O_CREAT | os.O_EXCL,
    "a": os.O_CREAT | os.O_APPEND,
}


class Plan(NamedTuple):
    """What a mode asks for."""

    flags: int
    raw_mode: str
    text: bool
    updating: bool
    valid: bool


_plans: dict[str, Plan | None] = {}


def plan_of(mode: Any) -> Plan | None:
    """The plan of ``mode``, raw or not; None where it is no mode at all."""
    try:
        return _plans[mode]
    except KeyError:
        pass
    except TypeError:
        return None  # no string at all
    plan = _parse(mode)
    if plan is not None:
        _plans[mode] = plan
    return plan


def _parse(mode: Any) -> Plan | None:
    if not isinstance(mode, str) or set(mode) - set("rwxabt+") or len(set(mode)) != len(mode):
        return None
    verbs = [letter for letter in mode if letter in _FLAGS]
    if len(verbs) != 1:
        return None
    updating = "+" in mode
    access = os.O_RDWR if updating else os.O_RDONLY if verbs[0] == "r" else os.O_WRONLY
    text_mode = "b" not in mode
    raw_mode = verbs[0] + ("+" if updating else "")
    return Plan(_FLAGS[verbs[0]] | access, raw_mode, text_mode, updating, not ("t" in mode and "b" in mode))


# --- where it leads ------------------------------------------------------------------------------------


def locate(
    invocation: Invocation, file: Any, flags: int, dir_fd: int | None = None, operation: str = "open"
) -> tuple[Any, bool]:
    """The real path to open ``file`` by for writing, and whether the file is charged to the quota.

    Raises OSError(EROFS) with the note and the violation outside the writable mounts (C2.1), and before it
    what the kernel reports first (C2.2).
    """
    real = quick_real(invocation, file)
    if real is not None:
        return real, True
    alive(invocation, operation, file)
    if is_odd(file):
        return file, False  # the original refuses it by itself
    try:
        where = place(invocation, file, dir_fd, follow=_follows(flags))
        if not where.mount.writable:
            _check_read_only(invocation, file, where, flags, operation)
    except OSError as exc:
        reraise(exc, file if exc.filename is not None or exc.filename2 is None else exc.filename)
    return like(file, where.real), where.mount.charged


def _follows(flags: int) -> bool:
    return not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def _check_read_only(invocation: Invocation, file: Any, where: Place, flags: int, operation: str) -> None:
    code = open_error(where, flags)
    if code == EROFS:
        refuse(invocation, operation, file, where)
    elif code:
        raise OSError(code, os.strerror(code), file)


def opening(invocation: Invocation, real: str, flags: int, call: Callable[[], Any]) -> Any:
    """Run ``call``, which opens ``real`` in the scratch directory, and charge what it frees and makes."""
    quota = invocation.quota
    if flags & os.O_CREAT and quota.max_files is not None:
        call = partial(quota.making, real, call)
    if not flags & os.O_TRUNC or quota.credit >= quota.limit:
        return call()
    with quota.lock:
        try:
            before = allocated(originals.stat(real), real)
        except OSError:
            before = 0
        result = call()
        if before:
            quota.freed(before)
        return result


# --- open ----------------------------------------------------------------------------------------------


def _quick_open(
    _: object,
    file: Any,
    mode: Any = "r",
    buffering: Any = -1,
    encoding: Any = None,
    errors: Any = None,
    newline: Any = None,
    closefd: Any = True,
    opener: Any = None,
) -> Any:
    invocation = get_current()
    if invocation is None:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if mode in _QUICK_MODES and opener is None and buffering == -1:
        real = quick_real(invocation, file)
        if real is not None:
            try:
                opened = _open(real, mode, -1, encoding, errors, newline, closefd)
            except OSError as exc:
                reraise(exc, file)
            (opened if mode == "rb" else opened.buffer).raw.name = file
            return opened
    return _open_within(invocation, file, mode, buffering, encoding, errors, newline, closefd, opener)


#: What :func:`open` is within an invocation, and how it is reached from outside of one.
open = quick(_open, _quick_open, "builtins.open")


def _open_within(
    invocation: Invocation,
    file: Any,
    mode: Any,
    buffering: Any,
    encoding: Any,
    errors: Any,
    newline: Any,
    closefd: Any,
    opener: Any,
) -> Any:
    if not isinstance(buffering, int):
        buffering = operator.index(buffering)
    plan = plan_of(mode)
    if plan is None or not plan.valid or not _are_usual(plan, buffering, encoding, errors, newline):
        # Not a way to open a file: the original finds the words for it.
        return _open(os.devnull, mode, buffering, encoding, errors, newline)
    if type(file) is int or opener is not None:
        alive(invocation, "open", file)
        if not plan.flags & _WRITING:
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = FileIO.__new__(FileIO)
        raw._open_by(invocation, file, plan.raw_mode, closefd, opener)
    elif not plan.flags & _WRITING:
        return _open_for_reading(invocation, file, mode, buffering, encoding, errors, newline, closefd)
    else:
        real, charged = locate(invocation, file, plan.flags)
        if not charged or not closefd:
            return _open_elsewhere(file, real, mode, buffering, encoding, errors, newline, closefd)
        raw = FileIO.__new__(FileIO)
        raw._open(invocation, real, os.fspath(file), plan, charged)
    return _buffered(invocation, raw, mode, plan, buffering, encoding, errors, newline)


def _are_usual(plan: Plan, buffering: Any, encoding: Any, errors: Any, newline: Any) -> bool:
    if plan.text:
        return bool(buffering != 0)
    return encoding is None and errors is None and newline is None


def _open_for_reading(invocation: Invocation, file: Any, mode: Any, buffering: Any, *rest: Any) -> Any:
    alive(invocation, "open", file)
    if is_odd(file):
        return _open(file, mode, buffering, *rest)
    name = os.fspath(file)
    try:
        real = readable(invocation, name)
        opened = _open(like(name, real), mode, buffering, *rest)
    except OSError as exc:
        reraise(exc, name)
    if real != name:
        raw_of(opened).name = name
    return opened


def _open_elsewhere(file: Any, real: Any, mode: Any, *rest: Any) -> Any:
    """Open for writing what is not charged: a writable mount, a device."""
    if is_odd(file):
        return _open(file, mode, *rest)
    name = os.fspath(file)
    try:
        opened = _open(real, mode, *rest)
    except OSError as exc:
        reraise(exc, name)
    raw_of(opened).name = name
    return opened


def raw_of(file: Any) -> Any:
    """The raw file under the buffers of ``file``."""
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)


def _buffered(
    invocation: Invocation,
    raw: FileIO,
    mode: str,
    plan: Plan,
    buffering: int,
    encoding: Any,
    errors: Any,
    newline: Any,
) -> Any:
    """The standard buffers over ``raw``, chosen as :func:`io.open` chooses them."""
    result: Any = raw
    try:
        if buffering == 0:
            return raw
        line_buffering = False
        if buffering == 1:
            line_buffering = plan.text
            if not plan.text:
                warnings.warn(
                    "line buffering (buffering=1) isn't supported in binary mode, "
                    "the default buffer size will be used",
                    RuntimeWarning,
                    stacklevel=4,
                )
        elif buffering < 0 and raw.invocation is None:
            line_buffering = raw.isatty()  # nothing in a scratch directory is a terminal
        size = buffering if buffering > 1 else _buffer_size(raw)
        kind: Any = io.BufferedRandom if plan.updating else io.BufferedWriter
        result = kind(raw, size)
        if plan.text:
            result = io.TextIOWrapper(result, encoding, errors, newline, line_buffering and plan.text)
            result.mode = mode
        if raw.invocation is not None:
            invocation.keep_handle(result)
        return result
    except BaseException:
        result.close()
        raise


def _buffer_size(raw: Any) -> int:
    """As large as the interpreter's own :func:`io.open` makes it: since 3.14 not only a block."""
    size: int = raw._blksize
    if sys.version_info >= (3, 14):
        size = max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE)
    return size


def open_code(invocation: Invocation, path: Any) -> Any:
    if not isinstance(path, str) or is_odd(path):
        return originals.open_code(path)
    return _open_for_reading(invocation, path, "rb", -1)
