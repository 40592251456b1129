"""tmpguard's own errors. An application's file operations raise the same errors as the kernel."""

from __future__ import annotations

import os

from .layout import SOURCE_PREFIX


class ConfigurationError(ValueError):
    """An invalid option or project file: the message names it, the value and what is allowed."""


class NotPermitted(Exception):
    """The machine does not permit a step that containing children requires. The text names the step."""


def os_error(code: int) -> OSError:
    """The OSError for ``code``; the wrapper that raises it adds the path as the caller spelled it."""
    return OSError(code, os.strerror(code))


def shorten(exc: OSError) -> None:
    """Leave tmpguard's own frames out of the traceback of ``exc``, which a wrapper raises again.

    A server logs the whole traceback. It ends at the wrapper then, one line below the application's. If there
    is a frame of anybody else, such as an opener's, all stay.
    """
    traceback = exc.__traceback__
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(SOURCE_PREFIX):
            return
        traceback = traceback.tb_next
    exc.__traceback__ = None
