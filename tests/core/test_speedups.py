"""The compiled steps do what the same steps do in Python (C7.2).

Where the extension is missing, the same tests run against Python alone.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import tmpguard
from tests.support import PROJECT
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.core import originals, speedups
from tmpguard.core.mounts import known
from tmpguard.interpose.entries import look
from tmpguard.interpose.files import builtin_open

compiled = pytest.mark.skipif(speedups.extension is None, reason="the extension was not built")

MISSING = "/tmp/missing.txt"
KNOWN = str(PROJECT / "pyproject.toml")


class Text(str):
    """A path that is not exactly a str."""

    __slots__ = ()


@pytest.fixture
def invocation(scratch_root: Path) -> Iterator[tmpguard.Invocation]:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    with guard.invocation() as made:
        Path("/tmp/speedups.txt").write_text("in /tmp")
        for path in ("pyproject.toml", KNOWN):  # known from now on
            os.stat(path)
            open(path).close()
        yield made


def outcome(call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> object:
    """What the call returns or raises, in a form that can be compared."""
    try:
        result = call(*args, **options)
    except Exception as exc:
        return type(exc), str(exc), getattr(exc, "filename", None), getattr(exc, "__notes__", None)
    if isinstance(result, io.IOBase):
        opened: Any = result
        with opened:
            return type(opened), opened.name, opened.mode, opened.read(), getattr(opened, "encoding", None)
    return tuple(result)[:7]  # without the times: reading a file may change one


STATS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    *[
        ((path,), {})
        for path in ("/tmp/speedups.txt", MISSING, KNOWN, "pyproject.toml", "/tmp", "/", "", "/etc/passwd")
    ],
    *[
        ((path,), {})
        for path in (Text(KNOWN), KNOWN.encode(), Path(KNOWN), bytearray(b"/tmp"), "a\0b", "\udcff", "\u2713")
    ],
    *[
        ((path,), {})
        for path in (0, True, None, 1.5, 10**30, "/tmp/speedups.txt/", "/tmp/../tmp/speedups.txt", "missing")
    ],
    ((), {}),
    ((), {"path": KNOWN}),
    ((KNOWN, 1), {}),
    ((KNOWN,) * 12, {}),
    ((KNOWN,), {"dir_fd": None}),
    ((KNOWN,), {"dir_fd": 1000}),
    ((KNOWN,), {"nothing": 1}),
]

OPENS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    *[
        ((path,), {})
        for path in ("/tmp/speedups.txt", MISSING, KNOWN, "pyproject.toml", "/tmp", "", "a\0b", "\udcff")
    ],
    *[((path,), {}) for path in (Text(KNOWN), KNOWN.encode(), Path(KNOWN), None, 1.5)],
    *[
        ((path, mode), {})
        for path in ("/tmp/speedups.txt", KNOWN)
        for mode in ("r", "rb", "rt", "rr", "b", "", None, Text("r"))
    ],
    *[((path,), {"mode": mode}) for path in ("/tmp/speedups.txt", KNOWN) for mode in ("r", "rb", "rb+", 1)],
    *[((path,), {"encoding": "latin-1"}) for path in ("/tmp/speedups.txt", KNOWN)],
    *[((path, "rb"), {"encoding": "latin-1"}) for path in ("/tmp/speedups.txt", KNOWN)],
    *[
        ((path,), {"encoding": "ascii", "errors": "replace", "newline": ""})
        for path in ("/tmp/speedups.txt", KNOWN)
    ],
    *[((path,), {"encoding": "no such"}) for path in ("/tmp/speedups.txt", KNOWN)],
    *[((path, "r", -1, "utf-8"), {}) for path in ("/tmp/speedups.txt", KNOWN)],
    *[((path, "rb", 0), {}) for path in ("/tmp/speedups.txt", KNOWN)],
    ((), {}),
    ((KNOWN,), {"file": KNOWN}),
    ((KNOWN, "r"), {"mode": "r"}),
    ((KNOWN,) * 12, {}),
    ((KNOWN,), {"closefd": False}),
    ((KNOWN,), {"opener": None}),
    ((KNOWN,), {"nothing": 1}),
]


@pytest.mark.parametrize("within", [True, False], ids=["within", "outside"])
@pytest.mark.parametrize(("args", "options"), STATS)
@pytest.mark.parametrize("name", ["stat", "lstat"])
def test_a_look_has_the_outcome_of_the_same_steps_in_python(
    invocation: tmpguard.Invocation, name: str, args: tuple[Any, ...], options: dict[str, Any], within: bool
) -> None:
    function = {"stat": look._quick_stat, "lstat": look._quick_lstat}[name]
    check(getattr(os, name), function, args, options, within)


@pytest.mark.parametrize("within", [True, False], ids=["within", "outside"])
@pytest.mark.parametrize(("args", "options"), OPENS)
def test_opening_to_read_has_the_outcome_of_the_same_steps_in_python(
    invocation: tmpguard.Invocation, args: tuple[Any, ...], options: dict[str, Any], within: bool
) -> None:
    check(open, builtin_open._quick_open, args, options, within)


def check(
    call: Callable[..., Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    options: dict[str, Any],
    within: bool,
) -> None:
    if within:
        found, expected = (outcome(call, args, options), outcome(function, (None, *args), options))
    else:
        with tmpguard.core.context.unguarded():
            found, expected = (outcome(call, args, options), outcome(function, (None, *args), options))
    if isinstance(expected, tuple) and expected[0] is TypeError:
        assert isinstance(found, tuple)
        assert found[0] is TypeError  # Python counts the receiver in its message
    else:
        assert found == expected


def test_an_expired_cache_is_not_used(invocation: tmpguard.Invocation) -> None:
    table = invocation.guard.mounts
    before = table.known
    assert KNOWN in before.paths
    before.expires = 0.0  # a second has passed
    assert os.stat(KNOWN) == originals.stat(KNOWN)
    assert table.known is not before
    assert KNOWN in table.known.paths


def test_another_generation_of_the_cache_is_used_at_once(invocation: tmpguard.Invocation) -> None:
    assert KNOWN in invocation.guard.mounts.known.paths
    known.forget()
    assert KNOWN not in invocation.guard.mounts.known.paths
    assert os.stat(KNOWN) == originals.stat(KNOWN)
    assert KNOWN in invocation.guard.mounts.known.paths


def test_quick_calls_keep_nothing_alive(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    path, real, table = str(PROJECT / "README.md"), "/tmp/" + "real.txt", guard.mounts

    def use() -> weakref.ref[tmpguard.Invocation]:
        with guard.invocation() as invocation:
            Path(real).write_text("x")
            for _ in range(100):
                os.stat(path), os.lstat(path), os.stat(real), os.path.exists(MISSING)
                open(path).close(), open(path, "rb").close(), open(real, encoding="ascii").close()
            return weakref.ref(invocation)

    use()
    counted = [path, real, MISSING, table, table.known, originals.stat, originals.open, None, "r", guard]
    gc.collect()
    before = [sys.getrefcount(one) for one in counted]
    invocations = [use() for _ in range(20)]
    tmpguard.drain()
    gc.collect()
    assert [one() for one in invocations] == [None] * 20
    grown = [sys.getrefcount(one) - count for one, count in zip(counted, before, strict=True)]
    assert max(grown) < 100


def test_guards_and_middlewares_can_be_copied(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    made = copy.copy(guard)
    assert made.mounts is guard.mounts
    assert made.quick_table is guard.mounts
    assert made.on_report is None

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    middleware = copy.copy(TmpGuardMiddleware(app, guard=guard))
    assert middleware.app is app
    assert middleware.guard is guard


# --- what a derived class, a test or another hook may replace -------------------------------------------


async def serve(middleware: TmpGuardMiddleware) -> None:
    await middleware({"type": "http"}, unused, unused)


async def unused(*_: object) -> Any:
    raise NotImplementedError


def in_requests(guard: tmpguard.Guard | None, requests: int = 2) -> list[str]:
    """The kinds of the invocations of as many requests."""
    kinds = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(type(tmpguard.core.invocation.current()).__name__)

    middleware = TmpGuardMiddleware(app, guard=guard)
    for _ in range(requests):
        asyncio.run(serve(middleware))
    return kinds


def test_a_guard_may_have_its_own_way_to_make_invocations(scratch_root: Path) -> None:
    made = []

    class Own(tmpguard.Guard):
        def invocation(self) -> tmpguard.Invocation:
            made.append(super().invocation())
            return made[-1]

    assert in_requests(Own(bundle=PROJECT, scratch_root=scratch_root)) == ["Invocation", "Invocation"]
    assert len(made) == 2


def test_the_way_to_make_invocations_may_be_replaced_in_a_guard(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    in_requests(guard)
    with mock.patch.object(guard, "invocation", side_effect=guard.invocation) as replaced:
        in_requests(guard)
    assert replaced.call_count == 2
    in_requests(guard)
    assert replaced.call_count == 2


@pytest.mark.parametrize("derived", [False, True])
def test_the_way_to_make_invocations_may_be_replaced_in_the_class(scratch_root: Path, derived: bool) -> None:
    class Derived(tmpguard.Guard):
        pass

    guard = (Derived if derived else tmpguard.Guard)(bundle=PROJECT, scratch_root=scratch_root)
    own = tmpguard.Guard.invocation
    for _ in range(2):
        assert in_requests(guard) == ["Invocation", "Invocation"]
        with mock.patch.object(tmpguard.Guard, "invocation", autospec=True, side_effect=own) as replaced:
            in_requests(guard)
        assert replaced.call_count == 2


def by_assignment(guard: tmpguard.Guard, own: Any) -> None:
    guard.invocation = own  # type: ignore[method-assign]


def by_object(guard: tmpguard.Guard, own: Any) -> None:
    object.__setattr__(guard, "invocation", own)


def by_namespace(guard: tmpguard.Guard, own: Any) -> None:
    vars(guard)["invocation"] = own


def before_it_is_built_again(guard: tmpguard.Guard, own: Any) -> None:
    guard.invocation = own  # type: ignore[method-assign]
    guard.__init__(bundle=None)  # type: ignore[misc]


@pytest.mark.parametrize("replace", [by_assignment, by_object, by_namespace, before_it_is_built_again])
def test_an_attribute_of_the_guard_replaces_the_method_however_it_came_there(
    scratch_root: Path, replace: Callable[[tmpguard.Guard, Any], None]
) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    in_requests(guard)
    own = mock.Mock(side_effect=guard.invocation)
    replace(guard, own)
    in_requests(guard)
    assert own.call_count == 2


@pytest.mark.parametrize("kind", ["property", "__getattribute__"])
def test_a_class_may_choose_its_way_to_make_invocations_each_time(scratch_root: Path, kind: str) -> None:
    chosen: list[Any] = []

    class ByProperty(tmpguard.Guard):
        @property
        def invocation(self) -> Any:  # type: ignore[override]
            return chosen[-1] if chosen else super().invocation

    class ByName(tmpguard.Guard):
        def __getattribute__(self, name: str) -> Any:
            return chosen[-1] if chosen and name == "invocation" else super().__getattribute__(name)

    made = ByProperty if kind == "property" else ByName
    guard = made(bundle=PROJECT, scratch_root=scratch_root)
    in_requests(guard)
    chosen.append(mock.Mock(side_effect=guard.invocation))
    in_requests(guard)
    assert chosen[0].call_count == 2


def test_a_guard_may_have_attributes_set_by_object(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    object.__setattr__(guard, "label", "mine")
    assert guard.label == "mine"  # type: ignore[attr-defined]
    object.__delattr__(guard, "label")


def test_a_class_of_guards_is_not_kept_alive(scratch_root: Path) -> None:
    def use() -> weakref.ref[type]:
        class Short(tmpguard.Guard):
            pass

        in_requests(Short(bundle=PROJECT, scratch_root=scratch_root))
        return weakref.ref(Short)

    used = use()
    gc.collect()
    assert used() is None


def test_guards_of_several_kinds_take_turns(scratch_root: Path) -> None:
    """What is known of the class of one says nothing about another."""

    class Own(tmpguard.Guard):
        def invocation(self) -> tmpguard.Invocation:
            calls.append(self)
            return super().invocation()

    calls: list[tmpguard.Guard] = []
    plain, own = (kind(bundle=PROJECT, scratch_root=scratch_root) for kind in (tmpguard.Guard, Own))
    for _ in range(3):
        in_requests(plain)
        in_requests(own)
    assert calls == [own] * 6


def test_a_guard_that_no_longer_enforces_only_watches(scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    assert in_requests(guard) == ["Invocation", "Invocation"]
    guard.enforce = False
    assert in_requests(guard) == ["Watching", "Watching"]


def test_a_middleware_may_choose_its_guard_itself(scratch_root: Path) -> None:
    chosen = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    used = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        invocation = tmpguard.core.invocation.current()
        assert invocation is not None
        used.append(invocation.guard)

    class Choosing(TmpGuardMiddleware):
        def __init__(self, app: Any) -> None:
            self.app = app

        @property
        def guard(self) -> tmpguard.Guard:  # type: ignore[override]
            return chosen

    asyncio.run(serve(Choosing(app)))
    assert used == [chosen]


def test_a_middleware_without_an_application_says_so() -> None:
    class Forgetful(TmpGuardMiddleware):
        def __init__(self) -> None:
            pass

    with pytest.raises(AttributeError, match="'Forgetful' object has no attribute 'app'"):
        asyncio.run(serve(Forgetful()))


UNUSUAL: list[dict[str, Any]] = [
    {"type": "".join(("ht", "tp"))},
    {"type": Text("websocket")},
    {"extensions": None},
    {"extensions": {"http.response.pathsend": {}, "http.response.debug": {}}},
    {"extensions": OrderedDict({"http.response.pathsend": {}})},
    {"extensions": {"http.response.debug": {}}},
]


@pytest.mark.parametrize("mapping", [dict, OrderedDict])
@pytest.mark.parametrize("change", UNUSUAL)
def test_a_scope_is_judged_by_what_it_says(
    scratch_root: Path, change: dict[str, Any], mapping: type[dict[str, Any]]
) -> None:
    """However a server makes it: it is a request, and no path can be sent."""
    seen: list[tuple[str, object]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = type(tmpguard.core.invocation.current()).__name__
        seen.append((kind, "http.response.pathsend" in (scope.get("extensions") or {})))

    guard = tmpguard.Guard(bundle=PROJECT, scratch_root=scratch_root)
    middleware = TmpGuardMiddleware(app, guard=guard)

    async def twice() -> None:  # the second one finds the loop's hooks in place
        for _ in range(2):
            await middleware(mapping({"type": "http", **change}), unused, unused)

    asyncio.run(twice())
    assert seen == [("Invocation", False)] * 2


def test_a_scope_without_a_type_is_refused_as_without_the_guard(scratch_root: Path) -> None:
    middleware = TmpGuardMiddleware(unused, bundle=PROJECT, scratch_root=scratch_root)
    with pytest.raises(KeyError, match="type"):
        asyncio.run(middleware({}, unused, unused))


def test_what_a_signal_handler_raises_during_a_wait_is_raised_as_it_is(
    invocation: tmpguard.Invocation,
) -> None:
    path = "/tmp/speedups.fifo"
    os.mkfifo(path)
    os.stat(path)  # known from now on

    def expire(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimeoutError("nobody writes")

    for name in ("speedups.fifo", path):
        os.chdir("/tmp")
        before = signal.signal(signal.SIGALRM, expire)
        # Again and again, so that the test fails instead of waiting if one is lost.
        signal.setitimer(signal.ITIMER_REAL, 0.2, 5)
        began = time.monotonic()
        try:
            with pytest.raises(TimeoutError) as caught:
                open(name)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert time.monotonic() - began < 4
        assert str(caught.value) == "nobody writes"
        assert caught.value.filename is None


VETOED = """
import sys

