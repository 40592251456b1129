"""Whose line is running: the application's, a library's or tmpguard's own, from the stack (C2.3)."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType
from typing import Final, NamedTuple

from .context import get_current
from .layout import SOURCE_ROOT


class Location(NamedTuple):
    """A line of code: file, line number (from 1) and the function it is in."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


_PACKAGE: Final = SOURCE_ROOT + "/"


def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if paths.get(name)}
    return tuple(sorted(root.rstrip("/") + "/" for root in roots))


#: The directories of the standard library and of installed packages.
LIBRARIES: Final = _library_roots()
_STANDARD: Final = tuple(root for root in LIBRARIES if not root.endswith("-packages/"))
_IMPORTER: Final = "<frozen importlib._bootstrap>"
_OBSERVERS: Final = ("coverage", "debugpy", "pydevd", "_pydevd_bundle")


#: The functions of ``os.path``, for whomever they ask.
_PATH_MODULES: Final = frozenset(
    f"{root}{name}.py" for root in _STANDARD for name in ("genericpath", "posixpath")
)

#: The modules that look for sources, and for nothing else.
_SOURCE_READERS: Final = frozenset(
    f"{root}{name}.py" for root in _STANDARD for name in ("inspect", "linecache", "tokenize")
)


@lru_cache(maxsize=4096)
def _kind(filename: str) -> str:
    """Whose code is it: ``tmpguard``, ``library`` or ``application``?"""
    if filename.startswith(_PACKAGE):
        return "tmpguard"
    if filename.startswith(("<frozen ", *LIBRARIES)):
        return "library"
    if "/site-packages/" in filename or "/dist-packages/" in filename:
        return "library"
    return "application"


Origin = tuple[Location | None, Location | None]

#: The line that handed the running job to a thread in which no frame of the application may be found, and
#: the invocation that it did so for: asgiref takes a job's context over into its caller's, where it stays.
handed_on_by: Final[ContextVar[tuple[Callable[[], object], Origin] | None]] = ContextVar(
    "tmpguard_handed_on_by", default=None
)


def locate() -> Origin:
    """The application's line that is running, and the library's line that made the call, if one did."""
    library: Location | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        kind = _kind(frame.f_code.co_filename)
        if kind == "application":
            return _location(frame), library
        if kind == "library" and library is None:
            library = _location(frame)
        frame = frame.f_back
    handed_on = handed_on_by.get()
    if handed_on is None or handed_on[0]() is not get_current():
        return None, library
    origin, through = handed_on[1]
    return origin, library or through


def is_bytecode(path: object) -> bool:
    """Is ``path`` where the interpreter keeps bytecode?"""
    if not isinstance(path, (str, os.PathLike)):
        return False
    name = str(path)
    return "__pycache__" in name or (sys.pycache_prefix is not None and name.startswith(sys.pycache_prefix))


def is_importing() -> bool:
    """Does an import ask, the interpreter's or a hook of it such as pytest's?

    The code of a module is run by an import, but is no part of it; nor is :mod:`py_compile`, which lends the
    importer's way of writing.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


def library_functions() -> Iterator[str]:
    """The functions between the calling code and the application's line, the innermost first.

    Each by the names of its module and itself: ``tempfile.mkstemp``.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        kind = _kind(frame.f_code.co_filename)
        if kind == "application":
            return
        if kind == "library":
            yield f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        frame = frame.f_back


def is_observer() -> bool:
    """Does a coverage tool or a debugger ask? They look at files from within the frames that they observe."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        standard = filename.startswith(("<frozen ", *_STANDARD)) and "-packages/" not in filename
        if not standard and not filename.startswith(_PACKAGE):
            return any(f"/{package}/" in filename for package in _OBSERVERS)
        frame = frame.f_back
    return False


def is_reading_sources() -> bool:
    """Does a traceback, a debugger or the like ask for a source file? They are read as ever (C5.2)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith((_PACKAGE, "<frozen ")) and filename not in _PATH_MODULES:
            return filename in _SOURCE_READERS or is_observer()
        frame = frame.f_back
    return False


def _location(frame: FrameType) -> Location:
    code = frame.f_code
    return Location(code.co_filename, frame.f_lineno, code.co_qualname)
