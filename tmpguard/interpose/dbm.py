"""``dbm.gnu`` and ``dbm.ndbm``, whose libraries open files by themselves."""

from __future__ import annotations

from errno import EROFS
from typing import Any

from ..invocation import Invocation
from .paths import alive, place


def guarded_open(original: Any, operation: str, failure: type[OSError]) -> Any:
    """What ``dbm.gnu.open`` and ``dbm.ndbm.open`` are within an invocation."""

    def guarded(invocation: Invocation, filename: Any, flags: str = "r", mode: int = 0o666, /) -> Any:
        alive(invocation, operation, filename)
        where = place(invocation, filename, operation=operation, making="c" in flags or "n" in flags)
        if not where.mount.writable and flags[:1] != "r":
            invocation.refuse(operation, EROFS, filename, remedy=invocation.remedy_for(where, filename))
        try:
            return original(where.real, flags, mode)
        except failure as exc:
            if exc.filename is not None:
                exc.filename = filename
            raise

    return guarded
