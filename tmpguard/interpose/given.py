"""The path that the application gave, read once at the start of a call and handed on as one value."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType
from typing import Any, Final

from tmpguard.core.aliases import PathOrDescriptor
from tmpguard.core.layout import SOURCE_ROOT

#: What the functions of ``os`` take for a path besides str, bytes and PathLike, with a warning.
_BUFFERS: Final[tuple[Any, ...]] = (bytearray, memoryview) if sys.version_info < (3, 12) else ()
_WANTED: Final = "string, bytes or os.PathLike"
_OWN: Final = SOURCE_ROOT + "/"


def text_of(path: Any) -> str:
    """The path as str. Raises TypeError as ``os.fsdecode`` does."""
    return os.fsdecode(bytes(path) if isinstance(path, _BUFFERS) else path)


class Given:
    """A path argument of a call, and the ``dir_fd`` that goes with it.

    ``name`` is the path as an error names it: as it was given, or what a PathLike gave for itself (C2.1).
    ``text`` is the same as str. ``odd`` says that there is nothing to look up: it is a descriptor number, or
    it is no path at all (``text`` is empty then), or it holds a NUL byte. Each original deals with those by
    itself, and nearly all refuse them.
    """

    __slots__ = ("dir_fd", "name", "odd", "text")

    #: str or bytes; a buffer where those are paths; anything where it is odd.
    name: Any
    text: str
    odd: bool

    def __init__(
        self, path: PathOrDescriptor, dir_fd: int | None = None, *, wanted: str | None = _WANTED
    ) -> None:
        """``wanted`` is what the call says it takes, in the warning of a buffer; None where it takes none."""
        self.dir_fd = dir_fd
        if type(path) is str:
            self.name = self.text = path
            self.odd = "\0" in path
        else:
            self._read(path, wanted)

    def _read(self, path: Any, wanted: str | None) -> None:
        if type(path) is int:
            self.name, self.text, self.odd = path, "", True
            return
        if wanted is not None and isinstance(path, _BUFFERS):
            _warn_of_buffer(f"path should be {wanted}, not {type(path).__name__}")
            self.name, self.text = path, text_of(path)
        else:
            try:
                self.name = os.fspath(path)
            except TypeError:
                self.name, self.text, self.odd = path, "", True
                return
            self.text = os.fsdecode(self.name)
        self.odd = "\0" in self.text

    def like(self, real: str) -> Any:
        """``real`` in the type of the path: bytes for bytes, so that listings come in bytes, too."""
        return real if isinstance(self.name, str) else os.fsencode(real)


def _warn_of_buffer(complaint: str) -> None:
    """Warn of the line outside of tmpguard that gave it, as the originals do."""
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        level += 1
        frame = frame.f_back
    warnings.warn(complaint, DeprecationWarning, stacklevel=level)
