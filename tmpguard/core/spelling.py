"""Paths as they are shown: in errors as they were given, in reports as text."""

from __future__ import annotations

import os
from typing import Any

from . import originals


def spelled(path: Any) -> Any:
    """A path as it stands in an error: as it was given, and what a PathLike gave for itself (C2.1)."""
    if path is None or isinstance(path, (str, bytes, int, bytearray, memoryview)):
        return path
    return os.fspath(path)


def printable(path: Any) -> str:
    """A path as text, whatever it is."""
    try:
        return os.fsdecode(path)
    except TypeError:
        return repr(path)


def descriptor_path(descriptor: int) -> str:
    """The real path that ``descriptor`` was opened by, "" where it has none or is not open."""
    try:
        return originals.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
