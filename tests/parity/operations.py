"""The operations of the parity tests, and how outcomes are recorded.

This runs in both places: in an invocation, and in a child process on the kernel's set-up. The child receives
this file as text, so it only imports the standard library and ``places``. Each row starts with the same
project and ``/tmp``.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pathlib
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.places import empty_tmp, make_tmp, paths, words

Operation = Callable[[Any], Any]


def _opened(path: Any, mode: str, buffering: int = -1) -> Any:
    with open(path, mode, buffering) as file:
        return file.name, type(file).__name__


def _descriptor(path: Any, *flags: str, **options: Any) -> Any:
    bits = 0
    for name in flags:
        bits |= getattr(os, name)
    descriptor = os.open(path, bits, 0o640, **options)
    try:
        mode = stat.S_IFMT(os.fstat(descriptor).st_mode)
        shown = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (3 | os.O_APPEND | os.O_PATH | os.O_DIRECTORY)
        return oct(mode), oct(shown), os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _status(status: os.stat_result) -> Any:
    regular = stat.S_ISREG(status.st_mode)
    # The size and the link count of a directory differ between file systems.
    return oct(status.st_mode), (status.st_size, status.st_nlink) if regular else ()


def _scanned(path: Any) -> Any:
    with os.scandir(path) as entries:
        return sorted(repr((e.name, e.path, e.is_dir(), e.is_file(), e.is_symlink())) for e in entries)


def _changed_directory(path: Any) -> str:
    os.chdir(path)
    return os.getcwd()


def _with_descriptor(call: Callable[[int], Any], flags: int = os.O_RDONLY) -> Operation:
    def run(path: Any) -> Any:
        descriptor = os.open(path, flags)
        try:
            return call(descriptor)
        finally:
            os.close(descriptor)

    return run


def _relative_to(directory: str, call: Callable[[Any, int], Any]) -> Operation:
    def run(path: Any) -> Any:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            return call(path, descriptor)
        finally:
            os.close(descriptor)

    return run


def _by_proc(path: Any) -> Any:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with open(f"/proc/self/fd/{descriptor}", "r+b", 0) as file:
            return file.write(b"more"), file.name
    finally:
        os.close(descriptor)


def _tree_copied(path: Any) -> Any:
    return shutil.copytree(path, "/tmp/copy", symlinks=True)


FLAGS = words(
    "O_RDONLY|O_CREAT O_WRONLY O_WRONLY|O_APPEND O_RDWR O_WRONLY|O_CREAT O_WRONLY|O_CREAT|O_TRUNC "
    "O_RDONLY|O_TRUNC O_WRONLY|O_CREAT|O_EXCL O_RDONLY|O_CREAT|O_EXCL O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW "
    "O_RDONLY|O_DIRECTORY O_WRONLY|O_DIRECTORY O_RDONLY|O_TRUNC|O_DIRECTORY O_RDONLY|O_NOFOLLOW "
    "O_WRONLY|O_NOFOLLOW O_WRONLY|O_CREAT|O_NOFOLLOW O_RDONLY|O_NOFOLLOW|O_DIRECTORY O_WRONLY|O_RDWR O_PATH "
    "O_PATH|O_WRONLY O_PATH|O_CREAT O_PATH|O_TRUNC O_PATH|O_NOFOLLOW O_PATH|O_DIRECTORY "
    "O_PATH|O_NOFOLLOW|O_DIRECTORY O_RDWR|O_TMPFILE O_WRONLY|O_TMPFILE|O_EXCL O_RDONLY|O_TMPFILE "
    "O_RDWR|O_TMPFILE|O_CREAT"
)


def _opening() -> dict[str, Operation]:
    found: dict[str, Operation] = {}
    for mode in ("r", "w", "a", "x", "r+", "w+b"):
        found[f"open {mode}"] = lambda path, mode=mode: _opened(path, mode)
    found["open wb unbuffered"] = lambda path: _opened(path, "wb", 0)
    found["io.FileIO r"] = lambda path: io.FileIO(path).close()
    found["io.FileIO a"] = lambda path: io.FileIO(path, "a").close()
    found["open w with opener"] = lambda path: open(
        path, "w", opener=lambda name, _: os.open(name, 1)
    ).close()
    for flags in FLAGS:
        found[f"os.open {flags}"] = lambda path, flags=flags: _descriptor(path, *flags.split("|"))
    return found


def _making() -> dict[str, Operation]:
    return {
        "os.mkdir": lambda path: os.mkdir(path),
        "os.makedirs exist_ok": lambda path: os.makedirs(path, exist_ok=True),
        "os.rmdir": lambda path: os.rmdir(path),
        "os.unlink": lambda path: os.unlink(path),
        "os.remove": lambda path: os.remove(path),
        "os.symlink": lambda path: os.symlink("target", path),
        "os.mkfifo": lambda path: os.mkfifo(path),
        "os.mknod": lambda path: os.mknod(path, 0o640),
        "os.link from tmp": lambda path: os.link("/tmp/file", path),
        "os.link from project": lambda path: os.link("file", path),
        "os.link to tmp": lambda path: os.link(path, "/tmp/new"),
        "os.link to project": lambda path: os.link(path, "new"),
        "os.link nofollow to tmp": lambda path: os.link(path, "/tmp/new", follow_symlinks=False),
        "os.rename from tmp": lambda path: os.rename("/tmp/file", path),
        "os.rename from tmp directory": lambda path: os.rename("/tmp/empty", path),
        "os.rename from project": lambda path: os.rename("file", path),
        "os.rename to tmp": lambda path: os.rename(path, "/tmp/new"),
        "os.rename to project": lambda path: os.rename(path, "new"),
        "os.rename to itself": lambda path: os.rename(path, path),
        "os.replace from tmp": lambda path: os.replace("/tmp/dir/inner", path),
        "shutil.copyfile to": lambda path: shutil.copyfile("/tmp/file", path),
        "shutil.copyfile from": lambda path: shutil.copyfile(path, "/tmp/new"),
        "shutil.move from tmp": lambda path: shutil.move("/tmp/file", path),
        "Path.touch": lambda path: pathlib.Path(path).touch(),
        "Path.mkdir parents": lambda path: pathlib.Path(path).mkdir(parents=True, exist_ok=True),
        "Path.unlink missing_ok": lambda path: pathlib.Path(path).unlink(missing_ok=True),
        "Path.write_text": lambda path: pathlib.Path(path).write_text("other"),
    }


def _altering() -> dict[str, Operation]:
    return {
        "os.chmod": lambda path: os.chmod(path, 0o755),
        "os.chown": lambda path: os.chown(path, -1, -1),
        "os.chown nofollow": lambda path: os.chown(path, -1, -1, follow_symlinks=False),
        "os.lchown": lambda path: os.lchown(path, -1, -1),
        "os.utime": lambda path: os.utime(path),
        "os.utime ns nofollow": lambda path: os.utime(path, ns=(1, 2), follow_symlinks=False),
        "os.truncate 0": lambda path: os.truncate(path, 0),
        "os.truncate 100": lambda path: os.truncate(path, 100),
        "os.truncate -1": lambda path: os.truncate(path, -1),
        "os.setxattr": lambda path: os.setxattr(path, "user.parity", b"value"),
        "os.setxattr nofollow": lambda path: os.setxattr(path, "user.parity", b"v", follow_symlinks=False),
        "os.removexattr": lambda path: os.removexattr(path, "user.parity"),
    }


def _looking() -> dict[str, Operation]:
    found: dict[str, Operation] = {
        "os.stat": lambda path: _status(os.stat(path)),
        "os.lstat": lambda path: _status(os.lstat(path)),
        "os.stat nofollow": lambda path: _status(os.stat(path, follow_symlinks=False)),
        "os.access nofollow": lambda path: os.access(path, os.W_OK, follow_symlinks=False),
        "os.access effective": lambda path: os.access(path, os.W_OK, effective_ids=True),
        "os.statvfs": lambda path: os.statvfs(path).f_flag & os.ST_RDONLY,
        "os.listdir": lambda path: sorted(map(repr, os.listdir(path))),
        "os.scandir": _scanned,
        "os.walk": lambda path: sorted(map(repr, os.walk(path))),
        "os.readlink": lambda path: os.readlink(path),
        "os.chdir": _changed_directory,
        "os.pathconf": lambda path: os.pathconf(path, "PC_NAME_MAX"),
        "os.path.realpath": lambda path: os.path.realpath(path),
        "os.path.realpath strict": lambda path: os.path.realpath(path, strict=True),
        "os.path.exists": lambda path: (os.path.exists(path), os.path.lexists(path)),
        "os.path.isdir": lambda path: (os.path.isdir(path), os.path.isfile(path), os.path.islink(path)),
        "os.path.ismount": lambda path: os.path.ismount(path),
        "shutil.copytree from": _tree_copied,
    }
    for name in ("F_OK", "R_OK", "W_OK", "X_OK"):
        found[f"os.access {name}"] = lambda path, name=name: os.access(path, getattr(os, name))
    return found


def _by_descriptor() -> dict[str, Operation]:
    found = {
        "os.fchmod": lambda fd: os.fchmod(fd, 0o755),
        "os.chmod of a descriptor": lambda fd: os.chmod(fd, 0o755),
        "os.fchown": lambda fd: os.fchown(fd, -1, -1),
        "os.chown of a descriptor": lambda fd: os.chown(fd, -1, -1),
        "os.utime of a descriptor": lambda fd: os.utime(fd),
        "os.setxattr of a descriptor": lambda fd: os.setxattr(fd, "user.parity", b"value"),
        "os.removexattr of a descriptor": lambda fd: os.removexattr(fd, "user.parity"),
        "os.ftruncate": lambda fd: os.ftruncate(fd, 0),
        "os.truncate of a descriptor": lambda fd: os.truncate(fd, 0),
        "os.posix_fallocate": lambda fd: os.posix_fallocate(fd, 0, 4096),
        "os.write": lambda fd: os.write(fd, b"bytes"),
        "os.pwrite": lambda fd: os.pwrite(fd, b"bytes", 0),
        "os.writev": lambda fd: os.writev(fd, [b"bytes"]),
        "open w of a descriptor": lambda fd: open(fd, "w", closefd=False).close(),
        "os.listdir of a descriptor": lambda fd: sorted(os.listdir(fd)),
        "os.scandir of a descriptor": _scanned,
        "os.chdir of a descriptor": _changed_directory,
        "os.stat of a descriptor": lambda fd: _status(os.stat(fd)),
        "os.access of a descriptor": lambda fd: os.access(fd, os.W_OK),
        "os.statvfs of a descriptor": lambda fd: os.statvfs(fd).f_flag & os.ST_RDONLY,
        "os.fstatvfs": lambda fd: os.fstatvfs(fd).f_flag & os.ST_RDONLY,
    }
    rows = {name: _with_descriptor(call) for name, call in found.items()}
    rows["open r+ by /proc/self/fd"] = _by_proc
    rows["os.ftruncate of an O_PATH descriptor"] = _with_descriptor(found["os.ftruncate"], os.O_PATH)
    rows["os.fchmod of an O_PATH descriptor"] = _with_descriptor(found["os.fchmod"], os.O_PATH)
    return rows


def _by_directory() -> dict[str, Operation]:
    calls: dict[str, Callable[[Any, int], Any]] = {
        "os.open O_WRONLY|O_CREAT": lambda path, fd: _descriptor(path, "O_WRONLY", "O_CREAT", dir_fd=fd),
        "os.open O_RDONLY": lambda path, fd: _descriptor(path, "O_RDONLY", dir_fd=fd),
        "os.mkdir": lambda path, fd: os.mkdir(path, dir_fd=fd),
        "os.rmdir": lambda path, fd: os.rmdir(path, dir_fd=fd),
        "os.unlink": lambda path, fd: os.unlink(path, dir_fd=fd),
        "os.symlink": lambda path, fd: os.symlink("target", path, dir_fd=fd),
        "os.mkfifo": lambda path, fd: os.mkfifo(path, dir_fd=fd),
        "os.mknod": lambda path, fd: os.mknod(path, dir_fd=fd),
        "os.rename source": lambda path, fd: os.rename(path, "/tmp/new", src_dir_fd=fd),
        "os.rename target": lambda path, fd: os.rename("/tmp/file", path, dst_dir_fd=fd),
        "os.replace target": lambda path, fd: os.replace("file", path, dst_dir_fd=fd),
        "os.link source": lambda path, fd: os.link(path, "/tmp/new", src_dir_fd=fd),
        "os.link target": lambda path, fd: os.link("/tmp/file", path, dst_dir_fd=fd),
        "os.chmod": lambda path, fd: os.chmod(path, 0o755, dir_fd=fd),
        "os.chown": lambda path, fd: os.chown(path, -1, -1, dir_fd=fd),
        "os.utime": lambda path, fd: os.utime(path, dir_fd=fd),
        "os.stat": lambda path, fd: _status(os.stat(path, dir_fd=fd)),
        "os.access": lambda path, fd: os.access(path, os.W_OK, dir_fd=fd),
        "os.readlink": lambda path, fd: os.readlink(path, dir_fd=fd),
    }
    rows = {}
    for place in (".", "/tmp", "/tmp/out-dir", "into-tmp-dir", "/tmp/file"):
        for name, call in calls.items():
            rows[f"{name} in {place}"] = _relative_to(place, call)
    return rows


OPERATIONS: dict[str, Operation] = {
    **_opening(),
    **_making(),
    **_altering(),
    **_looking(),
    **_by_descriptor(),
    **_by_directory(),
}

#: Operations for which tmpguard only looks at the text of a path, as long as there are no links in ``/tmp``.
WITHOUT_LINKS = [
    *(
        "open r",
        "open w",
        "open a",
        "open x",
        "open r+",
        "io.FileIO a",
        "os.chmod",
        "os.utime",
        "os.truncate 100",
    ),
    *("os.open O_WRONLY", "os.open O_WRONLY|O_CREAT", "os.open O_WRONLY|O_CREAT|O_EXCL", "os.setxattr"),
    *("os.stat", "os.lstat", "os.access W_OK", "os.listdir", "os.scandir", "os.readlink", "os.chdir"),
    *("os.path.realpath", "os.path.exists", "os.statvfs", *_making()),
]

#: Operations that change nothing, except for the working directory.
_QUIET = frozenset(_looking()) - {"shutil.copytree from", "os.chdir"} | {
    "open r",
    "os.open O_RDONLY|O_DIRECTORY",
}

#: Operations that would walk or copy the whole machine.
_NOT_FOR_THE_ROOT = ("os.walk", "shutil.copytree from")


def is_row(operation: str, path: Any, name: str) -> bool:
    """True if ``operation`` makes sense for the path called ``name``."""
    if operation in _NOT_FOR_THE_ROOT:
        return name.startswith(("P/", "/tmp/")) and not re.search(r"\.\.|/\.?$|up|into-tmp|out-", name)
    if " in " in operation:
        return isinstance(path, str) and not path.startswith("/")
    return True


# --- outcomes ------------------------------------------------------------------------------------------

Outcome = list[str]


def told_of(operation: str, path: Any) -> str:
    """The result or the error of ``operation`` on ``path``."""
    try:
        return "gives " + _told(OPERATIONS[operation](path))
    except OSError as exc:
        code = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        return f"{type(exc).__name__} {code} {_told(exc.filename)} {_told(exc.filename2)}"
    except Exception as exc:
        return type(exc).__name__


def _told(value: Any) -> str:
    # The numbers of descriptors and nameless inodes differ between processes.
    if type(value) is int and 2 < value < 9999:
        return "a descriptor"
    return re.sub(r"/#\d+", "/#N", re.sub(r"/fd/\d+", "/fd/N", repr(value)))


def entries() -> set[str]:
    """What can change: the working directory, ``/tmp``, and everything in it except for the bundle."""
    found = {f"working directory {os.getcwd()}", f"/tmp {os.lstat('/tmp').st_mode:o}"}
    pending = ["/tmp"]
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                status = entry.stat(follow_symlinks=False)
                shown = f"{entry.path} {stat.filemode(status.st_mode)}"
                if stat.S_ISREG(status.st_mode):
                    shown += f" {status.st_size} bytes, {status.st_nlink} names"
                elif stat.S_ISLNK(status.st_mode):
                    shown += f" {os.readlink(entry.path)}"
                elif stat.S_ISDIR(status.st_mode) and entry.path != "/tmp/package":
                    pending.append(entry.path)
                found.add(shown)
    # The bundle is mounted: it is in the listing, but not on the disk.
    return {shown for shown in found if not shown.startswith("/tmp/package ")}


#: One in SHARE outcomes is compared, always the same ones. With 1, all of about 26,000 are.
SHARE = int(os.environ.get("TMPGUARD_PARITY_SHARE", "8"))


def _is_in_share(operation: str, name: str, links: bool) -> bool:
    return zlib.crc32(f"{operation} {name} {links}".encode("utf-8", "surrogateescape")) % SHARE == 0


def outcomes(
    operation: str, project: str, *, links: bool, start: Callable[[], Any]
) -> Iterator[tuple[str, Outcome]]:
    """The outcomes of ``operation``: the name of the path, the result, and the changes.

    ``start`` provides an empty ``/tmp``. It is called again after each row that changed something.
    """
    before: set[str] = set()
    for name, path in paths(project).items():
        if not is_row(operation, path, name) or not (links or name.startswith("/tmp")):
            continue
        if not _is_in_share(operation, name, links):
            continue
        if not before:
            start()
            make_tmp(project, links=links)
            before = entries()
        told = told_of(operation, path)
        after = before if operation in _QUIET else entries()
        yield name, [told, *_signed("-", before - after), *_signed("+", after - before)]
        if before != after or "xattr" in operation:
            before = set()


def _signed(sign: str, entries: set[str]) -> list[str]:
    return [f"{sign} {entry}" for entry in sorted(entries)]


def rows() -> list[tuple[str, str, bool]]:
    """The rows of the table: the name, the operation, and whether there are links in ``/tmp``."""
    linked = [(operation, operation, True) for operation in OPERATIONS]
    plain = [(f"{operation} without links", operation, False) for operation in WITHOUT_LINKS]
    return linked + plain


def table(project: str) -> dict[str, dict[str, Outcome]]:
    """The outcomes on the kernel's set-up, by the names of the row and of the path."""
    os.umask(0o022)
    return {
        row: dict(outcomes(operation, project, links=links, start=empty_tmp))
        for row, operation, links in rows()
    }
