"""The errors of tmpguard's own; what an application's file operations raise are the kernel's."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """An option or a project file that cannot be: the message names it, the value and what is allowed."""


class Refused(Exception):
    """The machine does not permit a step that containing children takes: the text says which."""
