"""``open()`` within an invocation: raw files that charge the quota, under standard buffers (C3.5, C7.2)."""

from __future__ import annotations

import io
import operator
import os
import sys
import warnings
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.interpose.modes import WRITING, Plan, parse, plan_of
from tmpguard.interpose.paths import (
    alive_to_read,
    is_odd,
    like,
    quick_real,
    readable,
    reraise,
    truth_as_descriptor,
)
from tmpguard.interpose.wrapper import is_number, quick

from .charge import Charge, charge_of
from .raw import FileIO, is_no_path, open_at, open_by, refusable
from .target import locate, opening

_FileIO = originals.FileIO
_open = originals.open
_init = originals.FileIO.__init__
_new = originals.FileIO.__new__

_QUICK_WRITES: Final = {mode: plan for mode in ("w", "wt", "wb", "x", "xb") if (plan := parse(mode))}


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
    if (invocation := get_current()) is None:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if opener is None and buffering == -1 and closefd is True and type(mode) is type(file) is str:
        # quick_real() without the call where nothing is new: reading a small file takes a few microseconds.
        prefix, tail = invocation.mounted.prefix, invocation.guard.mounts.tails.get(file)
        real = prefix + tail if prefix and tail else quick_real(invocation, file)
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
    try:
        result: Any = io.BufferedWriter(raw, _buffer_size(raw))
        charge = charge_of(invocation, raw, empty=True)
        if charge is not None:
            charge.attach(raw)
        if plan.text:
            result = io.TextIOWrapper(result, encoding, errors, newline)
            result.mode = mode
    except BaseException:
        raw.close()
        raise
    if charge is not None:
        invocation.volume.keep_handle(result, charge.retire)
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
    if not closefd and not is_number(file) and opener is None:
        return _open(refusable(file), mode, buffering, encoding, errors, newline, closefd)
    if is_number(file) or opener is not None:
        if not plan.flags & WRITING:
            return _open_to_read(file, mode, buffering, encoding, errors, newline, closefd, opener)
        charge = open_by(invocation, raw, file, plan.raw_mode, closefd, opener)
    elif not plan.flags & WRITING:
        return _open_for_reading(invocation, file, mode, buffering, encoding, errors, newline)
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
        invocation.volume.keep_handle(result, charge.retire)
    return result


def _are_usual(plan: Plan, buffering: Any, encoding: Any, errors: Any, newline: Any) -> bool:
    try:
        fits = -(2**31) <= operator.index(buffering) < 2**31
    except TypeError:
        return False
    return fits and (plan.text or (encoding is None and errors is None and newline is None))


def _open_for_reading(invocation: Invocation, file: Any, mode: Any, buffering: Any, *rest: Any) -> Any:
    alive_to_read(invocation, "open", file)
    if is_no_path(file):
        return _open(file, mode, buffering, *rest)
    name = os.fspath(file)
    try:
        real = readable(invocation, name, operation="open")
        opened = _open_to_read(like(name, real), mode, buffering, *rest)
    except OSError as exc:
        reraise(exc, name)
    if real != name:
        raw_of(opened).name = name
    invocation.namespace.opened(opened.fileno(), real)
    return opened


def _open_to_read(
    file: Any,
    mode: Any,
    buffering: Any,
    encoding: Any = None,
    errors: Any = None,
    newline: Any = None,
    closefd: Any = True,
    opener: Any = None,
) -> Any:
    if buffering or "b" not in mode:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _new(FileIO)  # its holder may open it anew, for writing
    _init(raw, file, mode, closefd, opener)
    return raw


def _open_elsewhere(file: Any, real: Any, mode: Any, *rest: Any) -> Any:
    """Open for writing what is not charged: a writable mount, a device."""
    if is_no_path(file):
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
