"""The patched layer comes, reaches the references that were taken before, and goes without a trace (C7.3)."""

from __future__ import annotations

import builtins
import bz2
import concurrent.futures
import concurrent.futures.thread
import dbm
import fcntl
import fileinput
import functools
import glob
import gzip
import importlib
import io
import logging.handlers
import lzma
import mailbox
import mmap
import os
import pathlib
import posixpath
import shelve
import shutil
import socket
import sqlite3
import sys
import tarfile
import tempfile
import threading
import tokenize
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import in_threads, run_python
from tmpguard.core import originals
from tmpguard.interpose.surface import TABLE

pytestmark = pytest.mark.usefixtures("uninstalled")

MODULES = [bz2, concurrent.futures, concurrent.futures.thread, dbm, fcntl, fileinput, glob, gzip, io, lzma]
MODULES += [mailbox, logging, logging.handlers, mmap, os, pathlib, posixpath, shelve, shutil, socket, sqlite3]
MODULES += [tarfile, tempfile, threading, tokenize, zipfile]
MODULES += [
    sys.modules[name] for name in ("posix", "_io", "builtins", "sqlite3.dbapi2", "_sqlite3", "genericpath")
]

Held = tuple[str, Any]


def held_by(module: types.ModuleType) -> Iterator[Held]:
    """All that a module, its classes and its functions' defaults refer to, with the name of its place."""
    here = f"{module.__name__} {id(module)}"  # io and _io may bear the same name
    for name, value in list(vars(module).items()):
        yield f"{here}.{name}", value
        yield from defaults_of(f"{here}.{name}", value)
        if isinstance(value, type) and value.__module__ == module.__name__:
            for attribute, inner in list(vars(value).items()):
                yield f"{here}.{name}.{attribute}", inner
                yield from defaults_of(f"{here}.{name}.{attribute}", inner)
        if type(value) in (set, frozenset) and name.startswith("supports_"):
            yield from ((f"{here}.{name} {id(inner)}", inner) for inner in value)


def defaults_of(place: str, value: object) -> Iterator[Held]:
    if isinstance(value, types.FunctionType):
        for number, default in enumerate(value.__defaults__ or ()):
            yield f"{place}({number})", default
        for name, default in (value.__kwdefaults__ or {}).items():
            yield f"{place}({name})", default


def everything() -> list[Held]:
    return [held for module in MODULES for held in held_by(module)]


def changed(before: list[Held], after: list[Held]) -> list[str]:
    """The places where something else stands now, where nothing stood, or nothing stands any more."""
    index = {place: number for number, (place, _) in enumerate(before)}
    places = {place for place, _ in after} ^ set(index)
    places |= {place for place, new in after if place in index and before[index[place]][1] is not new}
    return sorted(place for place in places if not _volatile(place))


def _volatile(place: str) -> bool:
    """What changes by itself from one moment to the next."""
    return place.endswith(("_counter", "_name_sequence", "._cache", "__annotations__", "_abc_impl"))


def use(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        Path("/tmp/file.txt").write_text("text")
        shutil.copytree("/tmp", "/tmp/copy", ignore=lambda *_: ["copy"])
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"text")
        sqlite3.connect("/tmp/database").close()
        threading.Thread(target=os.getcwd).start()


# --- restored ------------------------------------------------------------------------------------------


def test_after_uninstalling_every_name_is_the_very_object_it_was(scratch_root: Path) -> None:
    before = everything()
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    use(guard)
    assert f"os {id(os)}.mkdir" in changed(before, everything())
    tmpguard.uninstall()
    assert changed(before, everything()) == []


def test_every_callable_of_the_table_is_replaced_and_comes_back(guard: tmpguard.Guard) -> None:
    def standing() -> list[tuple[str, Any]]:
        found = []
        for call in TABLE:
            module, _, attribute = call.owner.partition(":")
            owner = importlib.import_module(module)
            owner = getattr(owner, attribute) if attribute else owner
            found.append((call.public, vars(owner).get(call.name)))
        return found

    guarded = standing()
    tmpguard.uninstall()
    plain = standing()
    for (public, replaced), (_, original) in zip(guarded, plain, strict=True):
        if original is not None or replaced is not None:
            assert replaced is not original, public
    tmpguard.install()
    tmpguard.uninstall()
    assert [one is two for (_, one), (_, two) in zip(plain, standing(), strict=True)] == [True] * len(plain)


