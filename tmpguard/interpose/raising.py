"""The errors of a call: the kernel's, with the paths as the application gave them (C2.1, C7.1)."""

from __future__ import annotations

import os
from errno import ENOENT, ENOSPC, EROFS
from typing import NoReturn

from tmpguard.core.callers import is_observer
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import TMP, is_below
from tmpguard.core.mounts.table import Place
from tmpguard.core.real import monotonic
from tmpguard.core.reports.remedies import add_note, note_full_disk
from tmpguard.core.spelling import spelled

from .given import Given
from .readonly import check_search


def reraise(exc: OSError, path: object, operation: str = "", *, making: bool = False) -> NoReturn:
    """Raise ``exc`` again with the path as the caller spelled it in place of the real path (C2.1, C7.1).

    With an ``operation``, a note explains a missing file that another invocation had created (C7.4).
    ``making`` says whether the call was going to create ``path``.
    """
    if exc.errno == ENOENT and operation:
        _explain(exc, operation, path, exc.filename, making=making)
    elif exc.errno == ENOSPC:
        note_full_disk(exc)
    if _is_about_paths(exc):
        exc.filename = spelled(path)
    try:
        raise exc
    finally:
        del exc  # breaks the cycle of exception and frame, which would keep the caller's objects alive


def spell_look(invocation: Invocation, exc: OSError, path: object, operation: str) -> None:
    """Like :func:`reraise`, for a call that only looks at ``path`` and found the real path by its text alone.

    The caller raises ``exc`` again. If the scratch directory was taken away, nothing is at ``path`` in any
    case: the next call that needs the directory creates it again (C4.6).
    """
    if exc.errno == ENOENT and not invocation.ended:
        guard = invocation.guard
        forgotten = guard.forgotten
        if path not in forgotten.nowhere or monotonic() >= forgotten.expires or guard.scratch.is_shared():
            add_note(exc, missing(invocation, operation, path, exc.filename))
    if _is_about_paths(exc):
        exc.filename = path


def reraise_both(exc: OSError, source: Given, target: Given, operation: str = "") -> NoReturn:
    """Like :func:`reraise`, for a call that takes two paths and creates ``target``."""
    if exc.errno == ENOENT and operation and not _explain(exc, operation, source.name, exc.filename):
        _explain(exc, operation, target.name, exc.filename2, making=True)
    if _is_about_paths(exc):
        exc.filename, exc.filename2 = source.name, target.name
    try:
        raise exc
    finally:
        del exc


def reraise_nameless(exc: OSError) -> NoReturn:
    """Like :func:`reraise`, for a call whose errors contain no path."""
    if exc.filename is not None:
        del exc.filename
    try:
        raise exc
    finally:
        del exc


def _is_about_paths(exc: OSError) -> bool:
    """Whether ``exc`` may get a path. One without a number no longer shows its message then.

    Such errors are raised by a signal handler meanwhile, for example ``TimeoutError("late")``.
    """
    return exc.errno is not None


def _explain(exc: OSError, operation: str, path: object, real: object, *, making: bool = False) -> bool:
    """Add a note to ``exc``, an ENOENT, if another invocation had created ``path`` (C7.4). False if not."""
    invocation = get_current()
    if invocation is None or invocation.ended:
        return False
    remedy = missing(invocation, operation, path, real, making=making)
    add_note(exc, remedy)
    return bool(remedy)


def missing(
    invocation: Invocation, operation: str, path: object, real: object = None, *, making: bool = False
) -> str:
    """The remedy for a missing ``path`` that another invocation had created, otherwise "" (C7.4).

    ``real`` is its real path, if that is known.
    """
    namespace = invocation.namespace
    root = namespace.root
    if root is None:
        return ""
    if isinstance(real, (str, bytes)) and is_below(text := os.fsdecode(real), root):
        name = text[len(root) :]
    else:
        try:
            text = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            return ""
        virtual = os.path.normpath(os.path.join(namespace.working_directory(), text))
        if namespace.table.mount_of(virtual) is not namespace.table.scratch:
            return ""
        name = virtual[len(TMP) :]
    return invocation.missing(operation, path, name.rstrip("/"), making=making)


def alive(invocation: Invocation, operation: str, path: object = None) -> None:
    """Raise OSError(ESTALE) if the invocation is over. For changes (C4.5)."""
    if invocation.ended:
        raise invocation.stale(operation, path)


def alive_to_read(invocation: Invocation, operation: str, given: Given) -> None:
    """Raise OSError(ESTALE) if the invocation is over and the path is in its /tmp. For reads (C4.5).

    The read-only file systems can still be read: tracebacks show source files from there.
    """
    if not invocation.ended or given.odd:
        return
    namespace = invocation.namespace
    virtual = os.path.normpath(os.path.join(namespace.working_directory(), given.text))
    if namespace.table.mount_of(virtual).charged and not is_observer():
        raise invocation.stale(operation, given.name)


def refuse(
    invocation: Invocation, operation: str, given: Given, where: Place, second: Given | None = None
) -> NoReturn:
    """Refuse a change outside the writable mounts with EROFS (C2.1).

    ``where`` is the place of ``second`` for a call that takes two paths.
    """
    also = None if second is None else second.name
    raise invocation.refusal(operation, EROFS, given.name, also, where=where)


def raise_or_refuse(
    invocation: Invocation,
    operation: str,
    code: int,
    given: Given,
    where: Place,
    second: Given | None = None,
) -> None:
    """Raise OSError with the kernel's errno ``code``; 0 raises nothing.

    Only EROFS is a refusal and goes into the report.
    """
    if code:
        check_search(where)  # EACCES comes first
    if code == EROFS:
        refuse(invocation, operation, given, where, second)
    elif code:
        raise os_error(code)
