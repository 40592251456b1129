"""``open()`` within an invocation: raw files that charge the quota, under standard buffers (C3.5, C7.2)."""

from __future__ import annotations

import io
import operator
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC, EROFS
from functools import partial
from typing import Any, Final, NamedTuple

from ..context import get_current
from ..invocation import Invocation
from ..mounts import Place
from ..quota import Full
from ..usage import allocated
from . import originals
from .charge import Charge, too_many
from .paths import (
    BUFFERS,
    alive,
    alive_to_read,
    is_odd,
    like,
    place,
    quick_real,
    readable,
    refuse,
    reraise,
    truth_as_descriptor,
)
from .refusals import open_error
from .wrapper import StandIn, quick

_FileIO = originals.FileIO
_open = originals.open
_write = originals.FileIO.write
_init = originals.FileIO.__init__
_new = originals.FileIO.__new__


class Unopened(str):
    """A path that an opener stands for: it is not itself opened, and the backstop lets it pass."""


class FileIO(originals.FileIO, metaclass=StandIn):  # type: ignore[metaclass]
    """:class:`io.FileIO`, for those who call or subclass it themselves.

    Raises OSError(EROFS) outside the writable mounts (C2.1) and what :class:`Charge` raises below ``/tmp``.
    """

    original = originals.FileIO
    _charge: Charge | None = None
    _nameless = False

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        self._charge = None
        invocation = get_current()
        plan = _raw_plan_of(mode) if invocation is not None else None
        if invocation is None or plan is None:
            _init(self, file, mode, closefd, opener)
            return
        if not self.closed:
            super().close()  # what it was before, whatever becomes of it
        if not closefd and not _is_number(file) and opener is None:
            _init(self, os.devnull, mode, closefd)  # has the words for it
        try:
            self._charge = self._open(invocation, file, mode, plan, closefd, opener)
        except OSError as exc:
            if isinstance(file, os.PathLike) and exc.filename == os.fspath(file):
                exc.filename = file  # io.FileIO leaves it as it is, which open() does not
            raise
        self.name = file
        self._hold(self._charge)

    def _open(
        self, invocation: Invocation, file: Any, mode: str, plan: Plan, closefd: bool, opener: Any
    ) -> Charge | None:
        if type(file) is bool:
            file = truth_as_descriptor(file)
        if _is_number(file) or opener is not None:
            alive(invocation, "open", file)
            return open_by(invocation, self, file, mode, closefd, opener)
        if not plan.flags & _WRITING:
            name = os.fspath(file)
            with _spelled(name):
                real = readable(invocation, name, operation="open")
                _init(self, like(name, real), mode, closefd)
            invocation.namespace.opened(self.fileno(), real)
            return None
        real, charged = locate(invocation, file, plan.flags)
        return open_at(invocation, self, real, os.fspath(file), plan, charged)

    def _hold(self, charge: Charge | None) -> None:
        """Have the writes charged by the methods of this class."""
        self._charge = charge
        if charge is not None:
            self._nameless = charge.is_nameless(self)
            charge.invocation.keep_handle(self, charge)

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        return _write(self, data) if self._charge is None else self._charge.write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(offset, whence) if self._charge is None else self._charge.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        return super().truncate(size) if self._charge is None else self._charge.truncate(size)

    def __repr__(self) -> str:
        return super().__repr__().replace("<FileIO", "<_io.FileIO", 1)  # 3.13 goes by the name of the type

    def close(self) -> None:
        charge = self._charge
        if charge is not None and (self._nameless or charge.exposed):
            charge.close()
        super().close()

    def fileno(self) -> int:
        return super().fileno() if self._charge is None else self._charge.fileno()


FileIO.__name__ = FileIO.__qualname__ = "FileIO"
FileIO.__module__ = "_io"


def open_at(
    invocation: Invocation, raw: Any, real: Any, name: Any, plan: Plan, charged: bool
) -> Charge | None:
    """Open the real path ``real`` for ``raw`` under the application's ``name``."""
    with _spelled(name):
        call = partial(_init, raw, real, plan.raw_mode)
        if charged:
            opening(invocation, name, real, plan.flags, call)
        else:
            call()
    raw.name = name
    if not charged:
        return None
    return Charge(invocation, raw, empty=bool(plan.flags & (os.O_TRUNC | os.O_EXCL)))


#: Threads that run the opener of a raw file.
handing_over: Final[set[int]] = set()


def open_by(
    invocation: Invocation, raw: Any, file: Any, mode: str, closefd: bool, opener: Any
) -> Charge | None:
    """Take up a descriptor, or what ``opener`` gives for ``file``; one in the scratch is charged."""
    if opener is None or _is_number(file):
        _init(raw, file, mode, closefd)
    else:
        name = os.fspath(file)
        thread = threading.get_ident()
        handing_over.add(thread)  # what the opener opens is the raw file's alone
        try:
            _init(raw, Unopened(name), mode, closefd, lambda _, flags: opener(name, flags))
        except OSError as exc:
            if isinstance(exc.filename, Unopened):  # what the opener itself raises is its own affair
                exc.filename = name
            raise
        finally:
            handing_over.discard(thread)
        raw.name = name
    if raw.writable() and invocation.owns(raw.fileno()):
        return Charge(invocation, raw)
    return None