def test_the_originals_are_the_interpreter_s_own(guard: tmpguard.Guard) -> None:
    tmpguard.uninstall()
    posix = sys.modules["posix"]
    for name in ("mkdir", "stat", "open", "unlink", "listdir", "scandir", "write", "getcwd"):
        assert getattr(os, name) is getattr(posix, name), name
    assert open is io.open is sys.modules["_io"].open is originals.open  # type: ignore[attr-defined]
    assert io.FileIO is sys.modules["_io"].FileIO  # type: ignore[attr-defined]


def test_posix_and_io_s_own_module_are_left_alone(guard: tmpguard.Guard) -> None:
    """SURFACE 1.1: the interpreter reads its sources through them."""
    posix, own = sys.modules["posix"], sys.modules["_io"]
    assert posix.stat is originals.stat
    assert posix.listdir is originals.listdir
    assert own.open is originals.open  # type: ignore[attr-defined]
    assert own.open_code is originals.open_code  # type: ignore[attr-defined]
    assert own.FileIO is originals.FileIO  # type: ignore[attr-defined]
    assert tokenize._builtin_open == originals.open, "its own: the sources outside of /tmp are read as ever"  # type: ignore[attr-defined]


def test_work_goes_on_when_the_layer_is_taken_out_beneath_it(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """Files that are open stay so; what comes after goes to the real file system."""
    invocation = guard.invocation()
    with invocation.bound():
        file = open("/tmp/file.txt", "w")
        entries = os.scandir("/tmp")
        thread_class = threading.Thread
    tmpguard.uninstall()
    with invocation.bound():
        file.write("text")
        file.close()
        assert [entry.name for entry in entries] == ["file.txt"]
        (tmp_path / "real.txt").write_text("text")
        thread_class(target=int).start()
    invocation.end()
    assert tmpguard.drain(timeout=30)
    assert (tmp_path / "real.txt").read_text() == "text"


# --- again and again -----------------------------------------------------------------------------------


def test_installing_twice_is_installing_once(guard: tmpguard.Guard) -> None:
    first = everything()
    tmpguard.install()
    tmpguard.Guard(bundle=None)
    assert changed(first, everything()) == []
    tmpguard.uninstall()
    assert os.mkdir is originals.mkdir
    tmpguard.uninstall()
    assert os.mkdir is originals.mkdir


def test_it_may_come_and_go_many_times(guard: tmpguard.Guard) -> None:
    tmpguard.uninstall()
    before = everything()
    for _ in range(3):
        tmpguard.install()
        use(guard)
        tmpguard.uninstall()
        assert changed(before, everything()) == []


def test_installing_by_many_threads_at_once(guard: tmpguard.Guard) -> None:
    tmpguard.uninstall()
    before = everything()
    barrier = threading.Barrier(4)

    def work(_: int) -> None:
        barrier.wait()
        for _ in range(3):
            tmpguard.install()
            tmpguard.uninstall()

    in_threads(4, work)
    tmpguard.uninstall()
    assert changed(before, everything()) == []


def test_a_guard_whose_layer_was_taken_out_puts_it_back_at_its_next_invocation(
    guard: tmpguard.Guard,
) -> None:
    with guard.invocation():
        Path("/tmp/file.txt").touch()
    tmpguard.uninstall()
    assert os.mkdir is originals.mkdir
    with guard.invocation() as invocation:
        assert os.listdir("/tmp") == []
        with pytest.raises(OSError, match="Read-only"):
            open("/etc/new.txt", "w")
        with pytest.raises(OSError, match="Read-only"):
            sys.modules["posix"].mkdir("/etc/new")  # type: ignore[attr-defined]
    assert len(invocation.report.violations) == 2


def test_the_backstop_goes_with_the_layer(guard: tmpguard.Guard, tmp_path: Path) -> None:
    """An audit hook cannot be taken out; it has to step aside."""
    invocation = guard.invocation()
    tmpguard.uninstall()
    with invocation.bound():
        originals.mkdir(tmp_path / "directory")
    assert (tmp_path / "directory").is_dir()
    assert invocation.report.violations == ()
    invocation.end()


def test_importing_tmpguard_patches_nothing() -> None:
    assert (
        run_python(
            """
import os, io
before = [os.mkdir, os.stat, io.open, open]
import tmpguard
print([one is two for one, two in zip(before, [os.mkdir, os.stat, io.open, open])])
"""
        )
        == "[True, True, True, True]\n"
    )


# --- references taken elsewhere ------------------------------------------------------------------------

MODULE = """
import os
import io
import builtins
from io import FileIO, open as io_open
from os import listdir, mkdir as make, open as os_open, remove, stat
from sqlite3 import connect

class Holder:
    unlink = os.unlink
    look = staticmethod(os.lstat)
    opener = open

    def method(self, path, rename=os.rename):
        return rename(path, path + ".renamed")

def read(path, *, opener=open):
    with opener(path) as file:
        return file.read()

def write(path, text, opener=builtins.open):
    with opener(path, "w") as file:
        file.write(text)

TABLE = {"make": os.mkdir, "nested": {"remove": os.remove}}
"""

USE = """
write("/tmp/captured.txt", "text")
assert read("/tmp/captured.txt") == "text"
assert stat("/tmp/captured.txt").st_size == 4
make("/tmp/captured")
TABLE["make"]("/tmp/captured/table")
assert listdir("/tmp/captured") == ["table"]
Holder().method("/tmp/captured.txt")
Holder().look("/tmp/captured.txt.renamed")
Holder().unlink("/tmp/captured.txt.renamed")
with Holder().opener("/tmp/captured.txt", "w"), FileIO("/tmp/raw.txt", "w"), io_open("/tmp/io.txt", "w"):
    pass
os.close(os_open("/tmp/captured.txt", os.O_RDONLY))
remove("/tmp/captured.txt")
TABLE["nested"]["remove"]("/tmp/io.txt")
connect("/tmp/captured.db").close()
"""


@pytest.fixture
def captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], types.ModuleType]]:
    """Imports a module that takes references to all kinds of places."""
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "captured_by_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(directory)
    yield lambda: importlib.import_module("captured_by_test")
    sys.modules.pop("captured_by_test", None)


