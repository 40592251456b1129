"""Work that the handler hands on runs within the handler's invocation, nobody else's does (C6.2, C6.4)."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import inspect
import multiprocessing.pool
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asgiref.sync
import pytest

import tmpguard
from tests.support import case, python

pytestmark = pytest.mark.usefixtures("uninstalled")

THREAD_START = threading.Thread.start


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    """A bound invocation with a file by which it is known."""
    with guard.invocation() as bound:
        Path("/tmp/mine.txt").write_text("mine")
        yield bound


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def whose() -> tuple[tmpguard.Invocation | None, bool]:
    """The invocation that the calling code belongs to, and whether it sees the file of ``invocation``."""
    return tmpguard.current(), os.path.exists("/tmp/mine.txt")


def refused_line() -> None:
    """Writes outside of /tmp, where no frame of the application needs to be below."""
    with pytest.raises(OSError, match="Read-only"):
        open("/etc/new.txt", "w")


# --- threads -------------------------------------------------------------------------------------------


class OwnRun(threading.Thread):
    """A thread of a class with a ``run`` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: object = None

    def run(self) -> None:
        self.seen = whose()


def by_thread(work: Callable[[], object]) -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(work()))
    thread.start()
    thread.join()
    return seen[0]


def by_own_run(_: Callable[[], object]) -> object:
    thread = OwnRun()
    thread.start()
    thread.join()
    return thread.seen


def by_timer(work: Callable[[], object]) -> object:
    seen: list[object] = []
    timer = threading.Timer(0, lambda: seen.append(work()))
    timer.start()
    timer.join()
    return seen[0]


def by_thread_of_a_thread(work: Callable[[], object]) -> object:
    return by_thread(lambda: by_thread(work))


def by_daemon(work: Callable[[], object]) -> object:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(work()), daemon=True)
    thread.start()
    thread.join()
    return seen[0]


def by_submit(work: Callable[[], object]) -> object:
    with ThreadPoolExecutor(2) as pool:
        return pool.submit(work).result()


def by_map(work: Callable[[], object]) -> object:
    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(lambda _: work(), range(5))
        assert all(other == first for other in others)
        return first


def by_to_thread(work: Callable[[], object]) -> object:
    async def main() -> object:
        return await asyncio.to_thread(work)

    return asyncio.run(main())


def by_run_in_executor(work: Callable[[], object]) -> object:
    async def main() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    return asyncio.run(main())


def by_run_in_an_executor_of_ones_own(work: Callable[[], object]) -> object:
    async def main() -> object:
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, work)

    return asyncio.run(main())


def by_task(work: Callable[[], object]) -> object:
    async def job() -> object:
        await asyncio.sleep(0)
        return work()

    async def main() -> object:
        return await asyncio.create_task(job())

    return asyncio.run(main())


def by_call_soon(work: Callable[[], object]) -> object:
    async def main() -> object:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(lambda: future.set_result(work()))
        return await future

    return asyncio.run(main())