def hook(event, args):
    if event == "sys.addaudithook":
        raise PermissionError("no hooks")

sys.addaudithook(hook)
import tmpguard
with tmpguard.invocation(bundle=None):
    open("/tmp/fits", "w").close()
    print("served")
"""


def test_a_hook_that_refuses_other_hooks_stops_no_request() -> None:
    ran = subprocess.run([sys.executable, "-c", VETOED], capture_output=True, text=True, cwd=PROJECT)
    assert ran.stdout == "served\n", ran.stderr


IN_ANOTHER = """
import sys
try:
    import _interpreters as interpreters
    number = interpreters.create("legacy")
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    number = interpreters.create(isolated=False)
    run = interpreters.run_string
run(number, f'''
import sys
sys.path[:] = {sys.path!r}
from tmpguard.core import speedups
print(speedups.extension is not None, flush=True)
''')
interpreters.destroy(number)
from tmpguard.core import speedups
print(speedups.extension is not None)
"""


@compiled
def test_only_the_main_interpreter_loads_the_extension() -> None:
    ran = subprocess.run([sys.executable, "-c", IN_ANOTHER], capture_output=True, text=True, cwd=PROJECT)
    assert ran.stdout == "False\nTrue\n", ran.stderr


# --- the extension itself -------------------------------------------------------------------------------


@compiled
def test_the_extension_refuses_what_it_cannot_use() -> None:
    with pytest.raises(TypeError, match="a middleware"):
        speedups.extension.begin(object())
    with pytest.raises(TypeError, match="an invocation and what was current before"):
        speedups.extension.finish(object())
    with pytest.raises(TypeError):
        speedups.extension.Steps([b""])
    with pytest.raises(TypeError):
        speedups.extension.configure(object(), object, None)
    with pytest.raises(TypeError, match="derived from InvocationFields"):
        speedups.extension.configure(tmpguard.core.context.current_variable, object, None)


def test_a_search_finds_an_object_by_what_it_is_and_not_by_what_it_equals() -> None:
    objects = [[number] for number in range(1000)]
    sought = speedups.Sought(map(id, objects[::2]))
    assert not sought.is_in({})
    for number, one in enumerate(objects):
        assert sought.is_in({"other": None, "one": one}) is (number % 2 == 0)
        assert not sought.is_in({"copy": [number]})
        assert not sought.is_in({number: None})  # its name does not count
    assert not speedups.Sought([]).is_in(vars(os))


@compiled
def test_a_search_refuses_what_is_no_id_and_no_namespace() -> None:
    with pytest.raises(TypeError):
        speedups.extension.Sought(["name"])
    with pytest.raises(ValueError, match="0 is no object's id"):
        speedups.extension.Sought([0])
    with pytest.raises(TypeError, match="a namespace, not list"):
        speedups.Sought([1]).is_in([])


REQUEST = """
import asyncio, tmpguard
from tmpguard.asgi import TmpGuardMiddleware
from tmpguard.core import speedups

