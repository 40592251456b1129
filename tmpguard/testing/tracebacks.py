"""Makes tracebacks of refusals end at the line that made the call, and not within tmpguard."""

from __future__ import annotations

import sys

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.reports.remedies import NOTE

_PACKAGE = __name__.partition(".")[0] + "."


def hide() -> None:
    """Hide tmpguard's own frames from pytest's tracebacks, by setting ``__tracebackhide__`` in its modules.

    All frames are shown with ``--full-trace``, and for errors that are not meant for the application.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE):
            vars(module)["__tracebackhide__"] = _is_for_application


def _is_for_application(excinfo: object) -> bool:
    """True for an error with which tmpguard or the file system reports something to the application."""
    value = getattr(excinfo, "value", None)
    notes = getattr(value, "__notes__", ())
    return isinstance(value, (OSError, ConfigurationError)) or any(
        isinstance(note, str) and note.startswith(NOTE) for note in notes
    )
