"""Types that many annotations name: what the standard library's functions take and return."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

StrOrBytes = str | bytes
StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
#: A path, or a descriptor number.
PathOrDescriptor = int | StrOrBytesPath
#: A command's arguments, the program first.
Argv = Sequence[StrOrBytesPath]
#: An environment as :func:`os.execve` takes it.
Environment = Mapping[str, StrOrBytes] | Mapping[bytes, StrOrBytes]
#: The ``opener`` of :func:`open`.
Opener = Callable[[str, int], int]

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike, ReadableBuffer, WriteableBuffer
else:
    ReadableBuffer = object
    FileDescriptorLike = object
    WriteableBuffer = object

__all__ = [
    "Argv",
    "Environment",
    "FileDescriptorLike",
    "Opener",
    "PathOrDescriptor",
    "ReadableBuffer",
    "StrOrBytes",
    "StrOrBytesPath",
    "WriteableBuffer",
]
