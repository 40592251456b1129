"""Which invocation is the current one (C6.2), and how it is changed.

What was current before is set again and the variable never reset: on Python 3.11 the garbage collector may
run within the context variable's own code. A finalizer that asks for the invocation there, as any file
operation does, would leave the old answer to be found after a reset to nothing; after a set it is the new
one. A finalizer that changes the variable there would take away what the code around it is reading, so those
of tmpguard do it in a context of their own (:func:`finalizing`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final

#: Holds an :class:`~.invocation.Invocation` or None; below that module it is only handed through.
_current: Final[ContextVar[Any]] = ContextVar("tmpguard_invocation", default=None)

#: The invocation that the running code belongs to, or None. Every wrapper's first step is to ask for it.
get_current: Final = _current.get

#: Make an invocation, or none, the current one. This and the above are the context variable's own methods,
#: since every request pays for each Python frame in between.
set_current: Final = _current.set


def activate(invocation: object) -> Any:
    """Make ``invocation`` the current one; returns the one before, which goes to :func:`deactivate`."""
    before = get_current()
    set_current(invocation)
    return before


deactivate: Final[Callable[[Any], object]] = set_current


def restore(invocation: object, before: object) -> None:
    """Undo an activation of ``invocation``, perhaps in another context, where there is nothing to undo.

    A coroutine that was thrown away is closed in the context of whoever happens to collect it.
    """
    if get_current() is invocation:
        set_current(before)


def finalizing(invocation: object, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """``call`` for ``invocation``, as a finalizer may do it: in a copy of the context."""
    return copy_context().run(_within, invocation, call, args, options)


def _within(
    invocation: object, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    set_current(invocation)
    return call(*args, **options)


class unguarded:
    """Runs a step of tmpguard's own outside of any invocation: ``with unguarded(): ...``"""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = activate(None)

    def __exit__(self, *exc_info: object) -> None:
        set_current(self._before)
