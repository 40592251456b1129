"""Raw descriptors that outlive their invocation: any change through one is refused (C4.5).

An open file object is retired at the end. A descriptor of ``os.open`` or ``os.dup`` is only a number, so the
files that are open by one at the end are remembered here by device and inode. Once the old file is closed, a
new one may get the same inode number. The new file has a name; the old one lost its name in the wipe.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.layout import is_below
from tmpguard.core.spelling import descriptor_path


class Outlived(NamedTuple):
    """A file that was open by a descriptor when its invocation ended: the scratch directory of that
    invocation, the application's name for the file, and the invocation."""

    directory: str
    name: str
    invocation: Any


#: By device and inode.
known: Final[dict[tuple[int, int], Outlived]] = {}

#: The most files remembered; the oldest is dropped first.
_KEPT: Final = 1024


def remember(key: tuple[int, int], file: Outlived) -> None:
    """Remember ``file``, which has this device and inode."""
    known[key] = file
    while len(known) > _KEPT:
        known.pop(next(iter(known)), None)


def find(descriptor: int) -> Outlived | None:
    """The file that ``descriptor`` refers to, if its invocation is over; otherwise None."""
    try:
        status = originals.fstat(descriptor)
    except (OSError, OverflowError):
        return None
    key = status.st_dev, status.st_ino
    found = known.get(key)
    if found is not None and not is_below(descriptor_path(descriptor), found.directory):
        known.pop(key, None)  # the old one was closed, and this is another file
        return None
    return found
