"""The signatures of the quick wrappers. Imported only after :mod:`inspect`, which is what reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Lent(inspect.Signature):
    """The signature of ``original``, for a function that is only visible as a bound method.

    ``inspect.signature`` would remove the first parameter, as it does for bound methods, but here that one
    belongs to the call. The signature is computed on first use, because that takes longer than all other work
    for a wrapper.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original
        self._found: Any = None

    @property
    def _parameters(self) -> Any:
        # Not a cached_property: up to 3.11 that has a lock, which a forked child may inherit held.
        if self._found is None:
            self._found = inspect.signature(self._original).parameters
        return self._found

    @property
    def _return_annotation(self) -> Any:
        return inspect.Signature.empty

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        every = tuple(self.parameters.values())
        if changes.get("parameters") == every[1:]:
            changes["parameters"] = every
        return inspect.Signature(every).replace(**changes)
