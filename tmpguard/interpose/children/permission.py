"""Allows, refuses or contains a child process, as the guard's ``children`` option says (C6.3)."""

from __future__ import annotations

import logging
import os
from errno import EPERM
from typing import TYPE_CHECKING, Final

from tmpguard.core.callers import Location, find_origin
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import Child

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

    A child of an invocation that only watches always sees it.

    Raises OSError(EPERM) if the child is refused, and OSError(ESTALE) if the invocation is over.
    """
    policy = invocation.guard.children
    if policy == "contain" and not invocation.watches:
        return children_of(invocation).namespace(operation, named(program), shared_memory=shared_memory)
    if policy == "refuse":
        refuse_child(invocation, operation, program, remedies.CHILDREN_REFUSED)
    else:
        note_child(invocation, operation, named(program))
    return None


def refuse_child(invocation: Invocation, operation: str, program: object, remedy: str) -> None:
    """Refuse a child with EPERM. Returns if the guard does not enforce."""
    invocation.refuse(operation, EPERM, program, remedy=remedy)


_CONTAINED: Final = 'with children="contain" it sees the invocation\'s'


def note_child(invocation: Invocation, operation: str, program: str, instead: str = _CONTAINED) -> None:
    """Report that a child sees the real file system, and log it once per source line.

    ``instead`` says what can be done about it.
    """
    location, library = find_origin()
    invocation.report.add_child(Child(operation, program, location, library))
    line = location or library
    if line not in _logged and len(_logged) < _LOGGED_LIMIT:
        _logged.add(line)
        what = f'the child sees the real file system, not the invocation\'s (children="allow"); {instead}'
        if invocation.watches:
            what = "what the child does is not watched"
        logger.warning(
            "tmpguard: %s %r: %s (%s)", operation, program, what, line or "no Python frame of the application"
        )


def named(program: object) -> str:
    """A program as it is displayed."""
    return os.fsdecode(program) if isinstance(program, (bytes, str, os.PathLike)) else repr(program)
