"""Makes threads and executor jobs run within the invocation that starts them (C6.2).

Tasks, ``asyncio.to_thread``, anyio and asgiref copy the context themselves. Threads and executor jobs do not.
Nearly all of them are started through ``Thread.start`` or ``ThreadPoolExecutor.submit``, which
``run_in_executor`` and aiofiles call.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from types import MethodType
from typing import Any, Final, Generic, ParamSpec, TypeVar

from tmpguard.core.callers import find_origin, handed_on_by
from tmpguard.core.context import activate, deactivate, unguarded
from tmpguard.core.invocation import Invocation, get_current

from .children.interpreters import check_subinterpreter

P = ParamSpec("P")
T = TypeVar("T")


class Carried(Generic[P, T]):
    """A callable that runs within ``invocation`` and remembers the line that submitted it."""

    __slots__ = ("_call", "_handed_on", "_invocation")

    def __init__(self, invocation: Invocation, call: Callable[P, T]) -> None:
        self._invocation = invocation
        self._call = call
        self._handed_on = weakref.ref(invocation), find_origin()

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
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


def thread_start(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """:meth:`threading.Thread.start`: the thread belongs to the invocation that starts it."""

    @functools.wraps(original)
    def start(self: threading.Thread) -> None:
        served = _served.get()
        if served is not None:
            _start_worker(original, self, *served)
            return
        invocation = get_current()
        if invocation is None or self.ident is not None:
            original(self)
            return
        run = _carry_run(self, invocation)
        try:
            original(self)
        except BaseException:
            if self not in threading.enumerate():  # otherwise it runs, and only the wait was interrupted
                run.give_back()
            raise

    return start


def _carry_run(thread: threading.Thread, invocation: Invocation) -> _OneRun:
    """Make the ``run`` of this one thread carried, whatever its class and whoever has overridden it."""
    one = _OneRun(thread, Carried(invocation, thread.run))
    # A bound method of a function that takes the thread, like any ``run``: some libraries take it apart.
    one.bound = MethodType(lambda _, *args, **options: one(*args, **options), thread)
    thread.run = one.bound  # type: ignore[method-assign]
    return one


class _OneRun:
    """Replaces a thread's ``run`` until it runs."""

    __slots__ = ("_before", "_run", "_thread", "bound")

    bound: MethodType

    def __init__(self, thread: threading.Thread, run: Carried[..., None]) -> None:
        self._thread = thread
        self._before = vars(thread).get("run")
        self._run = run

    def give_back(self) -> None:
        """Restore the thread's own ``run``, unless other code has replaced ours."""
        attributes = vars(self._thread)
        if attributes.get("run") is not self.bound:
            return
        if self._before is None:
            del attributes["run"]
        else:
            attributes["run"] = self._before

    def __call__(self, *args: object, **options: object) -> None:
        self.give_back()
        if args and args[0] is self._thread:
            args = args[1:]
        self._run(*args, **options)


Submit = Callable[..., Future[Any]]


def executor_submit(original: Submit) -> Submit:
    """:meth:`concurrent.futures.ThreadPoolExecutor.submit`: the job belongs to the invocation."""

    @functools.wraps(original)
    def submit(
        self: ThreadPoolExecutor, fn: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Future[Any]:
        invocation = get_current()
        if invocation is None:
            return original(self, fn, *args, **kwargs)
        if isinstance(self, _interpreter_pool()):
            check_subinterpreter(invocation, "InterpreterPoolExecutor.submit")
            with unguarded():  # the job runs in another interpreter, in a worker of no invocation
                return original(self, fn, *args, **kwargs)
        job = Carried(invocation, fn)
        # A worker thread that this job starts also runs other jobs, so it belongs to no invocation.
        before, served = activate(None), _served.get()
        _served.set((invocation, self))
        try:
            return original(self, job, *args, **kwargs)
        finally:
            _served.set(served)
            deactivate(before)

    return submit


def _interpreter_pool() -> tuple[type, ...]:
    """The class of executors whose workers have their own interpreters, if it has been imported."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return () if module is None else (module.InterpreterPoolExecutor,)


#: The invocation and the executor whose job is being submitted.
_served: Final[ContextVar[tuple[Invocation, ThreadPoolExecutor] | None]] = ContextVar(
    "tmpguard_served", default=None
)


def _start_worker(
    start: Callable[[threading.Thread], None],
    thread: threading.Thread,
    invocation: Invocation,
    executor: ThreadPoolExecutor,
) -> None:
    """Start a worker thread, which belongs to no invocation. Its initializer runs within ``invocation``."""
    served = _served.get()
    _served.set(None)  # the worker may inherit this context, but threads that its jobs start are not workers
    _carry_initializer(thread, invocation, executor)
    try:
        start(thread)
    finally:
        _served.set(served)


def _carry_initializer(
    thread: threading.Thread, invocation: Invocation, executor: ThreadPoolExecutor
) -> None:
    attributes = vars(thread)
    if _WorkerContext is not None:
        for value in attributes["_args"]:
            if isinstance(value, _WorkerContext) and value.initializer is not None:
                value.initializer = Carried(invocation, value.initializer)
        return
    initializer = getattr(executor, "_initializer", None)
    if initializer is not None:
        carried = Carried(invocation, initializer)
        attributes["_args"] = tuple(
            carried if value is initializer else value for value in attributes["_args"]
        )


#: The class that holds the initializer of a worker thread since 3.14.
_WorkerContext: Final[Any] = getattr(concurrent.futures.thread, "WorkerContext", None)


def carrying(original: Callable[..., T], position: int) -> Callable[..., T]:
    """Wrap ``original``, which runs its argument at ``position`` elsewhere: the argument is carried."""

    @functools.wraps(original)
    def start(*args: object, **kwargs: object) -> T:
        invocation = get_current()
        if invocation is not None and len(args) > position and callable(call := args[position]):
            args = (*args[:position], Carried(invocation, call), *args[position + 1 :])
        return original(*args, **kwargs)

    return start