def references(module: types.ModuleType) -> list[Held]:
    """All of them, without the names of the module that are its own."""
    found = [held for held in held_by(module) if not held[0].endswith(("Holder", "TABLE", "read", "write"))]
    return [*found, ("make", module.TABLE["make"]), ("remove", module.TABLE["nested"]["remove"])]


def test_references_taken_before_are_guarded_and_come_back(
    captured: Callable[[], types.ModuleType], scratch_root: Path
) -> None:
    """C6.1, C7.3"""
    module = captured()
    before = references(module)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        exec(USE, vars(module))
        with pytest.raises(OSError, match="Read-only"):
            module.make("/etc/new")
    assert [violation.operation for violation in invocation.report.violations] == ["os.mkdir"]
    tmpguard.uninstall()
    assert changed(before, references(module)) == []
    assert not os.path.exists("/tmp/captured")


def test_references_taken_meanwhile_are_guarded_and_are_the_originals_afterwards(
    captured: Callable[[], types.ModuleType], guard: tmpguard.Guard
) -> None:
    """C7.3: by a module that was imported while the layer was in."""
    module = captured()
    with guard.invocation():
        exec(USE, vars(module))
    tmpguard.uninstall()
    assert module.remove is os.remove is originals.remove
    assert module.make is originals.mkdir
    assert module.io_open is originals.open
    assert module.FileIO is originals.FileIO
    assert module.stat is originals.stat
    assert module.connect is originals.sqlite_connect
    assert module.Holder.unlink is originals.unlink
    assert module.Holder.look is originals.lstat
    assert module.Holder.opener is originals.open
    assert module.Holder.method.__defaults__ == (originals.rename,)
    assert module.read.__kwdefaults__["opener"] is originals.open
    assert module.write.__defaults__[0] is originals.open
    assert module.TABLE["make"] is originals.mkdir
    assert module.TABLE["nested"]["remove"] is originals.remove


def test_a_module_imported_within_an_invocation_is_no_different(
    captured: Callable[[], types.ModuleType], guard: tmpguard.Guard
) -> None:
    """SURFACE 1.1: from a directory below the real /tmp, too."""
    with guard.invocation() as invocation:
        module = captured()
        exec(USE, vars(module))
    assert invocation.report.violations == ()
    tmpguard.uninstall()
    assert module.make is originals.mkdir


def test_what_was_changed_meanwhile_by_others_is_theirs(
    captured: Callable[[], types.ModuleType], scratch_root: Path
) -> None:
    """A name that was set anew while the layer was in, in a module that holds references."""
    module = captured()
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    module.remove = len
    tmpguard.uninstall()
    assert module.remove is len


class Wakeful:
    """Stands for Django's lazy settings and the like: every question wakes it."""

    woken = 0

    def __getattribute__(self, name: str) -> Any:
        type(self).woken += 1
        return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        type(self).woken += 1
        return False

    def __hash__(self) -> int:
        type(self).woken += 1
        return 1

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        type(self).woken += 1
        return Wakeful


