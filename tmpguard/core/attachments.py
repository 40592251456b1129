"""What the rooms above keep with an invocation or a volume; the core does not look inside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

Kind = TypeVar("Kind")

_lock = threading.RLock()


class Attachments:
    """Holds at most one object of each kind, made when it is first asked for."""

    _attached: dict[type[Any], Any] | None = None

    def attached(self, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
        """The object of ``kind`` that is kept here; the first call has ``make`` make it."""
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
        """The object of ``kind`` that is kept here, None where none was made yet."""
        return None if self._attached is None else self._attached.get(kind)


def free_lock() -> None:
    """In a forked child: another thread may have held it, of which there is no copy here."""
    global _lock
    _lock = threading.RLock()
