"""``open()`` within an invocation: raw files that charge the quota, under standard buffers (C3.5, C7.2)."""

from __future__ import annotations

import io
import operator
import os
import sys
import warnings
from collections.abc import Callable
from errno import ENOENT
from functools import partial
from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import Opener, PathOrDescriptor, StrOrBytes, StrOrBytesPath
from tmpguard.core.errors import shorten
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.spelling import is_encodable
from tmpguard.interpose.given import Given, is_descriptor
from tmpguard.interpose.modes import WRITING, Plan, parse, plan_of
from tmpguard.interpose.paths import known_file, quick_known, quick_real, readable, truth_as_descriptor
from tmpguard.interpose.raising import alive_to_read, reraise, spell_look
from tmpguard.interpose.watching import files
from tmpguard.interpose.wrapper import quick

from .charge import Charge
from .raw import FileIO, open_at, open_by, refusable
from .target import accounting, locate, share

_FileIO = originals.FileIO
_open = originals.open
_init = originals.FileIO.__init__
_new = originals.FileIO.__new__

_READS: Final = frozenset({"r", "rb", "rt"})
_QUICK_WRITES: Final = {
    mode: plan for mode in ("w", "wt", "wb", "x", "xb", "a", "at", "ab") if (plan := parse(mode))
}


