"""How paths are shown: as given in errors, as text in reports."""

from __future__ import annotations

import os
from typing import Final, cast

from . import originals

#: What the kernel appends to the path of an open file that has been unlinked.
GONE: Final = " (deleted)"


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


def is_encodable(path: str) -> bool:
    """False if ``path`` contains surrogates that cannot be encoded: every call raises UnicodeEncodeError."""
    if path.isascii():
        return True
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def descriptor_path(descriptor: int) -> str:
    """The real path that ``descriptor`` was opened with; "" if it has none or is not open."""
    try:
        return originals.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
