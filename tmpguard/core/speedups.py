"""The steps that every request pays for: in C where the extension was built, otherwise in Python.

The extension, ``_speedups.c``, is optional (docs/costs.md has what it brings). Both do the same and pass the
same tests. With the environment variable ``TMPGUARD_NO_EXTENSION`` set, the extension is neither built nor
used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from .context import get_current, set_current

#: The revision of the extension that this module fits: another one was built from other sources.
_REVISION: Final = 6


def _find_extension() -> ModuleType | None:
    if os.environ.get("TMPGUARD_NO_EXTENSION"):
        return None
    try:
        from . import _speedups
    except ImportError:  # it was not built, or this is not the interpreter that loaded it first
        return None
    return _speedups if _speedups.REVISION == _REVISION else None


#: The extension; None if it is not used.
extension: Final[Any] = _find_extension()


# --- fields that the extension reads --------------------------------------------------------------------


class KnownFields:
    """The fields of :class:`~.mounts.known.Known` that the quick calls need."""

    __slots__ = ("expires", "paths", "process_directory", "relative")

    expires: float
    paths: set[str]
    process_directory: str | None
    relative: set[str]


class TableFields:
    """The fields of :class:`~.mounts.table.MountTable` that the quick calls need."""

    __slots__ = ("known", "tails")

    known: Any
    tails: dict[str, str]


class PolicyFields:
    """The fields of :class:`~.policy.Policy` that a request begins with."""

    #: The mount table, unless the guard only watches: then Python code has to look at each call.
    quick_table: Any
    #: The function behind the method ``invocation`` that makes a plain :class:`~.invocation.Invocation`; None
    #: if the guard's invocations are others.
    plain_invocation: Callable[..., Any] | None
    #: False if the guard only watches.
    enforce: bool
    #: Called with each finished report on a background thread; None for no callback.
    on_report: Callable[[Any], object] | None


class InvocationFields:
    """The fields of :class:`~.invocation.Invocation` that every request needs."""

    guard: Any
    #: True once the invocation is over.
    ended: bool = False
    #: True as soon as something is about to be mounted.
    touched: bool = False


class MiddlewareFields:
    """The fields of a middleware: the application that it wraps, and its guard."""

    app: Any
    guard: Any


# --- a request begins and ends --------------------------------------------------------------------------


def begin(middleware: Any) -> tuple[Any, Any, Any]:
    """Begin an invocation of the middleware's guard and make it the current one.

    Returns the application that the middleware wraps, the invocation, and what was current before.
    """
    # Each attribute once: they are found slowly, because the middlewares have a __getattr__().
    app, invocation = middleware.app, middleware.guard.invocation()
    before = get_current()
    set_current(invocation)
    return app, invocation, before


def finish(invocation: Any, before: object) -> bool:
    """Restore what was current ``before``, if ``invocation`` still is, and end it if that takes nothing.

    Returns False if ``invocation`` must still be ended: files were used, or somebody waits for the report.
    """
    if get_current() is invocation:  # otherwise an abandoned coroutine is closed in another context
        set_current(before)
    return False  # there is the call of end(), which decides the same


def generator_finalizer() -> object:
    """This thread's finalizer of async generators (PEP 525), or None."""
    return sys.get_asyncgen_hooks().finalizer


def is_usual(scope: Any, finalizer: type) -> bool:
    """Whether an ASGI application is called as servers usually call it: the scope is one of HTTP or a
    WebSocket, in which the server does not offer to send files (``http.response.pathsend``), and this
    thread's finalizer of async generators is a ``finalizer`` already.

    False if Python code has to look.
    """
    return False


# --- the body of a WSGI response ------------------------------------------------------------------------

#: What :meth:`Steps._step` returns at the end of the body.
END: Any = object()


class Steps:
    """The application's body: each step, and its end, runs within the invocation.

    A derived class has the method ``_abandon``, which ends the invocation of a body that was dropped without
    being closed.
    """

    __slots__ = ("_invocation", "_iterable", "_iterator", "_over")

    def __init__(self, iterable: Iterable[bytes], invocation: Any) -> None:
        self._iterable = iterable
        self._invocation = invocation
        #: The application's iterator. Created in the first step, to bind the invocation only once for both.
        self._iterator: Iterator[bytes] | None = None
        self._over = False

    def _step(self) -> bytes:
        """The next part, or :data:`END`."""
        before = get_current()
        set_current(self._invocation)
        try:
            if self._iterator is None:
                self._iterator = iter(self._iterable)
            part: bytes = next(self._iterator, END)
        finally:
            set_current(before)
        if part is END:
            self._iterator = None
        return part

    def _finish(self) -> None:
        """Call the application's ``close()`` within the invocation, then end the invocation. Idempotent.

        Raises what the application's ``close()`` raises; the invocation ends in any case.
        """
        if self._over:
            return
        self._over = True
        before = get_current()
        set_current(self._invocation)
        try:
            getattr(self._iterable, "close", lambda: None)()
        finally:
            # Within the invocation: dropping a generator runs its finally clauses, which belong to the
            # request.
            self._iterator = None
            self._iterable = ()
            set_current(before)
            self._invocation.end()

    def __del__(self) -> None:
        if not self._over:
            self._over = True
            self._abandon()

    def _abandon(self) -> None:
        raise NotImplementedError


# --- the search for references ---------------------------------------------------------------------------


class Sought:
    """Objects that are looked for in namespaces, by their ``ids``. No attribute of any object is accessed."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = frozenset(ids)

    def is_in(self, namespace: dict[str, Any]) -> bool:
        """Whether one of them is a value of ``namespace``."""
        return not self._ids.isdisjoint(map(id, namespace.values()))


# --- the quick calls ------------------------------------------------------------------------------------


def configure(variable: object, plain: type, no_volume: object) -> None:
    """Tell the extension the context variable of the current invocation, the class of a plain invocation,
    and what the ``mounted`` of one is that has accessed no files."""
    if extension is not None:
        extension.configure(variable, plain, no_volume)


def set_ready(ready: bool) -> None:
    """Everything that an invocation needs is installed, or no longer is."""
    if extension is not None:
        extension.set_ready(ready)


def add_audit_hook(function: Callable[[str, tuple[Any, ...]], None], changing: int) -> None:
    """Call ``function`` for each audit event from now on.

    The extension does so only within an invocation, for the events that may be changes, and not for an
    ``open`` with none of the flags in ``changing``.
    """
    if extension is not None:
        extension.add_audit_hook(function, changing)
    else:
        sys.addaudithook(function)


if extension is not None and not TYPE_CHECKING:
    KnownFields = extension.KnownFields
    TableFields = extension.TableFields
    PolicyFields, InvocationFields = extension.PolicyFields, extension.InvocationFields
    MiddlewareFields = extension.MiddlewareFields
    begin, finish = extension.begin, extension.finish
    generator_finalizer, is_usual = extension.generator_finalizer, extension.is_usual
    END, Steps = extension.END, extension.Steps
    Sought = extension.Sought
