"""Holds the current invocation (C6.2).

To restore the previous invocation, it is set again; the variable is never reset. On Python 3.11 the garbage
collector may run inside the context variable's own code. A finalizer that reads the variable there, as any
file operation does, caches its old value. A reset to no value would leave that stale value in the cache, but
a set replaces it. A finalizer that changes the variable there would free the value that the surrounding code
is reading. tmpguard's finalizers therefore change it in a context of their own (:func:`finalizing`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final

#: Holds an :class:`~.invocation.Invocation` or None. The modules below that one only pass it through.
_current: Final[ContextVar[Any]] = ContextVar("tmpguard_invocation", default=None)

#: The invocation that the running code belongs to, or None. Every wrapper gets it first.
get_current: Final = _current.get

#: Make an invocation, or None, the current one. This and ``get_current`` are the context variable's own
#: methods: a Python frame in between would cost time in every request.
set_current: Final = _current.set


def activate(invocation: object) -> Any:
    """Make ``invocation`` the current one. Returns the previous one, to be passed to :func:`deactivate`."""
    before = get_current()
    set_current(invocation)
    return before


deactivate: Final[Callable[[Any], object]] = set_current


def restore(invocation: object, before: object) -> None:
    """Undo an activation of ``invocation``. Does nothing in a context where it is not the current one.

    An abandoned coroutine is closed in the context of the code during which it happens to be collected.
    """
    if get_current() is invocation:
        set_current(before)


def finalizing(invocation: object, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call ``call`` for ``invocation`` from a finalizer: in a copy of the context."""
    return copy_context().run(_within, invocation, call, args, options)


def _within(
    invocation: object, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    set_current(invocation)
    return call(*args, **options)


class unguarded:
    """Runs tmpguard's own code outside any invocation: ``with unguarded(): ...``"""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = activate(None)

    def __exit__(self, *exc_info: object) -> None:
        set_current(self._before)
