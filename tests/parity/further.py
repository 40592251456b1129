"""Less common calls: unusual ways to open and to write files, locks, sockets, trees.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import array
import bz2
import codecs
import contextlib
import fcntl
import filecmp
import glob as globbing
import io
import itertools
import lzma
import mmap
import os
import pathlib
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.handles import call, shown
from tests.parity.session import NotTried, Session, told_name, told_status

# --- opening -------------------------------------------------------------------------------------------


class Derived(io.FileIO):
    """A class that an application derives."""


OPENERS: dict[str, Callable[[Any, int], int]] = {
    "usual": os.open,
    "private": lambda path, flags: os.open(path, flags, 0o600),
    "no links": lambda path, flags: os.open(path, flags | os.O_NOFOLLOW),
    "new": lambda path, flags: os.open(path, flags | os.O_CREAT | os.O_EXCL),
    "nameless": lambda path, flags: os.open("/tmp", os.O_RDWR | os.O_TMPFILE),
    "reading": lambda path, flags: os.open(path, os.O_RDONLY),
    "negative": lambda path, flags: -1,
    "no number": lambda path, flags: "7",  # type: ignore[dict-item, return-value]
}

WAYS: dict[str, Callable[[Any], Any]] = {
    "r": lambda path: open(path),
    "r for bytes": lambda path: open(path, "rb"),
    "r with an encoding": lambda path: open(path, encoding="latin-1", newline=""),
    "codecs w": lambda path: codecs.open(path, "w", "ascii"),
    "codecs r": lambda path: codecs.open(path, "r", "latin-1"),
    "open_code": io.open_code,
    "bz2 w": lambda path: bz2.open(path, "wb"),
    "bz2 r": lambda path: bz2.open(path, "rb"),
    "lzma a": lambda path: lzma.open(path, "ab"),
    "text over buffered": lambda path: io.TextIOWrapper(io.BufferedWriter(io.FileIO(path, "w")), "ascii"),
    "random over raw": lambda path: io.BufferedRandom(io.FileIO(path, "r+")),
    "derived": lambda path: Derived(path, "w+"),
    "derived r": lambda path: Derived(path),
    "Path w": lambda path: pathlib.Path(path).open("w", encoding="ascii"),
    "Path r+b": lambda path: pathlib.Path(path).open("r+b", buffering=0),
    "keywords": lambda path: open(file=path, mode="w+b", buffering=100, closefd=True, opener=None),
    "keywords of FileIO": lambda path: io.FileIO(file=path, mode="a", closefd=True, opener=None),
    "keywords of os": lambda path: os.open(path=path, flags=os.O_RDWR | os.O_SYNC, mode=0o600, dir_fd=None),
    "synchronous": lambda path: os.open(path, os.O_WRONLY | os.O_DSYNC | os.O_APPEND | os.O_CREAT, 0o640),
    "without closing": lambda path: open(path, "w", closefd=False),
}


@call("slot", "path", "raw_mode", "opener")
def open_by_opener(s: Session, slot: int, path: Any, mode: str, opener: str) -> Any:
    path = s.opened(path)
    file = open(path, mode + "b", opener=OPENERS[opener])
    s.keep(slot, file)
    s.mark(slot, path)
    return type(file).__name__, told_name(file.name), file.mode


@call("slot", "path", "way")
def open_otherwise(s: Session, slot: int, path: Any, way: str) -> Any:
    path = s.opened(path)
    file = WAYS[way](path)
    s.keep(slot, file)
    s.mark(slot, path)
    return type(file).__name__, told_name(getattr(file, "name", None))


@call("slot", "path", "raw_mode")
def open_again(s: Session, slot: int, path: Any, mode: str) -> Any:
    """Open a raw file a second time, with another path."""
    file = s.file(slot)
    if not isinstance(file, io.FileIO) or slot in s.detached:
        raise NotTried("not opened as a raw file")
    if mode == "r":
        raise NotTried("CPython opens it for what it was opened for before, too")
    path = s.opened(path)
    if isinstance(path, int):
        raise NotTried("its own descriptor, perhaps")
    try:
        file.__init__(path, mode)  # type: ignore[misc]
    except BaseException:
        s.detached.add(slot)  # CPython keeps parts of the old mode after an error: not compared any further
        raise
    s.mark(slot, path)
    return told_name(file.name), file.mode, file.closed


@call("slot")
def inheritable(s: Session, slot: int) -> Any:
    return os.get_inheritable(s.descriptor(slot))


@call("slot", "slot")
def duplicate(s: Session, slot: int, source: int) -> None:
    """Copy a descriptor with ``fcntl``, which bypasses ``os.dup``."""
    s.keep(slot, fcntl.fcntl(s.descriptor(source), fcntl.F_DUPFD_CLOEXEC, 0))
    s.mark_as(slot, source)


@call("slot", "bool")
def set_append(s: Session, slot: int, append: bool) -> None:
    descriptor = s.descriptor(slot)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND if append else flags & ~os.O_APPEND)


# --- reading and writing -------------------------------------------------------------------------------


def _as_mapping(data: bytes) -> Any:
    mapping = mmap.mmap(-1, max(1, len(data)))
    mapping[: len(data)] = data
    return mapping


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array": lambda data: array.array("I", data[: len(data) // 4 * 4]),
    "two dimensions": lambda data: memoryview(data[: len(data) // 8 * 8]).cast("B", [len(data) // 8, 8]),
    "each other byte": lambda data: memoryview(data)[::2],
    "mapping": _as_mapping,
    "text": lambda data: data.decode(),
    "number": len,
}

WRITERS: dict[str, Callable[[Any, int, Any], Any]] = {
    "file": lambda file, _, data: file.write(data),
    "os.write": lambda _, descriptor, data: os.write(descriptor, data),
    "os.pwrite": lambda _, descriptor, data: os.pwrite(descriptor, data, 10),
    "os.writev": lambda _, descriptor, data: os.writev(descriptor, [data, data]),
    "os.writev of a tuple": lambda _, descriptor, data: os.writev(descriptor, (data,)),
    "os.writev of no list": lambda _, descriptor, data: os.writev(descriptor, data),
    "os.writev of a generator": lambda _, descriptor, data: os.writev(descriptor, iter([data])),  # type: ignore[arg-type]
}


@call("slot", "buffer", "writer", "size")
def write_buffer(s: Session, slot: int, buffer: str, writer: str, size: int) -> Any:
    file = s.file(slot) if writer == "file" else None
    if writer == "os.writev of no list" and buffer == "mapping":
        raise NotTried("a mapping's items are bytes to some and numbers to others")
    return WRITERS[writer](file, s.descriptor(slot), BUFFERS[buffer](s.data(min(size, 100_000))))


@call("slot", "sizes", "offset", "write_flags")
def pwritev_with(s: Session, slot: int, sizes: list[int], offset: int, flags: str) -> Any:
    bits = getattr(os, flags) if flags else 0
    return os.pwritev(s.descriptor(slot), [s.data(size) for size in sizes], offset, bits)


@call("slot", "sizes", "offset", "read_flags")
def preadv_with(s: Session, slot: int, sizes: list[int], offset: int, flags: str) -> Any:
    buffers = [bytearray(size) for size in sizes]
    read = os.preadv(s.descriptor(slot), buffers, offset, getattr(os, flags))
    return read, shown(b"".join(buffers)[:read])


@call("slot", "sizes", "offset?")
def readv(s: Session, slot: int, sizes: list[int], offset: int | None) -> Any:
    buffers = [bytearray(size) for size in sizes]
    descriptor = s.descriptor(slot)
    read = os.readv(descriptor, buffers) if offset is None else os.preadv(descriptor, buffers, offset)
    return read, shown(b"".join(buffers)[:read])


@call("slot", "size")
def print_(s: Session, slot: int, size: int) -> None:
    file = s.file(slot)
    if not isinstance(file, io.TextIOBase):
        raise NotTried("no text")
    print(s.data(size).decode(), "and", size, file=file, flush=size % 2 == 0)


READERS: dict[str, Callable[[Any], Any]] = {
    "readlines": lambda file: [shown(line) for line in file.readlines(1000)][:5],
    "read1": lambda file: shown(file.read1(100)),
    "peek": lambda file: shown(bytes(file.peek(10)[:10])),
    "next": lambda file: shown(next(iter(file), b"")),
    "readall": lambda file: shown(file.readall()),
    "getbuffer": lambda file: file.line_buffering,
    "write through": lambda file: file.reconfigure(write_through=True),
    "newline": lambda file: (file.newlines, file.encoding.lower()),
}


@call("slot", "reader")
def read_by(s: Session, slot: int, reader: str) -> Any:
    if os.fstat(s.descriptor(slot)).st_size > 8 << 20:
        raise NotTried("too much")
    return READERS[reader](s.file(slot))


@call("slot", "bool", "size", "offset?")
def to_pipe(s: Session, slot: int, by_splice: bool, size: int, offset: int | None) -> Any:
    descriptor = s.descriptor(slot)
    os.fstat(descriptor)
    out, into = os.pipe()
    try:
        os.set_blocking(into, False)
        size = min(size, 60_000)
        if by_splice:
            return os.splice(descriptor, into, size, offset_src=offset)
        return os.sendfile(into, descriptor, offset, size)
    finally:
        os.close(out)
        os.close(into)


LOCKS: dict[str, Callable[[int], Any]] = {
    "flock exclusive": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "flock shared": lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "flock free": lambda fd: fcntl.flock(fd, fcntl.LOCK_UN),
    "lockf exclusive": lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lockf shared": lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 5),
    "os.lockf": lambda fd: os.lockf(fd, os.F_TLOCK, 0),
    "advice": lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL),
    "sync": lambda fd: os.sync(),
}


@call("slot", "lock")
def lock(s: Session, slot: int, lock: str) -> Any:
    descriptor = s.descriptor(slot)
    if not s.name(slot).startswith("/tmp/") or s.name(slot).startswith("/tmp/package"):
        raise NotTried("the other process has the same file")
    return LOCKS[lock](descriptor)


@call("slot", "size", "access_mode")
def map_again(s: Session, slot: int, size: int, mode: str) -> Any:
    """Make a read-only mapping, a private one, or one that grows."""
    descriptor = s.descriptor(slot)
    if mode != "resize":
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_blocks * 512 < status.st_size:
            raise NotTried("a tmpfs allocates the holes that are looked at")
        with mmap.mmap(descriptor, size, access=getattr(mmap, mode)) as mapping:
            return len(mapping), shown(mapping[:100])
    s.has_allocated = True
    before = os.fstat(descriptor).st_size
    if not before or shutil.disk_usage("/tmp").free < before + size + 10_000:
        raise NotTried("past the space the kernel would send a signal")
    os.posix_fallocate(descriptor, 0, before)
    with mmap.mmap(descriptor, before) as mapping:
        mapping.resize(max(1, size))
        for page in range(0, size, mmap.PAGESIZE):
            mapping[page] = 65
        return len(mapping)


# --- entries -------------------------------------------------------------------------------------------


@call("path", "permissions", "bool")
def mknod_of_kind(s: Session, path: Any, mode: int, pipe: bool) -> None:
    os.mknod(s.spelled(path), mode | (stat.S_IFIFO if pipe else stat.S_IFSOCK))


@call("path", "bool")
def bind(s: Session, path: Any, connect: bool) -> Any:
    spelled = s.spelled(path)
    if isinstance(spelled, (int, pathlib.PurePath)):
        raise NotTried("no address")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        if not connect:
            listening.bind(spelled)
            listening.listen(1)
        client.connect(spelled)
        return listening.getsockname(), client.getpeername()


@call("path", "time")
def utime_by_seconds(s: Session, path: Any, time: int | None) -> None:
    os.utime(s.spelled(path), (time or 0, (time or 0) + 0.5))


@call("path", "permissions", "directory")
def chmod_nofollow(s: Session, path: Any, mode: int, directory: int | None = None) -> None:
    os.chmod(s.spelled(path), mode, dir_fd=s.directory(directory), follow_symlinks=False)


@call("path", "path")
def scandir_late(s: Session, path: Any, gone: Any) -> Any:
    """Ask the entries of a listing after one of them was removed."""
    with os.scandir(s.tree(path)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    if os.path.islink(s.spelled(gone)):
        raise NotTried("the way there, perhaps")
    with contextlib.suppress(OSError):
        os.unlink(s.spelled(gone))
    told: list[Any] = []
    for entry in found:
        try:
            told.append((told_status(entry.stat()), entry.is_file(), entry.is_dir()))
        except OSError as exc:
            told.append((type(exc).__name__, exc.filename))
    return told


@call("path", "look")
def within(s: Session, path: Any, look: str) -> Any:
    """Look in another working directory for a while."""
    with contextlib.chdir(s.spelled(path)):
        return os.getcwd(), os.path.exists("file"), len(sorted(pathlib.Path().iterdir())) < 50


@call("pattern", "directory", "bool")
def glob_in(s: Session, pattern: Any, directory: int | None, hidden: bool) -> Any:
    spelled = s.spelled(pattern)
    if "**" in os.fsdecode(spelled):
        raise NotTried("links")
    found = globbing.iglob(spelled, dir_fd=s.directory(directory), include_hidden=hidden)
    return sorted(itertools.islice(found, 100))


# --- trees ---------------------------------------------------------------------------------------------

_Trees = dict[str, Callable[[Any, Any], Any]]

TREES: _Trees = {
    "ignored": lambda source, target: shutil.copytree(
        source, target, symlinks=True, ignore=shutil.ignore_patterns("inner", "to-*")
    ),
    "by copyfile": lambda source, target: shutil.copytree(
        source, target, symlinks=True, copy_function=shutil.copyfile
    ),
    "compared": lambda source, target: filecmp.cmp(source, target, shallow=False),
    "differing": lambda source, target: sorted(filecmp.dircmp(source, target).left_only),
    "chown": lambda source, _: shutil.chown(source, os.getuid()),
    "which": lambda source, target: shutil.which(os.path.basename(source), path=os.path.dirname(target)),
    "touched": lambda source, _: pathlib.Path(source).touch(exist_ok=True),
    "walked": lambda source, _: [
        (place, sorted(directories), sorted(files))
        for place, directories, files in itertools.islice(_walk(source), 30)
    ],
    "expanded": lambda source, _: sorted(pathlib.Path(source).glob("**/i*")),
    "matched": lambda source, _: sorted(pathlib.Path(source).rglob("i*r")),
}


def _walk(source: Any) -> Iterator[Any]:
    path = pathlib.Path(source)
    for step in path.walk() if hasattr(path, "walk") else os.walk(source):
        step[1].sort()  # each file system has an order of its own
        yield step


@call("tree", "path", "path")
def tree(s: Session, how: str, source: Any, target: Any) -> Any:
    source, target = s.tree(source), s.opened(target)
    s.opened(source)
    if isinstance(source, (bytes, int)) or isinstance(target, (bytes, int)):
        raise NotTried("text is wanted")
    real = [os.path.realpath(path) + "/" for path in (source, target)]
    if real[1].startswith(real[0]):
        raise NotTried("into itself")
    return TREES[how](source, target)


# --- near the limit ------------------------------------------------------------------------------------


@call("path", "left")
def fill(s: Session, path: Any, left: int) -> Any:
    """Fill ``/tmp``, except for ``left`` bytes."""
    path = s.opened(path)
    with open(path, "wb", buffering=0) as file:
        return file.write(bytes(max(0, shutil.disk_usage("/tmp").free - left)))


@call("path", "many", "size")
def make_many(s: Session, directory: Any, count: int, size: int) -> Any:
    directory = s.spelled(directory)
    if isinstance(directory, (bytes, int)):
        raise NotTried("text is wanted")
    for number in range(count):
        with open(os.path.join(directory, f"many{number}"), "wb") as file:
            file.write(s.data(min(size, 20_000)))
    return count


#: Flags that not every file system supports.
_SUPPORTED = [name for name in ("RWF_NOWAIT", "RWF_ATOMIC", "RWF_DONTCACHE") if hasattr(os, name)]

KINDS: dict[str, list[Any]] = {
    "opener": sorted(OPENERS),
    "way": sorted(WAYS),
    "buffer": sorted(BUFFERS),
    "writer": sorted(WRITERS),
    "write_flags": ["", "", "RWF_APPEND", "RWF_DSYNC", "RWF_HIPRI", *_SUPPORTED],
    "read_flags": ["RWF_HIPRI", *_SUPPORTED],
    "reader": sorted(READERS),
    "lock": sorted(LOCKS),
    "access_mode": ["ACCESS_READ", "ACCESS_COPY", "resize", "resize"],
    "tree": sorted(TREES),
    "left": [0, 1, 4095, 4096, 4097, 8192, 40_960, 100_000],
    "many": [1, 5, 20, 300],
}
