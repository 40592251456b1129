"""What has to happen around a fork and at the interpreter's exit, each step in its place.

The modules that own the state register a function for one of the steps below; the steps run in the order in
which they are declared here, whatever was imported first. A step that nobody registered for is left out.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from enum import IntEnum, auto
from typing import Final

logger = logging.getLogger("tmpguard")


class Step(IntEnum):
    """The steps, in their order."""

    # Before a fork, in the parent: what the child is going to share has to exist.
    SHARE_WITH_CHILD = auto()

    # After a fork, in the child. Directories first: nothing may be wiped that is the parent's. What dead
    # processes left is swept up when the child is whole again.
    LET_GO_OF_DIRECTORIES = auto()
    RESTART_THREADS = auto()
    FREE_LOCKS = auto()
    FORGET_LOGGED_LINES = auto()
    SWEEP_UP = auto()

    # At the interpreter's exit. SQLite is closed while its files are there, what the log still owes is said
    # before the reports go out, and the directories go last.
    CLOSE_DATABASES = auto()
    SUM_UP_LOG = auto()
    HAND_OUT_REPORTS = auto()
    REMOVE_DIRECTORIES = auto()


_BEFORE_FORK: Final = (Step.SHARE_WITH_CHILD,)
_IN_CHILD: Final = (
    Step.LET_GO_OF_DIRECTORIES,
    Step.RESTART_THREADS,
    Step.FREE_LOCKS,
    Step.FORGET_LOGGED_LINES,
    Step.SWEEP_UP,
)
_AT_EXIT: Final = (
    Step.CLOSE_DATABASES,
    Step.SUM_UP_LOG,
    Step.HAND_OUT_REPORTS,
    Step.REMOVE_DIRECTORIES,
)

_registered: Final[dict[Step, Callable[[], None]]] = {}


def register(step: Step, call: Callable[[], None]) -> None:
    """Have ``call`` called at ``step``. Raises ValueError where another function has that step."""
    if _registered.setdefault(step, call) is not call:
        raise ValueError(f"{step.name} is registered already")


def _run(steps: tuple[Step, ...]) -> None:
    for step in steps:
        call = _registered.get(step)
        if call is None:
            continue
        try:
            call()
        except Exception:  # the steps behind it have to be taken all the same
            logger.exception("tmpguard: %s failed", step.name)


os.register_at_fork(before=lambda: _run(_BEFORE_FORK), after_in_child=lambda: _run(_IN_CHILD))
atexit.register(_run, _AT_EXIT)
