"""Refuses operations: raises the error in the application, records it in the report and logs it (C2)."""

from __future__ import annotations

import errno as codes
import os
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from tmpguard.core.mounts.lookup import Namespace
from tmpguard.core.mounts.table import Place
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import NATIVE_OVERRUN, Report, Violation
from tmpguard.core.storage.forgotten import Maker
from tmpguard.core.storage.volume import Volume

from .callers import Caller, find_caller, find_origin, is_bytecode
from .layout import TMP
from .policy import Policy
from .presence import is_found
from .spelling import GONE, descriptor_path, printable, spelled

#: The operations that check whether a file exists, but do not read it.
_LOOKUPS: Final = frozenset(
    f"os.{name}"
    for name in ("stat", "lstat", "access", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
)


class Details(TypedDict, total=False):
    """What a refusal knows besides the paths of its error."""

    #: The path to record, if it is not the error's.
    about: object
    #: The place that the path leads to. A remedy that is not given is found from it and from the path.
    where: Place | None
    remedy: str
    #: Whether the table of libraries may supply a more specific remedy.
    advise: bool


class RefusalMixin:
    """The part of an invocation that refuses operations and records the refusals.

    A ``path`` is whatever the application passed as one: it goes into errors unchanged, and into the report
    as text.
    """

    guard: Policy
    #: Whether this is the invocation of :func:`tmpguard.cold_start` rather than of a request.
    cold_start = False

    if TYPE_CHECKING:
        mounted: Volume

        @property
        def namespace(self) -> Namespace: ...

        @property
        def report(self) -> Report: ...

    # --- refusing --------------------------------------------------------------------------------------

    def refusal(
        self, operation: str, code: int, path: object, second: object = None, **details: Unpack[Details]
    ) -> OSError:
        """Record a violation (C2.3). Returns its OSError, with a note that says what to do (C2.4).

        ``path`` and ``second`` go into the error as the caller spelled them.
        """
        return _error(code, path, second, self._note(operation, code, path, second, **details))

    def refuse(
        self, operation: str, code: int, path: object, second: object = None, **details: Unpack[Details]
    ) -> None:
        """Raise the error of :meth:`refusal`. Only records if the guard only watches: the operation then goes
        through (C2.5)."""
        remedy = self._note(operation, code, path, second, **details)
        if self.guard.enforce:
            raise _error(code, path, second, remedy)

    def _note(
        self,
        operation: str,
        code: int,
        path: object,
        second: object,
        *,
        about: object = None,
        where: Place | None = None,
        remedy: str = "",
        advise: bool = True,
    ) -> str:
        """Record a violation. Returns what to do about it."""
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
        return remedy

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
                self._record(Violation(operation, shown, codes.ENOENT, *find_origin(), remedy))
            elif not self.report.has_lookup(shown):
                self.report.add_lookup(Violation(operation, shown, codes.ENOENT, *find_origin(), remedy))
        if self.guard.enforce:
            raise _error(codes.ENOENT, path, None, remedy)

    # --- files that another invocation had created -----------------------------------------------------

    def missing(
        self, operation: str, path: object, name: str, *, making: bool = False, replaced: bool = False
    ) -> str:
        """Handle a look-up below ``/tmp`` that found nothing (C7.4). ``name`` is relative to it: ``/a.txt``.

        If another invocation or the start-up had created the file, a look-up is added to the report.
        ``making`` means that the call was going to create ``path``, so its directory is what is missing.
        ``replaced`` means that the call created an empty file in its place. Returns the remedy for the
        error's note; "" if nobody had created the file.
        """
        root = self.namespace.root
        name = os.path.dirname(name) if making else name
        if root is None or not name:
            return ""
        maker = self.guard.forgotten.maker_of(name, root)
        if maker is None or (not replaced and is_found(root + name)):
            return ""
        return self.made_elsewhere(operation, path, name, maker, "" if replaced else name)

    def made_elsewhere(self, operation: str, path: object, name: str, maker: Maker, awaited: str) -> str:
        """Record a look-up of ``name`` below ``/tmp``, which ``maker`` had made. Returns the remedy.

        ``awaited`` is where the invocation may still make it itself, "" for nowhere.
        """
        shown = self._shown(path)
        known = self.report.elsewhere_at(shown)
        if known is not None:
            return known.remedy
        caller = find_caller(shown, self._directory_or_none())
        keeps = caller.package if caller.named is None else ""
        remedy = remedies.made_elsewhere(TMP + name, maker, keeps)
        lookup = Violation(operation, shown, codes.ENOENT, *caller.origin, remedy)
        self.report.add_elsewhere(lookup, awaited)
        return remedy

    def settle(self, report: Report) -> None:
        """At the end of the invocation, drop the look-ups of files that it has created itself since."""
        if report.elsewhere and (root := self.namespace.root) is not None:
            report.settle(lambda name: is_found(root + name))

    def forget(self, real: str) -> None:
        """The invocation itself has removed ``real``, so later look-ups of it need no explanation."""
        root = self.mounted.directory
        if root is not None:
            self.guard.forgotten.discard(real[len(root) :].rstrip("/"))

    def stale(self, operation: str, path: object = None) -> OSError:
        """The ESTALE that a file operation for a finished invocation gets; recorded as late (C4.5)."""
        late = Violation(operation, self._shown(path), codes.ESTALE, *find_origin(), remedies.OVER)
        self._record(late, late=True)
        return _error(codes.ESTALE, path, None, remedies.OVER)

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

        Returns the remedy, for the note of that error. ``remedy`` and ``where`` are as in :class:`Details`.
        """
        shown = self._shown(path)
        caller = caller or find_caller(shown, self._directory_or_none())
        remedy = remedy or self._plain_remedy(operation, code, shown, where, caller)
        remedy = self._advice(operation, code, shown, remedy, caller)
        self._record(Violation(operation, shown, code, *caller.origin, remedy))
        return remedy

    def _record(self, violation: Violation, *, late: bool = False) -> None:
        self.report.add(violation, late=late)
        self.guard.journal.log(violation, late=late, refused=self.guard.enforce)

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
        """The working directory; "" if it was removed or the invocation is over."""
        try:
            return self.namespace.working_directory()
        except OSError:
            return ""

    def _plain_remedy(self, operation: str, code: int, path: str, where: Place | None, caller: Caller) -> str:
        """What to do instead of changing ``path`` (C2.4). ``where`` is the place it leads to, if known."""
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
        path = self.namespace.virtual_of(real.removesuffix(GONE))
        self._record(Violation(NATIVE_OVERRUN, path, codes.ENOSPC, *find_origin(), self.exceeded_remedy()))

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
