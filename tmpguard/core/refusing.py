"""What an invocation is refused: raised to the application, recorded in the report and logged (C2)."""

from __future__ import annotations

import errno as codes
import os
import threading
from typing import TYPE_CHECKING, Final

from tmpguard.core.mounts.lookup import Namespace
from tmpguard.core.mounts.table import Place
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import NATIVE_OVERRUN, Report, Violation

from .callers import Caller, find_caller, is_bytecode, locate
from .layout import PACKAGE, is_below
from .policy import Policy
from .spelling import descriptor_path, printable, spelled

#: The operations that ask whether there is a file, and do not read it.
_LOOKUPS: Final = frozenset(
    f"os.{name}"
    for name in ("stat", "lstat", "access", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
)


class RefusalMixin:
    """The part of an invocation that refuses, and records what was refused.

    A ``path`` is whatever the application gave for one: it goes into errors as it is, and into the report as
    text.
    """

    guard: Policy
    _let_through = 0
    #: Is it that of a start, :func:`tmpguard.cold_start`, and not of a request?
    cold_start = False

    if TYPE_CHECKING:

        @property
        def namespace(self) -> Namespace: ...

        @property
        def report(self) -> Report: ...

    # --- refusing --------------------------------------------------------------------------------------

    def refuse(
        self,
        operation: str,
        code: int,
        path: object,
        second: object = None,
        *,
        about: object = None,
        remedy: str = "",
        advise: bool = True,
    ) -> None:
        """Record a violation (C2.3) and raise its OSError with a note that says what to do (C2.4).

        ``path`` and ``second`` go into the error as the caller spelled them; ``about`` is the path to record
        where the error bears another one or none. ``advise`` says whether the table of libraries may know a
        better remedy. Returns where the guard only watches: the operation then goes through (C2.5).
        """
        subject = path if about is None else about
        caller = find_caller(importing=code == codes.EROFS and is_bytecode(subject))
        # An import does without its bytecode where it cannot write: that is nothing to report.
        if not caller.importing:
            shown = self._shown(subject)
            remedy = self._advice(operation, code, shown, remedy, caller) if advise else remedy
            self._record(Violation(operation, shown, code, *caller.origin, remedy))
        if self.guard.enforce:
            raise _error(code, path, second, remedy)
        self._let_through = threading.get_ident()

    def absent(self, operation: str, path: object, why: str, *, there: bool = True) -> None:
        """Raise the ENOENT of a path that is not in the bundle, with a note that says ``why`` (C5.2).

        Recorded as a violation, or among the look-ups where it was only asked whether it is there; not where
        ``there`` is nothing on the disk either, or the operation has no name. Returns where the guard only
        watches.
        """
        remedy = remedies.not_in_bundle(why) if there else ""
        if operation and there:
            shown = self._shown(path)
            if operation not in _LOOKUPS:
                self._record(Violation(operation, shown, codes.ENOENT, *locate(), remedy))
            elif not self.report.has_lookup(shown):
                self.report.add_lookup(Violation(operation, shown, codes.ENOENT, *locate(), remedy))
        if self.guard.enforce:
            raise _error(codes.ENOENT, path, None, remedy)

    def stale(self, operation: str, path: object = None) -> OSError:
        """The ESTALE that a file operation for a finished invocation gets; recorded as late (C4.5)."""
        late = Violation(operation, self._shown(path), codes.ESTALE, *locate(), remedies.OVER)
        self._record(late, late=True)
        return _error(codes.ESTALE, path, None, remedies.OVER)

    def was_let_through(self) -> bool:
        """Has this thread just been let through by :meth:`refuse`? Asked by the backstop; true only once."""
        if self._let_through != threading.get_ident():
            return False
        self._let_through = 0
        return True

    # --- recording -------------------------------------------------------------------------------------

    def note(
        self, operation: str, code: int, path: object, remedy: str = "", caller: Caller | None = None
    ) -> None:
        """Record a violation whose error somebody else raises; ``caller`` is who made it if not this call."""
        caller = caller or find_caller()
        shown = self._shown(path)
        remedy = self._advice(operation, code, shown, remedy, caller)
        self._record(Violation(operation, shown, code, *caller.origin, remedy))

    def _record(self, violation: Violation, *, late: bool = False) -> None:
        self.report.add(violation, late=late)
        self.guard.journal.log(violation, late=late, refused=self.guard.enforce or late)

    def _shown(self, path: object) -> str:
        """A path as the report shows it: a descriptor by the path that it was opened by (C7.1)."""
        if path is None:
            return ""
        if isinstance(path, int):
            real = descriptor_path(path)
            return self.namespace.path_of(path, real) if real else f"descriptor {path}"
        return printable(path)

    # --- remedies --------------------------------------------------------------------------------------

    def remedy_for(self, where: Place | None, path: object) -> str:
        """What to do instead of writing to ``path``, which leads to ``where`` if that is known (C2.4)."""
        name = printable(path)
        if self.cold_start:
            return remedies.at_start(name)
        if where is not None and is_below(where.virtual, PACKAGE):
            return remedies.in_bundle(where.virtual)
        # A relative path is below the working directory by itself.
        return remedies.outside(name, self.namespace.working_directory() if name.startswith("/") else "")

    def _advice(self, operation: str, code: int, path: str, remedy: str, caller: Caller) -> str:
        try:
            project = self.namespace.working_directory()
        except OSError:
            return remedy  # it is over, or the working directory is gone
        return remedies.advice(
            operation,
            code,
            path,
            remedy,
            project=project,
            functions=caller.functions,
            at_start=self.cold_start,
        )

    # --- native writers --------------------------------------------------------------------------------

    def _exceeded(self, real: str) -> None:
        """A native writer took more than there is; the quota has found it out."""
        path = self.namespace.virtual_of(real.removesuffix(" (deleted)"))
        self._record(Violation(NATIVE_OVERRUN, path, codes.ENOSPC, *locate(), self.exceeded_remedy()))

    def exceeded_remedy(self) -> str:
        """What to do about a native writer that took more than there is (C2.4)."""
        return remedies.native_overrun(self.guard.storage_size)

    def exceeded(self, path: object) -> OSError:
        """The error for it, where nobody else tells it to the application: when the file is closed."""
        return _error(codes.ENOSPC, path, None, self.exceeded_remedy())


def _error(code: int, path: object, second: object, remedy: str) -> OSError:
    """The OSError of ``code`` with the paths that are given, and ``remedy`` as its note."""
    message = os.strerror(code)
    if path is None:
        error = OSError(code, message)
    elif second is None:
        error = OSError(code, message, spelled(path))
    else:
        error = OSError(code, message, spelled(path), None, spelled(second))
    remedies.add_note(error, remedy)
    return error
