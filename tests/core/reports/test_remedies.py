"""Each row of the table of remedies is provoked: the refusal names the setting that moves the file."""

from __future__ import annotations

import gc
import importlib.util
import os
import posix
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ENOSPC, EROFS
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.docs import remedies as remedies_doc
from tests.remedies import frameworks, libraries, patterns, standard
from tests.remedies.provoke import PROVOCATIONS, Places
from tests.support import run_python
from tmpguard.core.reports import remedies
from tmpguard.core.reports.libraries import TABLE, Refusal, Row, find

ROWS = {row.name: row for row in TABLE}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """What lies below the real /tmp is read-only where it is on the path of modules (C1.5)."""
    places = Places(tmp_path)
    monkeypatch.setenv("HOME", str(places.home))
    monkeypatch.setattr(sys, "path", [str(places.packages), str(places.home), *sys.path])
    before = set(sys.modules)
    yield places
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


MATPLOTLIB = "matplotlib: configuration and font cache"
NUMBA = "Numba: compiled functions (cache=True)"


def test_every_row_is_triggered() -> None:
    assert all((frameworks, libraries, patterns, standard))  # the modules that fill the register
    assert sorted([*PROVOCATIONS, MATPLOTLIB, NUMBA]) == sorted(row.name for row in TABLE)


@pytest.mark.filterwarnings("ignore::UserWarning")  # libraries tell that they do without their cache
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # and leave to the collector what they had open
@pytest.mark.parametrize("name", sorted(PROVOCATIONS))
def test_the_refusal_names_the_setting(name: str, places: Places, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=places.project, scratch_root=scratch_root, storage_size=1, log_interval=0)
    step = PROVOCATIONS[name](places)
    with guard.invocation() as invocation:
        try:
            step()
        except Exception as exc:
            print(repr(exc))
    del step
    gc.collect()
    said = [violation.remedy for violation in invocation.report.violations]
    row = ROWS[name]
    wanted = row.say.partition("{to}")[0]
    assert any(wanted in remedy for remedy in said), said or "nothing was refused"
    code = ENOSPC if ENOSPC in row.errnos else EROFS
    start = "/tmp is full" if code == ENOSPC else "only /tmp is writable; "
    assert all(remedy.startswith(start) for remedy in said if wanted in remedy)
    assert len({remedy for remedy in said if wanted not in remedy}) <= 1, said


# What is decided when the library is imported needs a process of its own.
IMPORTING = """
import logging, os, sys, warnings
logging.disable()
warnings.simplefilter("ignore")
project, scratch, home = sys.argv[1:]
os.environ["HOME"] = home
sys.path[:0] = [project, home]
import tmpguard
guard = tmpguard.Guard(bundle=project, scratch_root=scratch)
with tmpguard.cold_start(guard=guard) as start:
    {work}
print(*(violation.remedy for violation in start.report.violations), sep=chr(10))
"""


def test_the_cache_of_matplotlib(places: Places, scratch_root: Path) -> None:
    if not importlib.util.find_spec("matplotlib"):  # an import here would make its directories
        pytest.skip("matplotlib is not installed")
    # The directory that it makes in the start's /tmp instead is gone when it would remove it at the exit.
    work = "import atexit, matplotlib, shutil; matplotlib.get_configdir(); atexit.unregister(shutil.rmtree)"
    said = run_python(IMPORTING.format(work=work), places.project, scratch_root, places.home)
    assert f"the first request; {ROWS[MATPLOTLIB].say}\n" in said


def test_the_cache_of_numba(places: Places, scratch_root: Path) -> None:
    if not importlib.util.find_spec("numba"):
        pytest.skip("numba is not installed")
    (places.project / "shop_kernels.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef double(x):\n    return 2 * x\n"
    )
    work = "import contextlib\n    with contextlib.suppress(RuntimeError):\n        import shop_kernels"
    said = run_python(IMPORTING.format(work=work), places.project, scratch_root, places.home)
    assert f"the first request; {ROWS[NUMBA].say}\n" in said


# --- what no row knows ---------------------------------------------------------------------------------


