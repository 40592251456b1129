"""Calls that newer versions of CPython have added.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import stat
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

from tests.parity.handles import CALLS, call, shown
from tests.parity.session import LONG_AGO, NotTried, Session

_os: Any = os
_zstd: Any = None
with contextlib.suppress(ImportError):
    _zstd = importlib.import_module("compression.zstd")

#: The calls, and whether this interpreter supports them.
_AVAILABLE = {
    "statx": hasattr(os, "statx"),
    "os_readinto": hasattr(os, "readinto"),
    "path_copied": hasattr(pathlib.Path, "copy"),
    "path_info": hasattr(pathlib.Path, "info"),
    "zstd": _zstd is not None,
    "zstd_archive": _zstd is not None,
    "mkdir_parents": "parent_mode" in os.makedirs.__code__.co_varnames,
    "realpath_missing": hasattr(os.path, "ALLOW_MISSING"),
}


# --- 3.14 ----------------------------------------------------------------------------------------------


@call("slot", "size")
def os_readinto(s: Session, slot: int, size: int) -> Any:
    buffer = bytearray(size)
    read = _os.readinto(s.descriptor(slot), buffer)
    return read, shown(bytes(buffer))


COPIED: dict[str, Callable[[Any, Any], Any]] = {
    "copy": lambda path, other: path.copy(other),
    "copy nofollow": lambda path, other: path.copy(other, follow_symlinks=False),
    "copy metadata": lambda path, other: path.copy(other, follow_symlinks=False, preserve_metadata=True),
    "copy_into": lambda path, other: path.copy_into(other),
    "move": lambda path, other: path.move(other),
    "move_into": lambda path, other: path.move_into(other),
}


@call("copied", "path", "path")
def path_copied(s: Session, how: str, source: Any, target: Any) -> Any:
    source, target = s.tree(source), s.opened(target)
    s.opened(source)
    if not isinstance(source, str) or not isinstance(target, str):
        raise NotTried("text is wanted")
    real = [os.path.realpath(path) + "/" for path in (source, target)]
    if real[1].startswith(real[0]):
        raise NotTried("into itself")
    if _has_pipes(source):
        raise NotTried("a FIFO")
    return COPIED[how](pathlib.Path(source), pathlib.Path(target))


def _has_pipes(directory: str) -> bool:
    for place, _, files in os.walk(directory, followlinks=False):
        for name in files:
            try:
                if stat.S_ISFIFO(os.stat(os.path.join(place, name)).st_mode):
                    return True
            except OSError:
                continue
    return False


INFOS: dict[str, Callable[[Any], Any]] = {
    "exists": lambda info: info.exists(),
    "exists nofollow": lambda info: info.exists(follow_symlinks=False),
    "is_dir": lambda info: info.is_dir(),
    "is_dir nofollow": lambda info: info.is_dir(follow_symlinks=False),
    "is_file": lambda info: info.is_file(),
    "is_file nofollow": lambda info: info.is_file(follow_symlinks=False),
    "is_symlink": lambda info: info.is_symlink(),
}


@call("path", "bool", "path")
def path_info(s: Session, path: Any, listed: bool, gone: Any) -> Any:
    """Ask the ``info`` of a path or of the entries of a directory, before and after one was removed."""
    path = s.tree(path)
    if not isinstance(path, str):
        raise NotTried("text is wanted")
    top = pathlib.Path(path)
    infos = [one.info for one in sorted(top.iterdir())] if listed else [top.info]  # type: ignore[attr-defined]
    before = [[ask(info) for ask in INFOS.values()] for info in infos]
    if os.path.islink(s.spelled(gone)):
        raise NotTried("the way there, perhaps")
    try:
        os.unlink(s.spelled(gone))
    except OSError as exc:
        return before, type(exc).__name__
    return before, [[ask(info) for ask in INFOS.values()] for info in infos]


@call("path", "zstd_mode", "size")
def zstd(s: Session, path: Any, mode: str, size: int) -> Any:
    with _zstd.open(s.opened(path), mode) as file:
        if mode == "rb":
            return shown(file.read())
        return file.write(s.data(size))


@call("path", "bool", "size")
def zstd_archive(s: Session, path: Any, zipped: bool, size: int) -> Any:
    """Make a compressed archive and read it."""
    path = s.opened(path)
    if isinstance(path, int):
        raise NotTried("no name")
    if zipped:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_ZSTANDARD) as archive:  # type: ignore[attr-defined]
            archive.writestr(zipfile.ZipInfo("one", (1990, 1, 1, 0, 0, 0)), s.data(size))
        with zipfile.ZipFile(path) as archive:
            return archive.namelist(), archive.testzip()
    with tarfile.open(path, "w:zst") as packed:  # type: ignore[call-overload]
        packed.addfile(tarfile.TarInfo("one"))
    with tarfile.open(path, "r:zst") as packed:  # type: ignore[call-overload]
        return packed.getnames()


# --- 3.15 ----------------------------------------------------------------------------------------------


@call("path", "bool", "directory")
def statx(s: Session, path: Any, follow: bool, directory: int | None) -> Any:
    status = _os.statx(
        s.spelled(path),
        _os.STATX_BASIC_STATS,
        follow_symlinks=follow,
        dir_fd=s.directory(directory),
    )
    mode = status.stx_mode
    size = "" if stat.S_ISDIR(mode) else status.stx_size
    links = "" if stat.S_ISDIR(mode) else status.stx_nlink
    time = status.stx_mtime_ns if status.stx_mtime_ns < LONG_AGO else "now"
    return [stat.filemode(mode), size, links, status.stx_uid, status.stx_gid, time]


@call("path", "permissions", "permissions", "bool", "bool")
def mkdir_parents(s: Session, path: Any, mode: int, parents: int, exist_ok: bool, by_path: bool) -> None:
    path = s.spelled(path)
    if not by_path:
        _os.makedirs(path, mode, exist_ok, parent_mode=parents)
        return
    if isinstance(path, bytes | int):
        raise NotTried("text is wanted")
    made: Any = pathlib.Path(path)
    made.mkdir(mode, True, exist_ok, parent_mode=parents)


@call("path", "strict")
def realpath_missing(s: Session, path: Any, strict: str) -> Any:
    return os.path.realpath(s.spelled(path), strict=getattr(os.path, strict))


#: The values of the kinds of arguments that only these calls have.
KINDS: dict[str, list[Any]] = {
    "copied": sorted(COPIED),
    "zstd_mode": ["wb", "wb", "ab", "xb", "rb"],
    "strict": [name for name in ("ALLOW_MISSING", "ALL_BUT_LAST") if hasattr(os.path, name)],
}

#: The calls that this interpreter does not support. No script contains them.
LACKING = frozenset(name for name, is_there in _AVAILABLE.items() if not is_there)
assert _AVAILABLE.keys() <= CALLS.keys()
