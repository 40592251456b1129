"""Calls that create, remove, alter and inspect directory entries.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from tests.parity.handles import call
from tests.parity.session import Session, told_status

# --- making and removing -------------------------------------------------------------------------------


@call("path", "permissions", "directory")
def mkdir(s: Session, path: Any, mode: int, directory: int | None) -> None:
    os.mkdir(s.spelled(path), mode, dir_fd=s.directory(directory))


@call("path", "bool")
def makedirs(s: Session, path: Any, exist_ok: bool) -> None:
    os.makedirs(s.spelled(path), exist_ok=exist_ok)


@call("path", "directory")
def rmdir(s: Session, path: Any, directory: int | None) -> None:
    os.rmdir(s.spelled(path), dir_fd=s.directory(directory))


@call("path")
def removedirs(s: Session, path: Any) -> None:
    os.removedirs(s.spelled(path))


@call("path", "directory")
def unlink(s: Session, path: Any, directory: int | None) -> None:
    os.unlink(s.spelled(path), dir_fd=s.directory(directory))


@call("path")
def remove(s: Session, path: Any) -> None:
    os.remove(s.spelled(path))


@call("path", "path", "bool", "directory", "directory")
def rename(s: Session, source: Any, target: Any, replace: bool, there: int | None, here: int | None) -> None:
    rename = os.replace if replace else os.rename
    rename(s.spelled(source), s.spelled(target), src_dir_fd=s.directory(there), dst_dir_fd=s.directory(here))


@call("path", "path")
def renames(s: Session, source: Any, target: Any) -> None:
    os.renames(s.spelled(source), s.spelled(target))


@call("path", "path", "bool", "directory", "directory")
def link(s: Session, source: Any, target: Any, follow: bool, there: int | None, here: int | None) -> None:
    os.link(
        s.spelled(source),
        s.spelled(target),
        src_dir_fd=s.directory(there),
        dst_dir_fd=s.directory(here),
        follow_symlinks=follow,
    )


@call("target", "path", "directory")
def symlink(s: Session, target: Any, path: Any, directory: int | None) -> None:
    os.symlink(s.spelled(target), s.spelled(path), dir_fd=s.directory(directory))


@call("target", "length_of_chain", "path")
def chain(s: Session, target: Any, length: int, path: Any) -> Any:
    """Make a chain of links to ``target``, and follow it. The kernel follows up to forty links."""
    os.symlink(s.spelled(target), "/tmp/link0")
    for number in range(1, length):
        os.symlink(f"link{number - 1}", f"/tmp/link{number}")
    os.symlink(f"link{length - 1}", s.spelled(path))
    return told_status(os.stat(f"/tmp/link{length - 1}"))


@call("path", "permissions", "directory")
def mkfifo(s: Session, path: Any, mode: int, directory: int | None) -> None:
    os.mkfifo(s.spelled(path), mode, dir_fd=s.directory(directory))


@call("path", "permissions", "directory")
def mknod(s: Session, path: Any, mode: int, directory: int | None) -> None:
    os.mknod(s.spelled(path), mode, dir_fd=s.directory(directory))


# --- altering ------------------------------------------------------------------------------------------


@call("path", "length")
def truncate(s: Session, path: Any, length: int | None) -> None:
    os.truncate(s.opened(path), length or 0)


@call("path", "permissions", "directory")
def chmod(s: Session, path: Any, mode: int, directory: int | None) -> None:
    os.chmod(s.spelled(path), mode, dir_fd=s.directory(directory))


@call("path", "bool", "directory")
def chown(s: Session, path: Any, follow: bool, directory: int | None) -> None:
    os.chown(s.spelled(path), -1, 0, dir_fd=s.directory(directory), follow_symlinks=follow)


@call("path")
def lchown(s: Session, path: Any) -> None:
    os.lchown(s.spelled(path), -1, -1)


@call("path", "time", "bool", "directory")
def utime(s: Session, path: Any, time: int | None, follow: bool, directory: int | None) -> None:
    options = {} if time is None else {"ns": (time, time)}
    os.utime(s.spelled(path), dir_fd=s.directory(directory), follow_symlinks=follow, **options)


@call("path", "attribute", "bool", "create")
def setxattr(s: Session, path: Any, name: str, follow: bool, flags: int) -> None:
    os.setxattr(s.spelled(path), name, b"value", flags, follow_symlinks=follow)


@call("path", "attribute", "bool")
def getxattr(s: Session, path: Any, name: str, follow: bool) -> Any:
    return os.getxattr(s.spelled(path), name, follow_symlinks=follow)


@call("path", "bool")
def listxattr(s: Session, path: Any, follow: bool) -> Any:
    return sorted(os.listxattr(s.spelled(path), follow_symlinks=follow))


@call("path", "attribute", "bool")
def removexattr(s: Session, path: Any, name: str, follow: bool) -> None:
    os.removexattr(s.spelled(path), name, follow_symlinks=follow)


@call("permissions")
def umask(s: Session, mode: int) -> Any:
    return oct(os.umask(mode))


# --- looking -------------------------------------------------------------------------------------------


@call("path", "bool", "directory")
def stat(s: Session, path: Any, follow: bool, directory: int | None) -> Any:
    return told_status(os.stat(s.spelled(path), follow_symlinks=follow, dir_fd=s.directory(directory)))


@call("path")
def lstat(s: Session, path: Any) -> Any:
    return told_status(os.lstat(s.spelled(path)))


@call("path", "access", "bool", "bool", "directory")
def access(s: Session, path: Any, mode: int, follow: bool, effective: bool, directory: int | None) -> Any:
    return os.access(
        s.spelled(path),
        mode,
        follow_symlinks=follow,
        effective_ids=effective,
        dir_fd=s.directory(directory),
    )


@call("path", "directory")
def readlink(s: Session, path: Any, directory: int | None) -> Any:
    return os.readlink(s.spelled(path), dir_fd=s.directory(directory))


@call("path")
def listdir(s: Session, path: Any) -> Any:
    return sorted(os.listdir(s.tree(path)))


@call("path")
def scandir(s: Session, path: Any) -> Any:
    with os.scandir(s.tree(path)) as entries:
        return [_entry(entry) for entry in sorted(entries, key=lambda entry: entry.name)]


def _entry(entry: os.DirEntry[Any]) -> Any:
    asked: list[Callable[[], Any]] = [
        lambda: entry.is_dir(),
        lambda: entry.is_dir(follow_symlinks=False),
        lambda: entry.is_file(),
        lambda: entry.is_file(follow_symlinks=False),
        lambda: entry.is_symlink(),
        lambda: told_status(entry.stat()),
        lambda: told_status(entry.stat(follow_symlinks=False)),
        lambda: entry.inode() == os.stat(entry.path, follow_symlinks=False).st_ino,
    ]
    return entry.name, entry.path, os.fspath(entry), repr(entry), *map(_tried, asked)


def _tried(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError as exc:
        return type(exc).__name__, exc.filename


@call("path")
def statvfs(s: Session, path: Any) -> Any:
    status = os.statvfs(s.spelled(path))
    if status.f_flag & os.ST_RDONLY:
        return "read-only"
    return status.f_bsize, status.f_frsize, status.f_blocks, status.f_bfree, status.f_bavail, status.f_namemax


@call("path")
def disk_usage(s: Session, path: Any) -> Any:
    usage = shutil.disk_usage(s.spelled(path))
    return usage if usage.total <= 1 << 20 else "of the machine"


@call("path", "pathconf")
def pathconf(s: Session, path: Any, name: str) -> Any:
    return os.pathconf(s.spelled(path), name)


@call("path")
def chdir(s: Session, path: Any) -> Any:
    if isinstance(path, str) and path.startswith("fd:"):
        s.place(int(path[3:]))
    os.chdir(s.spelled(path))
    return os.getcwd()


@call("bool")
def getcwd(s: Session, as_bytes: bool) -> Any:
    return (os.getcwdb if as_bytes else os.getcwd)()


LOOKS: dict[str, Callable[[Any], Any]] = {
    "abspath": os.path.abspath,
    "realpath": os.path.realpath,
    "realpath strict": lambda path: os.path.realpath(path, strict=True),
    "exists": os.path.exists,
    "lexists": os.path.lexists,
    "isdir": os.path.isdir,
    "isfile": os.path.isfile,
    "islink": os.path.islink,
    "ismount": os.path.ismount,
    "getsize": lambda path: None if os.path.isdir(path) else os.path.getsize(path),
    "relpath": lambda path: os.path.relpath(path, "/tmp/dir"),
}


@call("look", "path")
def os_path(s: Session, look: str, path: Any) -> Any:
    return LOOKS[look](s.spelled(path))


@call("path", "path")
def samefile(s: Session, one: Any, other: Any) -> Any:
    return os.path.samefile(s.spelled(one), s.spelled(other))


#: The values of the kinds of arguments that only these calls have.
KINDS: dict[str, list[Any]] = {"length_of_chain": [2, 3, 38, 39, 40, 41]}
