"""``mmap``: what a writable mapping may allocate is charged when it is made (C3.5)."""

from __future__ import annotations

import mmap as mmap_module
import operator
import stat as modes
from errno import ENOSPC
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation, redirecting
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.openfiles import fill_holes
from tmpguard.core.storage.pages import pages
from tmpguard.interpose.raising import alive
from tmpguard.interpose.wrapper import StandIn

from .charge import full_remedy

_GRANULARITY: Final = mmap_module.ALLOCATIONGRANULARITY


class mmap(originals.mmap, metaclass=StandIn, told="mmap.mmap"):
    """:class:`mmap.mmap`; a writable mapping of a file below ``/tmp`` is charged when it is made.

    Its pages are allocated then: past a real tmpfs's size the kernel would send SIGBUS at the first touch,
    here OSError(ENOSPC) comes before (C3.5).
    """

    original = originals.mmap
    _invocation: Invocation | None = None
    _inode = 0

    def __new__(cls, fileno: int, length: int, *args: int, **options: Any) -> mmap:
        invocation = redirecting()
        charged = False
        if invocation is not None and fileno != -1:
            charged = _allocate_mapped(invocation, fileno, length, args, options)
        self = super().__new__(cls, fileno, length, *args, **options)
        if charged:
            self._invocation = invocation
            self._inode = originals.fstat(fileno).st_ino
        return self

    def resize(self, newsize: int, /) -> None:
        invocation = self._invocation
        before = len(self)
        if invocation is None or newsize == before or newsize <= 0:
            super().resize(newsize)
            return
        quota = invocation.quota
        growth = pages(newsize) - pages(before)
        with quota.lock:
            if growth > 0 and not quota.take(growth, self._inode):
                remedy = full_remedy(invocation)
                raise invocation.refusal("mmap.resize", ENOSPC, None, about="", remedy=remedy)
            try:
                super().resize(newsize)
            except BaseException:
                quota.freed(max(0, growth), self._inode)
                raise
            if growth < 0:
                quota.freed(-growth, self._inode)
            if newsize > before:
                for page in range(pages(before), newsize, mmap_module.PAGESIZE):
                    self[page] = 0  # touched now, so that what was charged is what the disk holds


def _allocate_mapped(
    invocation: Invocation, fd: int, length: int, args: tuple[int, ...], options: dict[str, int]
) -> bool:
    """Allocate what a shared, writable mapping of a charged file covers; is it one?"""
    flags = args[0] if args else options.get("flags", mmap_module.MAP_SHARED)
    protection = (
        args[1] if len(args) > 1 else options.get("prot", mmap_module.PROT_READ | mmap_module.PROT_WRITE)
    )
    access = options.get("access", args[2] if len(args) > 2 else mmap_module.ACCESS_DEFAULT)
    if access in (mmap_module.ACCESS_READ, mmap_module.ACCESS_COPY):
        return False
    if access == mmap_module.ACCESS_DEFAULT and not (
        flags & mmap_module.MAP_SHARED and protection & mmap_module.PROT_WRITE
    ):
        return False
    offset = options.get("offset", args[3] if len(args) > 3 else 0)
    status = originals.fstat(fd)
    if not modes.S_ISREG(status.st_mode) or not invocation.owns(fd):
        return False
    alive(invocation, "mmap.mmap", fd)
    try:
        size = operator.index(length) or status.st_size - offset
        refused = offset < 0 or size < 0 or offset + size > status.st_size or offset % _GRANULARITY
    except TypeError:
        return False  # refused by the original, with its own words
    if refused:
        return False  # likewise
    if not size:
        return True
    quota = invocation.quota
    with quota.lock:
        try:
            quota.charge_whole(fd, size, offset)
        except Full:
            remedy = full_remedy(invocation)
            raise invocation.refusal("mmap.mmap", ENOSPC, None, about=fd, remedy=remedy) from None
        fill_holes(fd, offset, size)
    return True
