"""tmpguard's own errors. An application's file operations raise the same errors as the kernel."""

from __future__ import annotations

import os


class ConfigurationError(ValueError):
    """An invalid option or project file: the message names it, the value and what is allowed."""


class NotPermitted(Exception):
    """The machine does not permit a step needed to contain children: the text says which."""


def os_error(code: int) -> OSError:
    """The OSError for ``code``; the wrapper that raises it adds the path as the caller spelled it."""
    return OSError(code, os.strerror(code))
