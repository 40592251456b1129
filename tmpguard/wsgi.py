"""The WSGI middleware (PEP 3333): each request gets its own ``/tmp``.

Flask::

    from tmpguard.wsgi import TmpGuardMiddleware

    app.wsgi_app = TmpGuardMiddleware(app.wsgi_app, storage_size=64)

Any other WSGI application::

    application = TmpGuardMiddleware(application, storage_size=64)

The options are those of :class:`tmpguard.Guard`; a guard that was built elsewhere goes in as ``guard=``. A
wrong option raises :class:`tmpguard.ConfigurationError` when the middleware is built.

An invocation begins with the call of the application and ends when the server calls ``close()`` on the body,
or when the application raises (C4.3): a body that is streamed from ``/tmp`` and the application's own
``close()`` still see the request's files. Where a client never calls ``close()``, as test clients may, the
invocation ends when the body is collected.

The body that the server sees is always the guard's. So a server that sends a ``wsgi.file_wrapper`` by
``sendfile`` iterates over it instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from tmpguard.core.context import finalizing, set_current
from tmpguard.core.invocation import Invocation, get_current

from .guard import Guard, guard_from

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TmpGuardMiddleware"]


class TmpGuardMiddleware:
    """Runs each request of ``app`` as an invocation of ``guard``, or of a guard built from the options.

    Raises ConfigurationError for a wrong option, and where both a guard and options are given (C3.1).
    """

    def __init__(self, app: WSGIApplication, *, guard: Guard | None = None, **options: Any) -> None:
        self.app = app
        self.guard = guard_from(guard, options)

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
        # Servers take a body of one part as the whole and derive Content-Length from it.
        if hasattr(iterable, "__len__"):
            return _SizedBody(iterable, invocation)
        return _Body(iterable, invocation)


class _Body:
    """The application's body; each step of it runs for the invocation, which :meth:`close` ends.

    The invocation is bound anew for each step, since between two of them the server's thread or greenlet may
    serve others, and since the steps and the close may be called in different contexts.
    """

    __slots__ = ("_closed", "_invocation", "_iterable", "_next")

    def __init__(self, iterable: Iterable[bytes], invocation: Invocation) -> None:
        self._iterable = iterable
        self._invocation = invocation
        self._next: Callable[[], bytes] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        # The body is its own iterator: a server that keeps only that must not have the body collected. The
        # application's iterator is made in the first step, to bind the invocation once for both. And it goes
        # on where it was, since an iterator's own iter() does: httpx asks for it again in the middle.
        if self._next is _exhausted:
            self._next = None
        return self

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

    def close(self) -> None:
        """Call the application's ``close()`` for the invocation, then end it; the second time do nothing.

        Raises what the application's ``close()`` raises; the invocation ends all the same.
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
        # The application's close() is not called: without the guard it would not have been either.
        if not self._closed:
            self._closed = True
            finalizing(self._invocation, self._drop)
            self._invocation.end()

    def _drop(self) -> None:
        # While the invocation is bound: what Python itself runs then, a generator's finally clause, is the
        # request's.
        self._next = None
        self._iterable = ()


def _exhausted() -> bytes:
    """Stands for the step of an iterator that is at its end."""
    raise StopIteration


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(cast("list[bytes]", self._iterable))
