"""``fcntl.ioctl``: a tmpfs knows no clones, which share the pages of another file."""

from __future__ import annotations

import struct
from errno import EOPNOTSUPP, EXDEV
from typing import Any, Final

from ..invocation import Invocation
from ..mounts import error
from . import originals
from .paths import alive

_FICLONE: Final = 0x40049409
_FICLONERANGE: Final = 0x4020940D


def ioctl(invocation: Invocation, fd: Any, request: int, *args: Any, **more: Any) -> Any:
    """:func:`fcntl.ioctl`. Raises OSError(EXDEV) or OSError(EOPNOTSUPP) for clones to and from ``/tmp``."""
    if request in (_FICLONE, _FICLONERANGE) and args:
        descriptor, source = _number(fd), _source(request, args[0])
        originals.fstat(source)
        ours = [invocation.owns(number) for number in (source, descriptor)]
        if any(ours):
            alive(invocation, "fcntl.ioctl", descriptor)
            raise error(EOPNOTSUPP if all(ours) else EXDEV)
    return originals.fcntl_ioctl(fd, request, *args, **more)


def _source(request: int, argument: Any) -> int:
    if request == _FICLONERANGE:
        return int(struct.unpack_from("q", argument)[0])
    return _number(argument)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())
