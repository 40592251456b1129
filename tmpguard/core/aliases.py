"""Types that many annotations name: what the standard library's functions take and return."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

StrOrBytes = str | bytes
StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
#: A path, or a descriptor number.
PathOrDescriptor = int | StrOrBytesPath
#: The ``opener`` of :func:`open`.
Opener = Callable[[str, int], int]

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer
else:
    ReadableBuffer = object
    FileDescriptorLike = object

__all__ = [
    "FileDescriptorLike",
    "Opener",
    "PathOrDescriptor",
    "ReadableBuffer",
    "StrOrBytes",
    "StrOrBytesPath",
]
