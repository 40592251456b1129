"""Calls of the standard library: shutil, pathlib, tempfile, glob and os.walk.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import glob as globbing
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.handles import call
from tests.parity.session import NotTried, Session, content, told_status

#: The maximal number of directories in one walk, because links may form loops.
STEPS = 40


# --- walking -------------------------------------------------------------------------------------------


@call("path", "bool", "bool")
def walk(s: Session, path: Any, topdown: bool, follow: bool) -> Any:
    errors: list[OSError] = []
    walked = os.walk(s.tree(path), topdown, errors.append, follow and topdown)
    found = []
    for place, directories, files in itertools.islice(walked, STEPS):
        directories.sort()
        found.append((place, list(directories), sorted(files)))
        if follow:
            directories[:] = [name for name in directories if not _leads_out(s, os.path.join(place, name))]
    return found if topdown else sorted(found), [(error.errno, error.filename) for error in errors]


def _leads_out(s: Session, path: Any) -> bool:
    try:
        s.tree(path)
    except NotTried:
        return True
    return False


@call("path", "bool", "directory")
def fwalk(s: Session, path: Any, topdown: bool, directory: int | None) -> Any:
    spelled = s.tree(path) if directory is None else s.spelled(path)
    if directory is not None and os.path.isabs(spelled):
        s.tree(path)
    s.opened(path, directory)
    found = []
    for place, directories, files, top in os.fwalk(spelled, topdown, dir_fd=s.directory(directory)):
        directories.sort()
        found.append((place, list(directories), sorted(files), sorted(os.listdir(top))))
        if len(found) > STEPS:
            break
    return found if topdown else sorted(found)


@call("pattern", "bool", "directory?")
def glob(s: Session, pattern: Any, recursive: bool, root: Any) -> Any:
    root = None if root is None else s.tree(root)
    spelled = s.spelled(pattern)
    if recursive and "**" in os.fsdecode(spelled) and any(_links_to_directories("/tmp")):
        raise NotTried("links")  # they are followed, a loop forty times
    return sorted(globbing.glob(spelled, root_dir=root, recursive=recursive))


# --- shutil --------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[..., Any]] = {
    "copyfile": shutil.copyfile,
    "copyfile nofollow": lambda source, target: shutil.copyfile(source, target, follow_symlinks=False),
    "copy": shutil.copy,
    "copy2": shutil.copy2,
    "copy2 nofollow": lambda source, target: shutil.copy2(source, target, follow_symlinks=False),
    "copymode": shutil.copymode,
    "copystat": shutil.copystat,
}


@call("copy", "path", "path")
def copy(s: Session, how: str, source: Any, target: Any) -> Any:
    return COPIES[how](s.opened(source), s.opened(target))


@call("path", "path", "bool", "bool")
def copytree(s: Session, source: Any, target: Any, symlinks: bool, exist_ok: bool) -> Any:
    source, target = s.tree(source), s.spelled(target)
    _check_apart(source, target)
    if not symlinks and any(_links_to_directories(os.fsdecode(source))):
        raise NotTried("links")
    return shutil.copytree(source, target, symlinks=symlinks, dirs_exist_ok=exist_ok)


def _check_apart(source: Any, target: Any) -> None:
    """Raises NotTried for a copy into itself, which would never end."""
    source, target = (os.path.realpath(os.fsdecode(path)) + "/" for path in (source, target))
    if target.startswith(source):
        raise NotTried("into itself")


def _links_to_directories(directory: str) -> Iterator[bool]:
    for place, directories, _ in os.walk(directory):
        if place == "/tmp":
            directories[:] = [name for name in directories if name != "package"]
        yield from (os.path.islink(os.path.join(place, name)) for name in directories)


@call("path", "path")
def move(s: Session, source: Any, target: Any) -> Any:
    source, target = s.tree(source), s.spelled(target)
    if isinstance(source, bytes) or isinstance(target, bytes):
        raise NotTried("move wants text")
    _check_apart(source, target)
    return shutil.move(source, target)


@call("path", "bool")
def rmtree(s: Session, path: Any, ignore_errors: bool) -> None:
    s.opened(path)
    shutil.rmtree(s.tree(path), ignore_errors)


@call("slot", "slot", "size")
def copyfileobj(s: Session, slot: int, source: int, size: int) -> Any:
    shutil.copyfileobj(s.file(source), s.file(slot), size or 100)


# --- pathlib -------------------------------------------------------------------------------------------

Path = pathlib.Path

METHODS: dict[str, Callable[[Path, Path], Any]] = {
    "exists": lambda path, _: path.exists(),
    "is_dir": lambda path, _: path.is_dir(),
    "is_file": lambda path, _: path.is_file(),
    "is_symlink": lambda path, _: path.is_symlink(),
    "is_mount": lambda path, _: path.is_mount(),
    "is_fifo": lambda path, _: path.is_fifo(),
    "stat": lambda path, _: told_status(path.stat()),
    "lstat": lambda path, _: told_status(path.lstat()),
    "owner": lambda path, _: (path.owner(), path.group()),
    "touch": lambda path, _: path.touch(),
    "touch anew": lambda path, _: path.touch(0o600, exist_ok=False),
    "mkdir": lambda path, _: path.mkdir(),
    "mkdir parents": lambda path, _: path.mkdir(0o700, parents=True, exist_ok=True),
    "rmdir": lambda path, _: path.rmdir(),
    "unlink": lambda path, _: path.unlink(),
    "unlink missing_ok": lambda path, _: path.unlink(missing_ok=True),
    "write_text": lambda path, _: path.write_text("text " * 1000),
    "write_bytes": lambda path, _: path.write_bytes(b"bytes" * 10_000),
    "read_text": lambda path, _: len(path.read_text()),
    "read_bytes": lambda path, _: content(path, path.stat().st_size),
    "rename": lambda path, other: path.rename(other),
    "replace": lambda path, other: path.replace(other),
    "symlink_to": lambda path, other: path.symlink_to(other),
    "hardlink_to": lambda path, other: path.hardlink_to(other),
    "readlink": lambda path, _: path.readlink(),
    "resolve": lambda path, _: path.resolve(),
    "resolve strict": lambda path, _: path.resolve(strict=True),
    "absolute": lambda path, _: path.absolute(),
    "chmod": lambda path, _: path.chmod(0o640),
    "lchmod": lambda path, _: path.lchmod(0o640),
    "iterdir": lambda path, _: sorted(path.iterdir()),
    "glob": lambda path, _: sorted(path.glob("*/*")),
    "rglob": lambda path, _: sorted(path.rglob("*")),
    "samefile": lambda path, other: path.samefile(other),
    "cwd": lambda path, _: Path.cwd(),
}

_THROUGH_TREES = ("iterdir", "glob", "rglob")


@call("method", "path", "path")
def path_method(s: Session, method: str, path: Any, other: Any) -> Any:
    spelled = s.tree(path) if method in _THROUGH_TREES else s.opened(path)
    return METHODS[method](Path(spelled), Path(s.spelled(other)))


# --- tempfile ------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Any], Any]] = {
    "mkstemp": lambda place: tempfile.mkstemp(dir=place),
    "mkdtemp": lambda place: tempfile.mkdtemp(dir=place),
    "NamedTemporaryFile": lambda place: tempfile.NamedTemporaryFile(dir=place),
    "NamedTemporaryFile kept": lambda place: tempfile.NamedTemporaryFile("w+", dir=place, delete=False),
    "NamedTemporaryFile unbuffered": lambda place: tempfile.NamedTemporaryFile(buffering=0, dir=place),
    "TemporaryFile": lambda place: tempfile.TemporaryFile(dir=place),
    "TemporaryFile text": lambda place: tempfile.TemporaryFile("w+", dir=place),
    "SpooledTemporaryFile": lambda place: tempfile.SpooledTemporaryFile(max_size=5000, dir=place),
    "TemporaryDirectory": lambda place: tempfile.TemporaryDirectory(dir=place),
}


@call("slot", "maker", "directory?")
def make_temporary(s: Session, slot: int, maker: str, place: Any) -> Any:
    made = MAKERS[maker](s.spelled(place))
    if maker == "mkdtemp":
        return made
    if maker == "mkstemp":
        s.keep(slot, made[0])
        return made[1]
    s.keep(slot, made)
    name = getattr(made, "name", None)
    return type(made).__name__, name if isinstance(name, str) else "nameless"


@call("slot")
def rollover(s: Session, slot: int) -> None:
    file = s.file(slot)
    if not hasattr(file, "rollover"):
        raise NotTried("not spooled")
    file.rollover()


@call()
def gettempdir(s: Session) -> Any:
    return tempfile.gettempdir(), tempfile.gettempdirb()
