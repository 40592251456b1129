"""How paths are shown: as given in errors, as text in reports."""

from __future__ import annotations

import os
from typing import cast

from . import originals


def spelled(path: object) -> object:
    """A path as it appears in an error: as given, with a PathLike converted to its path (C2.1)."""
    if path is None or isinstance(path, (str, bytes, int, bytearray, memoryview)):
        return path
    return os.fspath(cast("os.PathLike[str]", path))


def printable(path: object) -> str:
    """A path as text, whatever its type."""
    try:
        return os.fsdecode(cast("os.PathLike[str]", path))
    except TypeError:
        return repr(path)


def descriptor_path(descriptor: int) -> str:
    """The real path that ``descriptor`` was opened with; "" if it has none or is not open."""
    try:
        return originals.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
