"""Unlinked files that may still be open: they cost until their last descriptor is closed (C3.2)."""

from __future__ import annotations

from typing import Final

from .openfiles import open_unlinked

#: Unlinked files that are remembered before the closed ones among them are looked for.
LIMIT: Final = 1024


class UnlinkedFiles:
    """What is charged for the unlinked files of one quota, by inode. Sizes are in bytes."""

    __slots__ = ("held", "sizes", "unheld_bytes")

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        #: Those that were open when they were unlinked, as far as is known.
        self.held: set[int] = set()
        #: What is charged for the others, which are probably not in use.
        self.unheld_bytes = 0

    @property
    def bytes(self) -> int:
        """What is charged for all of them."""
        return sum(self.sizes.copy().values())

    def add(self, inode: int, size: int, *, held: bool) -> None:
        """Remember a file, or another size of one that is remembered."""
        self.discard(inode)
        self.sizes[inode] = size
        if held:
            self.held.add(inode)
        else:
            self.unheld_bytes += size

    def discard(self, inode: int) -> int | None:
        """Forget a file. Returns what was charged for it; None if it was not remembered."""
        size = self.sizes.pop(inode, None)
        if size is not None:
            if inode in self.held:
                self.held.discard(inode)
            else:
                self.unheld_bytes -= size
        return size

    def replace(self, sizes: dict[int, int]) -> None:
        """Forget all files, and remember those that were just found to be open."""
        self.sizes, self.held, self.unheld_bytes = sizes, set(sizes), 0

    def closed(self) -> list[int]:
        """The inodes of those that nothing in this process has open any more."""
        candidates = list(self.sizes)
        if not candidates:
            return []
        still_open = {status.st_ino for _, status in open_unlinked()}
        return [inode for inode in candidates if inode not in still_open]