def refused(path: str, invocation: tmpguard.Invocation) -> str:
    with pytest.raises(OSError, match="Read-only"):
        open(path, "w")
    return invocation.report.violations[-1].remedy


def test_a_path_of_the_application_s_own_has_the_plain_remedy(places: Places, scratch_root: Path) -> None:
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        assert refused("out.csv", invocation) == "only /tmp is writable; write to /tmp/out.csv"


def test_a_project_in_the_home_directory_is_no_matter_of_home(
    places: Places, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the machine of nearly every developer."""
    monkeypatch.setenv("HOME", str(places.project.parent))
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        assert refused(f"{places.project}/out.csv", invocation) == (
            "only /tmp is writable; write to /tmp/out.csv"
        )


# --- what was done, and who chose the name -------------------------------------------------------------


def said(step: Callable[[], object], places: Places, scratch_root: Path, **options: Any) -> list[str]:
    """The remedies of what ``step`` is refused."""
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root, **options) as invocation:
        with suppress(OSError):
            step()
    return [violation.remedy for violation in invocation.report.violations]


REMOVING = {
    "os.remove": lambda: os.remove("kept.txt"),
    "os.unlink": lambda: os.unlink("kept.txt"),
    "Path.unlink": lambda: Path("kept.txt").unlink(),
    "os.rmdir": lambda: os.rmdir("kept"),
}
CHANGING = {
    "os.chmod": lambda: os.chmod("kept.txt", 0o600),
    "os.utime": lambda: os.utime("kept.txt"),
    "Path.touch": lambda: Path("kept.txt").touch(),
    "os.chown": lambda: os.chown("kept.txt", -1, -1),
    "os.setxattr": lambda: os.setxattr("kept.txt", "user.shop", b"1"),
    "os.fchmod": lambda: _by_descriptor(lambda fd: os.fchmod(fd, 0o600)),
    "os.utime of a descriptor": lambda: _by_descriptor(os.utime),
}


def _by_descriptor(call: Callable[[int], object]) -> None:
    with open("kept.txt") as file:
        call(file.fileno())


@pytest.mark.parametrize("call", [*REMOVING, *CHANGING])
@pytest.mark.parametrize("home", [False, True])
def test_the_remedy_for_metadata_is_not_to_write(
    call: str, home: bool, places: Places, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places.project / "kept.txt").touch()
    (places.project / "kept").mkdir()
    if home:  # no setting of a directory helps there
        shutil.copytree(places.project, places.home, dirs_exist_ok=True)
    function = {**REMOVING, **CHANGING}[call]
    remedy, *_ = said(lambda: (os.chdir(places.home) if home else None, function()), places, scratch_root)
    word = "leave" if call in REMOVING else "change"
    assert remedy.startswith(f"only /tmp is writable; {word} kept")


def test_the_remedy_for_metadata_in_the_bundle_is_not_to_write_either(
    places: Places, scratch_root: Path
) -> None:
    (places.project / "kept.txt").touch()
    path = "/tmp/package/kept.txt"
    for call in (lambda: os.remove(path), lambda: os.chmod(path, 0o600)):
        (remedy,) = said(call, places, scratch_root)
        assert remedy.startswith("/tmp/package is the read-only bundle; ")
        assert "write to" not in remedy
    assert said(lambda: open(path, "w"), places, scratch_root) == [
        "/tmp/package is the read-only bundle; write to /tmp/kept.txt"
    ]


def test_the_remedy_for_tmp_itself_is_to_empty_it(places: Places, scratch_root: Path) -> None:
    """rmdir of a mount point in a read-only directory."""
    (remedy,) = said(lambda: os.rmdir("/tmp"), places, scratch_root)
    assert "empty it" in remedy


@pytest.mark.parametrize("path", ["tmp/x", "./tmp/x", "{project}/tmp/x"])
def test_a_directory_tmp_of_the_project_is_taken_for_tmp(
    path: str, places: Places, scratch_root: Path
) -> None:
    (places.project / "tmp").mkdir()
    given = path.format(project=places.project)
    assert said(lambda: open(given, "w"), places, scratch_root) == ["only /tmp is writable; write to /tmp/x"]


ATOMIC = """
import os, tempfile
def save(path):
    directory = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as file:
        file.write("{}")
    os.replace(file.name, path)
def scratch():
    with open("shopIOtemp.xlsx", "wb"):
        pass
def cache(directory="/srv"):
    os.mkdir("/srv/shop-cache")
def archive(path):
    import zipfile
    zipfile.ZipFile(path, "w").close()
"""


def test_the_remedy_for_a_library_s_atomic_write_is_about_its_target(
    places: Places, scratch_root: Path
) -> None:
    module = places.library("shopjson", ATOMIC)
    for path in ("report.json", places.project / "report.json"):
        remedy = said(lambda path=path: module.save(path), places, scratch_root)  # type: ignore[misc]
        assert remedy == ["only /tmp is writable; write to /tmp/report.json"]


def test_a_name_that_a_library_made_up_is_not_the_application_s_to_choose(
    places: Places, scratch_root: Path
) -> None:
    module = places.library("shopxl", ATOMIC)
    assert said(module.scratch, places, scratch_root) == [
        "only /tmp is writable; give shopxl a path below /tmp, or call os.chdir('/tmp') before"
    ]


def test_the_line_of_the_library_is_named_and_not_the_standard_library_s(
    places: Places, scratch_root: Path
) -> None:
    module = places.library("shopzip", ATOMIC)
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        with pytest.raises(OSError, match="Read-only"):
            module.archive("out.zip")
        with pytest.raises(OSError, match="Read-only"):
            shutil.copyfile("/etc/passwd", "copy.txt")
    library, *_, standard = (violation.library for violation in invocation.report.violations)
    assert library is not None
    assert library.file == module.__file__
    assert library.function == "archive"
    assert standard is not None
    assert standard.file == shutil.__file__


def test_a_library_that_called_the_application_s_line_is_not_blamed(
    places: Places, scratch_root: Path
) -> None:
    """Only what lies between the call and the application's line counts."""
    middleware = places.library("torch.hub", "def serve(view):\n    view()\n")
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        told: list[str] = []
        middleware.serve(lambda: told.append(refused("out.csv", invocation)))
    assert told == ["only /tmp is writable; write to /tmp/out.csv"]


def test_names_with_braces_and_long_paths_are_no_trouble(places: Places, scratch_root: Path) -> None:
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        with pytest.raises(sqlite3.OperationalError):
            sqlite3.connect("{0}{to}{.db")
        assert "copy the database to /tmp/{0}{to}{.db first" in invocation.report.violations[0].remedy
        assert remedies.advice("open", EROFS, "x" * 100_000, "plain", project="/srv") == "plain"


def test_an_error_in_the_table_is_not_the_application_s(
    places: Places, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for broken in (Row("broken", "{nothing}"), Row("broken", "say", path="(")):
        monkeypatch.setattr("tmpguard.core.reports.libraries.TABLE", (broken,))
        with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
            assert refused("out.csv", invocation) == "only /tmp is writable; write to /tmp/out.csv"


def test_a_call_past_the_patched_layer_has_its_own_remedy(places: Places, scratch_root: Path) -> None:
    """A setting would not help there."""
    with tmpguard.invocation(bundle=places.project, scratch_root=scratch_root) as invocation:
        with pytest.raises(OSError, match="Read-only"):
            posix.mkdir(os.path.expanduser("~/.cache/shop"))
    assert "by a reference that tmpguard could not replace" in invocation.report.violations[0].remedy


def test_the_patterns_are_quick_on_any_path() -> None:
    """A long path of the kind that patterns stumble over."""
    for path in ("/" * 4096, "/.cache" * 500, "/tmp/tmp" * 500, "/instance" * 400 + "x", "/var/" * 800):
        begin = time.perf_counter()
        for code in (EROFS, ENOSPC):
            find(Refusal("open", code, path, "/srv/project"))
        assert time.perf_counter() - begin < 0.5


def test_the_page_shows_the_table() -> None:
    assert remedies_doc.PAGE.read_text() == remedies_doc.page(), "run python -m tests.docs.remedies"
