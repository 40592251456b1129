"""Paths as they are shown: in errors as they were given, in reports as text."""

from __future__ import annotations

import os
from typing import cast

from . import originals


def spelled(path: object) -> object:
    """A path as it stands in an error: as it was given, and what a PathLike gave for itself (C2.1)."""
    if path is None or isinstance(path, (str, bytes, int, bytearray, memoryview)):
        return path
    return os.fspath(cast("os.PathLike[str]", path))


def printable(path: object) -> str:
    """A path as text, whatever it is."""
    try:
        return os.fsdecode(cast("os.PathLike[str]", path))
    except TypeError:
        return repr(path)


def descriptor_path(descriptor: int) -> str:
    """The real path that ``descriptor`` was opened by, "" where it has none or is not open."""
    try:
        return originals.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
