"""Raw files within an invocation: those that charge the quota with every write (C3.5)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.interpose.modes import WRITING, Plan, raw_plan_of
from tmpguard.interpose.paths import BUFFERS, alive, is_odd, like, readable, reraise, truth_as_descriptor
from tmpguard.interpose.wrapper import StandIn, is_number

from .charge import Charge, charge_of
from .target import locate, opening

_write = originals.FileIO.write
_init = originals.FileIO.__init__


class Unopened(str):
    """A path that an opener stands for: it is not itself opened, and the backstop lets it pass."""


class FileIO(originals.FileIO, metaclass=StandIn, told="_io.FileIO"):  # type: ignore[metaclass, call-arg]
    """:class:`io.FileIO`, for those who call or subclass it themselves.

    Raises OSError(EROFS) outside the writable mounts (C2.1) and what :class:`Charge` raises below ``/tmp``.
    """

    original = originals.FileIO
    _charge: Charge | None = None
    _nameless = False

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        self._charge = None
        invocation = get_current()
        plan = raw_plan_of(mode) if invocation is not None else None
        if invocation is None or plan is None:
            _init(self, file, mode, closefd, opener)
            return
        if not self.closed:
            super().close()  # what it was before, whatever becomes of it
            vars(self).pop("__IOBase_closed", None)  # the mark of a file that stays closed
        if not closefd and not is_number(file) and opener is None:
            _init(self, refusable(file), mode, closefd)
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
        if is_number(file) or opener is not None:
            alive(invocation, "open", file)
            return open_by(invocation, self, file, mode, closefd, opener)
        if not plan.flags & WRITING:
            name = os.fspath(file)
            with _spelled(name):
                if is_odd(name):
                    _init(self, name, mode, closefd)  # says so
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
            charge.invocation.volume.keep_handle(self, charge.retire)

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
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
    return charge_of(invocation, raw, empty=bool(plan.flags & (os.O_TRUNC | os.O_EXCL)))


#: Threads that run the opener of a raw file.
handing_over: Final[set[int]] = set()


def open_by(
    invocation: Invocation, raw: Any, file: Any, mode: str, closefd: bool, opener: Any
) -> Charge | None:
    """Take up a descriptor, or what ``opener`` gives for ``file``; one in the scratch is charged."""
    if opener is None or is_number(file):
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
        return charge_of(invocation, raw)
    return None


def is_no_path(file: Any) -> bool:
    """Is ``file`` nothing that could be opened by its path?"""
    return isinstance(file, BUFFERS) or is_odd(file)


def refusable(path: Any) -> Any:
    """What the original is given that is going to refuse it, in its own words: ``path``, or none at all."""
    return path if is_no_path(path) else os.devnull


@contextmanager
def _spelled(name: Any) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        reraise(exc, name)
