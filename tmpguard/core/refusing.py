"""Refuses operations: raises the error in the application, records it in the report and logs it (C2)."""

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
from .policy import Policy
from .spelling import descriptor_path, printable, spelled

#: The operations that check whether a file exists, but do not read it.
_LOOKUPS: Final = frozenset(
    f"os.{name}"
    for name in ("stat", "lstat", "access", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
)


class RefusalMixin:
    """The part of an invocation that refuses operations and records the refusals.

    A ``path`` is whatever the application passed as one: it goes into errors unchanged, and into the report
    as text.
    """

    guard: Policy
    _let_through = 0
    #: Whether this is the invocation of :func:`tmpguard.cold_start` rather than of a request.
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
        where: Place | None = None,
        remedy: str = "",
        advise: bool = True,
    ) -> None:
        """Record a violation (C2.3) and raise its OSError with a note that says what to do (C2.4).

        ``path`` and ``second`` go into the error as the caller spelled them. ``about`` is the path to record
        if it is not the error's. Without a ``remedy``, it is found from the path and from the place ``where``
        it leads, if that is known. ``advise`` says whether the table of libraries may supply a more specific
        remedy. Returns if the guard only watches: the operation then goes through (C2.5).
        """
        subject = path if about is None else about
        target = subject if second is None or about is not None else second
        aim = self._shown(target)
        importing = code == codes.EROFS and is_bytecode(subject)
        caller = find_caller(aim, self._directory_or_none(), importing=importing)
        # An import that cannot write its bytecode continues without it: there is nothing to report.
        if not caller.importing:
            shown = self._shown(subject)
            remedy = remedy or self._plain_remedy(operation, code, aim, where, caller)
            remedy = self._advice(operation, code, shown, remedy, caller) if advise else remedy
            self._record(Violation(operation, shown, code, *caller.origin, remedy))
        if self.guard.enforce:
            raise _error(code, path, second, remedy)
        self._let_through = threading.get_ident()

    def absent(self, operation: str, path: object, why: str, *, there: bool = True) -> None:
        """Raise the ENOENT of a path that is not in the bundle, with a note that says ``why`` (C5.2).

        It is recorded as a violation, or as a look-up if the operation only checks whether the file exists.
        Nothing is recorded if ``there`` is false (the file does not exist on disk either) or ``operation`` is
        empty. Returns if the guard only watches.
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
        """Whether :meth:`refuse` has just let this thread through. For the backstop; true only once."""
        if self._let_through != threading.get_ident():
            return False
        self._let_through = 0
        return True

    # --- recording -------------------------------------------------------------------------------------

    def note(
        self,
        operation: str,
        code: int,
        path: object,
        remedy: str = "",
        caller: Caller | None = None,
        *,
        where: Place | None = None,
    ) -> str:
        """Record a violation whose error is raised elsewhere. ``caller`` defaults to that of this call.

        Returns the remedy, for the note of that error. ``remedy`` and ``where`` are as in :meth:`refuse`.
        """
        shown = self._shown(path)
        caller = caller or find_caller(shown, self._directory_or_none())
        remedy = remedy or self._plain_remedy(operation, code, shown, where, caller)
        remedy = self._advice(operation, code, shown, remedy, caller)
        self._record(Violation(operation, shown, code, *caller.origin, remedy))
        return remedy

    def _record(self, violation: Violation, *, late: bool = False) -> None:
        self.report.add(violation, late=late)
        self.guard.journal.log(violation, late=late, refused=self.guard.enforce or late)

    def _shown(self, path: object) -> str:
        """A path as the report shows it. A descriptor is shown as the path that it was opened with (C7.1)."""
        if path is None:
            return ""
        if isinstance(path, int):
            real = descriptor_path(path)
            return self.namespace.path_of(path, real) if real else f"descriptor {path}"
        return printable(path)

    # --- remedies --------------------------------------------------------------------------------------

    def _directory_or_none(self) -> str:
        """The working directory; "" where it is gone, or the invocation is over."""
        try:
            return self.namespace.working_directory()
        except OSError:
            return ""

    def _plain_remedy(self, operation: str, code: int, path: str, where: Place | None, caller: Caller) -> str:
        """What to do instead of changing ``path``, which leads to ``where`` where that is known (C2.4)."""
        if code not in (codes.EROFS, codes.EXDEV):
            return ""
        change = remedies.Change(operation, path, caller.package, caller.named)
        if where is not None and where.mount is self.guard.mounts.package:
            return remedies.in_bundle(change, where.virtual)
        if self.cold_start:
            return remedies.at_start(change)
        return remedies.outside(change, self._directory_or_none())

    def _advice(self, operation: str, code: int, path: str, remedy: str, caller: Caller) -> str:
        project = self._directory_or_none()
        return (
            remedies.advice(
                operation,
                code,
                path,
                remedy,
                project=project,
                functions=caller.functions,
                package=caller.package,
                at_start=self.cold_start,
            )
            if project
            else remedy
        )

    # --- native writers --------------------------------------------------------------------------------

    def _exceeded(self, real: str) -> None:
        """The quota has noticed that a native writer exceeded it."""
        path = self.namespace.virtual_of(real.removesuffix(" (deleted)"))
        self._record(Violation(NATIVE_OVERRUN, path, codes.ENOSPC, *locate(), self.exceeded_remedy()))

    def exceeded_remedy(self) -> str:
        """What to do about a native writer that exceeded the quota (C2.4)."""
        return remedies.native_overrun(self.guard.storage_size)

    def exceeded(self, path: object) -> OSError:
        """The error for an exceeded quota that no other call reports: raised when the file is closed."""
        return _error(codes.ENOSPC, path, None, self.exceeded_remedy())


def _error(code: int, path: object, second: object, remedy: str) -> OSError:
    """The OSError for ``code`` with the given paths, and ``remedy`` as its note."""
    message = os.strerror(code)
    if path is None:
        error = OSError(code, message)
    elif second is None:
        error = OSError(code, message, spelled(path))
    else:
        error = OSError(code, message, spelled(path), None, spelled(second))
    remedies.add_note(error, remedy)
    return error