class LazyModule(types.ModuleType):
    """A module that imports what it is asked for."""

    asked: list[str]

    def __getattr__(self, name: str) -> Any:
        vars(self).setdefault("asked", []).append(name)
        raise AttributeError(name)


def test_lazy_objects_and_modules_are_not_woken(scratch_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SURFACE 3: by identity and with ``type(o)``, asking no object for anything."""
    module = LazyModule("lazy_by_test")
    vars(module)["settings"] = Wakeful()
    vars(module)["make"] = originals.mkdir
    monkeypatch.setitem(sys.modules, "lazy_by_test", module)
    monkeypatch.setitem(sys.modules, "odd_by_test", Wakeful())  # type: ignore[misc]
    monkeypatch.setattr(Wakeful, "woken", 0)
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    assert vars(module)["make"] is not originals.mkdir
    tmpguard.uninstall()
    assert vars(module)["make"] is originals.mkdir
    assert Wakeful.woken == 0
    assert vars(module).get("asked", []) == []


def test_a_module_of_lazily_imported_things_stays_so(scratch_root: Path) -> None:
    """``importlib.util.LazyLoader``: looking at its namespace would load it."""
    assert (
        run_python(
            """
import importlib.util, sys
spec = importlib.util.find_spec("colorsys")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules["colorsys"] = module
spec.loader.exec_module(module)
import tmpguard
tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
tmpguard.uninstall()
print(type(module).__name__, object.__getattribute__(module, "__dict__").get("rgb_to_hls"))
""",
            scratch_root,
        )
        == "_LazyModule None\n"
    )


# --- in company: what others put on before and after ---------------------------------------------------


def counting(original: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    """A wrapper as other libraries put them on: it notes each call."""

    @functools.wraps(original)
    def call(*args: Any, **options: Any) -> Any:
        seen.append(original.__name__)
        return original(*args, **options)

    return call


PLACES: list[tuple[Any, str]] = [
    *((builtins, "open"), (io, "open"), (os, "stat"), (os, "lstat"), (os, "mkdir"), (os, "listdir")),
    *((os, "walk"), (os, "system"), (os, "posix_spawn"), (os, "waitpid"), (tempfile, "_gettempdir")),
    *((Path, "is_mount"), (socket.socket, "connect"), (socket.socket, "getsockname"), (sqlite3, "connect")),
    *((threading.Thread, "start"), (concurrent.futures.ThreadPoolExecutor, "submit")),
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of the wrappers in all ``PLACES``, which are put on before the layer is."""
    tmpguard.uninstall()
    calls: list[str] = []
    with monkeypatch.context() as patch:
        for owner, name in PLACES:
            patch.setattr(owner, name, counting(getattr(owner, name), calls))
        yield calls
        tmpguard.uninstall()


def work(directory: Path) -> None:
    """Calls what is in ``PLACES``."""
    open(f"{directory}/one", "w").close()
    with io.open(f"{directory}/two", "w"):  # noqa: UP020
        pass
    os.stat(directory)
    os.lstat(directory)
    os.mkdir(f"{directory}/new")
    assert sorted(os.listdir(directory)) == ["new", "one", "two"]
    assert len(list(os.walk(directory))) == 2
    assert not Path(directory, "new").is_mount()
    tempfile.gettempdir()
    with socket.socket(socket.AF_UNIX) as unix:
        with pytest.raises(FileNotFoundError):
            unix.connect(f"{directory}/socket")
        unix.getsockname()
    sqlite3.connect(f"{directory}/data.db").close()
    hand_on()


def hand_on() -> None:
    """Calls what hands work on."""
    assert os.system("true") == 0
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(int).result() == 0


def test_what_others_put_on_before_the_first_guard_is_the_original(
    seen: list[str], scratch_root: Path, tmp_path: Path
) -> None:
    tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    directory = tmp_path / "outside"
    directory.mkdir()
    seen.clear()
    work(directory)
    assert {name for _, name in PLACES} <= set(seen)


def test_within_an_invocation_work_is_handed_on_through_the_wrappers_of_others(
    seen: list[str], scratch_root: Path
) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
    with guard.invocation() as invocation:
        seen.clear()
        work(Path("/tmp"))
        assert sorted(os.listdir("/tmp")) == ["data.db", "new", "one", "two"]
    assert {"connect", "getsockname", "system", "posix_spawn", "waitpid", "start", "submit"} <= set(seen)
    assert not invocation.report.violations


def test_uninstalling_gives_back_what_others_had_put_on(seen: list[str], scratch_root: Path) -> None:
    """C7.3"""
    before = [vars(owner)[name] for owner, name in PLACES]
    use(tmpguard.Guard(scratch_root=scratch_root, bundle=None))
    assert all(vars(owner)[name] is not one for (owner, name), one in zip(PLACES, before, strict=True))
    tmpguard.uninstall()
    assert [vars(owner)[name] for owner, name in PLACES] == before
    assert all(vars(owner)[name] is one for (owner, name), one in zip(PLACES, before, strict=True))


def test_references_to_the_original_below_a_wrapper_are_replaced_too(
    captured: Callable[[], types.ModuleType], seen: list[str], guard: tmpguard.Guard
) -> None:
    tmpguard.uninstall()
    module = types.ModuleType("below")
    module.stat, module.make = originals.stat, originals.mkdir  # type: ignore[attr-defined]
    sys.modules["below"] = module
    try:
        with guard.invocation():
            module.make("/tmp/new")  # type: ignore[attr-defined]
            assert module.stat("/tmp/new") == os.stat("/tmp/new")  # type: ignore[attr-defined]
            assert not os.path.exists(originals.getcwd() + "/new")
        tmpguard.uninstall()
        assert module.stat is originals.stat  # type: ignore[attr-defined]
    finally:
        del sys.modules["below"]


@pytest.fixture
def plain() -> Iterator[None]:
    """What is in ``PLACES`` without the layer is there again afterwards."""
    tmpguard.uninstall()
    kept = [(owner, name, vars(owner).get(name)) for owner, name in PLACES]
    yield
    for owner, name, value in kept:
        if value is None:
            delattr(owner, name)
        else:
            setattr(owner, name, value)


def test_uninstalling_leaves_what_others_put_on_later(
    plain: None, guard: tmpguard.Guard, tmp_path: Path
) -> None:
    tmpguard.install()
    calls: list[str] = []
    for owner, name in PLACES:
        setattr(owner, name, counting(getattr(owner, name), calls))
    later = [vars(owner)[name] for owner, name in PLACES]
    with guard.invocation():
        work(Path("/tmp"))
    tmpguard.uninstall()
    assert all(vars(owner)[name] is one for (owner, name), one in zip(PLACES, later, strict=True))
    calls.clear()
    directory = tmp_path / "outside"
    directory.mkdir()
    work(directory)
    assert {name for _, name in PLACES} <= set(calls)


def test_the_originals_are_the_interpreter_s_own_whoever_was_there_before_tmpguard() -> None:
    code = """
import os, builtins, io, logging, threading, time, queue, _thread
real = builtins.open
fake = lambda *a, **k: 1 / 0
names = ["stat", "lstat", "open", "listdir", "unlink", "rmdir", "mkdir", "scandir", "fstat", "close", "read"]
kept = {name: getattr(os, name) for name in names}
for name in names: setattr(os, name, fake)
_thread.start_new_thread = threading.RLock = threading.Lock = queue.SimpleQueue = fake
from tmpguard.core import originals, real as own
import tmpguard.core.background
for name in names: setattr(os, name, kept[name])
print(all(getattr(originals, "os_open" if name == "open" else name) is kept[name] for name in names))
with own.RLock(), own.Lock(): own.SimpleQueue().put(own.get_ident())
"""
    assert run_python(code) == "True\n"


def test_the_originals_are_no_module_that_others_look_through(guard: tmpguard.Guard) -> None:
    assert not isinstance(sys.modules["tmpguard.core.originals"], types.ModuleType)
    assert sys.modules["tmpguard.core.originals"] is originals


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
@pytest.mark.parametrize("positional", [False, True], ids=["by name", "by position"])
def test_a_temporary_file_s_closer_takes_the_function_that_unlinks(
    guard: tmpguard.Guard, positional: bool, ended: bool
) -> None:
    unlinked: list[str] = []
    with guard.invocation():
        file = tempfile.NamedTemporaryFile()
        closer: Any = file._closer  # type: ignore[attr-defined]
        close = getattr(closer, "cleanup", closer.close)
        before = (False,) if hasattr(closer, "cleanup") else ()
        if not ended:
            close(*before, unlinked.append) if positional else close(unlink=unlinked.append)
            assert unlinked == [file.name]
            os.unlink(file.name)
    if ended:
        close(*before, unlinked.append) if positional else close(unlink=unlinked.append)
        assert unlinked == []