def _is_number(file: Any) -> bool:
    """Does ``file`` stand for a descriptor, whatever the type of the number?"""
    return type(file) is int or hasattr(type(file), "__index__")


@contextmanager
def _spelled(name: Any) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        reraise(exc, name)


# --- modes ---------------------------------------------------------------------------------------------

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


def _raw_plan_of(mode: Any) -> Plan | None:
    """The plan of a mode of :class:`FileIO`, in which ``b`` says nothing and ``t`` has no place."""
    return plan_of(mode.replace("b", "") + "b") if isinstance(mode, str) and "t" not in mode else None


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


_QUICK_READS: Final = frozenset({"r", "rt", "rb"})
_QUICK_WRITES: Final = {mode: plan for mode in ("w", "wt", "wb", "x", "xb") if (plan := _parse(mode))}


# --- where it leads ------------------------------------------------------------------------------------


def locate(
    invocation: Invocation, file: Any, flags: int, dir_fd: int | None = None, operation: str = "open"
) -> tuple[Any, bool]:
    """The real path to open ``file`` by for writing, and whether the file is charged to the quota.

    Raises OSError(EROFS) with the note and the violation outside the writable mounts (C2.1), and before it
    what the kernel reports first (C2.2).
    """
    real = quick_real(invocation, file) if dir_fd is None else None
    if real is not None:
        return real, True
    alive(invocation, operation, file)
    if (operation == "open" and isinstance(file, BUFFERS)) or is_odd(file):
        return file, False  # the original refuses it by itself
    try:
        making = bool(flags & os.O_CREAT)
        where = place(invocation, file, dir_fd, follow=_follows(flags), operation=operation, making=making)
        if not where.mount.writable:
            _check_read_only(invocation, file, where, flags, operation)
    except OSError as exc:
        reraise(exc, file)
    return like(file, where.real), where.mount.charged


def _follows(flags: int) -> bool:
    return not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def _check_read_only(invocation: Invocation, file: Any, where: Place, flags: int, operation: str) -> None:
    code = open_error(where, flags)
    if code == EROFS:
        refuse(invocation, operation, file, where)
    elif code:
        raise OSError(code, os.strerror(code), file)


def opening(
    invocation: Invocation, name: Any, real: str, flags: int, call: Callable[[], Any], operation: str = "open"
) -> Any:
    """Run ``call``, which opens ``real`` in the scratch directory, and charge what it frees and makes."""
    quota = invocation.quota
    if flags & os.O_CREAT and quota.max_files is not None:
        call = partial(making, invocation, operation, name, real, call)
    if not flags & os.O_TRUNC or quota.credit >= quota.limit:
        return call()
    with quota.lock:
        try:
            status = originals.stat(real)
            before = allocated(status, real)
        except (OSError, ValueError):  # the call itself will say so
            before = 0
        result = call()
        if before:
            quota.freed(before, status.st_ino)
        return result


def making(
    invocation: Invocation,
    operation: str,
    name: Any,
    real: str,
    call: Callable[[], Any],
    *,
    nameless: bool = False,
) -> Any:
    """Run ``call``, which may make ``real``, or a nameless file in it, within ``max_files`` (C3.6)."""
    real = os.fsdecode(real)
    if real.endswith("/") and operation != "os.mkdir" and not nameless:
        return call()  # only a directory may be named like that, which the kernel says
    try:
        return invocation.quota.making(real, call, nameless=nameless)
    except Full:
        invocation.refuse(operation, ENOSPC, name, remedy=too_many(invocation))
        return call()


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
    if opener is None and buffering == -1 and closefd is True and type(mode) is str:
        real = quick_real(invocation, file)
        if real is not None:
            try:
                if mode == "rb" and encoding is errors is newline is None:
                    opened: Any = _open(real, "rb")
                    opened.raw.name = file
                    return opened
                if mode == "r" or mode == "rt":
                    opened = _open(real, mode, -1, encoding, errors, newline)
                    opened.buffer.raw.name = file
                    return opened
                plan = _QUICK_WRITES.get(mode)
                if plan is not None and (plan.text or encoding is errors is newline is None):
                    return _quick_write(invocation, file, real, mode, plan, encoding, errors, newline)
            except OSError as exc:
                reraise(exc, file)
    return _open_within(invocation, file, mode, buffering, encoding, errors, newline, closefd, opener)


