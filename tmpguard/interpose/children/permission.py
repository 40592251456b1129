"""Allows, refuses or contains a child process, as the guard's ``children`` option says (C6.3)."""

from __future__ import annotations

import logging
import os
from errno import EPERM
from typing import TYPE_CHECKING, Final

from tmpguard.core.callers import Location, locate
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies

from .accounts import children_of

if TYPE_CHECKING:
    from tmpguard.kernel.containment import MountNamespace

logger = logging.getLogger("tmpguard")

#: The source lines for which it was logged that their children see the real file system.
_logged: Final[set[Location | None]] = set()
_LOGGED_LIMIT: Final = 10_000


def contained(
    invocation: Invocation, operation: str, program: object, *, shared_memory: bool = False
) -> MountNamespace | None:
    """The namespace for a contained child; None for a child that may see the real file system.

    Raises OSError(EPERM) if the child is refused, and OSError(ESTALE) if the invocation is over.
    """
    policy = invocation.guard.children
    if policy == "contain":
        return children_of(invocation).namespace(operation, named(program), shared_memory=shared_memory)
    if policy == "refuse":
        refuse(invocation, operation, program, remedies.CHILDREN_REFUSED)
    else:
        _warn_once(operation, program)
    return None


def refuse(invocation: Invocation, operation: str, program: object, remedy: str) -> None:
    """Refuse a child with EPERM. Returns if the guard does not enforce."""
    invocation.refuse(operation, EPERM, program, remedy=remedy)
    invocation.was_let_through()  # clears the mark, which is only meant for a change of a file


def _warn_once(operation: str, program: object) -> None:
    """Log once per source line that its children see the real file system."""
    location, library = locate()
    line = location or library
    if line not in _logged and len(_logged) < _LOGGED_LIMIT:
        _logged.add(line)
        logger.warning(
            '%s %r: the child sees the real file system, not the invocation\'s (children="allow"); '
            'with children="contain" it sees the invocation\'s (%s)',
            operation,
            named(program),
            line or "no Python frame of the application",
        )


def named(program: object) -> str:
    """A program as it is displayed."""
    return os.fsdecode(program) if isinstance(program, (bytes, str, os.PathLike)) else repr(program)
