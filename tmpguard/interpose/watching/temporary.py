"""Temporary files in a directory that the environment names (``TMPDIR``), for an invocation that watches.

The platform has no such variable: what :mod:`tempfile` makes there would be in ``/tmp``.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from tmpguard.core.callers import calling_frame
from tmpguard.core.context import unguarded
from tmpguard.core.layout import is_below


class Temporary:
    """What one invocation's ``tempfile`` made outside ``/tmp``: canonical paths."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


def is_temporary(made: Temporary, virtual: str) -> bool:
    """Whether ``tempfile`` makes ``virtual``, or has made it or a directory above it."""
    if any(is_below(virtual, path) for path in made.paths):
        return True
    frame = calling_frame()
    if frame is None or frame.f_globals.get("__name__") != "tempfile":
        return False
    # The function that tries the directories writes a file to each.
    if frame.f_code.co_name == "_get_default_tempdir" or _is_in_default(virtual):
        made.paths.add(virtual)
        return True
    return False


def _is_in_default(virtual: str) -> bool:
    chosen = tempfile.tempdir
    with suppress(OSError, TypeError, ValueError), unguarded():
        candidates = tempfile._candidate_tempdir_list()  # type: ignore[attr-defined]
        return chosen in candidates and os.path.dirname(virtual) == os.path.realpath(
            os.fsdecode(chosen or "")
        )
    return False
