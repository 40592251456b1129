"""The Django middleware: each request gets its own ``/tmp``.

::

    MIDDLEWARE = ["tmpguard.django.TmpGuardMiddleware", ...]  # put it first
    TMPGUARD = {"storage_size": 64}

``TMPGUARD`` takes the options of :class:`tmpguard.Guard` by name, or ``{"guard": guard}`` for a guard that
was built elsewhere. Without it, the defaults apply. All middlewares of a process with the same settings share
one guard.

If ``INSTALLED_APPS`` has ``"tmpguard"``, ``manage.py check`` reports an invalid option (``tmpguard.E001``), a
middleware that is missing (``W001``) or not the first (``W002``), and a misspelled setting (``W003``). An
invalid option also raises ``ImproperlyConfigured`` when the middleware is built.

An invocation begins with the first middleware and ends in ``response.close()``, after Django has closed the
resources of the response (C4.3). Streaming bodies (sync and async) and ``FileResponse`` can therefore read
the request's files, and the request's uploads are closed before the invocation ends. If ``close()`` is never
called, the invocation ends when the response is garbage-collected. If the view is cancelled, it ends with
the view.

Under ASGI, Django receives the whole request body, and spools a large one to disk, before it calls the first
middleware. To count that too, wrap ``get_asgi_application()`` in :class:`tmpguard.asgi.TmpGuardMiddleware`
instead.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from tmpguard.core import real
from tmpguard.core.callers import request_edge
from tmpguard.core.context import activate, deactivate, finalizing, restore
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation

from .config.options import Options
from .guard import Guard, guard_from
from .reporting import routes

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

__all__ = ["TmpGuardMiddleware"]

logger = logging.getLogger("tmpguard")


class TmpGuardMiddleware:
    """Runs each request as an invocation of the guard of ``settings.TMPGUARD``, in sync and async stacks.

    ``guard`` overrides the settings. Raises ImproperlyConfigured for an invalid option (C3.1).
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any], *, guard: Guard | None = None) -> None:
        try:
            self.guard: Guard = guard or _guard_of_settings()
        except ConfigurationError as exc:
            raise ImproperlyConfigured(f"settings.TMPGUARD: {exc}") from exc
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    @request_edge
    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._call_async(request)
        invocation = self.guard.invocation()
        before = activate(invocation)
        try:
            response = self.get_response(request)
            self._note(invocation, request)
            return _keep_until_closed(response, invocation)
        except BaseException:
            invocation.end()
            raise
        finally:
            deactivate(before)

    @request_edge
    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        invocation = self.guard.invocation()
        before = activate(invocation)
        try:
            awaitable: Awaitable[Any] = self.get_response(request)
            response = await awaitable
            self._note(invocation, request)
            return _keep_until_closed(response, invocation)
        except BaseException:
            invocation.end()
            raise
        finally:
            restore(invocation, before)

    def _note(self, invocation: Invocation, request: HttpRequest) -> None:
        if self.guard.on_report is not None:
            routes.note(invocation.report, routes.of_django, request)


# --- the end of a response -----------------------------------------------------------------------------


def _keep_until_closed(response: HttpResponseBase, invocation: Invocation) -> HttpResponseBase:
    """End the invocation in ``response.close()``, and iterate over the body within the invocation."""
    body: _Steps | _AsyncSteps | None = None
    if getattr(response, "streaming", False):
        # The public setter would drop the file of a FileResponse and add a second closer.
        steps = _AsyncSteps if response.is_async else _Steps
        body = response._iterator = steps(response._iterator, invocation)
    response.close = _Close(response, invocation, body)
    return response


class _Close:
    """Replaces ``response.close``: calls Django's own within the invocation, then ends the invocation."""

    __slots__ = ("_body", "_closed", "_closers", "_invocation", "_original")

    def __init__(
        self, response: HttpResponseBase, invocation: Invocation, body: _Steps | _AsyncSteps | None
    ) -> None:
        self._invocation = invocation
        # The interpreter decides in which order the attributes of a dropped response go. Whatever holds a
        # generator is therefore held here too, and dropped before the invocation ends.
        self._body = body
        self._closers = getattr(response, "_resource_closers", None)
        self._closed = False
        # Held weakly, so that a dropped response is collected at once. The exception is a FileResponse: its
        # only remaining reference may be its file's close(), which Django replaces with this one.
        self._original: Callable[[], Callable[[], None] | None]
        close = response.close
        if getattr(response, "file_to_stream", None) is None and hasattr(close, "__self__"):
            self._original = weakref.WeakMethod(close)
        else:
            self._original = lambda: close

    @request_edge
    def __call__(self) -> None:
        if self._closed:
            return
        self._closed = True
        before = activate(self._invocation)
        try:
            close = self._original()
            if close is not None:
                close()
        finally:
            deactivate(before)
            self._original = lambda: None
            self._finish()

    def __del__(self) -> None:
        if self._closed:
            return
        if isinstance(self._body, _Steps):
            finalizing(self._invocation, self._drop)
        self._finish()

    @request_edge
    def _drop(self) -> None:
        self._body = self._closers = None

    def _finish(self) -> None:
        if isinstance(self._body, _AsyncSteps):
            self._body.finish()
        else:
            self._invocation.end()


