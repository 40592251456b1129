"""Finds out from the stack who made the current call: the application, a library or tmpguard (C2.3)."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import chain, islice
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Final, NamedTuple, TypeVar

from .context import get_current
from .layout import SOURCE_PREFIX


class Location(NamedTuple):
    """A line of code: file, line number (from 1) and the function it is in."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


#: The application's current line, and the line of the library that made the call, if a library did.
Origin = tuple[Location | None, Location | None]


class Caller(NamedTuple):
    """Who made a refused call: everything that a refusal needs from the stack."""

    origin: Origin
    #: The library functions between the call and the application's line, innermost first, for example
    #: ``tempfile.mkstemp``.
    functions: tuple[str, ...]
    #: True if an import made the call. Always False unless :func:`find_caller` was asked to find out.
    importing: bool
    #: The top-level name of the installed package that made the call; "" if the application made it, directly
    #: or through the standard library.
    package: str = ""
    #: The path that the application passed to ``package`` for the file; None if the package chose the name.
    named: str | None = None


def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if paths.get(name)}
    return tuple(sorted(root.rstrip("/") + "/" for root in roots))


#: The directories of the standard library and of installed packages.
LIBRARIES: Final = _library_roots()
_STANDARD: Final = tuple(root for root in LIBRARIES if not root.endswith("-packages/"))
_IMPORTER: Final = "<frozen importlib._bootstrap>"
_OBSERVERS: Final = ("coverage", "debugpy", "pydevd", "_pydevd_bundle")

#: The modules of ``os.path``, whose functions are called on behalf of others.
_PATH_MODULES: Final = frozenset(
    f"{root}{name}.py" for root in _STANDARD for name in ("genericpath", "posixpath")
)

#: The module of asyncio whose ``Handle._run`` runs each step of a task.
_EVENTS: Final = sysconfig.get_paths()["stdlib"] + "/asyncio/events.py"

#: Characters that may follow a file's name in a name derived from it; "" for the name itself.
_ENDS: Final = ("", "/", ".", "_", "-", "~")

#: How many of the arguments in ``*args`` and ``**kwargs`` are examined, and the code flags of functions that
#: take them. The flags are repeated here because :mod:`inspect` is slow to import.
_ARGUMENTS: Final = 20
_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08

#: The modules that only read source files. Since 3.15 one of them is frozen.
_SOURCE_READERS: Final = frozenset(
    ["<frozen linecache>"]
    + [f"{root}{name}.py" for root in _STANDARD for name in ("inspect", "linecache", "tokenize")]
)


@lru_cache(maxsize=4096)
def _kind(filename: str) -> str:
    """Whose code a file contains: ``tmpguard``, ``library`` or ``application``."""
    if filename.startswith(SOURCE_PREFIX):
        return "tmpguard"
    if filename.startswith(("<frozen ", *LIBRARIES)):
        return "library"
    if "/site-packages/" in filename or "/dist-packages/" in filename:
        return "library"
    return "application"


#: The line that submitted the running job to a thread whose stack may have no application frame, and the
#: invocation for which it did so. The invocation is needed because asgiref copies a job's context back into
#: its caller's, where the value stays.
handed_on_by: Final[ContextVar[tuple[Callable[[], object], Origin] | None]] = ContextVar(
    "tmpguard_handed_on_by", default=None
)


# --- who made the call ---------------------------------------------------------------------------------


def find_origin() -> Origin:
    """The lines of the application and of the library that made the current call."""
    passed, line = _walk(sys._getframe(1))
    return _origin(passed, line)


def find_caller(path: str = "", directory: str = "", *, importing: bool = False) -> Caller:
    """The origin of the current call, the library functions in between, and who chose the name ``path``.

    ``directory`` is the working directory, to which ``path`` is relative. With ``importing``, also find out
    whether an import made the call; the importer's frames may be outside the application's line.
    """
    passed, line = _walk(sys._getframe(1))
    functions = tuple(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}" for frame in passed)
    asked = importing and _has_importer(chain(passed, _outwards(line)))
    return Caller(_origin(passed, line), functions, asked, *_chooser(passed, path, directory))


#: The code of the middleware functions that call the application.
_edges: Final[set[CodeType]] = set()

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., object])


def request_edge(function: AnyCallable) -> AnyCallable:
    """Mark ``function``, which calls the application for a request, as the end of the stack walk (C2.3).

    The frames outside it belong to a server, or to a test and its client, and not to the application.
    """
    _edges.add(function.__code__)
    return function


def _walk(frame: FrameType | None) -> tuple[list[FrameType], FrameType | None]:
    """Walk outwards from ``frame``: returns the library frames passed, and the application's frame, if any.

    The walk ends where the request began. It also ends at a library's finalizer, because a finalizer may run
    at any line.
    """
    passed: list[FrameType] = []
    in_task = None
    while frame is not None:
        code = frame.f_code
        kind = _kind(code.co_filename)
        if kind == "application":
            break
        if kind == "library":
            if code.co_name == "_run" and code.co_filename == _EVENTS and in_task is None:
                in_task = len(passed)
            passed.append(frame)
            if code.co_name == "__del__":
                return passed, None
        elif code in _edges:
            return passed, None
        frame = frame.f_back
    if in_task is not None and frame is not None and not _is_in_request(frame):
        return passed[:in_task], None  # the line that runs the event loop did not make the call
    return passed, frame


