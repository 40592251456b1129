"""What .genezioignore names can still be imported; the interpreter's environment stays where it is (C5.2)."""

from __future__ import annotations

import inspect
import linecache
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import traceback
import venv
from collections.abc import Iterator
from importlib import import_module, resources
from pathlib import Path

import pathspec
import pytest

import tmpguard
from tests.support import PROJECT

MODULE = """
def answer():
    return 42

def fail():
    raise LookupError("told")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose modules and their data are all left out of its bundle."""
    project = tmp_path / "project"
    package = project / "left_out_package"
    package.mkdir(parents=True)
    (project / "left_out.py").write_text(MODULE)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(MODULE)
    (package / "data.txt").write_text("data")
    (project / ".genezioignore").write_text("*.py\ndata.txt\n__pycache__/\n")
    monkeypatch.syspath_prepend(project)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield project
    for name in [name for name in sys.modules if name.startswith("left_out")]:
        del sys.modules[name]
    linecache.clearcache()


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root)


def test_modules_are_imported_as_ever(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation() as invocation:
        assert import_module("left_out").answer() == 42
        assert import_module("left_out_package.inner").answer() == 42
        assert not (project / "left_out.py").exists()
    assert invocation.report.violations == ()


def test_their_sources_are_read_as_ever(guard: tmpguard.Guard, project: Path) -> None:
    with guard.invocation() as invocation:
        module = import_module("left_out")
        assert inspect.getsource(module.answer) == "def answer():\n    return 42\n"
        assert inspect.getsourcefile(module) == str(project / "left_out.py")
        linecache.clearcache()
        assert linecache.getline(str(project / "left_out.py"), 3) == "    return 42\n"
        linecache.checkcache()
        with pytest.raises(LookupError) as failed:
            module.fail()
        linecache.clearcache()
        assert 'raise LookupError("told")' in "".join(traceback.format_exception(failed.value))
        # What a traceback's printer has seen the application does not.
        assert not os.path.exists(project / "left_out.py")
        assert "left_out.py" not in os.listdir(project)
    assert invocation.report.violations == ()


def test_their_data_is_not_there(guard: tmpguard.Guard) -> None:
    for read in (
        lambda: resources.files("left_out_package").joinpath("data.txt").read_text(),
        lambda: pkgutil.get_data("left_out_package", "data.txt"),
    ):
        with guard.invocation() as invocation:
            with pytest.raises(FileNotFoundError) as refused:
                read()
            assert refused.value.__notes__ == [
                "tmpguard: not in the bundle: .genezioignore line 2, `data.txt`"
            ]
        (violation,) = invocation.report.violations
        assert violation.location is not None
        assert violation.location.file == __file__


def test_data_of_packages_that_is_there_can_be_read(guard: tmpguard.Guard, project: Path) -> None:
    (project / ".genezioignore").write_text("nothing\n")
    for which in (guard, tmpguard.Guard(bundle=project, scratch_root=project.parent / "scratch")):
        (project / "left_out_package/more.txt").write_text("more")
        with which.invocation():
            assert pkgutil.get_data("left_out_package", "more.txt") == b"more"
            with pytest.raises(FileNotFoundError):
                pkgutil.get_data("left_out_package", "nowhere.txt")
            assert pkgutil.get_data("no_such_package_at_all", "x") is None


ENVIRONMENT = """
import importlib.metadata, logging, os, pathlib, sys, tmpguard
logging.getLogger("tmpguard").disabled = True
project, scratch = sys.argv[1:]
assert sys.prefix == f"{project}/.venv", sys.prefix
site = f"{project}/.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
guard = tmpguard.Guard(bundle=project, scratch_root=scratch)
with guard.invocation() as invocation:
    import dependency
    assert dependency.__file__ == f"{site}/dependency/__init__.py"
    # at its own path
    assert pathlib.Path(f"{site}/dependency/table.csv").read_text() == "rows"
    assert pathlib.Path(".venv/pyvenv.cfg").exists()
    assert "dependency" in os.listdir(site)
    assert "bin" in {entry.name for entry in os.scandir(".venv")}
    assert [path.name for path in pathlib.Path(site).rglob("*.csv")] == ["table.csv"]
    assert importlib.metadata.version("dependency") == "1.2"
    assert os.path.exists(sys.executable)
    assert os.access(sys.executable, os.X_OK)
    assert os.path.isdir(os.path.dirname(tmpguard.__file__))
    os.chdir(".venv/bin")
    assert os.getcwd() == f"{project}/.venv/bin"
    os.chdir(project)
    # not listed in the project, and not in the bundle
    assert sorted(os.listdir()) == [".genezioignore", "app.py"]
    assert [top for top, _, _ in os.walk(".")] == ["."]
    assert not os.path.exists("/tmp/package/.venv")
    assert not os.path.exists("/tmp/package/.venv/pyvenv.cfg")
    assert not os.path.exists("rows.csv")
    assert invocation.report.violations == (), invocation.report.violations
    # a kept place is read-only all the same
    try:
        open(f"{site}/new", "w")
    except OSError as exc:
        assert exc.errno == 30
    else:
        assert False, "written"
print("done")
"""


@pytest.mark.parametrize("below_tmp", [True, False], ids=["below /tmp", "elsewhere"])
def test_the_environment_within_the_project_stays_at_its_own_path(
    below_tmp: bool, scratch_root: Path
) -> None:
    parent = Path(tempfile.mkdtemp(dir="/tmp" if below_tmp else "/var/tmp", prefix="tmpguard-test-"))
    project = parent.resolve() / "project"
    try:
        venv.create(project / ".venv", symlinks=True)
        (site,) = project.glob(".venv/lib/python*/site-packages")
        (site / "dependency").mkdir()
        (site / "dependency/__init__.py").write_text("")
        (site / "dependency/table.csv").write_text("rows")
        (site / "dependency-1.2.dist-info").mkdir()
        (site / "dependency-1.2.dist-info/METADATA").write_text("Name: dependency\nVersion: 1.2\n")
        # tmpguard, and what it needs
        (site / "tmpguard.pth").write_text(f"{PROJECT}\n{Path(pathspec.__file__).parent.parent}\n")
        (project / "app.py").write_text("")
        (project / "rows.csv").write_text("")
        (project / ".genezioignore").write_text(".venv/\n*.csv\n")
        command = [project / ".venv/bin/python", "-c", ENVIRONMENT, project, scratch_root]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)
        assert (done.stdout, done.stderr) == ("done\n", "")
    finally:
        shutil.rmtree(parent)