def by_nested_executors(work: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as outer, ThreadPoolExecutor(1) as inner:
        return outer.submit(lambda: inner.submit(work).result()).result()


HANDED_ON = [
    by_thread,
    by_own_run,
    by_timer,
    by_thread_of_a_thread,
    by_daemon,
    by_submit,
    by_map,
    by_to_thread,
    by_run_in_executor,
    by_run_in_an_executor_of_ones_own,
    by_task,
    by_call_soon,
    by_nested_executors,
]


def test_handed_on_work_runs_within_the_invocation(invocation: tmpguard.Invocation) -> None:
    for hand_on in HANDED_ON:
        with case(hand_on.__name__):
            assert hand_on(whose) == (invocation, True)
            assert tmpguard.current() is invocation


def test_handed_on_work_of_unguarded_code_is_unguarded(guard: tmpguard.Guard) -> None:
    """C6.4: also after an invocation in the same thread, and while there is one in another context."""
    invocation = guard.invocation()
    with invocation.bound():
        Path("/tmp/mine.txt").write_text("mine")
    for hand_on in HANDED_ON:
        with case(hand_on.__name__):
            assert hand_on(whose) == (None, False)
    invocation.end()


def test_a_violation_in_handed_on_work_is_on_the_report(guard: tmpguard.Guard) -> None:
    """C2.3"""
    for hand_on in HANDED_ON:
        if hand_on is by_own_run:
            continue  # does its own work
        with case(hand_on.__name__), guard.invocation() as invocation:
            hand_on(refused_line)
            (violation,) = set(invocation.report.violations)
            assert violation.location is not None
            assert (violation.location.file, violation.location.function) == (__file__, "refused_line")


def _line_of(function: Callable[..., Any], text: str) -> int:
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def test_a_violation_in_a_worker_is_attributed_to_the_line_that_handed_it_on(
    pool: ThreadPoolExecutor, invocation: tmpguard.Invocation
) -> None:
    """C2.3: where only library code is on the worker's stack."""

    def hand_on() -> Future[int]:
        return pool.submit(Path("/etc/new.txt").write_text, "text")

    assert isinstance(hand_on().exception(), OSError)
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert violation.location.file == __file__
    assert violation.location.line == _line_of(
        test_a_violation_in_a_worker_is_attributed_to_the_line_that_handed_it_on, "pool.submit"
    )
    assert violation.location.function.endswith("hand_on")
    assert violation.library is not None
    assert violation.library.file.endswith(("pathlib.py", "pathlib/_local.py", "pathlib/__init__.py"))


def test_a_violation_in_a_thread_is_attributed_to_the_line_that_started_it(
    invocation: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2.3"""
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_type))
    thread = threading.Thread(target=os.makedirs, args=("/etc/new/directory",))
    thread.start()  # the line
    thread.join()
    assert errors == [OSError]
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert violation.location.file == __file__
    assert violation.location.line == _line_of(
        test_a_violation_in_a_thread_is_attributed_to_the_line_that_started_it, "# the line"
    )


def test_a_violation_through_to_thread_is_attributed_to_the_line_that_handed_it_on(
    invocation: tmpguard.Invocation,
) -> None:
    """The application's line is not on the stack when asyncio submits the job: it is the task's."""

    async def handler() -> None:
        with pytest.raises(OSError, match="Read-only"):
            await asyncio.to_thread(os.mkdir, "/etc/new")

    asyncio.run(handler())
    (violation,) = invocation.report.violations
    assert violation.location is not None
    assert (violation.location.file, violation.location.function.rpartition(".")[2]) == (__file__, "handler")


# --- pools shared by many ------------------------------------------------------------------------------


def test_a_worker_runs_each_job_as_the_invocation_that_handed_it_on(
    guard: tmpguard.Guard, pool: ThreadPoolExecutor
) -> None:
    """SURFACE 1.5: the worker's thread was started by the first of them."""
    first, second = guard.invocation(), guard.invocation()
    with first.bound():
        assert pool.submit(tmpguard.current).result() is first
    with second.bound():
        assert pool.submit(tmpguard.current).result() is second
    assert pool.submit(tmpguard.current).result() is None
    with first.bound():
        assert pool.submit(tmpguard.current).result() is first
    assert list(pool.map(lambda _: tmpguard.current(), range(2))) == [None, None]
    first.end()
    second.end()


def test_a_worker_started_by_an_unguarded_job_runs_guarded_ones(
    guard: tmpguard.Guard, pool: ThreadPoolExecutor
) -> None:
    assert pool.submit(tmpguard.current).result() is None
    with guard.invocation() as invocation:
        assert pool.submit(tmpguard.current).result() is invocation


def test_map_belongs_to_the_invocation_in_which_it_was_called(
    guard: tmpguard.Guard, pool: ThreadPoolExecutor
) -> None:
    """Its results may be taken later, when another one is bound or none."""
    invocation = guard.invocation()
    with invocation.bound():
        results = pool.map(lambda _: tmpguard.current(), range(3))
    assert list(results) == [invocation] * 3
    invocation.end()


def test_jobs_of_many_invocations_do_not_mix(guard: tmpguard.Guard) -> None:
    with ThreadPoolExecutor(3) as pool:

        def job(number: int) -> str:
            Path(f"/tmp/{number}.txt").write_text("text")
            return f"{Path('/tmp/name.txt').read_text()} of {sorted(os.listdir('/tmp'))}"

        futures = []
        invocations = [guard.invocation() for _ in range(20)]
        for number, invocation in enumerate(invocations):
            with invocation.bound():
                Path("/tmp/name.txt").write_text(f"{number}")
        for number, invocation in enumerate(invocations):
            with invocation.bound():
                futures.append(pool.submit(job, number))
        assert [future.result() for future in futures] == [
            f"{number} of ['{number}.txt', 'name.txt']" for number in range(20)
        ]
    for invocation in invocations:
        invocation.end()


def test_an_initializer_runs_for_the_job_that_needs_the_worker(guard: tmpguard.Guard) -> None:
    """What it writes to /tmp is for the handler's jobs; the worker itself serves others' jobs, too."""
    seen: list[object] = []
    with ThreadPoolExecutor(1, initializer=lambda: seen.append(tmpguard.current())) as pool:
        with guard.invocation() as invocation:
            pool.submit(int).result()
        assert pool.submit(tmpguard.current).result() is None
    assert seen == [invocation]


def test_a_thread_pool_of_multiprocessing_belongs_to_the_invocation_that_made_it(
    guard: tmpguard.Guard,
) -> None:
    """Its workers are threads that run for their whole life in one invocation: the one that started them."""
    with guard.invocation() as invocation:
        with multiprocessing.pool.ThreadPool(1) as made_inside:
            assert made_inside.apply(tmpguard.current) is invocation
    with multiprocessing.pool.ThreadPool(1) as made_outside:
        with guard.invocation():
            assert made_outside.apply(tmpguard.current) is None


INHERITING = """
import threading
from concurrent.futures import ThreadPoolExecutor
import tmpguard

def refused_line():
    try:
        open("/etc/new.txt", "w")
    except OSError:
        pass

def starting():
    thread = threading.Thread(target=refused_line)
    thread.start()
    thread.join()

seen = []
guard = tmpguard.Guard(bundle=None)
with ThreadPoolExecutor(1, initializer=lambda: seen.append(tmpguard.current())) as pool:
    with guard.invocation() as first:
        pool.submit(starting).result()
    with guard.invocation() as second:
        seen.append(pool.submit(tmpguard.current).result())
    seen.append(pool.submit(tmpguard.current).result())
assert seen == [first, second, None], seen
(violation,) = first.report.violations
assert violation.location.function == "refused_line", violation.location

with guard.invocation() as third:
    seen = []
    pool = ThreadPoolExecutor(1)
    pool.submit(starting).result()
assert pool.submit(tmpguard.current).result() is None
thread = threading.Thread(target=lambda: seen.append(tmpguard.current()))
thread.start()
thread.join()
assert seen == [None], seen
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="threads inherit no context before 3.14")
def test_threads_that_inherit_the_context_belong_to_whom_they_belonged(tmp_path: Path) -> None:
    """A worker that one request's job has started does not run another request's jobs as the first one's."""
    command = python(INHERITING)
    command[1:1] = ["-X", "thread_inherit_context=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# --- what the patched methods still are ----------------------------------------------------------------


def test_other_context_variables_are_carried_as_ever(invocation: tmpguard.Invocation) -> None:
    """Not at all by a plain thread before 3.14, and what the job sets stays in the job."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(variable.set, "in a worker").result()
    assert variable.get() == "default"
    assert tmpguard.current() is invocation


def test_an_executor_takes_what_it_took(invocation: tmpguard.Invocation, pool: ThreadPoolExecutor) -> None:
    def job(*args: object, **kwargs: object) -> object:
        return args, kwargs

    assert pool.submit(job, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    with pytest.raises(TypeError):
        pool.submit()  # type: ignore[call-arg]
    failed = pool.submit(lambda: 1 / 0)
    assert isinstance(failed.exception(), ZeroDivisionError)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(job)


def test_a_thread_is_what_it_was(invocation: tmpguard.Invocation) -> None:
    thread = threading.Thread(target=int, name="name")
    assert inspect.signature(threading.Thread.start) == inspect.signature(THREAD_START)
    assert threading.Thread.start.__name__ == "start"
    assert threading.Thread.start.__qualname__ == "Thread.start"
    thread.start()
    with pytest.raises(RuntimeError, match="only be started once"):
        thread.start()
    thread.join()
    assert "run" not in vars(thread), "the thread's own run is back"
    again = threading.Thread(target=int)
    again.run()


def test_a_thread_that_could_not_be_started_keeps_its_run(
    invocation: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = threading.Thread(target=int)
    tmpguard.uninstall()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        tmpguard.install()
        with pytest.raises(RuntimeError, match="can't start"):
            thread.start()
        tmpguard.uninstall()
    assert "run" not in vars(thread)


def test_an_interrupted_start_leaves_the_thread_to_its_invocation(
    invocation: tmpguard.Invocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_through in (False, True):
        seen: list[object] = []
        go, done = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda seen=seen: seen.append(whose()))

        def late(begin: Callable[[], None], go: threading.Event, done: threading.Event) -> None:
            go.wait()
            begin()
            done.set()

        def interrupted(is_through: bool, go: threading.Event, done: threading.Event) -> None:
            if is_through:
                go.set()
                done.wait()
            raise KeyboardInterrupt

        begin = thread._bootstrap  # type: ignore[attr-defined]
        monkeypatch.setattr(thread, "_bootstrap", functools.partial(late, begin, go, done))
        started = thread._started  # type: ignore[attr-defined]
        monkeypatch.setattr(started, "wait", functools.partial(interrupted, is_through, go, done))
        with pytest.raises(KeyboardInterrupt):
            thread.start()
        go.set()
        done.wait()
        assert seen == [(invocation, True)]
        assert "run" not in vars(thread)
        monkeypatch.undo()


def test_a_job_of_a_finished_invocation_is_late(guard: tmpguard.Guard, pool: ThreadPoolExecutor) -> None:
    """C4.5"""
    may_run = threading.Event()

    def job() -> int | None:
        may_run.wait(30)
        try:
            open("/tmp/late.txt", "w")
        except OSError as exc:
            return exc.errno
        return None

    with guard.invocation() as invocation:
        future = pool.submit(job)
    may_run.set()
    assert future.result() == errno.ESTALE
    assert [late.path for late in invocation.report.late_writes] == ["/tmp/late.txt"]


def test_a_line_that_handed_on_in_one_invocation_is_not_named_for_another(
    guard: tmpguard.Guard, pool: ThreadPoolExecutor
) -> None:
    """C2.3: asgiref takes the context of the thread that it ran a job in over into its caller's."""

    async def nothing() -> None:
        pass

    with guard.invocation():
        asgiref.sync.async_to_sync(nothing)()
    with guard.invocation() as invocation:
        # A job that nobody handed on, with nothing of the application on its stack.
        context = contextvars.copy_context()
        job = contextvars.Context().run(pool.submit, context.run, os.mkdir, "/etc/new")
        assert isinstance(job.exception(), OSError)
    (violation,) = invocation.report.violations
    assert violation.location is None
