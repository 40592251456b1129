"""Descriptors of tmpguard's own that a child inherits."""

from __future__ import annotations

import fcntl
from typing import Final

from tmpguard.core import originals

#: They are above those that a child could be given as its standard ones.
_LOWEST: Final = 10


def raised(descriptor: int) -> int:
    """The same file under a number that no standard descriptor of a child has."""
    if descriptor >= _LOWEST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        originals.close(descriptor)
