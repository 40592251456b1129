"""The project, the ``/tmp`` and the paths of the parity tests.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from typing import Any

TEXT = "text\n"


def make_project(project: str) -> None:
    """Fill the project directory. No row changes it, because it is read-only."""
    for name in ("file", "dir/inner", "tree/branch/leaf"):
        path = os.path.join(project, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(TEXT)
    os.mkdir(f"{project}/empty")
    links = {
        "to-file": "file",
        "to-dir": "dir",
        "dangling": "missing",
        "loop": "loop",
        "into-tmp-file": "/tmp/file",
        "into-tmp-missing": "/tmp/missing",
        "into-tmp-dir": "/tmp/dir",
    }
    for name, target in links.items():
        os.symlink(target, f"{project}/{name}")


def make_tmp(project: str, *, links: bool) -> None:
    """Fill ``/tmp`` for a row. Without ``links``, tmpguard only looks at the text of a path."""
    os.chdir(project)
    for directory in ("/tmp/dir", "/tmp/empty"):
        os.mkdir(directory)
    for path in ("/tmp/file", "/tmp/dir/inner"):
        with open(path, "w") as file:
            file.write(TEXT)
    targets = {
        "to-file": "file",
        "to-dir": "dir",
        "dangling": "nowhere",
        "loop": "/tmp/loop",
        "up": "..",
        "out-file": f"{project}/file",
        "out-dir": f"{project}/dir",
        "out-missing": f"{project}/missing",
        "out-and-back": f"{project}/into-tmp-file",
    }
    for name, target in targets.items() if links else ():
        os.symlink(target, f"/tmp/{name}")


def empty_tmp() -> None:
    """Empty ``/tmp``, except for the bundle that is mounted there."""
    os.chdir("/")
    for name in os.listdir("/tmp"):
        path = f"/tmp/{name}"
        if name == "package":
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    os.chmod("/tmp", 0o1777)
    with contextlib.suppress(OSError):
        os.removexattr("/tmp", "user.parity")


# --- paths ---------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The words of ``text``, to keep long lists readable."""
    return text.split()


_NAMES = words(
    "file missing missing/new dir empty file/new file/ dir/ missing/ dir/. dir/.. missing/. missing/.. "
    "file/. file/.. dir/new to-file to-file/ to-dir to-dir/ to-dir/new to-dir/.. dangling dangling/ "
    "dangling/new loop loop/new"
)

_IN_PROJECT = words(
    "into-tmp-file into-tmp-missing into-tmp-dir into-tmp-dir/ into-tmp-dir/new into-tmp-dir/.. "
    "into-tmp-dir/../new into-tmp-dir/inner"
)

_IN_TMP = words(
    "out-file out-dir out-dir/ out-dir/new out-dir/inner out-dir/.. out-dir/../file out-dir/../missing "
    "out-missing out-missing/ out-and-back up up/ up/tmp/new up/new package package/ package/file "
    "package/missing package/dir package/.. package/to-file package/into-tmp-file package/dir/../../new"
)


def paths(project: str) -> dict[str, Any]:
    """The paths of the table, by the names that the tests show. ``P`` is the project."""
    written = [
        *(f"P/{name}" for name in [*_NAMES, *_IN_PROJECT]),
        *(f"/tmp/{name}" for name in [*_NAMES, *_IN_TMP]),
        *["P", "P/", "/tmp", "/tmp/", "/tmp/.", "/tmp/..", "/tmp/../tmp/new", "/", "//", "/.", "/.."],
        *[
            "//tmp//new",
            "//tmp//file",
            "/usr/../tmp/new",
            "/usr/../tmp/file",
            "/./tmp/./file",
            "/tmp/../P/file",
        ],
        *["file", "missing", "dir/new", "./file", "dir/../missing", "into-tmp-dir/new", "", ".", "./", ".."],
        *["/nowhere-at-all", "/proc/self/cwd/file", "/proc/self/cwd/missing", "/proc/self/root/tmp/new"],
    ]
    found: dict[str, Any] = {name: _spelled(name, project) for name in written}
    for name in ("P/file", "P/missing", "/tmp/file", "/tmp/missing", "missing"):
        spelled = _spelled(name, project)
        found[f"bytes {name}"] = os.fsencode(spelled)
        found[f"Path {name}"] = pathlib.PurePosixPath(spelled)
    for place in ("P", "/tmp", "/tmp/package"):
        found[f"{place}/<256 letters>"] = _spelled(f"{place}/{'n' * 256}", project)
        found[f"{place}/<4096 letters>"] = _spelled(place, project) + "/d" * 2048
    found["NUL"] = "/tmp/nul\0byte"
    found["no path"] = None
    found["bad descriptor"] = 9999
    return found


def _spelled(name: str, project: str) -> str:
    if name.startswith("/tmp/../P"):
        return "/tmp/.." + project + name.removeprefix("/tmp/../P")
    return project + name[1:] if name == "P" or name.startswith("P/") else name
