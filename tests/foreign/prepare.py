"""Gets a suite from its sdist, and makes an environment for it; both are kept in a cache directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

from tests.foreign.suites import Suite
from tests.support import PROJECT

INSIDE = Path(__file__).with_name("inside")

#: What the layer itself needs, and what it is.
LAYER = ("pathspec>=1.0", "pyyaml>=6.0")


class Prepared(NamedTuple):
    """A suite that is ready to run: in which directory, by which interpreter, and what that one imports."""

    suite: Suite
    directory: Path
    python: Path
    imports: Path


class NotAvailable(Exception):
    """The suite or something that it needs could not be downloaded or installed."""


def default_cache() -> Path:
    """Not below /tmp, of which an invocation has its own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmpguard-foreign"


def prepare(suite: Suite, cache: Path) -> Prepared:
    """Download and install what is not in ``cache`` yet. Raises NotAvailable."""
    cache.mkdir(parents=True, exist_ok=True)
    directory = _unpacked(suite, cache)
    python = _environment(suite, directory, cache)
    return Prepared(suite, directory, python, importable(cache))


def importable(cache: Path) -> Path:
    """A directory for the interpreter's path that has tmpguard in it, the modules of ``inside``, and nothing
    else: tmpguard's own tests would be taken for the suite's, and its pytest plugin would be found."""
    place = cache / "imports"
    place.mkdir(exist_ok=True)
    for source in (PROJECT / "tmpguard", *INSIDE.glob("foreign_*.py")):
        link = place / source.name
        if link.is_symlink() and link.readlink() == source:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return place


def _unpacked(suite: Suite, cache: Path) -> Path:
    place = cache / "sdists" / suite.sdist.replace("==", "-")
    if not place.exists():
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            name = suite.sdist.partition("==")[0]
            _pip(sys.executable, "download", "--no-deps", "--no-binary", name, "-d", temporary, suite.sdist)
            [archive] = Path(temporary).glob("*.tar.gz")
            with tarfile.open(archive) as opened:
                # Before 3.11.4 there is no filter.
                safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                opened.extractall(f"{temporary}/unpacked", **safe)
            [top] = Path(temporary, "unpacked").iterdir()
            place.parent.mkdir(exist_ok=True)
            top.rename(place)
    return place


def _environment(suite: Suite, directory: Path, cache: Path) -> Path:
    """The interpreter of an environment that has the suite installed: made anew when its needs change."""
    version = ".".join(map(str, sys.version_info[:3]))
    place = cache / "environments" / f"{suite.sdist.replace('==', '-')}-python{version}"
    python = place / "bin" / "python"
    mark = place / "installed"
    needs = json.dumps([suite.sdist, suite.needs])
    if mark.exists() and mark.read_text() == needs:
        return python
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True, symlinks=True)
    _pip(str(python), "install", *suite.needs, *LAYER, str(directory))
    mark.write_text(needs)
    return python


def _pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NotAvailable(f"pip {' '.join(arguments)}:\n{done.stderr.strip()[-2000:]}")


def copy_of(prepared: Prepared, place: Path) -> Path:
    """A copy of the suite to run in: some tests write beside themselves."""
    return Path(shutil.copytree(prepared.directory, place / prepared.suite.name, symlinks=True))
