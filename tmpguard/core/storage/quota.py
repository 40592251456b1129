"""The quota of one ``/tmp``: the pages and inodes charged to it (C3).

It is kept by credit: the bytes that are known to still fit. What a write newly allocates is worked out
exactly and subtracted. So nothing is refused wrongly, the quota is never exceeded, and the usual write pays
one subtraction. All sizes are in bytes, all charges in whole 4 KiB pages as tmpfs charges them.

Each part has a module of its own: :mod:`.credit` (the credit, and the steps that change it), :mod:`.in_use`
(the peak, and unlinked files), :mod:`.measuring` (the disk decides), :mod:`.charging`, :mod:`.freeing` and
:mod:`.exposing` (files that native code may write to).
"""

from __future__ import annotations

from collections.abc import Callable

from .exposing import Exposing
from .freeing import Freeing
from .pages import Usage


class Quota(Freeing, Exposing):
    """What one invocation may still allocate. Thread-safe; ``lock`` is held during each charged write."""

    __slots__ = ("shared",)

    def __init__(
        self,
        limit: int,
        max_files: int | None,
        measure: Callable[[], tuple[Usage, dict[int, int]]],
        is_written: Callable[[int], bool],
    ) -> None:
        super().__init__(limit, max_files, measure)
        self._is_written = is_written
        #: Inodes that more than one open file writes to.
        self.shared: set[int] = set()
