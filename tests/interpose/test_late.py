"""A module that is first imported within a request or a cold start is patched as it is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import pytest

from tests.support import run_python
from tmpguard.interpose import late
from tmpguard.interpose.surface import LATE_MODULES

pytestmark = pytest.mark.usefixtures("uninstalled")

CODE = """
import contextlib, sys
import tmpguard
guard = tmpguard.Guard(storage_size=1, bundle=None)
before = list(sys.meta_path)
start = tmpguard.cold_start(guard=guard) if sys.argv[1] == "start" else contextlib.nullcontext()
with start:
    if sys.argv[1] == "start":
        import ssl, multiprocessing.util
with guard.invocation():
    import ssl, multiprocessing.util
    print(ssl.SSLContext.load_cert_chain.__code__.co_filename.rpartition("/")[2])
    print(multiprocessing.util.get_temp_dir().startswith("/tmp/pymp-"))
    spec = ssl.__spec__
    print(type(spec.loader).__module__, ssl.__loader__ is spec.loader, spec.origin == ssl.__file__)
tmpguard.uninstall()
print(hasattr(ssl.SSLContext.load_cert_chain, "__code__"))
print(any(type(finder).__module__.startswith("tmpguard") for finder in sys.meta_path))
"""


@pytest.mark.parametrize("when", ["start", "request"])
def test_modules_of_the_late_table_are_patched_as_they_are_imported(when: str) -> None:
    printed = run_python(CODE, when).splitlines()
    assert printed == ["native.py", "True", "_frozen_importlib_external True True", "False", "False"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "imported_late.py").write_text("value = __loader__, __spec__.loader\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "imported_late"
    sys.modules.pop("imported_late", None)


IMPORT = """
import importlib, sys
from tmpguard.interpose import late

sys.path.insert(0, sys.argv[1])
told = []
finder = late.Finder({"imported_late"}, lambda module: told.append(hasattr(module, "value")))
finder.start()
imported = importlib.import_module("imported_late")
importlib.reload(imported)
finder.stop()
assert told == [True, True], told
assert imported.value == (imported.__loader__, imported.__loader__)
assert type(imported.__loader__).__module__ == "_frozen_importlib_external"
assert finder not in sys.meta_path
finder.stop()
"""


def test_the_finder_tells_of_the_import_and_leaves_no_trace_in_the_module(
    module: str, tmp_path: Path
) -> None:
    run_python(IMPORT, tmp_path)


class _Greedy:
    """Finds modules by itself, as pytest's finder does what it rewrites, or asks all others."""

    def __init__(self, asks: bool) -> None:
        self._asks = asks

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        others: list[Any] = [one for one in sys.meta_path if one is not self] if self._asks else [PathFinder]
        return next((spec for one in others if (spec := one.find_spec(name, path, target))), None)


@pytest.mark.parametrize("asks", [False, True], ids=["by itself", "by all others"])
def test_a_finder_that_was_there_before_keeps_nothing_to_itself(
    asks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"late_{asks}"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [_Greedy(asks), *sys.meta_path])
    told: list[int] = []
    finder = late.Finder({name}, lambda _: told.append(1))
    finder.start()
    try:
        importlib.import_module(name)
        assert finder.find_spec("json") is None
    finally:
        finder.stop()
        sys.modules.pop(name, None)
    assert told == [1]


def test_a_warning_names_the_line_that_imports_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)\n"
    (tmp_path / "warning_late.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    finder = late.Finder({"warning_late"}, lambda _: None)
    finder.start()
    try:
        with pytest.warns(DeprecationWarning, match="old") as caught:
            import warning_late  # type: ignore[import-not-found]  # noqa: F401
    finally:
        finder.stop()
        sys.modules.pop("warning_late", None)
    assert caught[0].filename == __file__


def test_a_module_that_fails_is_not_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_late.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    told: list[int] = []
    finder = late.Finder({"failing_late", "missing_late"}, lambda _: told.append(1))
    finder.start()
    try:
        with pytest.raises(ZeroDivisionError):
            importlib.import_module("failing_late")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("missing_late")
    finally:
        finder.stop()
    assert told == []


def test_nothing_is_imported_to_be_patched() -> None:
    code = """
import sys, tmpguard, tmpguard.guard
before = set(sys.modules)
with tmpguard.invocation(bundle=None):
    pass
print(sorted((set(sys.modules) - before) & set(sys.argv[1:])))
"""
    assert run_python(code, *LATE_MODULES) == "[]\n"
