"""What an invocation used, what was refused and which line of the application caused it (C2.3)."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

from .context import get_current
from .usage import Usage

if TYPE_CHECKING:
    from .invocation import Invocation

#: Violations kept per invocation; more are only counted, so that a loop of refusals cannot fill the memory.
KEPT: Final = 1000


class Location(NamedTuple):
    """A line of code: file, line number (from 1) and the function it is in."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Violation(NamedTuple):
    """A refused operation (C2.3).

    ``operation`` is the call by its usual name (``open``, ``os.mkdir``), ``path`` the path as the application
    gave it, ``errno`` the number it got (or would have got where the guard only watches), ``location`` the
    first frame outside the standard library, installed packages and tmpguard, ``library`` the frame of the
    library that made the call, None where the application made it itself, ``remedy`` what to do about it, ""
    where there is nothing to say: the text of the exception's note (C2.4).
    """

    operation: str
    path: str
    errno: int
    location: Location | None
    library: Location | None
    remedy: str = ""


class Leftover(NamedTuple):
    """What an invocation left in the ``/tmp`` that it shares: a path, and the bytes that are new there."""

    path: str
    bytes: int


class Report:
    """What one invocation used and was refused: live while it runs, final after its end. Sizes in bytes."""

    #: Is it the report of :func:`tmpguard.cold_start`, and of no request?
    cold_start = False
    #: Finds out ``leftovers``, where the next invocation has the same ``/tmp``.
    find_leftovers: Callable[[], tuple[Leftover, ...]] | None = None

    def __init__(self, quota_bytes: int, measure: Callable[[], tuple[Usage, int]]) -> None:
        self.quota_bytes = quota_bytes
        self._measure: Callable[[], tuple[Usage, int]] | None = measure
        self._final = (Usage(0, 0), 0)
        #: Seconds that the wipe took, once it is through.
        self.wipe_seconds = 0.0
        self._violations: list[Violation] = []
        self._late: list[Violation] = []
        self._missed: dict[str, Violation] = {}
        self._lock = threading.Lock()
        #: Every refusal, those past the first thousand included that ``violations`` no longer keeps.
        self.violation_count = 0

    @property
    def used_bytes(self) -> int:
        """The bytes that the invocation's ``/tmp`` holds; after the end, what was left in it (C3.2)."""
        return self._usage()[0].bytes

    @property
    def files(self) -> int:
        """The files, directories and links in the invocation's ``/tmp``; after the end, those left in it."""
        return self._usage()[0].files

    @property
    def peak_bytes(self) -> int:
        """The most bytes that were in use at one time."""
        return self._usage()[1]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The refused operations in their order, the first thousand of them (C2.3)."""
        with self._lock:
            return tuple(self._violations)

    @property
    def late_writes(self) -> tuple[Violation, ...]:
        """File operations by code that still ran for the invocation after its end (C4.5)."""
        with self._lock:
            return tuple(self._late)

    @property
    def lookups(self) -> tuple[Violation, ...]:
        """Files that are not in the bundle and were asked for but not read, each once (C5.2).

        No failure by itself: an application asks whether there is a ``.env``, and goes on without.
        """
        with self._lock:
            return tuple(self._missed.values())

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """With ``lifetime="instance"``: what is in ``/tmp`` and was not when the invocation began to use
        files, new entries and growth, the thousand largest, the largest first. What concurrent invocations
        made in the meantime is among it. Else nothing: nothing is left for anybody."""
        return () if self.find_leftovers is None else self.find_leftovers()

    def _usage(self) -> tuple[Usage, int]:
        measure = self._measure
        return self._final if measure is None else measure()

    def free_lock(self) -> None:
        """In a forked child: who held it is not there."""
        self._lock = threading.Lock()

    def add(self, violation: Violation, *, late: bool = False) -> None:
        """Record a refusal."""
        with self._lock:
            kept = self._late if late else self._violations
            if not late:
                self.violation_count += 1
            if len(kept) < KEPT:
                kept.append(violation)

    def has_lookup(self, path: str) -> bool:
        """Is it known already that ``path`` was asked for, or are enough of them kept?"""
        return path in self._missed or len(self._missed) >= KEPT

    def add_lookup(self, violation: Violation) -> None:
        """Record that a file was asked for that is not in the bundle."""
        with self._lock:
            self._missed.setdefault(violation.path, violation)

    def close(self, usage: Usage, peak: int, wipe_seconds: float) -> None:
        """The invocation is over: what is told from now on is what it left behind."""
        self._final = (usage, peak)
        self.wipe_seconds = wipe_seconds
        self._measure = None

    def __repr__(self) -> str:
        return (
            f"<Report {self.used_bytes} of {self.quota_bytes} bytes, {self.files} files, "
            f"{len(self._violations)} violations, {len(self._late)} late writes>"
        )


# --- which line caused it ------------------------------------------------------------------------------

_PACKAGE: Final = __file__.rpartition("/")[0] + "/"


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
handed_on_by: Final[ContextVar[tuple[weakref.ref[Invocation], Origin] | None]] = ContextVar(
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
        if not filename.startswith((_PACKAGE, "<frozen ", *_STANDARD)) or "-packages/" in filename:
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
