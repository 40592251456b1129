"""Objects that higher layers attach to an invocation or a volume. The core does not know their types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from . import real

Kind = TypeVar("Kind")

_lock: Final = real.RLock()


class Attachments:
    """Holds at most one object of each kind, created on first use."""

    _attached: dict[type[Any], Any] | None = None

    def attached(self, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
        """The object of ``kind`` that is attached here; the first call creates it with ``make``."""
        found = self.attachment(kind)
        if found is None:
            with _lock:
                vars(self).setdefault("_attached", {})
                assert self._attached is not None
                # ``make`` or a finalizer may have attached one in the meantime.
                found = self.attachment(kind)
                if found is None:
                    found = cast(Kind, self._attached.setdefault(kind, make()))
        return found

    def attachment(self, kind: type[Kind]) -> Kind | None:
        """The object of ``kind`` that is attached here; None if none has been created yet."""
        return None if self._attached is None else self._attached.get(kind)
