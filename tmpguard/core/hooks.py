"""What must happen around a fork and at the interpreter's exit, in a fixed order.

The modules that own the state register a function for one of the steps below. The steps run in the order in
which they are declared here, whichever module was imported first. A step without a function is skipped.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from . import real

logger = logging.getLogger("tmpguard")


class Moment(Enum):
    """When steps run."""

    #: In the parent.
    BEFORE_FORK = auto()
    #: After a fork.
    IN_CHILD = auto()
    #: At the interpreter's exit.
    AT_EXIT = auto()


class Step(Enum):
    """The steps in their order: each has a moment, and a place within it."""

    # Whatever the child will share with its parent must exist before the fork.
    SHARE_WITH_CHILD = (Moment.BEFORE_FORK, 1)

    # Locks come first, because the other steps take them. Directories come next, so that the child never
    # wipes its parent's. Leftovers of dead processes are removed last, when everything else works again.
    FREE_LOCKS = (Moment.IN_CHILD, 1)
    LET_GO_OF_DIRECTORIES = (Moment.IN_CHILD, 2)
    RESTART_THREADS = (Moment.IN_CHILD, 3)
    FORGET_LOGGED_LINES = (Moment.IN_CHILD, 4)
    SWEEP_UP = (Moment.IN_CHILD, 5)

    # SQLite databases are closed while their files still exist. The log's outstanding counts come before the
    # reports, and the directories are removed last.
    CLOSE_DATABASES = (Moment.AT_EXIT, 1)
    SUM_UP_LOG = (Moment.AT_EXIT, 2)
    HAND_OUT_REPORTS = (Moment.AT_EXIT, 3)
    REMOVE_DIRECTORIES = (Moment.AT_EXIT, 4)

    @property
    def moment(self) -> Moment:
        """When the step runs."""
        return self.value[0]


_registered: Final[dict[Step, Callable[[], None]]] = {}


def register(step: Step, call: Callable[[], None]) -> None:
    """Register ``call`` for ``step``. Raises ValueError if another function is registered for it."""
    if _registered.setdefault(step, call) is not call:
        raise ValueError(f"{step.name} is registered already")


def _run(moment: Moment) -> None:
    for step in Step:
        call = _registered.get(step) if step.moment is moment else None
        if call is None:
            continue
        try:
            call()
        except Exception:  # the remaining steps must still run
            logger.exception("tmpguard: %s failed", step.name)


register(Step.FREE_LOCKS, real.free_locks)
os.register_at_fork(before=lambda: _run(Moment.BEFORE_FORK), after_in_child=lambda: _run(Moment.IN_CHILD))
atexit.register(_run, Moment.AT_EXIT)
