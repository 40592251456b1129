"""``fcntl.ioctl``: a clone shares the pages of another file."""

from __future__ import annotations

from typing import Any, Final

from ..invocation import Invocation
from . import originals

_FICLONE: Final = 0x40049409


def ioctl(invocation: Invocation, fd: Any, request: int, *args: Any) -> Any:
    """:func:`fcntl.ioctl`: a clone of a file allocates as its copy would."""
    descriptor = fd if isinstance(fd, int) else fd.fileno()
    if request != _FICLONE or not args or not invocation.owns(descriptor):
        return originals.fcntl_ioctl(fd, request, *args)
    source = args[0] if isinstance(args[0], int) else args[0].fileno()
    quota = invocation.quota
    with quota.lock:
        quota.charge_whole(descriptor, originals.fstat(source).st_size, 0)
        return originals.fcntl_ioctl(fd, request, *args)
