"""Who made the call that is running: the application, a library or tmpguard itself, from the stack (C2.3)."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import chain
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


#: The application's line that is running, and the library's line that made the call, if one did.
Origin = tuple[Location | None, Location | None]


class Caller(NamedTuple):
    """Who made the call that is refused: all that a refusal wants to know of the stack."""

    origin: Origin
    #: The library functions between the call and the application's line, the innermost first, each by the
    #: names of its module and itself: ``tempfile.mkstemp``.
    functions: tuple[str, ...]
    #: Does an import ask? False where that was not to be found out.
    importing: bool


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

#: The modules that look for sources, and for nothing else. Since 3.15 one of them is frozen.
_SOURCE_READERS: Final = frozenset(
    ["<frozen linecache>"]
    + [f"{root}{name}.py" for root in _STANDARD for name in ("inspect", "linecache", "tokenize")]
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


#: The line that handed the running job to a thread in which no frame of the application may be found, and
#: the invocation that it did so for: asgiref takes a job's context over into its caller's, where it stays.
handed_on_by: Final[ContextVar[tuple[Callable[[], object], Origin] | None]] = ContextVar(
    "tmpguard_handed_on_by", default=None
)


# --- whose line it is ----------------------------------------------------------------------------------


def locate() -> Origin:
    """The lines of the application and of the library that the running call comes from."""
    passed, line = _walk(sys._getframe(1))
    return _origin(passed, line)


def find_caller(*, importing: bool = False) -> Caller:
    """The same, and the library functions on the way.

    ``importing`` asks whether an import is at work, which may have to be looked for beyond the line.
    """
    passed, line = _walk(sys._getframe(1))
    functions = tuple(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}" for frame in passed)
    asked = importing and _has_importer(chain(passed, _outwards(line)))
    return Caller(_origin(passed, line), functions, asked)


def _walk(frame: FrameType | None) -> tuple[list[FrameType], FrameType | None]:
    """The libraries' frames from ``frame`` outwards, up to the application's, which is the second one."""
    passed = []
    while frame is not None:
        kind = _kind(frame.f_code.co_filename)
        if kind == "application":
            break
        if kind == "library":
            passed.append(frame)
        frame = frame.f_back
    return passed, frame


def _origin(passed: list[FrameType], line: FrameType | None) -> Origin:
    library = _location(passed[0]) if passed else None
    if line is not None:
        return _location(line), library
    handed_on = handed_on_by.get()
    if handed_on is None or handed_on[0]() is not get_current():
        return None, library
    origin, through = handed_on[1]
    return origin, library or through


def _location(frame: FrameType) -> Location:
    code = frame.f_code
    return Location(code.co_filename, frame.f_lineno, code.co_qualname)


# --- imports -------------------------------------------------------------------------------------------


def is_bytecode(path: object) -> bool:
    """Is ``path`` where the interpreter keeps bytecode?"""
    if not isinstance(path, (str, os.PathLike)):
        return False
    name = str(path)
    return "__pycache__" in name or (sys.pycache_prefix is not None and name.startswith(sys.pycache_prefix))


def is_importing() -> bool:
    """Does an import ask, the interpreter's or a hook of it such as pytest's?"""
    return _has_importer(_outwards(sys._getframe(1)))


def _has_importer(frames: Iterable[FrameType]) -> bool:
    """Is the importer among ``frames``, the innermost first, before the code of a module?

    That code is run by an import, but is no part of it; nor is :mod:`py_compile`, which lends the importer's
    way of writing.
    """
    for frame in frames:
        code = frame.f_code
        if code.co_name == "<module>":
            return False
        if code.co_filename == _IMPORTER:
            return True
    return False


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


# --- those who only look on ----------------------------------------------------------------------------


def is_observer() -> bool:
    """Does a coverage tool or a debugger ask? They look at files from within the frames that they observe."""
    filename = _first_file(_is_standard)
    return any(f"/{package}/" in filename for package in _OBSERVERS)


def is_reading_sources() -> bool:
    """Does a traceback, a debugger or the like ask for a source file? They are read as ever (C5.2)."""
    return _first_file(_is_path_function) in _SOURCE_READERS or is_observer()


def _first_file(is_passed: Callable[[str], bool]) -> str:
    """The file of the innermost code outside the function that asks that is not passed by; "" for none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_passed(filename):
            return filename
        frame = frame.f_back
    return ""


@lru_cache(maxsize=4096)
def _is_standard(filename: str) -> bool:
    """Is it tmpguard's code, or the standard library's?"""
    if filename.startswith(_PACKAGE):
        return True
    return filename.startswith(("<frozen ", *_STANDARD)) and "-packages/" not in filename


@lru_cache(maxsize=4096)
def _is_path_function(filename: str) -> bool:
    """Is it tmpguard's code, the interpreter's own, or that of :mod:`os.path`, which asks for others?"""
    if filename in _SOURCE_READERS:
        return False
    return filename.startswith((_PACKAGE, "<frozen ")) or filename in _PATH_MODULES