class _Steps:
    """The iterator of a streaming response. Each step runs within the invocation."""

    __slots__ = ("_invocation", "_iterator")

    def __init__(self, iterator: Iterator[Any], invocation: Invocation) -> None:
        self._iterator = iterator
        self._invocation = invocation

    def __iter__(self) -> Iterator[Any]:
        return self

    @request_edge
    def __next__(self) -> Any:
        before = activate(self._invocation)
        try:
            return next(self._iterator)
        finally:
            deactivate(before)

    def __del__(self) -> None:
        # A generator that was never closed runs its finally clauses when it is dropped: within the
        # invocation.
        finalizing(self._invocation, self._drop)

    @request_edge
    def _drop(self) -> None:
        del self._iterator


class _AsyncSteps:
    """The async iterator of a streaming response. Each step, and its closing, runs within the invocation.

    Django drops an async generator that the client did not read to its end, and the event loop closes it
    some time later. Its finally clauses are the application's code. So the generator is closed here first,
    and the invocation ends after that.
    """

    __slots__ = ("_invocation", "_iterator", "_loop", "_over")

    def __init__(self, iterator: AsyncIterator[Any], invocation: Invocation) -> None:
        self._iterator = iterator
        self._invocation = invocation
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    @request_edge
    async def __anext__(self) -> Any:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        before = activate(self._invocation)
        try:
            return await self._iterator.__anext__()
        except StopAsyncIteration:
            self._over = True
            raise
        finally:
            restore(self._invocation, before)

    def finish(self) -> None:
        """End the invocation: at once, or once a generator that was not exhausted is closed.

        May be called from any thread. Never raises.
        """
        if self._over or self._loop is None or not hasattr(self._iterator, "aclose"):
            self._invocation.end()
            return
        try:
            self._loop.call_soon_threadsafe(self._start_closing)
        except RuntimeError:  # the loop is closed, so the generator will never run again
            self._invocation.end()

    def _start_closing(self) -> None:
        task = asyncio.ensure_future(self._close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    @request_edge
    async def _close(self) -> None:
        before = activate(self._invocation)
        try:
            await self._iterator.aclose()  # type: ignore[attr-defined]
        except Exception:
            logger.exception("tmpguard: failed to close the body of a response that was not read to its end")
        finally:
            restore(self._invocation, before)
            self._invocation.end()


#: The event loop holds only weak references to its tasks.
_closing: Final[set[asyncio.Future[None]]] = set()


# --- settings ------------------------------------------------------------------------------------------

_lock: Final = real.RLock()
_shared: tuple[str, Mapping[str, Any], Guard] | None = None


def _guard_of_settings() -> Guard:
    """The guard of ``settings.TMPGUARD``. All callers share one as long as the settings stay the same.

    Raises ConfigurationError.
    """
    global _shared
    options = getattr(settings, "TMPGUARD", {})
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ConfigurationError(
            f"TMPGUARD={options!r} is not a dictionary of options: give a dict, or leave it out"
        )
    # Compared as text: 1 and True are equal, but only 1 is a storage size. Objects whose repr() shows their
    # address are kept alive together with the guard.
    key = repr(options)
    with _lock:
        if _shared is None or _shared[0] != key:
            given = dict(options)
            guard = given.pop("guard", None)
            _shared = (key, dict(options), guard_from(guard, cast("Options", given)))
        return _shared[2]


#: The class as ``MIDDLEWARE`` names it.
_NAME: Final = "tmpguard.django.TmpGuardMiddleware"


def check_settings(app_configs: object = None, **kwargs: object) -> list[CheckMessage]:
    """The system checks: ``tmpguard.E001`` for each invalid option in ``settings.TMPGUARD`` (C3.1), and
    warnings about a middleware or settings that have no effect, or not the one that was meant."""
    found: list[CheckMessage] = []
    try:
        _guard_of_settings()
    except ConfigurationError as exc:
        found.append(Error(f"settings.TMPGUARD: {exc}", id="tmpguard.E001"))
    return [*found, *_check_middleware(), *_check_names()]


def _check_middleware() -> Iterator[CheckMessage]:
    middleware = list(getattr(settings, "MIDDLEWARE", None) or ())
    if _NAME not in middleware:
        yield Warning(
            "tmpguard is installed, but its middleware is not in MIDDLEWARE.",
            hint=f'No request is guarded. Put "{_NAME}" first in MIDDLEWARE, unless '
            "tmpguard.asgi.TmpGuardMiddleware or tmpguard.wsgi.TmpGuardMiddleware wraps the application.",
            id="tmpguard.W001",
        )
    elif middleware.index(_NAME):
        yield Warning(
            "The middleware of tmpguard is not the first in MIDDLEWARE.",
            hint=f"The middlewares before it are not guarded. Put {_NAME!r} first.",
            id="tmpguard.W002",
        )


def _check_names() -> Iterator[CheckMessage]:
    for name in dir(settings):
        if name != "TMPGUARD" and name.replace("_", "") == "TMPGUARD":
            yield Warning(
                f"settings.{name} has no effect.", hint="The setting is named TMPGUARD.", id="tmpguard.W003"
            )


register(check_settings, "tmpguard")
