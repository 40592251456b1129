"""Opening files, for an invocation that only watches: as the interpreter does. Writes are counted (C2.5)."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import Opener, StrOrBytes
from tmpguard.core.context import activate, set_current, unguarded
from tmpguard.core.storage.ledger import key_of
from tmpguard.core.storage.pages import allocated
from tmpguard.core.watching import Watching
from tmpguard.interpose.given import Given, is_descriptor
from tmpguard.interpose.modes import WRITING, Plan, plan_of
from tmpguard.interpose.paths import quick_known

from .judging import Opening, argument, grown, is_charged, is_late, looked, quietly, real_of

_write: Final = originals.FileIO.write


class Counting:
    """Counts what is written to one raw file in ``/tmp``. Its ``write`` replaces that of the raw file."""

    __slots__ = ("_descriptor", "_invocation", "_is_late", "_key", "_raw")

    def __init__(self, invocation: Watching, raw: io.FileIO) -> None:
        self._invocation = invocation
        # The raw file holds this object: a reference back would leave a forgotten file to the collector.
        self._raw = weakref.ref(raw)
        self._descriptor: int = raw.fileno()
        self._key = key_of(originals.fstat(self._descriptor))
        self._is_late = False

    def write(self, data: Any, /) -> int | None:
        """:meth:`io.FileIO.write`."""
        file = self._raw() or self._remaining()
        written: int | None = _write(file, data)
        if written:
            quietly(self._count, file, written)
        return written

    def _remaining(self) -> io.FileIO:
        """The raw file, if it is gone but still open.

        The collector of cycles clears references before files are closed: a buffer that is flushed then still
        has its descriptor.
        """
        with suppress(OSError):
            if key_of(originals.fstat(self._descriptor)) == self._key:
                return originals.FileIO(self._descriptor, "w", closefd=False)
        raise ValueError("I/O operation on closed file.")

    def _count(self, file: io.FileIO, written: int) -> None:
        if self._is_late:
            return  # recorded once
        name = getattr(file, "name", self._descriptor)
        self._is_late = is_late(self._invocation, "write", name)
        if not self._is_late:
            grown(self._invocation, "write", name, originals.fstat(self._descriptor), written)


def open(
    invocation: Any, original: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """:func:`open`, which is ``original``."""
    plan = plan_of(argument(args, options, 1, "mode") or "r")
    file, opener = argument(args, options, 0, "file"), argument(args, options, 7, "opener")
    if plan is None or not plan.valid:
        return original(*args, **options)  # raises the right error
    if opener is None and not plan.flags & WRITING and not is_descriptor(file):
        opened = original(*args, **options)
        quietly(_read, invocation, file, opened)
        return opened
    if opener is not None:
        args, options = _with_opener(args, options, _within(invocation, opener))
        file = None
    opening = _opening(invocation, file, plan)
    with unguarded():
        opened = original(*args, **options)
    quietly(_opened, invocation, opening, _raw_of(opened), plan)
    return opened


def _read(invocation: Watching, file: Any, opened: Any) -> None:
    if invocation.guard.mounts.watched is None and quick_known(invocation, file) is not None:
        return  # outside /tmp, as most files
    status = originals.fstat(originals.FileIO.fileno(_raw_of(opened)))
    looked(invocation, "open", Given(file, wanted=None), status=status)


def open_raw(
    invocation: Any, raw: io.FileIO, init: Callable[..., None], plan: Plan, args: tuple[Any, ...]
) -> None:
    """Initialize ``raw``, whose own constructor is ``init``, with ``args``: file, mode, closefd, opener."""
    file, *rest, opener = args
    if opener is not None:
        args = (file, *rest, _within(invocation, opener))
        file = None
    opening = _opening(invocation, file, plan)
    with unguarded():
        init(raw, *args)
    quietly(_opened, invocation, opening, raw, plan)


def _opening(invocation: Watching, file: Any, plan: Plan) -> Opening | None:
    """The judge of the path ``file``; None for a descriptor, which was judged when it was opened."""
    if file is None or is_descriptor(file):
        return None
    return quietly(_judge_of, invocation, file, plan.flags)


def _judge_of(invocation: Watching, file: Any, flags: int) -> Opening:
    return Opening(invocation, "open", Given(file, wanted=None), flags)


def _opened(invocation: Watching, opening: Opening | None, raw: Any, plan: Plan) -> None:
    if not isinstance(raw, io.FileIO):
        return  # not the interpreter's own open()
    descriptor = originals.FileIO.fileno(raw)
    if opening is not None:
        counts = opening.opened(descriptor)
    else:
        counts = bool(plan.flags & WRITING) and _counts(invocation, descriptor)
    if counts and type(raw).write in _OWN_WRITES:
        raw.write = Counting(invocation, raw).write  # type: ignore[method-assign]


def _counts(invocation: Watching, descriptor: int) -> bool:
    """Whether what is written to an open file counts: it is in ``/tmp``, or was made there."""
    status, real = originals.fstat(descriptor), real_of(descriptor)
    if not invocation.owns_file(key_of(status)):
        if not real or not is_charged(invocation, real, invocation.guard.mounts.mount_of(real)):
            return False
        base = allocated(status, f"/proc/self/fd/{descriptor}", follow=0)
        invocation.made(real, status, base)
    return True


#: The ``write`` of the classes whose instances may have another one: a derived class has its own reasons.
_OWN_WRITES: Final = [_write]


def own_write(method: Any) -> None:
    """Declare ``method`` to be the ``write`` of a class that stands for :class:`io.FileIO`."""
    if method not in _OWN_WRITES:
        _OWN_WRITES.append(method)


def _with_opener(
    args: tuple[Any, ...], options: Mapping[str, Any], opener: Opener
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if len(args) > 7:
        return (*args[:7], opener, *args[8:]), options
    return args, {**options, "opener": opener}


def _within(invocation: Watching, opener: Any) -> Any:
    """``opener`` is the application's own code, which is watched."""
    if not callable(opener):
        return opener

    def open_within(path: StrOrBytes, flags: int) -> Any:
        before = activate(invocation)
        try:
            return opener(path, flags)
        finally:
            set_current(before)

    return open_within


def _raw_of(file: Any) -> Any:
    """The raw file under the buffers of ``file``."""
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)
