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

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NoReturn, Unpack, cast

from tmpguard.core.callers import request_edge
from tmpguard.core.context import finalizing, set_current
from tmpguard.core.invocation import Invocation
from tmpguard.core.speedups import END, MiddlewareFields, Steps, begin

from .config.interface import check_wrapped, no_attribute
from .config.options import Options
from .guard import Guard, guard_from
from .reporting import routes

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["TmpGuardMiddleware"]


class TmpGuardMiddleware(MiddlewareFields):
    """Runs each request of ``app`` as an invocation of ``guard``, or of a guard built from the options.

    Raises ConfigurationError for an invalid option, or if both a guard and options are given (C3.1).
    """

    def __init__(
        self, app: WSGIApplication, *, guard: Guard | None = None, **options: Unpack[Options]
    ) -> None:
        check_wrapped(app, "wsgi")
        self.app = app
        self.guard: Guard = guard_from(guard, options)

    if not TYPE_CHECKING:  # it would hide each misspelled attribute from a type checker

        def __getattr__(self, name: str) -> NoReturn:
            app = None if name == "app" else self.app
            raise no_attribute(self, app, name, "set app.wsgi_app = TmpGuardMiddleware(app.wsgi_app)")

    @request_edge
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        app, invocation, before = begin(self)
        try:
            iterable = app(environ, start_response)
        except BaseException:
            set_current(before)
            _note(invocation, app, environ)
            invocation.end()
            raise
        set_current(before)
        if invocation.guard.on_report is not None:
            _note(invocation, app, environ)
        # A server that sees a body of length 1 derives Content-Length from its only part.
        if hasattr(iterable, "__len__"):
            return _SizedBody(iterable, invocation)
        return _Body(iterable, invocation)


def _note(invocation: Invocation, app: WSGIApplication, environ: WSGIEnvironment) -> None:
    if invocation.guard.on_report is not None:
        routes.note(invocation.report, routes.of_wsgi, app, environ)


class _Body(Steps):
    """The application's body. Each step runs within the invocation, and :meth:`close` ends the invocation.

    The invocation is bound anew for each step: between two steps the server's thread or greenlet may serve
    other requests, and the steps and ``close()`` may be called in different contexts.
    """

    __slots__ = ()

    @request_edge
    def __iter__(self) -> Iterator[bytes]:
        # A generator, because its steps and its end cost half as much as a method's. It keeps the body alive
        # if the server holds only the iterator; the body does not keep the generator alive. A second
        # generator continues where the first one stopped, like an iterator: httpx asks for one midway.
        if self._iterator is _EXHAUSTED:
            self._iterator = None
        while (part := self._step()) is not END:
            yield part

    @request_edge
    def __next__(self) -> bytes:
        """The next part, for callers that never call ``iter()``."""
        if self._iterator is _EXHAUSTED:
            raise StopIteration
        for part in self:
            return part
        self._iterator = _EXHAUSTED
        raise StopIteration

    @request_edge
    def close(self) -> None:
        """Call the application's ``close()`` within the invocation, then end the invocation. Idempotent.

        Raises what the application's ``close()`` raises; the invocation ends in any case.
        """
        self._finish()

    def _abandon(self) -> None:
        # The application's close() is not called: it would not have been called without the guard either.
        finalizing(self._invocation, self._drop)
        self._invocation.end()

    @request_edge
    def _drop(self) -> None:
        self._iterator = None
        self._iterable = ()


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(cast("list[bytes]", self._iterable))


#: The iterator of a body that has been read to its end.
_EXHAUSTED: Final[Iterator[bytes]] = iter(())
