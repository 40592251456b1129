"""Raw files within an invocation: those that charge the quota with every write (C3.5)."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import Opener, PathOrDescriptor, ReadableBuffer, StrOrBytes
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.interpose.given import Given, is_descriptor
from tmpguard.interpose.modes import WRITING, Plan, raw_plan_of
from tmpguard.interpose.paths import readable, truth_as_descriptor
from tmpguard.interpose.raising import alive, reraise
from tmpguard.interpose.watching import files
from tmpguard.interpose.wrapper import StandIn

from .charge import Charge, charge_of
from .target import locate, opening

_write = originals.FileIO.write
_init = originals.FileIO.__init__
_new = originals.FileIO.__new__


class Unopened(str):
    """A path that an opener stands for: it is not itself opened, and the backstop lets it pass."""


class FileIO(originals.FileIO, metaclass=StandIn, told="_io.FileIO"):  # type: ignore[metaclass, call-arg]
    """:class:`io.FileIO`, for those who call or subclass it themselves.

    Raises OSError(EROFS) outside the writable mounts (C2.1) and what :class:`Charge` raises below ``/tmp``.
    """

    original = originals.FileIO
    _charge: Charge | None = None
    _nameless = False

    def __init__(
        self, file: PathOrDescriptor, mode: str = "r", closefd: bool = True, opener: Opener | None = None
    ) -> None:
        self._charge = None
        invocation = get_current()
        plan = raw_plan_of(mode) if invocation is not None else None
        if invocation is None or plan is None:
            _init(self, file, mode, closefd, opener)
            return
        if invocation.watches:
            files.open_raw(invocation, self, _init, plan, (file, mode, closefd, opener))
            return
        if not self.closed:
            super().close()  # what it was before, whatever becomes of it
            vars(self).pop("__IOBase_closed", None)  # the mark of a file that stays closed
        given = Given(file, wanted=None)
        if not closefd and not is_descriptor(file) and opener is None:
            _init(self, refusable(given), mode, closefd)
        try:
            self._charge = self._open(invocation, given, mode, plan, closefd, opener)
        except OSError as exc:
            if isinstance(file, os.PathLike) and exc.filename == given.name:
                exc.filename = file  # io.FileIO leaves it as it is, which open() does not
            raise
        self.name = file
        self._hold(self._charge)

    def _open(
        self,
        invocation: Invocation,
        given: Given,
        mode: str,
        plan: Plan,
        closefd: bool,
        opener: Opener | None,
    ) -> Charge | None:
        file = given.name
        if type(file) is bool:
            file = truth_as_descriptor(file)
        if is_descriptor(file) or opener is not None:
            alive(invocation, "open", file)
            return open_by(invocation, self, file, mode, closefd, opener)
        if given.odd:
            _init(self, given.name, mode, closefd)  # raises the right error
        elif plan.flags & WRITING:
            return self._open_for_writing(invocation, given, plan)
        else:
            self._open_for_reading(invocation, given, mode, closefd)
        return None

    def _open_for_writing(self, invocation: Invocation, given: Given, plan: Plan) -> Charge | None:
        real, charged = locate(invocation, given, plan.flags)
        if charged:
            return open_at(invocation, self, real, given.name, plan)
        try:
            _init(self, real, plan.raw_mode)
        except OSError as exc:
            reraise(exc, given.name)
        return None

    def _open_for_reading(self, invocation: Invocation, given: Given, mode: str, closefd: bool) -> None:
        try:
            real = readable(invocation, given, operation="open")
            _init(self, given.like(real), mode, closefd)
        except OSError as exc:
            reraise(exc, given.name, "open")
        invocation.namespace.opened(self.fileno(), real)

    def _hold(self, charge: Charge | None) -> None:
        """Have the writes charged by the methods of this class."""
        self._charge = charge
        if charge is not None:
            self._nameless = charge.is_nameless(self)
            charge.invocation.volume.keep_handle(self, charge.retire, charge.descriptor)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Since 3.14 the error differs for derived classes. One of this class is to have that of the original.
        refusing = _new(originals.FileIO) if type(self) is FileIO else super()
        return refusing.__reduce_ex__(protocol)

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]
        return _write(self, data) if self._charge is None else self._charge.write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(offset, whence) if self._charge is None else self._charge.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        return super().truncate(size) if self._charge is None else self._charge.truncate(size)

    def close(self) -> None:
        charge = self._charge
        if charge is not None and (self._nameless or charge.exposed):
            charge.close()
        super().close()

    def fileno(self) -> int:
        return super().fileno() if self._charge is None else self._charge.fileno()


files.own_write(FileIO.write)


def open_at(
    invocation: Invocation, raw: io.FileIO, real: StrOrBytes, name: StrOrBytes, plan: Plan
) -> Charge | None:
    """Open ``real``, which lies in the scratch directory, for ``raw`` under the application's ``name``."""
    try:
        opening(invocation, name, real, plan.flags, partial(_init, raw, real, plan.raw_mode))
    except OSError as exc:
        reraise(exc, name, "open", making=bool(plan.flags & os.O_CREAT))
    raw.name = name
    return charge_of(invocation, raw, empty=bool(plan.flags & (os.O_TRUNC | os.O_EXCL)))


#: Threads that run the opener of a raw file.
handing_over: Final[set[int]] = set()


def open_by(
    invocation: Invocation,
    raw: io.FileIO,
    file: PathOrDescriptor,
    mode: str,
    closefd: bool,
    opener: Opener | None,
) -> Charge | None:
    """Open a descriptor, or what ``opener`` gives for ``file``; one in the scratch directory is charged."""
    if opener is None or is_descriptor(file):
        _init(raw, file, mode, closefd)
    else:
        _init_by_opener(raw, os.fspath(file), mode, closefd, opener)  # type: ignore[arg-type]
    if raw.writable() and invocation.owns(raw.fileno()):
        return charge_of(invocation, raw)
    return None


def _init_by_opener(
    raw: io.FileIO, name: StrOrBytes, mode: str, closefd: bool, opener: Callable[[Any, int], int]
) -> None:
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


def refusable(given: Given) -> PathOrDescriptor:
    """What the original is given to raise the right error by itself: what is odd, or else any path."""
    return given.name if given.odd else os.devnull
