"""Pickles of the replaced functions, by whoever makes them, are those of the functions that they replace."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

import tmpguard
from tests.support import run_python

pytestmark = pytest.mark.usefixtures("uninstalled")

FUNCTIONS: list[tuple[str, str]] = [
    *(("io", "open"), ("os", "stat"), ("os", "lstat"), ("os", "listdir"), ("os", "mkdir"), ("os", "statvfs")),
    *(("os", "waitpid"), ("os", "walk"), ("sqlite3", "connect"), ("fcntl", "ioctl"), ("io", "open_code")),
]


@pytest.fixture(autouse=True)
def installed(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        pass


def function(module: str, name: str) -> Any:
    return getattr(__import__(module), name)


class Restricted(pickle.Unpickler):
    """Accepts globals of a few modules only."""

    def find_class(self, module: str, name: str) -> Any:
        if module not in ("os", "io", "_io", "builtins", "__builtin__", "_sqlite3", "fcntl", "posix"):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_they_are_plain_globals(module: str, name: str, protocol: int) -> None:
    replaced = function(module, name)
    data = pickle.dumps([replaced], protocol)
    assert Restricted(io.BytesIO(data)).load() == [replaced]
    assert not {"REDUCE", "BUILD"} & {opcode.name for opcode, _, _ in pickletools.genops(data)}


def test_bound_methods_of_others_are_pickled_as_before(guard: tmpguard.Guard) -> None:
    with_layer = pickle.dumps([[].append, FUNCTIONS.index, io.BytesIO(b"x").read], 2)
    bound = pickle.dumps(guard_free(1).method)
    tmpguard.uninstall()
    assert pickle.dumps([[].append, FUNCTIONS.index, io.BytesIO(b"x").read], 2) == with_layer
    assert pickle.dumps(guard_free(1).method) == bound
    assert pickle.loads(bound)() == 1


class guard_free:
    def __init__(self, value: int) -> None:
        self.value = value

    def method(self) -> int:
        return self.value


def test_a_wrapper_that_stands_nowhere_any_more_is_pickled_by_its_name() -> None:
    kept = [open, os.stat, os.mkdir]
    tmpguard.uninstall()
    assert pickle.loads(pickle.dumps(kept)) == [builtins.open, os.stat, os.mkdir]


@pytest.mark.parametrize("library", ["cloudpickle", "dill", "joblib.externals.cloudpickle"])
def test_libraries_that_pickle_functions_pickle_them(library: str) -> None:
    if find_spec(library.partition(".")[0]) is None or find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    plain = run_python(CODE, library, "never")
    for order in ("before", "after"):
        assert run_python(CODE, library, order) == plain, order


CODE = """
import contextlib, importlib, io, os, pickle, sys
library, order = sys.argv[1:]
if order == "before":
    importlib.import_module(library)
request = contextlib.nullcontext()
if order != "never":
    import tmpguard
    request = tmpguard.invocation(bundle=None)
with request:
    other = importlib.import_module(library)
    functions = [open, io.open, os.stat, os.lstat, os.mkdir, os.listdir]
    print([other.loads(other.dumps(one)) is one for one in functions])

    def look(path, stat=os.stat):
        with open(path, "rb") as file:
            return stat(path).st_size == len(file.read())

    try:
        print(other.loads(other.dumps(look))("/etc/passwd"))
    except AttributeError:  # dill cannot pickle a function on 3.15
        print("no functions")
    print(other.loads(other.dumps("-".join))(["a", "b"]))
print(b"tmpguard" in other.dumps(functions))
"""


def test_processes_of_multiprocessing_are_sent_them() -> None:
    from multiprocessing.reduction import ForkingPickler

    dumps: Callable[[Any], bytes] = ForkingPickler.dumps
    for replaced in (open, os.stat, os.mkdir):
        assert pickle.loads(dumps(replaced)) == replaced
