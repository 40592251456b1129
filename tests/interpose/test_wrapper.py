"""What stands in place of a function or class cannot be told from it but by its identity (C7.2)."""

from __future__ import annotations

import builtins
import contextlib
import copy
import fcntl
import functools
import glob
import inspect
import io
import mmap
import os
import pickle
import pydoc
import shutil
import socket
import sqlite3
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tmpguard
from tmpguard.core import originals

#: The patched built-in functions of ``os`` with their originals: a list, whose entries nobody replaces.
OS_NAMES = sorted(
    name
    for name in vars(originals)
    if isinstance(getattr(os, name, None), types.BuiltinFunctionType)
    and getattr(originals, name) is getattr(os, name)
)
PLAIN = [(name, getattr(os, name)) for name in OS_NAMES]
CAPABILITIES = [
    (name, frozenset(getattr(os, name)))
    for name in ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
]
THREAD_START, SUBMIT = threading.Thread.start, ThreadPoolExecutor.submit
AVOIDS_ATTACKS = shutil.rmtree.avoids_symlink_attacks


@pytest.fixture(autouse=True)
def installed(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    """The layer is in place, once looked at within an invocation and once outside of any."""
    with guard.invocation() as invocation:
        yield invocation


def patched() -> list[tuple[str, Any, Any]]:
    """The functions of ``os`` that are replaced now: the name, the original, what stands there."""
    return [(name, plain, getattr(os, name)) for name, plain in PLAIN if getattr(os, name) is not plain]


def by_delegation() -> list[tuple[str, Any, Any]]:
    """All but stat and lstat, which are bound methods for speed, and cannot compare as they like."""
    return [row for row in patched() if row[0] not in ("stat", "lstat")]


def test_most_of_what_takes_a_path_is_patched() -> None:
    names = {name for name, _, _ in patched()}
    assert {"mkdir", "stat", "rename", "listdir", "unlink", "write", "chdir", "getcwd", "utime"} <= names


# --- functions -----------------------------------------------------------------------------------------


def public_module(plain: Any) -> str:
    """The module where the wrapper of ``plain`` is, and where pickle looks for it."""
    return {"posix": "os", "_io": "io"}.get(plain.__module__, plain.__module__)


def test_names_and_documentation_are_kept() -> None:
    for name, plain, wrapper in [*patched(), ("open", originals.open, builtins.open)]:
        for attribute in ("__name__", "__qualname__", "__doc__"):
            assert getattr(wrapper, attribute) == getattr(plain, attribute), (name, attribute)
        assert wrapper.__module__ == public_module(plain), name
    assert io.open is builtins.open
    assert open.__name__ == "open"


def test_signatures_are_kept() -> None:
    for name, plain, wrapper in [*patched(), ("open", originals.open, builtins.open)]:
        with contextlib.suppress(ValueError):  # some originals have none that inspect understands
            expected = inspect.signature(plain)
            found = inspect.signature(wrapper)
            assert list(found.parameters) == list(expected.parameters), name
            assert [p.kind for p in found.parameters.values()] == [
                p.kind for p in expected.parameters.values()
            ], name
            assert inspect.getfullargspec(wrapper) == inspect.getfullargspec(plain), name


def test_wrappers_are_callable_and_routines_as_far_as_anybody_asks() -> None:
    for name, _, wrapper in patched():
        assert callable(wrapper), name
        assert inspect.isroutine(wrapper), name
        assert not inspect.isclass(wrapper), name
        assert not inspect.isfunction(wrapper), "a Python function would bind"


def test_inspect_takes_them_for_built_in_functions() -> None:
    for name, plain, wrapper in by_delegation():
        assert isinstance(wrapper, types.BuiltinFunctionType), name
        assert inspect.isbuiltin(wrapper), name
        with contextlib.suppress(ValueError):  # some originals have none that inspect understands
            assert str(inspect.signature(plain)) == str(inspect.signature(wrapper)), name
        shown = pydoc.plain(pydoc.render_doc(plain)).replace("module posix", f"module {public_module(plain)}")
        assert pydoc.plain(pydoc.render_doc(wrapper)) == shown, name


def test_repr_is_that_of_the_original() -> None:
    for name, plain, wrapper in by_delegation():
        assert repr(wrapper) == repr(plain), name


def test_wrappers_compare_and_hash_as_their_originals() -> None:
    """SURFACE 1.2"""
    for name, plain, wrapper in by_delegation():
        assert wrapper == plain, name
        assert plain == wrapper, name
        assert hash(wrapper) == hash(plain), name
        assert wrapper in {plain}, name
        assert plain in {wrapper}, name
    for name, plain, wrapper in patched():
        for other_name, other, _ in patched():
            if other_name != name and other != plain:
                assert wrapper != other, (name, other_name)
        assert wrapper == wrapper
        assert wrapper != 1


def test_functools_wraps_takes_over_what_it_takes_over() -> None:
    for name, plain, wrapper in [*patched(), ("open", originals.open, builtins.open)]:

        @functools.wraps(wrapper)
        def wrapping(*args: Any) -> Any: ...

        assert (wrapping.__name__, wrapping.__module__) == (plain.__name__, public_module(plain)), name
        assert wrapping.__wrapped__ == wrapper  # type: ignore[attr-defined]
        assert functools.partial(wrapper).func == wrapper


def test_stored_in_a_class_they_do_not_bind(tmp_path: Path) -> None:
    """SURFACE 1.2: ``_unlink = os.unlink`` in a class body, called as ``self._unlink(path)``."""

    class Holder:
        remove = os.unlink
        make: ClassVar[Any] = os.mkdir
        look = os.stat
        look_at_link = os.lstat
        open_file = open
        inherited = io.open

    holder = Holder()
    holder.make("/tmp/directory")
    with holder.open_file("/tmp/directory/file.txt", "w") as file:
        file.write("text")
    assert holder.look("/tmp/directory/file.txt").st_size == 4
    assert holder.look_at_link("/tmp/directory/file.txt").st_size == 4
    holder.remove("/tmp/directory/file.txt")
    assert os.listdir("/tmp/directory") == []


def test_they_pickle_and_copy() -> None:
    """To what has the name where it is unpickled; so no tmpguard is needed there."""
    for name, _, wrapper in [*patched(), ("open", None, builtins.open)]:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(wrapper, protocol)
            assert b"tmpguard" not in data, name
            assert pickle.loads(data) == wrapper, name
        assert copy.copy(wrapper) == wrapper, name
        assert copy.deepcopy(wrapper) == wrapper, name
        assert copy.deepcopy([wrapper]) == [wrapper], name


def test_pickles_are_read_as_the_originals_without_the_layer() -> None:
    pickled = [(plain, pickle.dumps(wrapper)) for _, plain, wrapper in patched()]
    tmpguard.uninstall()
    try:
        for plain, data in pickled:
            assert pickle.loads(data) is plain
    finally:
        tmpguard.install()


def test_the_sets_of_capabilities_still_tell_the_truth() -> None:
    """C7.2: ``os.supports_dir_fd`` and its like, asked with the names that ``os`` has now."""
    for capability, before in CAPABILITIES:
        functions = getattr(os, capability)
        for name, plain, wrapper in patched():
            assert (wrapper in functions) is (plain in before), (capability, name)


def test_shutil_still_knows_its_safe_ways() -> None:
    """C7.2"""
    assert AVOIDS_ATTACKS
    assert shutil.rmtree.avoids_symlink_attacks
    assert shutil._use_fd_functions  # type: ignore[attr-defined]
    assert os.access in os.supports_effective_ids


def test_attributes_that_the_originals_have_are_answered() -> None:
    for name, plain, wrapper in by_delegation():
        assert getattr(wrapper, "__text_signature__", None) == plain.__text_signature__, name
        assert wrapper.__self__ is plain.__self__, name
        with pytest.raises(AttributeError):
            _ = wrapper.no_such_attribute


def test_wrong_arguments_are_type_errors_of_the_called_function() -> None:
    calls: list[Callable[[], object]] = [
        lambda: os.mkdir(),  # type: ignore[call-arg]
        lambda: os.mkdir("/tmp/x", 0o777, 1),  # type: ignore[misc]
        lambda: os.stat(),  # type: ignore[call-arg]
        lambda: os.stat("/tmp", no_such=1),  # type: ignore[call-arg]
        lambda: os.rename("/tmp/x"),  # type: ignore[call-arg]
        lambda: os.listdir("/tmp", "/tmp"),  # type: ignore[call-arg]
        lambda: os.unlink(path="/tmp/x", no=1),  # type: ignore[call-arg]
        lambda: os.mkdir(None),  # type: ignore[arg-type]
        lambda: os.stat(1.5),  # type: ignore[arg-type]
        lambda: os.listdir(object()),  # type: ignore[call-overload]
        lambda: os.rename(1, "/tmp/x"),  # type: ignore[arg-type]
    ]
    for number, call in enumerate(calls):
        with pytest.raises(TypeError):
            assert call() is None, f"call {number} was accepted"
    assert os.listdir("/tmp") == []


# --- files ---------------------------------------------------------------------------------------------


def test_files_are_of_the_usual_classes() -> None:
    kinds = [
        ("w", {}, io.TextIOWrapper),
        ("r", {}, io.TextIOWrapper),
        ("w+", {}, io.TextIOWrapper),
        ("wb", {}, io.BufferedWriter),
        ("rb", {}, io.BufferedReader),
        ("w+b", {}, io.BufferedRandom),
        ("wb", {"buffering": 0}, io.FileIO),
        ("rb", {"buffering": 0}, io.FileIO),
    ]
    for mode, options, kind in kinds:
        with open("/tmp/file.txt", mode, **options) as file:  # type: ignore[call-overload]
            assert isinstance(file, kind)
            assert type(file).__module__ == "_io"
            assert type(file).__name__ == kind.__name__
            assert os.fstat(file.fileno()).st_size == 0
            raw = getattr(file, "buffer", file)
            raw = getattr(raw, "raw", raw)
            assert isinstance(raw, io.FileIO)
            assert isinstance(raw, originals.FileIO)
            assert isinstance(raw, io.RawIOBase)
            with pytest.raises(AttributeError):
                _ = file.no_such_attribute


def test_file_io_stays_one_class_for_old_and_new_files(tmp_path: Path) -> None:
    outside = originals.FileIO(os.devnull)
    inside = io.FileIO("/tmp/file.txt", "w")
    for file in (outside, inside):
        assert isinstance(file, io.FileIO)
        assert isinstance(file, originals.FileIO)
        file.close()
    assert issubclass(io.FileIO, originals.FileIO)
    assert issubclass(originals.FileIO, io.FileIO)
    assert not isinstance(io.BytesIO(), io.FileIO)
    assert not issubclass(io.BytesIO, io.FileIO)


def test_classes_are_derived_from_file_io_as_ever() -> None:
    class Counting(io.FileIO):
        written = 0

        def write(self, data: Any, /) -> int:
            self.written += 1
            return super().write(data)

    with Counting("/tmp/file.txt", "w") as file:
        file.write(b"text")
        assert (file.written, file.name, file.mode) == (1, "/tmp/file.txt", "wb")
        assert isinstance(file, io.FileIO)
    with io.FileIO("/tmp/file.txt") as plain:
        assert not isinstance(plain, Counting)
    assert Path("/tmp/file.txt").read_bytes() == b"text"


def test_file_io_can_be_initialised_again() -> None:
    """SURFACE 2: its re-``__init__``."""
    file = io.FileIO("/tmp/first.txt", "w")
    file.write(b"first")
    file.close()
    file.__init__("/tmp/second.txt", "w")  # type: ignore[misc]
    file.write(b"second")
    file.close()
    assert Path("/tmp/first.txt").read_bytes() == b"first"
    assert Path("/tmp/second.txt").read_bytes() == b"second"
    with pytest.raises(OSError, match="Read-only"):
        file.__init__("/etc/third.txt", "w")  # type: ignore[misc]


def test_file_classes_are_made_of_a_file_of_ours() -> None:
    raw = io.FileIO("/tmp/file.txt", "w+")
    text = io.TextIOWrapper(io.BufferedRandom(raw), encoding="utf-8", write_through=True)
    text.write("text")
    text.seek(0)
    assert text.read() == "text"
    buffer = text.detach()
    assert buffer.detach() is raw
    raw.close()


def test_an_unclosed_file_is_warned_of_as_ever() -> None:
    for mode in ("w", "wb", "r+", "rb"):
        Path("/tmp/file.txt").touch()
        with pytest.warns(ResourceWarning, match=r"unclosed file .*name='/tmp/file.txt'"):
            open("/tmp/file.txt", mode)
    with pytest.warns(ResourceWarning, match=r"unclosed file .*name='/tmp/file.txt'"):
        open("/tmp/file.txt", "wb", buffering=0)
    with pytest.warns(ResourceWarning, match=r"unclosed file .*name='/tmp/file.txt'"):
        io.FileIO("/tmp/file.txt", "w")


def test_a_file_forgotten_with_data_in_its_buffers_is_flushed() -> None:
    with pytest.warns(ResourceWarning):
        open("/tmp/file.txt", "w").write("text")
    with pytest.warns(ResourceWarning):
        open("/tmp/file.bin", "wb").write(b"text")
    with pytest.warns(ResourceWarning):
        open("/tmp/file.raw", "wb", 0).write(b"text")
    for name in ("file.txt", "file.bin", "file.raw"):
        assert Path(f"/tmp/{name}").read_text() == "text"


def test_files_cannot_be_pickled_as_ever() -> None:
    with open("/tmp/file.txt", "wb", buffering=0) as raw, open("/tmp/file.txt", "w") as text:
        for file in (raw, text, text.buffer):
            with pytest.raises(TypeError, match="cannot pickle"):
                pickle.dumps(file)


def test_descriptors_are_real_ones() -> None:
    """SURFACE 6: they can be handed to anything that takes one."""
    with open("/tmp/file.txt", "w+b") as file:
        file.truncate(4096)
        fcntl.flock(file, fcntl.LOCK_EX)
        with mmap.mmap(file.fileno(), 4096) as mapped:
            mapped[:4] = b"text"
        os.set_inheritable(file.fileno(), True)
        assert os.fstat(file.fileno()).st_size == 4096
        again = os.dup(file.fileno())
        assert os.pread(again, 4, 0) == b"text"
        os.close(again)


# --- the other classes ---------------------------------------------------------------------------------


def test_classes_derived_from_the_other_classes_know_their_own_instances() -> None:
    class Mapped(mmap.mmap):
        pass

    class Database(sqlite3.Connection):
        pass

    with mmap.mmap(-1, 4096) as plain, Mapped(-1, 4096) as mapped:
        assert (isinstance(plain, Mapped), isinstance(mapped, Mapped)) == (False, True)
        assert isinstance(mapped, mmap.mmap)
    plain_one, own = sqlite3.connect(":memory:"), sqlite3.connect(":memory:", factory=Database)
    assert (isinstance(plain_one, Database), isinstance(own, Database)) == (False, True)
    assert isinstance(own, sqlite3.Connection)
    plain_one.close()
    own.close()


def test_the_other_classes_stay_classes() -> None:
    for kind in (mmap.mmap, sqlite3.Connection, socket.socket, threading.Thread, ThreadPoolExecutor):
        assert inspect.isclass(kind)
    assert mmap.mmap.__module__ == "mmap"
    assert mmap.mmap.__name__ == "mmap"
    with sqlite3.connect(":memory:") as connection:
        assert isinstance(connection, sqlite3.Connection)
    connection.close()
    with mmap.mmap(-1, 4096) as mapped:
        assert isinstance(mapped, mmap.mmap)


def _complaint(call: Callable[[], object]) -> str:
    with pytest.raises((TypeError, AttributeError)) as raised:
        call()
    return str(raised.value)


def _complaints(directory: str, made_by: Any, mmap_: Any, open_: Any, connect: Any, scandir: Any) -> Any:
    found: list[str] = []
    with (
        mmap_(-1, 4096) as mapped,
        open_(f"{directory}/file", "rb", buffering=0) as raw,
        contextlib.closing(connect(":memory:", factory=made_by)) as connection,
        scandir(directory) as scan,
    ):
        for value in (mapped, raw, connection, scan, *scan):
            found += [
                _complaint(lambda value=value: value.no_such_attribute),  # type: ignore[misc]
                _complaint(lambda value=value: 0 + value),  # type: ignore[misc]
                _complaint(lambda value=value: value()),  # type: ignore[misc]
                repr(type(value)),
                type(value).__name__,
                type(value).__qualname__,
                type(value).__module__,
            ]
    return found


def test_errors_tell_the_classes_as_they_tell_those_in_c(installed: tmpguard.Invocation) -> None:
    Path("/tmp/file").write_bytes(b"x")
    os.symlink("file", "/tmp/link")  # of a listing with links the entries are of a class in Python
    inside = _complaints("/tmp", sqlite3.Connection, mmap.mmap, open, sqlite3.connect, os.scandir)
    plain = (
        originals.SqliteConnection,
        originals.mmap,
        originals.open,
        originals.sqlite_connect,
        originals.scandir,
    )
    assert inside == _complaints(installed.namespace.scratch(), *plain)
    assert "unsupported operand type(s) for +: 'int' and 'mmap.mmap'" in inside


def test_classes_derived_from_them_bear_their_own_names() -> None:
    class Mapped(mmap.mmap):
        pass

    assert (Mapped.__name__, Mapped.__module__) == ("Mapped", __name__)
    Mapped.__name__ = "Other"
    assert Mapped.__name__ == "Other"
    assert pickle.loads(pickle.dumps(mmap.mmap)) is mmap.mmap
    assert pickle.loads(pickle.dumps(sqlite3.Connection)) is sqlite3.Connection
    with Mapped(-1, 4096) as mapped:
        assert "'Other' object" in _complaint(lambda: mapped.no_such_attribute)


def test_methods_that_were_replaced_are_still_methods() -> None:
    for method, plain in (
        (threading.Thread.start, THREAD_START),
        (ThreadPoolExecutor.submit, SUBMIT),
    ):
        assert isinstance(method, types.FunctionType)
        assert (method.__name__, method.__qualname__) == (plain.__name__, plain.__qualname__)
        assert inspect.signature(method) == inspect.signature(plain)
    with socket.socket(socket.AF_UNIX) as unix:
        assert unix.bind.__name__ == "bind"
        assert callable(unix.getsockname)


def test_module_level_functions_above_are_untouched() -> None:
    """They come through the patched primitives: SURFACE's "nothing of their own"."""
    for function in (shutil.copyfile, glob.glob, tempfile.mkstemp, os.fwalk, os.makedirs, Path.open):
        assert isinstance(function, types.FunctionType)
        assert "tmpguard" not in function.__code__.co_filename


def test_os_walk_is_a_python_function_as_ever() -> None:
    assert isinstance(os.walk, types.FunctionType)
    assert inspect.isgeneratorfunction(os.walk) == inspect.isgeneratorfunction(originals.walk)
    assert inspect.signature(os.walk) == inspect.signature(originals.walk)
    assert (os.walk.__module__, os.walk.__qualname__) == ("os", "walk")
    assert pydoc.plain(pydoc.render_doc(os.walk)) == pydoc.plain(pydoc.render_doc(originals.walk))
    assert pickle.loads(pickle.dumps(os.walk)) is os.walk


@pytest.mark.parametrize("within", [True, False], ids=["within", "outside"])
@pytest.mark.parametrize("name", ["stat", "lstat"])
def test_what_stat_takes_by_keyword_only_it_takes_by_keyword_only(
    name: str, within: bool, guard: tmpguard.Guard
) -> None:
    function = getattr(os, name)
    with guard.invocation() if within else contextlib.nullcontext():
        with pytest.raises(TypeError, match=r"positional argument|at most 2 arguments"):
            function("/usr", 3)
        for arguments in (("/usr", None, None), ("/tmp/file", False, None)):
            with pytest.raises(TypeError):
                function(*arguments)
        with pytest.raises(TypeError, match="nonsense"):
            function("/usr", nonsense=1)
        assert function("/usr", dir_fd=None).st_mode == originals.stat("/usr").st_mode
