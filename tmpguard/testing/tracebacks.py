"""Tracebacks of refusals end at the line that asked for the file, and not within tmpguard."""

from __future__ import annotations

import sys

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.reports.remedies import NOTE

_PACKAGE = __name__.partition(".")[0] + "."


def hide() -> None:
    """Have pytest leave out tmpguard's own frames, by the name with which modules ask for that.

    All frames are shown with ``--full-trace``, and in errors that are not meant for the application.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE):
            vars(module)["__tracebackhide__"] = _is_told


def _is_told(excinfo: object) -> bool:
    """Is it an error by which tmpguard, or the file system, tells the application something?"""
    value = getattr(excinfo, "value", None)
    notes = getattr(value, "__notes__", ())
    return isinstance(value, (OSError, ConfigurationError)) or any(
        isinstance(note, str) and note.startswith(NOTE) for note in notes
    )
