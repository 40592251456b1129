"""A path argument as the application gave it: parsed once at the start of a call, then passed on."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType
from typing import Any, Final, cast

from tmpguard.core.aliases import PathOrDescriptor, StrOrBytesPath
from tmpguard.core.layout import SOURCE_PREFIX
from tmpguard.core.spelling import is_encodable

#: True if the functions of ``os`` accept a bytearray or a memoryview as a path, with a warning.
_TAKES_BUFFERS: Final = sys.version_info < (3, 12)
_WANTED: Final = "string, bytes or os.PathLike"


def text_of(path: StrOrBytesPath | bytearray | memoryview) -> str:
    """The path as str. Raises TypeError as ``os.fsdecode`` does."""
    if isinstance(path, (bytearray, memoryview)) and _TAKES_BUFFERS:
        return os.fsdecode(bytes(path))
    return os.fsdecode(cast("StrOrBytesPath", path))


class Given:
    """A path argument of a call, and the ``dir_fd`` that goes with it.

    ``name`` is the path as it appears in an error: as it was given, or the result of a PathLike's
    ``__fspath__`` (C2.1). ``text`` is the same as a str. ``odd`` is true if the argument cannot be looked up:
    a descriptor number, not a path at all (``text`` is empty then), or a path with a NUL byte or with
    characters that cannot be encoded. Such arguments are left to the original function, which usually raises
    the right error.
    """

    __slots__ = ("dir_fd", "name", "odd", "text")

    #: str or bytes; a buffer if the interpreter accepts those as paths; anything if it is odd.
    name: Any
    text: str
    odd: bool

    def __init__(
        self, path: PathOrDescriptor, dir_fd: int | None = None, *, wanted: str | None = _WANTED
    ) -> None:
        """``wanted`` names the accepted types in the warning about a buffer; None if it accepts no buffer."""
        self.dir_fd = dir_fd
        if type(path) is str:
            self.name = self.text = path
            self.odd = "\0" in path or not (path.isascii() or is_encodable(path))
        else:
            self._read(path, wanted)

    def _read(self, path: PathOrDescriptor | bytearray | memoryview, wanted: str | None) -> None:
        if type(path) is int:
            self.name, self.text, self.odd = path, "", True
            return
        if wanted is not None and isinstance(path, (bytearray, memoryview)) and _TAKES_BUFFERS:
            _warn_of_buffer(f"path should be {wanted}, not {type(path).__name__}")
            self.name, self.text = path, text_of(path)
        else:
            try:
                self.name = os.fspath(cast("StrOrBytesPath", path))
            except TypeError:
                self.name, self.text, self.odd = path, "", True
                return
            self.text = os.fsdecode(self.name)
        self.odd = "\0" in self.text or not is_encodable(self.text)

    def like(self, real: str) -> Any:
        """``real`` in the type of the path, so that a listing of a bytes path returns bytes."""
        return real if isinstance(self.name, str) else os.fsencode(real)


def _warn_of_buffer(complaint: str) -> None:
    """Warn, as the originals do, and attribute the warning to the caller's line outside tmpguard."""
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(SOURCE_PREFIX):
        level += 1
        frame = frame.f_back
    warnings.warn(complaint, DeprecationWarning, stacklevel=level)


def is_descriptor(value: object) -> bool:
    """Whether ``value`` is a descriptor number of any type."""
    return type(value) is int or hasattr(type(value), "__index__")
