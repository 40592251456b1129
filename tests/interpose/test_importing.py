"""Modules that an invocation has in its ``/tmp`` are imported from there; all others as ever (C6.1, C7.1)."""

from __future__ import annotations

import contextlib
import importlib
import importlib._bootstrap_external as importer  # type: ignore[import-not-found]
import importlib.machinery
import io
import os
import posix
import py_compile
import runpy
import sys
import traceback
import zipfile
import zipimport
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.support import PROJECT

pytestmark = pytest.mark.usefixtures("uninstalled")

SOURCE = "def answer():\n    return {}\n\ndef fail():\n    raise LookupError('told')\n"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of a test are forgotten, and what the importer knows of their directories."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before, known = set(sys.modules), set(sys.path_importer_cache)
    yield
    for name in sys.modules.keys() - before:
        if not name.startswith("tmpguard."):  # imported when a name of the package was first used
            del sys.modules[name]
    for path in sys.path_importer_cache.keys() - known:
        del sys.path_importer_cache[path]


def write(path: str, answer: int = 42) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(SOURCE.format(answer))


def test_a_module_in_tmp_is_imported_with_its_bytecode(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        write("/tmp/plugins/plugin_of_tmp.py")
        sys.path.insert(0, "/tmp/plugins")
        plugin = importlib.import_module("plugin_of_tmp")
        assert plugin.answer() == 42
        assert plugin.__file__ == "/tmp/plugins/plugin_of_tmp.py"
        assert os.path.exists(plugin.__spec__.cached)
        assert invocation.report.used_bytes == 8192
        try:
            plugin.fail()
        except LookupError:
            assert 'plugins/plugin_of_tmp.py", line 5' in traceback.format_exc()
            assert "raise LookupError('told')" in traceback.format_exc()
    assert invocation.report.violations == ()
    assert not os.path.exists("/tmp/plugins")


def test_packages_are_found_by_relative_entries_of_the_path(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/here/regular_in_tmp/__init__.py", 1)
        write("/tmp/here/regular_in_tmp/inner.py", 2)
        write("/tmp/here/namespace_in_tmp/inner.py", 3)
        os.chdir("/tmp/here")
        sys.path.insert(0, "")
        found = [importlib.import_module(name) for name in ("regular_in_tmp", "regular_in_tmp.inner")]
        found.append(importlib.import_module("namespace_in_tmp.inner"))
        assert [module.answer() for module in found] == [1, 2, 3]
        assert runpy.run_path("/tmp/here/namespace_in_tmp/inner.py")["answer"]() == 3


@pytest.mark.skipif(sys.version_info < (3, 15), reason="only Python 3.15 lists what could be imported")
def test_modules_are_discovered(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        write("/tmp/here/module_in_tmp.py")
        write("/tmp/here/package_in_tmp/__init__.py")
        sys.path[:] = ["/tmp/here"]
        found = {spec.name: spec.origin for spec in importlib.machinery.PathFinder.discover()}
        assert found == {
            "module_in_tmp": "/tmp/here/module_in_tmp.py",
            "package_in_tmp": "/tmp/here/package_in_tmp/__init__.py",
        }


def test_a_zip_file_in_tmp_is_imported_from(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        with zipfile.ZipFile("/tmp/modules.zip", "w") as archive:
            archive.writestr("zipped_in_tmp.py", SOURCE.format(7))
        sys.path.insert(0, "/tmp/modules.zip")
        assert importlib.import_module("zipped_in_tmp").answer() == 7


def test_each_invocation_imports_its_own(guard: tmpguard.Guard) -> None:
    sys.path.insert(0, "/tmp/plugins")
    for answer in (1, 2):
        with guard.invocation():
            write("/tmp/plugins/plugin_of_each.py", answer)
            assert importlib.import_module("plugin_of_each").answer() == answer
        del sys.modules["plugin_of_each"]
        importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("plugin_of_each")


def test_the_bundle_is_imported_from_where_it_is_deployed(tmp_path: Path) -> None:
    (tmp_path / "deployed_module.py").write_text(SOURCE.format(5))
    (tmp_path / "left_out_module.py").write_text(SOURCE.format(6))
    (tmp_path / ".genezioignore").write_text("left_out*\n")
    with tmpguard.invocation(bundle=tmp_path) as invocation:
        sys.path.insert(0, "/tmp/package")
        module = importlib.import_module("deployed_module")
        assert (module.answer(), module.__file__) == (5, "/tmp/package/deployed_module.py")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("left_out_module")
    assert invocation.report.violations == ()  # its bytecode, which is not written, is none
    assert not (tmp_path / "__pycache__").exists()


def test_compiling_goes_by_the_invocation_s_paths(guard: tmpguard.Guard) -> None:
    other = str(PROJECT / "compiled.pyc")
    with guard.invocation() as invocation:
        write("/tmp/compiled.py")
        made = py_compile.compile("/tmp/compiled.py", doraise=True)
        assert made is not None
        assert os.path.getsize(made) > 0
        with pytest.raises(OSError, match="Read-only file system"):
            py_compile.compile(__file__, other, doraise=True)
    assert [violation.path.startswith(other) for violation in invocation.report.violations] == [True]
    assert not os.path.exists(other)


def test_an_import_after_the_end_is_no_late_work(guard: tmpguard.Guard) -> None:
    sys.path.insert(0, "/tmp/plugins")
    with guard.invocation() as invocation:
        write("/tmp/plugins/plugin_too_late.py")
    with invocation.bound(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("plugin_too_late")
    assert invocation.report.late_writes == ()


def test_the_importer_has_its_own_modules_again_when_tmpguard_is_taken_out(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        assert importer._os is not posix
        assert importer._os.fspath is posix.fspath
    with contextlib.suppress(FileNotFoundError):
        importer._os.stat("/nowhere")  # outside of any invocation
    tmpguard.uninstall()
    assert importer._os is posix
    assert importer._io is zipimport._io is sys.modules["_io"]  # type: ignore[attr-defined]
    assert importer._io.FileIO is io.FileIO
