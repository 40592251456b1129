"""Objects that the packages above attach to an invocation or a volume; the core does not look inside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

Kind = TypeVar("Kind")

_lock = threading.RLock()


class Attachments:
    """Holds at most one object of each kind, created on first use."""

    _attached: dict[type[Any], Any] | None = None

    def attached(self, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
        """The object of ``kind`` that is attached here; the first call creates it with ``make``."""
        found = self.attachment(kind)
        if found is None:
            with _lock:
                if self._attached is None:
                    self._attached = {}
                if kind not in self._attached:
                    self._attached[kind] = make()
                found = cast(Kind, self._attached[kind])
        return found

    def attachment(self, kind: type[Kind]) -> Kind | None:
        """The object of ``kind`` that is attached here; None if none has been created yet."""
        return None if self._attached is None else self._attached.get(kind)


def free_lock() -> None:
    """In a forked child: the lock may have been held by a thread that does not exist there."""
    global _lock
    _lock = threading.RLock()
