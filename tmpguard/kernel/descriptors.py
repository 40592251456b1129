"""tmpguard's own descriptors that a child inherits."""

from __future__ import annotations

import fcntl
from typing import Final

from tmpguard.core import originals

#: The lowest descriptor number for them: above those that a child may use as its standard streams.
_LOWEST: Final = 10


def raised(descriptor: int) -> int:
    """Move a descriptor to a number above those of a child's standard streams."""
    if descriptor >= _LOWEST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        originals.close(descriptor)
