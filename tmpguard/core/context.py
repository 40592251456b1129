"""Holds the current invocation (C6.2).

To restore the previous invocation, it is set again; the variable is never reset. On Python 3.11 the garbage
collector may run inside the context variable's own code. A finalizer that reads the variable there, as any
file operation does, caches its old value. A reset to no value would leave that stale value in the cache, but
a set replaces it. A finalizer that changes the variable there would free the value that the surrounding code
is reading. tmpguard's finalizers therefore change it in a context of their own (:func:`finalizing`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

#: Holds an :class:`~.invocation.Invocation` or None. The modules below that one only pass it through.
current_variable: Final[ContextVar[Any]] = ContextVar("tmpguard_invocation", default=None)

#: The invocation that the running code belongs to, or None. Every wrapper gets it first.
get_current: Final = current_variable.get

#: Make an invocation, or None, the current one. This and ``get_current`` are the context variable's own
#: methods: a Python frame in between would cost time in every request.
set_current: Final = current_variable.set


def activate(invocation: object) -> Any:
    """Make ``invocation`` the current one. Returns the previous one, to be passed to :func:`deactivate`."""
    before = get_current()
    set_current(invocation)
    return before


deactivate: Final[Callable[[Any], object]] = set_current


#: What was left in this context while something else was current, each with what was current before it.
_left: Final[ContextVar[tuple[_Left, ...]]] = ContextVar("tmpguard_left", default=())


class _Left(NamedTuple):
    """An activation that was undone while a later one was current. Neither of the two is kept alive."""

    invocation: weakref.ref[Any]
    before: Callable[[], Any]


def restore(invocation: object, before: object) -> None:
    """Undo an activation of ``invocation``. Does nothing in a context where it is not the current one.

    An abandoned coroutine is closed in the context of the code during which it happens to be collected.
    """
    if get_current() is invocation:
        set_current(_skip_left(before) if _left.get() else before)


def leave(invocation: object, before: object) -> None:
    """Undo an activation of ``invocation`` although another one, which was made within it, is current.

    Two generators that each hold an invocation may be closed in the order in which they were started. The
    later :func:`restore` must not bring ``invocation`` back.
    """
    kept = (left for left in _left.get() if left.invocation() is not None)
    _left.set((*kept, _Left(weakref.ref(invocation), _nothing if before is None else weakref.ref(before))))


def left_before(invocation: object) -> Any:
    """What was current before ``invocation``, if that was left in this context; else None."""
    return next((left.before() for left in reversed(_left.get()) if left.invocation() is invocation), None)


def _skip_left(before: object) -> Any:
    """What to restore instead of ``before``: the first activation below it that was not left."""
    kept = [left for left in _left.get() if left.invocation() is not None]
    while found := [left for left in kept if left.invocation() is before]:
        kept.remove(found[-1])
        before = found[-1].before()
    _left.set(tuple(kept))
    return before


def _nothing() -> None:
    return None


def finalizing(invocation: object, call: Callable[..., T], *args: object, **options: object) -> T:
    """Call ``call`` for ``invocation`` from a finalizer: in a copy of the context."""
    return copy_context().run(_within, invocation, call, args, options)


def _within(
    invocation: object, call: Callable[..., T], args: tuple[object, ...], options: dict[str, object]
) -> T:
    set_current(invocation)
    return call(*args, **options)


class unguarded:
    """Runs tmpguard's own code outside any invocation: ``with unguarded(): ...``"""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = activate(None)

    def __exit__(self, *exc_info: object) -> None:
        set_current(self._before)
