"""The WSGI middleware (PEP 3333): each request gets its own ``/tmp``.

Flask::

    from tmpguard.wsgi import TmpGuardMiddleware

    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, storage_size=64)

Any other WSGI application::

    application = TmpGuardMiddleware(application, storage_size=64)

The options are those of :class:`tmpguard.Guard`. Pass a guard that was built elsewhere as ``guard=``. An
invalid option raises :class:`tmpguard.ConfigurationError` when the middleware is built.

An invocation begins when the application is called and ends when the server calls ``close()`` on the body, or
when the application raises (C4.3). A body that is streamed from ``/tmp`` and the application's own
``close()`` still see the request's files. If ``close()`` is never called, as with some test clients, the
invocation ends when the body is garbage-collected.

The body that the server sees is always the guard's wrapper. A server that would send a ``wsgi.file_wrapper``
with ``sendfile`` therefore iterates over the wrapper instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from tmpguard.core.callers import request_edge
from tmpguard.core.context import finalizing, set_current
from tmpguard.core.invocation import Invocation, get_current

from .guard import Guard, guard_from

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TmpGuardMiddleware"]


class TmpGuardMiddleware:
    """Runs each request of ``app`` as an invocation of ``guard``, or of a guard built from the options.

    Raises ConfigurationError for an invalid option, or if both a guard and options are given (C3.1).
    """

    def __init__(self, app: WSGIApplication, *, guard: Guard | None = None, **options: Any) -> None:
        self.app = app
        self.guard = guard_from(guard, options)

    @request_edge
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        invocation = self.guard.invocation()
        before = get_current()
        set_current(invocation)
        try:
            iterable = self.app(environ, start_response)
        except BaseException:
            set_current(before)
            invocation.end()
            raise
        set_current(before)
        # A server that sees a body of length 1 derives Content-Length from its only part.
        if hasattr(iterable, "__len__"):
            return _SizedBody(iterable, invocation)
        return _Body(iterable, invocation)


class _Body:
    """The application's body. Each step runs within the invocation, and :meth:`close` ends the invocation.

    The invocation is bound anew for each step: between two steps the server's thread or greenlet may serve
    other requests, and the steps and ``close()`` may be called in different contexts.
    """

    __slots__ = ("_closed", "_invocation", "_iterable", "_next")

    def __init__(self, iterable: Iterable[bytes], invocation: Invocation) -> None:
        self._iterable = iterable
        self._invocation = invocation
        self._next: Callable[[], bytes] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        # The body is its own iterator, so that a server that keeps only the iterator keeps the body alive.
        # The application's iterator is created in the first step, to bind the invocation once for both. A
        # second iter() continues where the first one was, as an iterator's does: httpx calls it midway.
        if self._next is _exhausted:
            self._next = None
        return self

    @request_edge
    def __next__(self) -> bytes:
        before = get_current()
        set_current(self._invocation)
        try:
            step = self._next
            if step is None:
                step = self._next = iter(self._iterable).__next__
            return step()
        except StopIteration:
            self._next = _exhausted
            raise
        finally:
            set_current(before)

    @request_edge
    def close(self) -> None:
        """Call the application's ``close()`` within the invocation, then end the invocation. Idempotent.

        Raises what the application's ``close()`` raises; the invocation ends in any case.
        """
        if self._closed:
            return
        self._closed = True
        before = get_current()
        set_current(self._invocation)
        try:
            if hasattr(self._iterable, "close"):
                self._iterable.close()
        finally:
            self._drop()
            set_current(before)
            self._invocation.end()

    def __del__(self) -> None:
        # The application's close() is not called: it would not have been called without the guard either.
        if not self._closed:
            self._closed = True
            finalizing(self._invocation, self._drop)
            self._invocation.end()

    @request_edge
    def _drop(self) -> None:
        # Runs while the invocation is bound: dropping a generator runs its finally clauses, which belong to
        # the request.
        self._next = None
        self._iterable = ()


def _exhausted() -> bytes:
    """The step of an exhausted iterator."""
    raise StopIteration


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(cast("list[bytes]", self._iterable))
