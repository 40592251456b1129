"""The Django middleware: each request gets its own ``/tmp``.

::

    MIDDLEWARE = ["tmpguard.django.TmpGuardMiddleware", ...]  # put it first
    TMPGUARD = {"storage_size": 64}

``TMPGUARD`` takes the options of :class:`tmpguard.Guard` by name, or ``{"guard": guard}`` for a guard that
was built elsewhere. Without it, the defaults apply. All middlewares of a process with the same settings share
one guard.

The system check ``tmpguard.E001`` reports an invalid option. It is registered when this module is imported;
``INSTALLED_APPS = ["tmpguard.django", ...]`` imports it before ``manage.py check`` runs. An invalid option
also raises ``ImproperlyConfigured`` when the middleware is built.

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
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.checks import Error, register
from django.core.exceptions import ImproperlyConfigured

from tmpguard.core.callers import request_edge
from tmpguard.core.context import activate, deactivate, finalizing, restore
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation

from .guard import Guard, guard_from

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
            self.guard = guard or _guard_of_settings()
        except ConfigurationError as exc:
            raise ImproperlyConfigured(f"settings.TMPGUARD: {exc}") from exc
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    @request_edge
    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._call_async(request)
        invocation = self.guard.invocation()
        before = activate(invocation)
        try:
            return _keep_until_closed(self.get_response(request), invocation)
        except BaseException:
            invocation.end()
            raise
        finally:
            deactivate(before)

    @request_edge
    async def _call_async(self, request: Any) -> Any:
        invocation = self.guard.invocation()
        before = activate(invocation)
        try:
            response: Awaitable[Any] = self.get_response(request)
            return _keep_until_closed(await response, invocation)
        except BaseException:
            invocation.end()
            raise
        finally:
            restore(invocation, before)


# --- the end of a response -----------------------------------------------------------------------------


def _keep_until_closed(response: Any, invocation: Invocation) -> Any:
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

    def __init__(self, response: Any, invocation: Invocation, body: _Steps | _AsyncSteps | None) -> None:
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
            logger.exception("failed to close the body of a response that was not read to its end")
        finally:
            restore(self._invocation, before)
            self._invocation.end()


#: The event loop holds only weak references to its tasks.
_closing: Final[set[asyncio.Future[None]]] = set()


# --- settings ------------------------------------------------------------------------------------------

_lock: Final = threading.Lock()
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
            _shared = (key, dict(options), guard_from(given.pop("guard", None), given))
        return _shared[2]


def check_settings(app_configs: object = None, **kwargs: object) -> list[Error]:
    """The system check ``tmpguard.E001``: every option in ``settings.TMPGUARD`` is valid (C3.1)."""
    try:
        _guard_of_settings()
    except ConfigurationError as exc:
        return [Error(f"settings.TMPGUARD: {exc}", id="tmpguard.E001")]
    return []


register(check_settings, "tmpguard")
