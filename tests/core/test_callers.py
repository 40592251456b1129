"""Who made a call: the application's line, the library functions on the way, an import, an observer."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import PROJECT, run_python
from tmpguard.core.callers import Caller, find_caller, is_importing

LIBRARY = """
class Cache:
    def store(self, call):
        return call()

def save(call):
    return Cache().store(call)
"""


def library(call: Callable[[], Caller]) -> Caller:
    """The answer of ``call``, which a function of an installed package makes."""
    names: dict[str, Any] = {"__name__": "shop.cache"}
    exec(compile(LIBRARY, "/srv/site-packages/shop/cache.py", "exec"), names)
    result = names["save"](call)
    assert isinstance(result, Caller)
    return result


def test_the_functions_are_those_between_the_call_and_the_application_s_line() -> None:
    (line, through), functions, importing, package, _ = library(find_caller)
    assert line is not None
    assert (line.file, line.function) == (__file__, "library")
    assert through is not None
    assert str(through) == "/srv/site-packages/shop/cache.py:4 in Cache.store"
    assert functions == ("shop.cache.Cache.store", "shop.cache.save")
    assert not importing
    assert package == "shop"


def test_a_library_that_called_the_application_is_not_on_the_way() -> None:
    caller = library(lambda: find_caller())
    (line, through), functions, _, package, named = caller
    assert line is not None
    assert "<lambda>" in line.function
    assert through is None
    assert functions == ()
    assert (package, named) == ("", None)


WRITING = """
import os, tempfile
def named(path, ask): return ask(path)
def appended(path, ask): return ask(path + ".lock")
def inside(directory, *, ask): return ask(os.path.join(directory, "index", "0"))
def beside(path, ask): return ask(os.path.join(os.path.dirname(os.path.abspath(path)), "tmp1x8a"))
def made_up(path, ask): return ask("shopIOtemp.xlsx")
def elsewhere(path, ask): return ask("/var/lib/shop/shopIOtemp.xlsx")
def many(*paths, ask, **more): return ask(more["target"])
class Book:
    def __init__(self, name): self.name = name
    def save(self, ask): return ask(self.name)
"""


def test_the_application_s_own_name_for_a_file_is_found() -> None:
    names: dict[str, Any] = {"__name__": "shop.io"}
    exec(compile(WRITING, "/srv/site-packages/shop/io.py", "exec"), names)
    here = os.getcwd()

    def ask(path: str) -> Caller:
        return find_caller(path, here)

    # ``ask`` is the application's: with functools.partial nothing but the library is on the way.
    asking = partial(find_caller, directory=here)
    for given in ("out/report.xlsx", Path("out/report.xlsx")):
        assert names["named"](given, lambda path: asking(os.fspath(path))).named is None  # by the application
        assert names["named"](given, lambda path: ask(str(path))).package == ""
    assert names["named"]("out.xlsx", asking)[3:] == ("shop", "out.xlsx")
    assert names["appended"]("out.xlsx", asking).named == "out.xlsx"
    assert names["inside"]("out", ask=asking).named == "out"
    assert names["beside"]("out.xlsx", asking).named == "out.xlsx"
    assert names["beside"](Path("data/out.xlsx"), asking).named == "data/out.xlsx"
    assert names["many"]("w", "utf-8", ask=asking, target="out.xlsx").named == "out.xlsx"
    for made_up in ("made_up", "elsewhere"):
        assert names[made_up]("out.xlsx", asking)[3:] == ("shop", None)
        assert names[made_up]("w", asking).named is None
    assert names["Book"]("out.xlsx").save(asking)[3:] == ("shop", None)


class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An import hook of the application's own, which asks who called it."""

    asked: tuple[Caller, Caller, bool]

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name == "shop_hooked" else None

    def exec_module(self, module: ModuleType) -> None:
        self.asked = find_caller(importing=True), find_caller(), is_importing()
        sys.modules.pop(module.__name__)
        raise ImportError(module.__name__)


def test_an_import_is_found_beyond_the_application_s_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Hook()
    monkeypatch.setattr(sys, "meta_path", [hook, *sys.meta_path])
    with pytest.raises(ImportError, match="shop_hooked"):
        importlib.import_module("shop_hooked")
    thorough, quick, importing = hook.asked
    assert importing
    assert thorough.importing
    assert not quick.importing  # it was not asked for
    for caller in (thorough, quick):
        assert caller.origin[0] is not None
        assert caller.origin[0].function == "Hook.exec_module"
        assert caller.functions == ()


def test_the_code_of_a_module_is_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_asking.py").write_text(
        "from tmpguard.core.callers import find_caller, is_importing\n"
        "def ask():\n"
        "    return find_caller(importing=True).importing, is_importing()\n"
        "ASKED = ask()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_asking", raising=False)
    assert importlib.import_module("shop_asking").ASKED == (False, False)
    del sys.modules["shop_asking"]


OBSERVING = """
site, project, scratch = sys.argv[1:]
sys.path[:0] = [site]
import coverage, tmpguard
assert tmpguard.__file__.startswith(site) or site.endswith("/elsewhere")
with tmpguard.invocation(bundle=project, scratch_root=scratch) as invocation:
    print(coverage.sees(project + "/local.py"), coverage.sees(project + "/local.csv"))
print(invocation.report.lookups)
"""


@pytest.mark.parametrize("directory", ["site-packages", "elsewhere"])
def test_a_coverage_tool_sees_what_is_not_in_the_bundle(
    tmp_path: Path, scratch_root: Path, directory: str
) -> None:
    """Wherever tmpguard itself is installed."""
    site, project = tmp_path / directory, tmp_path / "project"
    (site / "coverage").mkdir(parents=True)
    (site / "coverage" / "__init__.py").write_text("import os\nsees = lambda path: os.path.exists(path)\n")
    if directory == "site-packages":
        (site / "tmpguard").symlink_to(PROJECT / "tmpguard")
    project.mkdir()
    for name in ("local.py", "local.csv"):
        (project / name).touch()
    (project / ".genezioignore").write_text("local.*\n")
    assert run_python(OBSERVING, site, project, scratch_root) == "True True\n()\n"
