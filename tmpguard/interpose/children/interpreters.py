"""Subinterpreters. tmpguard is not installed in them, so they see the real file system, as children do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.reports import remedies

from .permission import note_child, refuse_child

T = TypeVar("T")


def check_subinterpreter(invocation: Invocation, operation: str) -> None:
    """Allow or refuse the use of a subinterpreter, as ``children`` says (C6.3).

    Raises OSError(EPERM) if it is refused. It cannot be contained, so ``"contain"`` refuses it as well.
    """
    policy = invocation.guard.children
    if policy == "allow":
        note_child(invocation, operation, "subinterpreter", "it cannot be contained")
    else:
        remedy = remedies.SUBINTERPRETER if policy == "contain" else remedies.CHILDREN_REFUSED
        refuse_child(invocation, operation, "subinterpreter", remedy)


def checking(original: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function of ``_interpreters`` that creates a subinterpreter or runs code in one."""

    @functools.wraps(original)
    def call(*args: object, **options: object) -> T:
        invocation = get_current()
        if invocation is not None:
            check_subinterpreter(invocation, f"interpreters.{original.__name__}")
        return original(*args, **options)

    return call
