"""Closes async generators that were not exhausted for the request that started them (C4.5)."""

from __future__ import annotations

import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from .invocation import Invocation, get_current

Generator = AsyncGenerator[Any, Any]
Hook = Callable[[Generator], None]

#: How many generators are remembered before those already collected are removed.
_KEPT: Final = 256


class Abandoned:
    """Replaces an event loop's hooks for async generators (PEP 525), and calls them.

    A loop closes an abandoned generator in a separate task. That task runs outside any request or, worse, in
    the context of the request during which the generator happened to be collected.
    """

    __slots__ = ("_finalizer", "_firstiter", "_limit", "owners")

    def __init__(self, firstiter: Hook | None, finalizer: Hook) -> None:
        self._firstiter = firstiter
        self._finalizer = finalizer
        self._limit = _KEPT
        #: Keyed by hash, because weak references are cleared before a finalizer is called. The hash is that
        #: of the object's address; calling ``id`` would raise an audit event up to Python 3.11.
        self.owners: dict[int, tuple[weakref.ref[Generator], Invocation]] = {}

    @classmethod
    def install(cls) -> None:
        """Replace the hooks of the loop that runs in this thread, until it ends."""
        firstiter, finalizer = sys.get_asyncgen_hooks()
        if finalizer is not None:  # otherwise there is no loop that would close them later
            hooks = cls(firstiter, finalizer)
            sys.set_asyncgen_hooks(firstiter=hooks.begin, finalizer=hooks)

    def begin(self, generator: Generator) -> None:
        """``generator`` is iterated for the first time: it belongs to the current invocation."""
        invocation = get_current()
        if invocation is not None:
            if len(self.owners) >= self._limit:
                self._sort_out()
            self.owners[hash(generator)] = weakref.ref(generator), invocation
        elif self.owners:
            self.owners.pop(hash(generator), None)
        if self._firstiter is not None:
            self._firstiter(generator)

    def _sort_out(self) -> None:
        for key, owner in list(self.owners.items()):
            if owner[0]() is None:
                del self.owners[key]
        self._limit = _KEPT + 2 * len(self.owners)

    def __call__(self, generator: Generator) -> None:
        owner = self.owners.pop(hash(generator), None)
        abandoned: Any = generator if owner is None else _BoundClose(generator, owner[1])
        self._finalizer(abandoned)


class _BoundClose:
    """A proxy for an abandoned generator whose ``aclose``, which the event loop calls, is bound."""

    def __init__(self, generator: Generator, invocation: Invocation) -> None:
        self._generator = generator
        self._invocation = invocation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    async def aclose(self) -> None:
        with self._invocation.bound():
            await self._generator.aclose()
