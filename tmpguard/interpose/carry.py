"""Hands the invocation on to threads and executors (C6.2).

Tasks, ``asyncio.to_thread``, anyio and asgiref carry the context by themselves. A thread and an executor's
job do not: ``Thread.start`` and ``ThreadPoolExecutor.submit`` (which ``run_in_executor`` and aiofiles call)
are where nearly all of them pass.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.callers import handed_on_by, locate
from tmpguard.core.context import activate, deactivate
from tmpguard.core.invocation import Invocation, get_current


class Carried:
    """A callable that runs within ``invocation``, and knows the line that handed it on."""

    __slots__ = ("_call", "_handed_on", "_invocation")

    def __init__(self, invocation: Invocation, call: Callable[..., Any]) -> None:
        self._invocation = invocation
        self._call = call
        self._handed_on = weakref.ref(invocation), locate()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        context = getattr(getattr(self._call, "func", None), "__self__", None)
        if isinstance(context, Context):  # asyncio.to_thread's: it runs in a context of its own
            context.run(handed_on_by.set, self._handed_on)
        before, handed_on = activate(self._invocation), handed_on_by.get()
        handed_on_by.set(self._handed_on)
        try:
            return self._call(*args, **kwargs)
        finally:
            handed_on_by.set(handed_on)
            deactivate(before)


@functools.wraps(originals.thread_start)
def thread_start(self: threading.Thread) -> None:
    invocation = get_current()
    served = _served.get()
    if served is not None:
        _start_worker(self, *served)
        return
    if invocation is None or self.ident is not None:
        originals.thread_start(self)
        return
    # The run of this one thread: whatever class it is of, and whoever overrode it.
    before = vars(self).get("run")
    self.run = _OneRun(self, before, Carried(invocation, self.run))  # type: ignore[method-assign]
    try:
        originals.thread_start(self)
    except BaseException:
        if self not in threading.enumerate():  # else it was started, and only the wait for it was interrupted
            _give_back(self, before)
        raise


def _give_back(thread: Any, run: Any) -> None:
    if run is None:
        vars(thread).pop("run", None)
    else:
        thread.run = run


class _OneRun:
    """Takes the place of a thread's ``run`` until it runs."""

    __slots__ = ("_before", "_run", "_thread")

    def __init__(self, thread: threading.Thread, before: Any, run: Carried) -> None:
        self._thread = thread
        self._before = before
        self._run = run

    def __call__(self) -> None:
        _give_back(self._thread, self._before)
        self._run()


@functools.wraps(originals.executor_submit)  # type: ignore[arg-type]
def executor_submit(
    self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Future[Any]:
    invocation = get_current()
    if invocation is None:
        return originals.executor_submit(self, fn, *args, **kwargs)
    job = Carried(invocation, fn)
    # A worker thread that is started by this job serves others' jobs, too: it belongs to no invocation.
    before, served = activate(None), _served.get()
    _served.set((invocation, self))
    try:
        return originals.executor_submit(self, job, *args, **kwargs)
    finally:
        _served.set(served)
        deactivate(before)


#: The invocation and the executor whose job is being submitted.
_served: Final[ContextVar[tuple[Invocation, ThreadPoolExecutor] | None]] = ContextVar(
    "tmpguard_served", default=None
)


def _start_worker(thread: Any, invocation: Invocation, executor: Any) -> None:
    """A worker thread belongs to no invocation, but its initializer runs for the one that made it start."""
    served = _served.get()
    _served.set(None)  # the worker may inherit this context, and what its jobs start are no workers
    _carry_initializer(thread, invocation, executor)
    try:
        originals.thread_start(thread)
    finally:
        _served.set(served)


def _carry_initializer(thread: Any, invocation: Invocation, executor: Any) -> None:
    if _WorkerContext is not None:
        for value in thread._args:
            if isinstance(value, _WorkerContext) and value.initializer is not None:
                value.initializer = Carried(invocation, value.initializer)
        return
    initializer = getattr(executor, "_initializer", None)
    if initializer is not None:
        carried = Carried(invocation, initializer)
        thread._args = tuple(carried if value is initializer else value for value in thread._args)


#: What holds the initializer of a worker thread since 3.14.
_WorkerContext: Final[Any] = getattr(concurrent.futures.thread, "WorkerContext", None)


def carrying(original: Callable[..., Any], position: int) -> Callable[..., Any]:
    """``original``, which starts the function at ``position`` of its arguments elsewhere, with it carried."""

    @functools.wraps(original)
    def start(*args: Any, **kwargs: Any) -> Any:
        invocation = get_current()
        if invocation is not None and len(args) > position and callable(args[position]):
            call = Carried(invocation, args[position])
            args = (*args[:position], call, *args[position + 1 :])
        return original(*args, **kwargs)

    return start