def _quick_write(
    invocation: Invocation,
    file: str,
    real: str,
    mode: str,
    plan: Plan,
    encoding: Any,
    errors: Any,
    newline: Any,
) -> Any:
    """Open a new or emptied file below /tmp under the standard buffers: the usual case without detours."""
    raw = _new(_FileIO)
    quota = invocation.quota
    if quota.credit < quota.limit or quota.max_files is not None:
        opening(invocation, file, real, plan.flags, partial(_init, raw, real, plan.raw_mode))
    else:
        _init(raw, real, plan.raw_mode)
    raw.name = file
    charge = Charge(invocation, raw, empty=True)
    charge.attach(raw)
    try:
        result: Any = io.BufferedWriter(raw, _buffer_size(raw))
        if plan.text:
            result = io.TextIOWrapper(result, encoding, errors, newline)
            result.mode = mode
    except BaseException:
        raw.close()
        raise
    invocation.keep_handle(result, charge)
    return result


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
    plan = plan_of(mode)
    if plan is None or not plan.valid or not _are_usual(plan, buffering, encoding, errors, newline):
        # Not a way to open a file: the original finds the words for it.
        return _open(os.devnull, mode, buffering, encoding, errors, newline)
    if type(file) is bool:
        file = truth_as_descriptor(file)
    buffering = operator.index(buffering)
    if buffering == 1 and not plan.text:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, "
            "the default buffer size will be used",
            RuntimeWarning,
            stacklevel=3,
        )
        buffering = -1
    # Without a buffer the raw file is what the application holds, and its methods have to hold it, too.
    raw: Any = _new(_FileIO if buffering else FileIO)
    if not closefd and not _is_number(file) and opener is None:
        return _open(os.devnull, mode, buffering, encoding, errors, newline, closefd)  # has the words for it
    if _is_number(file) or opener is not None:
        if not plan.flags & _WRITING:
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        charge = open_by(invocation, raw, file, plan.raw_mode, closefd, opener)
    elif not plan.flags & _WRITING:
        return _open_for_reading(invocation, file, mode, buffering, encoding, errors, newline, closefd)
    else:
        real, charged = locate(invocation, file, plan.flags)
        if not charged:
            return _open_elsewhere(file, real, mode, buffering, encoding, errors, newline, closefd)
        charge = open_at(invocation, raw, real, os.fspath(file), plan, charged)
    if not buffering:
        if plan.text:
            raw.close()
            raise ValueError("can't have unbuffered text I/O")
        raw._hold(charge)
        return raw
    if charge is not None:
        charge.attach(raw)
    result = _buffered(raw, charge, mode, plan, buffering, encoding, errors, newline)
    if charge is not None:
        invocation.keep_handle(result, charge)
    return result


def _are_usual(plan: Plan, buffering: Any, encoding: Any, errors: Any, newline: Any) -> bool:
    try:
        fits = -(2**31) <= operator.index(buffering) < 2**31
    except TypeError:
        return False
    return fits and (plan.text or (encoding is None and errors is None and newline is None))


def _open_for_reading(invocation: Invocation, file: Any, mode: Any, buffering: Any, *rest: Any) -> Any:
    alive_to_read(invocation, "open", file)
    if _is_no_path(file):
        return _open(file, mode, buffering, *rest)
    name = os.fspath(file)
    try:
        real = readable(invocation, name, operation="open")
        opened = _open(like(name, real), mode, buffering, *rest)
    except OSError as exc:
        reraise(exc, name)
    if real != name:
        raw_of(opened).name = name
    invocation.namespace.opened(opened.fileno(), real)
    return opened


def _open_elsewhere(file: Any, real: Any, mode: Any, *rest: Any) -> Any:
    """Open for writing what is not charged: a writable mount, a device."""
    if _is_no_path(file):
        return _open(file, mode, *rest)
    name = os.fspath(file)
    try:
        opened = _open(real, mode, *rest)
    except OSError as exc:
        reraise(exc, name)
    raw_of(opened).name = name
    return opened


def _is_no_path(file: Any) -> bool:
    return isinstance(file, BUFFERS) or is_odd(file)


def raw_of(file: Any) -> Any:
    """The raw file under the buffers of ``file``."""
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)


def _buffered(
    raw: Any,
    charge: Charge | None,
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
        line_buffering = False
        if buffering == 1:
            line_buffering = True  # of text: in binary mode there is none
        elif buffering < 0 and charge is None:
            line_buffering = raw.isatty()  # nothing in a scratch directory is a terminal
        size = buffering if buffering > 1 else _buffer_size(raw)
        result = (io.BufferedRandom if plan.updating else io.BufferedWriter)(raw, size)
        if plan.text:
            result = io.TextIOWrapper(result, encoding, errors, newline, line_buffering)
            result.mode = mode
        return result
    except BaseException:
        result.close()
        raise


def _buffer_size(raw: Any) -> int:
    """As large as the interpreter's own :func:`io.open` makes it: since 3.14 not only a block."""
    size: int = raw._blksize
    return size if sys.version_info < (3, 14) else max(min(size, 8 << 20), io.DEFAULT_BUFFER_SIZE)


def open_code(invocation: Invocation, path: Any) -> Any:
    if not isinstance(path, str) or is_odd(path):
        return originals.open_code(path)
    return _open_for_reading(invocation, path, "rb", -1)
