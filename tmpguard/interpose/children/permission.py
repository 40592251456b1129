"""What becomes of a child process: allowed, refused or contained, as the guard's ``children`` says (C6.3)."""

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

#: The lines that were told that their children see the real file system.
_told: Final[set[Location | None]] = set()
_TOLD_LIMIT: Final = 10_000


def contained(
    invocation: Invocation, operation: str, program: object, *, shared_memory: bool = False
) -> MountNamespace | None:
    """The namespace for a child that is to be contained; None for one that may see the real file system.

    Raises OSError(EPERM) for one that is refused, and OSError(ESTALE) when the invocation is over.
    """
    policy = invocation.guard.children
    if policy == "contain":
        return children_of(invocation).namespace(operation, named(program), shared_memory=shared_memory)
    if policy == "refuse":
        refuse(invocation, operation, program, remedies.CHILDREN_REFUSED)
    else:
        _tell(operation, program)
    return None


def refuse(invocation: Invocation, operation: str, program: object, remedy: str) -> None:
    """Refuse a child with EPERM; returns where the guard only watches."""
    invocation.refuse(operation, EPERM, program, remedy=remedy)
    invocation.was_let_through()  # no change of a file comes of it, for which that would be meant


def _tell(operation: str, program: object) -> None:
    """Say once for each line that its children are on their own."""
    location, library = locate()
    line = location or library
    if line not in _told and len(_told) < _TOLD_LIMIT:
        _told.add(line)
        logger.warning(
            '%s %r: the child sees the real file system, not that of the invocation (children="allow"); '
            'children="contain" gives it the same (%s)',
            operation,
            named(program),
            line or "no Python frame of the application",
        )


def named(program: object) -> str:
    """A program as it is shown."""
    return os.fsdecode(program) if isinstance(program, (bytes, str, os.PathLike)) else repr(program)