async def app(scope, receive, send):
    open("/tmp/fits", "w").close()
    open("file.txt", "w")

async def run():
    await TmpGuardMiddleware(app, bundle=None)({"type": "http"}, None, None)

try:
    asyncio.run(run())
except OSError as exc:
    print(exc.strerror, speedups.extension is not None)
"""


def test_the_extension_can_be_switched_off() -> None:
    environment = {**os.environ, "TMPGUARD_NO_EXTENSION": "1"}
    for env, used in ((environment, False), (dict(os.environ), speedups.extension is not None)):
        ran = subprocess.run(
            [sys.executable, "-c", REQUEST], env=env, capture_output=True, text=True, cwd=PROJECT
        )
        assert ran.stdout == f"Read-only file system {used}\n", ran.stderr


def test_the_command_says_whether_the_extension_is_used() -> None:
    pytest.importorskip("click")
    pytest.importorskip("rich")
    for changes, used in (({"TMPGUARD_NO_EXTENSION": "1"}, False), ({}, speedups.extension is not None)):
        ran = subprocess.run(
            [sys.executable, "-m", "tmpguard", "--version"],
            env={**os.environ, **changes},
            capture_output=True,
            text=True,
            cwd=PROJECT,
        )
        with_or_without = "with" if used else "without"
        assert ran.stdout == f"tmpguard {tmpguard.__version__}, {with_or_without} its C extension\n", (
            ran.stderr
        )


OTHER_COPY = """
import sys
import tmpguard
from tmpguard.core import speedups
for name in [name for name in sys.modules if name.partition(".")[0] == "tmpguard"]:
    del sys.modules[name]
import tmpguard as again
from tmpguard.core import speedups as other
assert again is not tmpguard
assert other.extension is None
with again.invocation(bundle=None):
    try:
        open("file.txt", "w")
    except OSError as exc:
        print(exc.strerror)
"""


@compiled
def test_a_second_copy_of_tmpguard_in_the_process_does_without_the_extension() -> None:
    ran = subprocess.run([sys.executable, "-c", OTHER_COPY], capture_output=True, text=True, cwd=PROJECT)
    assert ran.stdout == "Read-only file system\n", ran.stderr
