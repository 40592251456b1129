"""The errors of a call: the kernel's, with the paths as the application gave them (C2.1, C7.1)."""

from __future__ import annotations

import os
from errno import EROFS
from typing import NoReturn

from tmpguard.core.callers import is_observer
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.table import Place
from tmpguard.core.spelling import spelled

from .given import Given
from .readonly import check_search


def reraise(exc: OSError, path: object) -> NoReturn:
    """Raise ``exc`` again with the caller's own spelling in place of the real path (C2.1, C7.1)."""
    exc.filename = spelled(path)
    try:
        raise exc
    finally:
        del exc  # it holds this frame, which would hold it: the caller's objects would wait for the collector


def reraise_both(exc: OSError, source: Given, target: Given) -> NoReturn:
    """The same for a call that takes two paths."""
    exc.filename, exc.filename2 = source.name, target.name
    try:
        raise exc
    finally:
        del exc


def reraise_nameless(exc: OSError) -> NoReturn:
    """The same for a call whose errors bear no path."""
    if exc.filename is not None:
        del exc.filename
    try:
        raise exc
    finally:
        del exc


def alive(invocation: Invocation, operation: str, path: object = None) -> None:
    """Before a change: raises OSError(ESTALE) when the invocation is over (C4.5)."""
    if invocation.ended:
        raise invocation.stale(operation, path)


def alive_to_read(invocation: Invocation, operation: str, given: Given) -> None:
    """Before a look: raises OSError(ESTALE) when the invocation is over and the path lies in its /tmp.

    The read-only rest can still be read: the printer of a traceback looks for the sources there.
    """
    if not invocation.ended or given.odd:
        return
    namespace = invocation.namespace
    virtual = os.path.normpath(os.path.join(namespace.working_directory(), given.text))
    if namespace.table.mount_of(virtual).charged and not is_observer():
        raise invocation.stale(operation, given.name)


def refuse(
    invocation: Invocation, operation: str, given: Given, where: Place, second: Given | None = None
) -> None:
    """Refuse a change outside the writable mounts with EROFS (C2.1).

    ``where`` is the place of ``second`` for a call that takes two paths.
    """
    invocation.refuse(operation, EROFS, given.name, None if second is None else second.name, where=where)


def stop(
    invocation: Invocation,
    operation: str,
    code: int,
    given: Given,
    where: Place,
    second: Given | None = None,
) -> None:
    """Raise what the kernel says; only EROFS is a refusal of ours and on the report."""
    if code:
        check_search(where)  # whether it may be searched is asked first
    if code == EROFS:
        refuse(invocation, operation, given, where, second)
    elif code:
        raise os_error(code)