def _quick_open(
    _: object,
    file: PathOrDescriptor,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Any:
    if (invocation := get_current()) is None:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if invocation.watches:
        args = (file, mode, buffering, encoding, errors, newline, closefd, opener)
        return files.open(invocation, _open, args, {})
    if opener is None and buffering == -1 and closefd is True and type(mode) is str and type(file) is str:
        # quick_real() without the call where nothing is new: reading a small file takes a few microseconds.
        prefix, tail = invocation.mounted.prefix, invocation.guard.mounts.tails.get(file)
        if prefix and tail:
            real: str | None = prefix + tail
        elif mode in _READS and (real := quick_known(invocation, file)) is not None:
            return _open_known(invocation, file, real, mode, encoding, errors, newline)
        else:
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
                if mode in _READS:
                    spell_look(invocation, exc, file, "open")
                    raise
                if exc.errno != ENOENT or not invocation.mounted.mend():
                    reraise(exc, file, "open", making=mode not in _READS)
    try:
        return _open_within(invocation, file, mode, buffering, encoding, errors, newline, closefd, opener)
    except FileNotFoundError:
        if not invocation.mounted.mend():
            raise
    except OSError as exc:
        shorten(exc)
        raise
    return _open_within(invocation, file, mode, buffering, encoding, errors, newline, closefd, opener)


def _open_known(
    invocation: Invocation,
    file: str,
    real: str,
    mode: str,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    """Open what is known to have the path ``real`` outside ``/tmp``, to read it."""
    try:
        opened = _open(real, mode, -1, encoding, errors, newline)
    except OSError as exc:
        reraise(exc, file)
    if real is not file:
        raw_of(opened).name = file
    namespace = invocation.made_namespace
    if namespace is not None and namespace.bundled:
        namespace.opened(opened.fileno(), real)
    return opened


def _quick_write(
    invocation: Invocation,
    file: str,
    real: str,
    mode: str,
    plan: Plan,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> Any:
    """Open a file below /tmp to write or append to it, under the standard buffers: the usual case without
    detours."""
    raw = _new(_FileIO)
    volume = invocation.mounted  # there is one: the path leads into it
    quota = volume.quota
    appends = mode[0] == "a"
    openings = volume.openings = volume.openings + 1
    if volume.handles and volume.has_open_handle():
        share(quota, real)
    if quota.max_files is not None:
        accounting(invocation, file, real, plan.flags, partial(_init, raw, real, plan.raw_mode))
    elif appends:
        with quota.lock:
            quota.stamp += 1  # a step that this call interrupts may be about the same file
        _init(raw, real, plan.raw_mode)
    elif quota.credit < quota.limit and mode[0] == "w":
        quota.emptying(real, partial(_init, raw, real, plan.raw_mode))
    else:
        _init(raw, real, plan.raw_mode)
    raw.name = file
    try:
        result: Any = io.BufferedWriter(raw, _buffer_size(raw))
        charge = Charge(invocation, raw, empty=not appends) if raw.seekable() else None
        if charge is not None:
            if appends:
                charge.start_at_end(quota)
            charge.attach(raw)
        if plan.text:
            result = io.TextIOWrapper(result, encoding, errors, newline)
            result.mode = mode
    except BaseException:
        raw.close()
        raise
    if charge is not None:
        volume.keep_handle(result, charge.retire, charge.descriptor)
        if volume.openings != openings:
            charge.forget_end()
    return result


def _warning_open(
    _: object,
    file: PathOrDescriptor,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Any:
    """:func:`_quick_open` under ``-X warn_default_encoding``: the warning names the caller's line."""
    if encoding is not None or not isinstance(mode, str) or "b" in mode:
        return _quick_open(_, file, mode, buffering, encoding, errors, newline, closefd, opener)
    default = "utf-8" if sys.flags.utf8_mode else "locale"
    opened = _quick_open(_, file, mode, buffering, default, errors, newline, closefd, opener)
    try:
        io.text_encoding(None)
    except EncodingWarning:
        opened.close()
        raise
    return opened


#: What :func:`open` is within an invocation, and how it is reached from outside of one.
open = quick(_open, _warning_open if sys.flags.warn_default_encoding else _quick_open, "io.open")


class _Options(NamedTuple):
    """How a file is opened: the arguments of :func:`open` from the second to the sixth."""

    mode: str
    buffering: int
    encoding: str | None
    errors: str | None
    newline: str | None


def _open_within(
    invocation: Invocation,
    file: PathOrDescriptor,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closefd: bool,
    opener: Opener | None,
) -> Any:
    plan = plan_of(mode)
    if plan is None or not plan.valid or not _are_usual(plan, buffering, encoding, errors, newline):
        # Not a way to open a file: the original raises the right error for it.
        return _open(os.devnull, mode, buffering, encoding, errors, newline)
    if buffering != -1:
        buffering = _effective(buffering, plan)
    options = _Options(mode, buffering, encoding, errors, newline)
    if is_descriptor(file) or opener is not None:
        return _open_by(invocation, file, plan, options, closefd, opener)
    if not closefd:
        return _open(refusable(Given(file, wanted=None)), *options, closefd)
    if plan.flags & WRITING:
        return _open_for_writing(invocation, Given(file, wanted=None), plan, options)
    return _open_for_reading(invocation, file, options)


def _are_usual(
    plan: Plan, buffering: object, encoding: str | None, errors: str | None, newline: str | None
) -> bool:
    try:
        fits = -(2**31) <= operator.index(buffering) < 2**31  # type: ignore[arg-type]
    except TypeError:
        return False
    return fits and (plan.text or (encoding is None and errors is None and newline is None))


def _effective(buffering: int, plan: Plan) -> int:
    """The ``buffering`` that a file gets. Warns as :func:`io.open` does."""
    buffering = operator.index(buffering)
    if buffering != 1 or plan.text:
        return buffering
    warnings.warn(
        "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
        RuntimeWarning,
        stacklevel=4,
    )
    return -1


# --- reading -------------------------------------------------------------------------------------------


def _open_for_reading(invocation: Invocation, file: PathOrDescriptor, options: _Options) -> Any:
    real = known_file(invocation, file)
    if real is None:
        return _walk_to_read(invocation, Given(file, wanted=None), options)
    try:
        return _opened_to_read(invocation, file, real, real, options)
    except OSError as exc:
        reraise(exc, file)


def _walk_to_read(invocation: Invocation, given: Given, options: _Options) -> Any:
    alive_to_read(invocation, "open", given)
    if given.odd:
        return _open(given.name, *options)
    try:
        real = readable(invocation, given, operation="open")
        return _opened_to_read(invocation, given.name, given.like(real), real, options)
    except OSError as exc:
        reraise(exc, given.name, "open")


def _opened_to_read(
    invocation: Invocation, name: object, path: StrOrBytes, real: str, options: _Options
) -> Any:
    """Open ``path``, which is the real path as str or bytes, under the application's ``name``."""
    opened = _open_readable(path, options)
    if path != name:
        raw_of(opened).name = name
    invocation.namespace.opened(opened.fileno(), real)
    return opened


def _open_readable(
    file: PathOrDescriptor, options: _Options, closefd: bool = True, opener: Opener | None = None
) -> Any:
    if options.buffering or "b" not in options.mode:
        return _open(file, *options, closefd, opener)
    raw = _new(FileIO)  # its holder may open it anew, for writing
    _init(raw, file, options.mode, closefd, opener)
    return raw


# --- writing -------------------------------------------------------------------------------------------


def _open_for_writing(invocation: Invocation, given: Given, plan: Plan, options: _Options) -> Any:
    real, charged = locate(invocation, given, plan.flags)
    if charged:
        raw = _new_raw(options)
        return _finished(invocation, raw, open_at(invocation, raw, real, given.name, plan), plan, options)
    if given.odd:
        return _open(given.name, *options)
    try:
        opened = _open(real, *options)  # on a writable mount, or a device
    except OSError as exc:
        reraise(exc, given.name)
    raw_of(opened).name = given.name
    return opened


def _open_by(
    invocation: Invocation,
    file: PathOrDescriptor,
    plan: Plan,
    options: _Options,
    closefd: bool,
    opener: Opener | None,
) -> Any:
    """Open a descriptor, or what ``opener`` gives for ``file``."""
    if type(file) is bool:
        file = truth_as_descriptor(file)
    if not plan.flags & WRITING:
        return _open_readable(file, options, closefd, opener)
    raw = _new_raw(options)
    charge = open_by(invocation, raw, file, plan.raw_mode, closefd, opener)
    return _finished(invocation, raw, charge, plan, options)


def _new_raw(options: _Options) -> Any:
    """Without a buffer the raw file is what the application holds, and its methods have to hold it, too."""
    return _new(_FileIO if options.buffering else FileIO)


def _finished(invocation: Invocation, raw: Any, charge: Charge | None, plan: Plan, options: _Options) -> Any:
    """What the application gets for the opened ``raw``: itself, or the buffers over it."""
    if not options.buffering:
        if plan.text:
            raw.close()
            raise ValueError("can't have unbuffered text I/O")
        raw._hold(charge)
        return raw
    if charge is not None:
        charge.attach(raw)
    result = _buffered(raw, plan, options, may_be_terminal=charge is None)
    if charge is not None:
        invocation.volume.keep_handle(result, charge.retire, charge.descriptor)
    return result


def _buffered(raw: io.FileIO, plan: Plan, options: _Options, *, may_be_terminal: bool) -> Any:
    """The standard buffers over ``raw``, chosen as :func:`io.open` chooses them."""
    result: Any = raw
    buffering = options.buffering
    try:
        # Only text can be buffered by lines; what is in a scratch directory is no terminal.
        line_buffering = buffering == 1 or (buffering < 0 and may_be_terminal and raw.isatty())
        size = buffering if buffering > 1 else _buffer_size(raw)
        result = (io.BufferedRandom if plan.updating else io.BufferedWriter)(raw, size)
        if plan.text:
            result = io.TextIOWrapper(
                result, options.encoding, options.errors, options.newline, line_buffering
            )
            result.mode = options.mode
        return result
    except BaseException:
        result.close()
        raise


#: As large as the interpreter's own :func:`io.open` makes it: since 3.14, not only a block.
_buffer_size: Final[Callable[[Any], int]] = (
    operator.attrgetter("_blksize")
    if sys.version_info < (3, 14)
    else lambda raw: max(min(raw._blksize, 8 << 20), io.DEFAULT_BUFFER_SIZE)
)


def raw_of(file: Any) -> Any:
    """The raw file under the buffers of ``file``."""
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)


def open_code(invocation: Invocation, path: StrOrBytesPath) -> Any:
    if not isinstance(path, str) or "\0" in path or not is_encodable(path):
        return originals.open_code(path)  # type: ignore[arg-type]
    return _open_for_reading(invocation, path, _Options("rb", -1, None, None, None))
