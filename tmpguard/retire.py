"""Files that are still open for writing when their invocation ends: every later write is refused (C4.5)."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .interpose.charge import Charge
    from .invocation import Invocation


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


def retire(file: Any, charge: Charge) -> None:
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