def _is_in_request(frame: FrameType) -> bool:
    """Whether ``frame``, which runs an event loop, runs within the current invocation itself."""
    invocation = get_current()
    if invocation is None or invocation.entered:
        return True
    return any(outer.f_code in _edges for outer in _outwards(frame))


def _origin(passed: list[FrameType], line: FrameType | None) -> Origin:
    library = _location(next(filter(_is_installed, passed), passed[0])) if passed else None
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


# --- who chose the name --------------------------------------------------------------------------------


def _is_installed(frame: FrameType) -> bool:
    """Whether a library ``frame`` belongs to an installed package rather than to the standard library."""
    return not _is_standard(frame.f_code.co_filename)


def _chooser(passed: list[FrameType], path: str, directory: str) -> tuple[str, str | None]:
    """The installed package that uses ``path``, and the path that the application passed to it, if any.

    Only the arguments of the library functions between the two are searched for that path. ``directory`` is
    the working directory.
    """
    installed = [place for place, frame in enumerate(passed) if _is_installed(frame)]
    if not installed:
        return "", None
    package = str(passed[installed[0]].f_globals.get("__name__", "")).partition(".")[0]
    if not path:
        return package, None
    given = [text for frame in passed[installed[-1] :] for text in _texts(frame)]
    for is_meant in (_names, _names_its_sibling):
        for text in given:
            if is_meant(text, os.path.join(directory, text), path):
                return package, text
    return package, None


def _texts(frame: FrameType) -> Iterator[str]:
    """The arguments of the frame's function that may be paths, as text."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & _VARARGS) + bool(code.co_flags & _VARKEYWORDS)
    values = frame.f_locals
    for name in code.co_varnames[:count]:
        value = values.get(name)
        more = value if type(value) is tuple else value.values() if type(value) is dict else (value,)
        for each in islice(more, _ARGUMENTS):
            if isinstance(each, (str, bytes, PurePath)):
                yield os.fsdecode(each)


def _names(given: str, absolute: str, path: str) -> bool:
    """Whether ``path`` is ``given``, an entry inside it, or its name with a suffix."""
    return bool(given.strip("/.")) and any(
        path.startswith(name) and path[len(name) :][:1] in _ENDS
        for name in (given, absolute, os.path.normpath(absolute))
    )


def _names_its_sibling(given: str, absolute: str, path: str) -> bool:
    """Whether ``path`` may be a temporary file created next to its target, ``given``.

    Bare names do not count: they share a directory only by chance, and not every argument is a path.
    """
    if "/" not in path or not ("/" in given or "." in given.strip(".")):
        return False
    directories = (os.path.dirname(given), os.path.dirname(os.path.normpath(absolute)))
    return os.path.dirname(path) in directories


# --- imports -------------------------------------------------------------------------------------------


def is_bytecode(path: object) -> bool:
    """Whether ``path`` is where the interpreter stores bytecode."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    name = str(path)
    return "__pycache__" in name or (sys.pycache_prefix is not None and name.startswith(sys.pycache_prefix))


def is_importing() -> bool:
    """Whether an import made the call: the interpreter's own or an import hook such as pytest's."""
    return _has_importer(_outwards(sys._getframe(1)))


def _has_importer(frames: Iterable[FrameType]) -> bool:
    """Whether the importer is among ``frames``, innermost first, before the code of any module.

    A module's code is executed by an import but is not part of it. Nor is :mod:`py_compile`, which only uses
    the importer's function for writing.
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


def calling_frame() -> FrameType | None:
    """The innermost frame outside tmpguard: the code that made the current call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(SOURCE_PREFIX):
        frame = frame.f_back
    return frame


# --- observers -----------------------------------------------------------------------------------------


def is_observer() -> bool:
    """Whether a coverage tool or a debugger made the call. They run inside the frames that they observe."""
    filename = _first_file(_is_standard)
    return any(f"/{package}/" in filename for package in _OBSERVERS)


def is_reading_sources() -> bool:
    """Whether a traceback, a debugger or the like reads a source file. Such reads are unaffected (C5.2)."""
    return _first_file(_is_path_function) in _SOURCE_READERS or is_observer()


def _first_file(is_passed: Callable[[str], bool]) -> str:
    """The file of the innermost frame outside the caller for which ``is_passed`` is false; "" if none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_passed(filename):
            return filename
        frame = frame.f_back
    return ""


@lru_cache(maxsize=4096)
def _is_standard(filename: str) -> bool:
    """Whether the code is tmpguard's or the standard library's."""
    if filename.startswith(SOURCE_PREFIX):
        return True
    return filename.startswith(("<frozen ", *_STANDARD)) and "-packages/" not in filename


@lru_cache(maxsize=4096)
def _is_path_function(filename: str) -> bool:
    """Whether the code is tmpguard's, the interpreter's own or that of :mod:`os.path`."""
    if filename in _SOURCE_READERS:
        return False
    return filename.startswith((SOURCE_PREFIX, "<frozen ")) or filename in _PATH_MODULES
