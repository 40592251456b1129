"""What an invocation is refused: raised to the application, and told to the report and the log (C2)."""

from __future__ import annotations

import errno as codes
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from tmpguard.core.mounts.lookup import Namespace
from tmpguard.core.mounts.table import Place
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import NATIVE_OVERRUN, Report, Violation

from .callers import Origin, is_bytecode, is_importing, locate
from .layout import PACKAGE, is_below
from .policy import Policy
from .spelling import descriptor_path, printable, spelled

#: Is a warning being logged by the running thread?
_telling: Final = threading.local()

#: The operations that ask whether there is a file, and do not read it.
_LOOKUPS: Final = frozenset(
    f"os.{name}"
    for name in ("stat", "lstat", "access", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
)


class RefusalMixin:
    """The part of an invocation that refuses, and records what was refused."""

    guard: Policy
    _let_through = 0
    #: Is it that of a start, :func:`tmpguard.cold_start`, and not of a request?
    cold_start = False

    if TYPE_CHECKING:

        @property
        def namespace(self) -> Namespace: ...

        @property
        def report(self) -> Report: ...

    def refuse(
        self,
        operation: str,
        code: int,
        path: Any,
        second: Any = None,
        *,
        about: Any = None,
        remedy: str = "",
        advise: bool = True,
    ) -> None:
        """Record a violation (C2.3) and raise its OSError with a note that says what to do (C2.4).

        ``path`` and ``second`` go into the error as the caller spelled them; ``about`` is the path to record
        where the error bears another one or none. ``advise`` says whether the table of remedies may know a
        better one. Returns where the guard only watches: the operation then
        goes through (C2.5).
        """
        subject = path if about is None else about
        # An import does without its bytecode where it cannot write: that is nothing to report.
        if not (code == codes.EROFS and is_bytecode(subject) and is_importing()):
            shown = self._shown(subject)
            remedy = self._advice(operation, code, shown, remedy) if advise else remedy
            self._record(operation, code, shown, remedy)
        if self.guard.enforce:
            raise self._refusal(code, path, second, remedy)
        self._let_through = threading.get_ident()

    def absent(self, operation: str, path: Any, why: str, *, there: bool = True) -> None:
        """Raise the ENOENT of a path that is not in the bundle, with a note that says ``why`` (C5.2).

        Recorded as a violation, or among the look-ups where it was only asked whether it is there; not where
        ``there`` is nothing on the disk either, or the operation has no name. Returns where the guard only
        watches.
        """
        remedy = remedies.not_in_bundle(why) if there else ""
        if operation in _LOOKUPS:
            if there and not self.report.has_lookup(self._shown(path)):
                location, library = locate()
                found = Violation(operation, self._shown(path), codes.ENOENT, location, library, remedy)
                self.report.add_lookup(found)
        elif operation and there:
            self._record(operation, codes.ENOENT, self._shown(path), remedy)
        if self.guard.enforce:
            raise self._refusal(codes.ENOENT, path, None, remedy)

    def was_let_through(self) -> bool:
        """Has this thread just been let through by :meth:`refuse`? Asked by the backstop, and told once."""
        if self._let_through != threading.get_ident():
            return False
        self._let_through = 0
        return True

    def note(
        self, operation: str, code: int, path: Any, remedy: str = "", origin: Origin | None = None
    ) -> None:
        """Record a violation whose error somebody else raises; ``origin`` is its line if not this."""
        shown = self._shown(path)
        advice = self._advice(operation, code, shown, remedy)
        self._record(operation, code, shown, advice, origin=origin)

    def stale(self, operation: str, path: Any = None) -> OSError:
        """The ESTALE that a file operation for a finished invocation gets; recorded as late (C4.5)."""
        self._record(operation, codes.ESTALE, self._shown(path), remedies.OVER, late=True)
        return self._refusal(codes.ESTALE, path, None, remedies.OVER)

    def _advice(self, operation: str, code: int, path: str, remedy: str) -> str:
        try:
            project = self.namespace.working_directory()
        except OSError:
            return remedy  # it is over, or the working directory is gone
        return remedies.advice(operation, code, path, remedy, project=project, at_start=self.cold_start)

    def _refusal(self, code: int, path: Any, second: Any, remedy: str) -> OSError:
        message = os.strerror(code)
        if path is None:
            refusal = OSError(code, message)
        elif second is None:
            refusal = OSError(code, message, spelled(path))
        else:
            refusal = OSError(code, message, spelled(path), None, spelled(second))
        remedies.add_note(refusal, remedy)
        return refusal

    def _record(
        self,
        operation: str,
        code: int,
        path: str,
        remedy: str,
        *,
        late: bool = False,
        origin: Origin | None = None,
    ) -> None:
        location, library = origin or locate()
        violation = Violation(operation, path, code, location, library, remedy)
        self.report.add(violation, late=late)
        if hasattr(_telling, "now"):
            return  # a logging handler that was itself refused must not start it over again
        _telling.now = True
        try:
            self.guard.journal.tell(violation, late=late, refused=self.guard.enforce or late)
        finally:
            del _telling.now

    def _shown(self, path: Any) -> str:
        """A path as the report shows it: a descriptor by the path that it was opened by (C7.1)."""
        if path is None:
            return ""
        if isinstance(path, int):
            real = descriptor_path(path)
            return self.namespace.path_of(path, real) if real else f"descriptor {path}"
        return printable(path)

    def remedy_for(self, place: Place | None, path: Any) -> str:
        """What to do instead of writing to ``path``: "only /tmp is writable; write to /tmp/a.txt" (C2.4)."""
        name = printable(path)
        if self.cold_start:
            return remedies.at_start(name)
        if place is not None and is_below(place.virtual, PACKAGE):
            return remedies.in_bundle(place.virtual)
        # A relative path is below the working directory by itself.
        return remedies.outside(name, self.namespace.working_directory() if name.startswith("/") else "")

    def _exceeded(self, real: str) -> None:
        """A native writer took more than there is; the quota has found it out."""
        path = self.namespace.virtual_of(real.removesuffix(" (deleted)"))
        self._record(NATIVE_OVERRUN, codes.ENOSPC, path, self.exceeded_remedy())

    def exceeded_remedy(self) -> str:
        """What to do about a native writer that took more than there is (C2.4)."""
        return remedies.native_overrun(self.guard.storage_size)

    def exceeded(self, path: Any) -> OSError:
        """The error for it, where nobody else tells it to the application: when the file is closed."""
        return self._refusal(codes.ENOSPC, path, None, self.exceeded_remedy())
