"""The Django middleware: each request gets its own ``/tmp``.

::

    MIDDLEWARE = ["tmpguard.django.TmpGuardMiddleware", ...]  # the first one
    TMPGUARD = {"storage_size": 64}

``TMPGUARD`` takes the options of :class:`tmpguard.Guard` by their names, or a guard that was built elsewhere
as ``{"guard": guard}``; without it the defaults hold. All middlewares of a process with the same settings
share one guard.

The system check ``tmpguard.E001`` names a wrong option. It is registered when this module is imported; with
``INSTALLED_APPS = ["tmpguard.django", ...]`` that is before ``manage.py check`` runs. A wrong option also
raises ``ImproperlyConfigured`` when the middleware is built.

An invocation begins with the first middleware and ends in ``response.close()``, after Django has closed what
belongs to the response (C4.3): streaming bodies, sync and async, and ``FileResponse`` read the request's
files, and uploads of the request are closed before. Where nobody calls ``close()`` the invocation ends when
the response is collected; where the view is cancelled, with the view.

Under ASGI Django receives the whole body of a request, and spools a large one to disk, before the first
middleware is called. To have that counted too, put :class:`tmpguard.asgi.TmpGuardMiddleware` around
``get_asgi_application()`` instead.
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

from tmpguard.core.context import activate, deactivate, finalizing, restore
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation

from .guard import Guard, guard_from

__all__ = ["TmpGuardMiddleware"]

logger = logging.getLogger("tmpguard")


class TmpGuardMiddleware:
    """Runs each request as an invocation of the guard of ``settings.TMPGUARD``, in sync and async stacks.

    Raises ImproperlyConfigured for a wrong option (C3.1). With ``guard`` it is that guard's, whatever the
    settings.
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
    """Have the invocation of ``response`` end in its ``close()``, and its body iterated for it."""
    body: _Steps | _AsyncSteps | None = None
    if getattr(response, "streaming", False):
        # Not through the public setter, which forgets the file of a FileResponse and adds a second closer.
        steps = _AsyncSteps if response.is_async else _Steps
        body = response._iterator = steps(response._iterator, invocation)
    response.close = _Close(response, invocation, body)
    return response


class _Close:
    """Stands for ``response.close``: Django's own, called for the invocation, and then its end."""

    __slots__ = ("_body", "_closed", "_closers", "_invocation", "_original")

    def __init__(self, response: Any, invocation: Invocation, body: _Steps | _AsyncSteps | None) -> None:
        self._invocation = invocation
        # In which order the attributes of a response that is dropped go is the interpreter's affair. So what
        # holds a generator is held here, too, and is dropped before the invocation ends.
        self._body = body
        self._closers = getattr(response, "_resource_closers", None)
        self._closed = False
        # Held weakly, so that a response that is dropped is collected at once. But a FileResponse may live on
        # in nothing but its file's close, which Django sets to this.
        self._original: Callable[[], Callable[[], None] | None]
        close = response.close
        if getattr(response, "file_to_stream", None) is None and hasattr(close, "__self__"):
            self._original = weakref.WeakMethod(close)
        else:
            self._original = lambda: close

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

    def _drop(self) -> None:
        self._body = self._closers = None

    def _finish(self) -> None:
        if isinstance(self._body, _AsyncSteps):
            self._body.finish()
        else:
            self._invocation.end()


class _Steps:
    """The iterator of a streaming response; each step runs for the invocation."""

    __slots__ = ("_invocation", "_iterator")

    def __init__(self, iterator: Iterator[Any], invocation: Invocation) -> None:
        self._iterator = iterator
        self._invocation = invocation

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        before = activate(self._invocation)
        try:
            return next(self._iterator)
        finally:
            deactivate(before)

    def __del__(self) -> None:
        # A generator that nobody closed runs its finally clauses when it is dropped: for the invocation.
        finalizing(self._invocation, self._drop)

    def _drop(self) -> None:
        del self._iterator


class _AsyncSteps:
    """The async iterator of a streaming response; each step runs for the invocation, and so does its end.

    Django drops an async generator that a client did not read to its end, and the event loop closes it some
    time later. Its finally clauses are the application's, so here it is closed first and the invocation
    ended then.
    """

    __slots__ = ("_invocation", "_iterator", "_loop", "_over")

    def __init__(self, iterator: AsyncIterator[Any], invocation: Invocation) -> None:
        self._iterator = iterator
        self._invocation = invocation
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

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
        """End the invocation: at once, or when the generator that was not read to its end is closed.

        May be called in any thread. Never raises.
        """
        if self._over or self._loop is None or not hasattr(self._iterator, "aclose"):
            self._invocation.end()
            return
        try:
            self._loop.call_soon_threadsafe(self._start_closing)
        except RuntimeError:  # the loop is closed, and nothing of the generator will ever run
            self._invocation.end()

    def _start_closing(self) -> None:
        task = asyncio.ensure_future(self._close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def _close(self) -> None:
        before = activate(self._invocation)
        try:
            await self._iterator.aclose()  # type: ignore[attr-defined]
        except Exception:
            logger.exception("closing the body of a response that was not read to its end")
        finally:
            restore(self._invocation, before)
            self._invocation.end()


#: The event loop holds its tasks weakly.
_closing: Final[set[asyncio.Future[None]]] = set()


# --- settings ------------------------------------------------------------------------------------------

_lock: Final = threading.Lock()
_shared: tuple[str, Mapping[str, Any], Guard] | None = None


def _guard_of_settings() -> Guard:
    """The guard of ``settings.TMPGUARD``; one for all who ask while the settings are the same.

    Raises ConfigurationError.
    """
    global _shared
    options = getattr(settings, "TMPGUARD", {})
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ConfigurationError(
            f"TMPGUARD={options!r} is no dictionary of options: give a dict, or leave it out"
        )
    # By their text, since 1 and True are equal but not both a storage size. Objects that are compared by
    # their address are kept alive with the guard.
    key = repr(options)
    with _lock:
        if _shared is None or _shared[0] != key:
            given = dict(options)
            _shared = (key, dict(options), guard_from(given.pop("guard", None), given))
        return _shared[2]


def check_settings(app_configs: object = None, **kwargs: object) -> list[Error]:
    """The system check ``tmpguard.E001``: every option in ``settings.TMPGUARD`` can be (C3.1)."""
    try:
        _guard_of_settings()
    except ConfigurationError as exc:
        return [Error(f"settings.TMPGUARD: {exc}", id="tmpguard.E001")]
    return []


register(check_settings, "tmpguard")
