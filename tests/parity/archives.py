"""Calls that make or unpack archives, databases and temporary files.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import contextlib
import dbm.dumb
import fileinput
import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

from tests.parity.handles import call
from tests.parity.session import NotTried, Session

# --- archives ------------------------------------------------------------------------------------------

_THEN = (1990, 1, 1, 0, 0, 0)


@call("path", "archive_mode", "size")
def write_zip(s: Session, path: Any, mode: str, size: int) -> Any:
    with zipfile.ZipFile(s.opened(path), mode) as archive:  # type: ignore[call-overload]
        for name in ("one", "dir/two"):
            archive.writestr(zipfile.ZipInfo(f"{name}{len(archive.namelist())}", _THEN), s.data(size))
        return archive.namelist(), archive.testzip()


@call("path", "path")
def extract_zip(s: Session, path: Any, target: Any) -> Any:
    with zipfile.ZipFile(s.opened(path)) as archive:
        archive.extractall(s.spelled(target))
        return archive.namelist()


MEMBERS = {
    "file": (tarfile.REGTYPE, "a/file", ""),
    "directory": (tarfile.DIRTYPE, "a/directory", ""),
    "link": (tarfile.SYMTYPE, "a/link", "file"),
    "link out": (tarfile.SYMTYPE, "a/out", "../../../../../nowhere"),
    "absolute link": (tarfile.SYMTYPE, "a/absolute", "/tmp/file"),
    "hard link": (tarfile.LNKTYPE, "a/hard", "a/file"),
    "outside": (tarfile.REGTYPE, "../outside", ""),
    "absolute": (tarfile.REGTYPE, "/tmp/absolute", ""),
    "pipe": (tarfile.FIFOTYPE, "a/pipe", ""),
}


@call("path", "members", "filter", "size")
def extract_tar(s: Session, target: Any, members: list[str], filter: str, size: int) -> Any:
    size = min(size, 300_000)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member in members:
            info = tarfile.TarInfo(MEMBERS[member][1])
            info.type, _, info.linkname = MEMBERS[member]
            info.mtime, info.uid, info.gid = 1000, os.getuid(), os.getgid()
            info.size = size if info.isreg() else 0
            archive.addfile(info, io.BytesIO(bytes(size)))
    made.seek(0)
    with tarfile.open(fileobj=made) as archive:
        archive.extractall(s.spelled(target), filter=filter)


@call("path", "path", "archive_format")
def make_archive(s: Session, base: Any, root: Any, kind: str) -> Any:
    """Make an archive, look into it and remove it, because it contains the current time."""
    base = s.spelled(base)
    if not isinstance(base, str) or not base:
        raise NotTried("text is wanted")
    root = s.tree(root)
    if os.path.realpath(f"{base}.{kind}").startswith(os.path.realpath(os.fsdecode(root)) + "/"):
        raise NotTried("into itself")
    try:
        name = shutil.make_archive(base, kind, root_dir=root)
        return name, os.getcwd(), os.path.getsize(name)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(f"{base}.{kind}")


@call("path", "size")
def in_place(s: Session, path: Any, size: int) -> Any:
    """Rewrite a file line by line, with a backup."""
    path = s.opened(path)
    if isinstance(path, int):
        raise NotTried("no name")
    with fileinput.input([path], inplace=True, backup=".bak", encoding="latin-1") as lines:
        return sum(1 for line in lines if print(line.upper() * 2, end="") is None)


@call("path", "size")
def database(s: Session, path: Any, size: int) -> Any:
    path = s.spelled(path)
    if not isinstance(path, str):
        raise NotTried("text is wanted")
    with contextlib.closing(dbm.dumb.open(path, "c")) as data:
        data[f"key{s.step}"] = s.data(min(size, 5000))
        return sorted(data.keys())


TEMPORARIES: dict[str, Callable[[Any], Any]] = {
    "mkstemp of bytes": lambda place: tempfile.mkstemp(b".end", b"start", os.fsencode(place)),
    "mkdtemp": lambda place: tempfile.mkdtemp(suffix=".end", dir=place),
    "mktemp": lambda place: tempfile.mktemp(dir=place),
    "kept until closed": lambda place: _kept(place),
    "text": lambda place: tempfile.mkstemp(text=True, dir=place),
}


def _kept(place: Any) -> Any:
    with tempfile.NamedTemporaryFile("w+", dir=place, **_not_on_close()) as file:
        file.write("text")
        file.close()
        return file.name, os.path.exists(file.name)


def _not_on_close() -> dict[str, Any]:
    parameters = tempfile.NamedTemporaryFile.__code__.co_varnames
    return {"delete_on_close": False} if "delete_on_close" in parameters else {}


@call("temporary", "directory?")
def make_and_forget(s: Session, how: str, place: Any) -> Any:
    made = TEMPORARIES[how](s.spelled(place) or "/tmp")
    if isinstance(made, tuple) and isinstance(made[0], int):
        os.close(made[0])
        return made[1]
    return made


#: The values of the kinds of arguments that only these calls have.
KINDS: dict[str, list[Any]] = {
    "archive_mode": ["w", "a", "a", "x"],
    "members": [[one, other] for one in MEMBERS for other in MEMBERS],
    "filter": ["data", "tar", "fully_trusted"],
    "archive_format": ["zip", "tar"],
    "temporary": sorted(TEMPORARIES),
}
