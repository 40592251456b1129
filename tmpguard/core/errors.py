"""The errors of tmpguard's own; what an application's file operations raise are the kernel's."""

from __future__ import annotations

import os


class ConfigurationError(ValueError):
    """An option or a project file that cannot be: the message names it, the value and what is allowed."""


class NotPermitted(Exception):
    """The machine does not permit a step that containing children takes: the text says which."""


def os_error(code: int) -> OSError:
    """The OSError of ``code``; the wrapper that lets it out adds the caller's own spelling of the path."""
    return OSError(code, os.strerror(code))
