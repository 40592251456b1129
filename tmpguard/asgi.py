"""The ASGI middleware: each HTTP request and each WebSocket connection gets its own ``/tmp``.

Starlette and FastAPI::

    from tmpguard.asgi import TmpGuardMiddleware

    app.add_middleware(TmpGuardMiddleware, storage_size=64)

Any other ASGI application, Django's and Quart's included::

    application = TmpGuardMiddleware(application, storage_size=64)

The options are those of :class:`tmpguard.Guard`. Pass a guard that was built elsewhere as ``guard=``. An
invalid option raises :class:`tmpguard.ConfigurationError` when the middleware is built.

An invocation begins when the application is called and ends when that call returns, raises or is cancelled
(C4.3). Streamed bodies and background tasks still see the request's files; a client that disconnects does not
keep them alive. A WebSocket connection is one invocation for as long as it is open. Lifespan scopes, and any
other scope that a server may send, pass through: start-up code uses the real file system (C6.4). Pending
wipes are finished at the end of the lifespan.

``lifespan=True`` also guards start-up and shutdown. The whole lifespan is then one invocation, like that of
:func:`tmpguard.cold_start`. It has its own ``/tmp``: no request sees what was written there. Tasks and
threads that the start-up leaves running belong to the lifespan and keep its files until the shutdown is
complete.

An async generator that is not exhausted is left to the garbage collector, and its event loop closes it some
time later. It is closed within the request that started it. If that request is over, its ``finally`` clauses
get ESTALE; they never reach the real file system or another request's files.

Make it the outermost middleware by adding it after all other calls of ``add_middleware``, so that the other
middlewares are guarded too. What the server does before it calls the application is not guarded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from tmpguard.core.asyncgens import Abandoned
from tmpguard.core.callers import request_edge
from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports.delivery import drain
from tmpguard.core.speedups import MiddlewareFields, begin, finish, generator_finalizer, is_usual

from .config.interface import check_wrapped, no_attribute
from .config.options import Options
from .guard import Guard, cold_start, guard_from
from .reporting import routes

__all__ = ["TmpGuardMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Asks the server to open a path and send the file. The server would open it outside the invocation.
_PATHSEND = "http.response.pathsend"

#: Seconds to wait for the wipes when a server shuts down.
_PATIENCE = 10


class TmpGuardMiddleware(MiddlewareFields):
    """Runs each request of ``app`` as an invocation of ``guard``, or of a guard built from the options.

    With ``lifespan=True``, start-up and shutdown are guarded as well, as an invocation of their own.

    Raises ConfigurationError for an invalid option, or if both a guard and options are given (C3.1).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Guard | None = None,
        lifespan: bool = False,
        **options: Unpack[Options],
    ) -> None:
        check_wrapped(app, "asgi")
        self.app = app
        if not isinstance(lifespan, bool):
            raise ConfigurationError(f"lifespan={lifespan!r} is neither True nor False")
        self.lifespan = lifespan
        self.guard: Guard = guard_from(guard, options)

    if not TYPE_CHECKING:  # it would hide each misspelled attribute from a type checker

        def __getattr__(self, name: str) -> NoReturn:
            app = None if name == "app" else self.app
            raise no_attribute(self, app, name, "call app.add_middleware(TmpGuardMiddleware)")

    @request_edge
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_usual(scope, Abandoned):
            kind = scope["type"]
            if kind != "http" and kind != "websocket":
                await (self._live if kind == "lifespan" else self.app)(scope, receive, send)
                return
            if "extensions" in scope and self.guard.enforce:
                scope = _without_pathsend(scope)
            if type(generator_finalizer()) is not Abandoned:
                Abandoned.install()
        app, invocation, before = begin(self)
        try:
            await app(scope, receive, send)
        finally:
            if not finish(invocation, before):
                if invocation.guard.on_report is not None:
                    routes.note(invocation.report, routes.of_asgi, app, scope)
                invocation.end()

    @request_edge
    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan: unguarded, or as an invocation of its own."""
        if not self.lifespan:
            await self.app(scope, receive, self._tidying(send, None, keep=_is_of_one_call(receive)))
            return
        start = cold_start(guard=self.guard)
        try:
            with start.bound():
                await self.app(scope, receive, self._tidying(send, start, keep=_is_of_one_call(receive)))
        finally:
            start.end()

    def _tidying(self, send: Send, start: Invocation | None, *, keep: bool) -> Send:
        """``send``, but finish the wipes before the server learns that the shutdown is complete.

        After that, uvicorn is killed by the signal that stopped it, and Python's exit handlers do not run.
        The instance ends, too, unless ``keep``.
        """

        async def finish(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                if start is not None:
                    start.end()
                drain(_PATIENCE)
                if not keep:
                    self.guard.end_instance()
                with unguarded():  # the lifespan's invocation is the current one here
                    self.guard.scratch.release()
            await send(message)

        return finish


def _is_of_one_call(receive: Receive) -> bool:
    """Whether the lifespan is that of a single call: Mangum runs one around each call of a Lambda function,
    and the instance goes on."""
    caller = getattr(receive, "__self__", None)
    return type(caller).__module__.partition(".")[0] == "mangum"


def _without_pathsend(scope: Scope) -> Scope:
    extensions = scope["extensions"]
    if not extensions or _PATHSEND not in extensions:
        return scope
    kept = {name: value for name, value in extensions.items() if name != _PATHSEND}
    return {**scope, "extensions": kept}
