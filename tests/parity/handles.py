"""Calls that open files and use open files.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import stat
import zlib
from collections.abc import Callable
from typing import Any

from tests.parity.session import NotTried, Session, told_name, told_status

Function = Callable[..., Any]

#: The calls by name: a function that takes the session and the arguments, and the kind of each argument.
CALLS: dict[str, tuple[Function, tuple[str, ...]]] = {}


def call(*kinds: str) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        CALLS[function.__name__] = function, kinds
        return function

    return add


def shown(data: Any) -> Any:
    """A short form of data that was read."""
    if isinstance(data, str):
        data = data.encode()
    return (len(data), f"{zlib.crc32(data):08x}") if isinstance(data, bytes) else data


# --- opening -------------------------------------------------------------------------------------------


@call("slot", "path", "mode", "buffering")
def open_(s: Session, slot: int, path: Any, mode: str, buffering: int) -> Any:
    encoding = None if "b" in mode else "ascii"
    path = s.opened(path)
    file = open(path, mode, buffering, encoding)
    s.keep(slot, file)
    s.mark(slot, path)
    raw = getattr(getattr(file, "buffer", file), "raw", file)
    return (
        type(file).__name__,
        told_name(file.name),
        file.mode,
        type(raw).__name__,
        told_name(raw.name),
        raw.mode,
    )


@call("slot", "path", "raw_mode")
def file_io(s: Session, slot: int, path: Any, mode: str) -> Any:
    path = s.opened(path)
    file = io.FileIO(path, mode)
    s.keep(slot, file)
    s.mark(slot, path)
    return told_name(file.name), file.mode


@call("slot", "path", "flags", "permissions", "directory")
def os_open(s: Session, slot: int, path: Any, flags: str, mode: int, directory: int | None) -> Any:
    bits = os.O_NONBLOCK
    for name in flags.split("|"):
        bits |= getattr(os, name)
    path = s.spelled(path)
    descriptor = os.open(path, bits, mode, dir_fd=s.directory(directory))
    s.keep(slot, descriptor)
    s.mark(slot, path, directory)
    return describe(s, slot)


@call("slot")
def describe(s: Session, slot: int) -> Any:
    """What the kernel reports about a descriptor."""
    descriptor = s.descriptor(slot)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    named = 3 | os.O_APPEND | os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    return [told_status(os.fstat(descriptor)), oct(flags & named), s.name(slot)]


@call("slot", "slot", "mode", "buffering")
def fdopen(s: Session, slot: int, source: int, mode: str, buffering: int) -> Any:
    copy = os.dup(s.descriptor(source))
    try:
        file = os.fdopen(copy, mode, buffering)
    except BaseException:
        os.close(copy)
        raise
    s.keep(slot, file)
    s.mark_as(slot, source)
    return type(file).__name__, file.mode


@call("slot", "raw_mode", "size")
def open_descriptor(s: Session, slot: int, mode: str, size: int) -> Any:
    """Open a descriptor, write, and close the file but not the descriptor."""
    with open(s.descriptor(slot), mode + "b", closefd=False) as file:
        return file.write(s.data(size))


@call("slot", "slot")
def dup(s: Session, slot: int, source: int) -> None:
    s.keep(slot, os.dup(s.descriptor(source)))
    s.mark_as(slot, source)


@call("slot", "slot")
def dup2(s: Session, slot: int, source: int) -> None:
    os.dup2(s.descriptor(source), s.descriptor(slot))
    s.mark_as(slot, source)


@call("slot")
def close(s: Session, slot: int) -> None:
    s.close(slot)


# --- file objects --------------------------------------------------------------------------------------


@call("slot", "size")
def write(s: Session, slot: int, size: int) -> Any:
    file = s.file(slot)
    data = s.data(size)
    return file.write(data.decode() if isinstance(file, io.TextIOBase) else data)


@call("slot", "sizes")
def writelines(s: Session, slot: int, sizes: list[int]) -> None:
    file = s.file(slot)
    lines = [s.data(size) for size in sizes]
    file.writelines([line.decode() for line in lines] if isinstance(file, io.TextIOBase) else lines)


@call("slot", "size")
def read(s: Session, slot: int, size: int) -> Any:
    return shown(s.file(slot).read(size))


@call("slot")
def read_all(s: Session, slot: int) -> Any:
    file = s.file(slot)
    if os.fstat(s.descriptor(slot)).st_size > 8 << 20:
        raise NotTried("too much")
    return shown(file.read())


@call("slot")
def readline(s: Session, slot: int) -> Any:
    return shown(s.file(slot).readline())


@call("slot", "size")
def readinto(s: Session, slot: int, size: int) -> Any:
    return s.file(slot).readinto(bytearray(size))


@call("slot", "offset", "whence")
def seek(s: Session, slot: int, offset: int, whence: int) -> Any:
    return s.file(slot).seek(offset, whence)


@call("slot")
def tell(s: Session, slot: int) -> Any:
    return s.file(slot).tell()


@call("slot", "length")
def file_truncate(s: Session, slot: int, length: int | None) -> Any:
    return s.file(slot).truncate(length)


@call("slot")
def flush(s: Session, slot: int) -> None:
    s.file(slot).flush()


@call("slot")
def ask_file(s: Session, slot: int) -> Any:
    file = s.file(slot)
    return file.readable(), file.writable(), file.seekable(), file.closed, file.isatty()


@call("slot")
def detach(s: Session, slot: int) -> Any:
    """Replace a buffered file by its raw file."""
    file = s.file(slot)
    raw = file.detach()
    s.slots[slot] = raw
    s.detached.add(slot)
    return type(raw).__name__


# --- descriptors ---------------------------------------------------------------------------------------


@call("slot", "size")
def os_write(s: Session, slot: int, size: int) -> Any:
    return os.write(s.descriptor(slot), s.data(size))


@call("slot", "size", "offset")
def pwrite(s: Session, slot: int, size: int, offset: int) -> Any:
    return os.pwrite(s.descriptor(slot), s.data(size), offset)


@call("slot", "sizes")
def writev(s: Session, slot: int, sizes: list[int]) -> Any:
    return os.writev(s.descriptor(slot), [s.data(size) for size in sizes])


@call("slot", "sizes", "offset")
def pwritev(s: Session, slot: int, sizes: list[int], offset: int) -> Any:
    return os.pwritev(s.descriptor(slot), [s.data(size) for size in sizes], offset)


@call("slot", "size")
def os_read(s: Session, slot: int, size: int) -> Any:
    return shown(os.read(s.descriptor(slot), size))


@call("slot", "size", "offset")
def pread(s: Session, slot: int, size: int, offset: int) -> Any:
    return shown(os.pread(s.descriptor(slot), size, offset))


@call("slot", "offset", "seeking")
def lseek(s: Session, slot: int, offset: int, whence: int) -> Any:
    descriptor = s.descriptor(slot)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise NotTried("a directory")
    if s.has_allocated and whence > os.SEEK_END:
        raise NotTried("data or a hole")
    return os.lseek(descriptor, offset, whence)


@call("slot", "length")
def ftruncate(s: Session, slot: int, length: int | None) -> None:
    os.ftruncate(s.descriptor(slot), length or 0)


@call("slot", "offset", "size")
def posix_fallocate(s: Session, slot: int, offset: int, size: int) -> None:
    s.has_allocated = True
    os.posix_fallocate(s.descriptor(slot), offset, size)


@call("slot", "bool")
def fsync(s: Session, slot: int, data: bool) -> None:
    (os.fdatasync if data else os.fsync)(s.descriptor(slot))


@call("slot", "size", "offset")
def map_(s: Session, slot: int, size: int, offset: int) -> Any:
    """Write through a mapping of allocated pages. For others, the kernel may send a signal."""
    descriptor = s.descriptor(slot)
    s.has_allocated = True
    os.posix_fallocate(descriptor, 0, max(1, os.fstat(descriptor).st_size))
    with mmap.mmap(descriptor, 0) as mapping:
        data = s.data(size)[: max(0, len(mapping) - offset)]
        mapping[offset : offset + len(data)] = data
        return len(mapping)


@call("slot", "slot", "offset?", "size")
def sendfile(s: Session, slot: int, source: int, offset: int | None, size: int) -> Any:
    target, origin = s.descriptor(slot), s.descriptor(source)
    if os.path.samestat(os.fstat(target), os.fstat(origin)):
        raise NotTried("to itself")
    return os.sendfile(target, origin, offset, size)


@call("slot", "slot", "size", "offset?", "offset?")
def copy_file_range(
    s: Session, slot: int, source: int, size: int, start: int | None, offset: int | None
) -> Any:
    return os.copy_file_range(s.descriptor(source), s.descriptor(slot), size, start, offset)


@call("slot", "size", "size", "offset?")
def splice(s: Session, slot: int, filled: int, size: int, offset: int | None) -> Any:
    descriptor = s.descriptor(slot)
    os.fstat(descriptor)  # the pipe must not get the number of a closed descriptor
    out, into = os.pipe()
    try:
        os.set_blocking(out, False)
        os.write(into, s.data(min(filled, 60_000)))
        return os.splice(out, descriptor, size, offset_dst=offset)
    finally:
        os.close(out)
        os.close(into)


# --- metadata by descriptor ----------------------------------------------------------------------------


@call("slot")
def fstat(s: Session, slot: int) -> Any:
    return told_status(os.fstat(s.descriptor(slot)))


@call("slot", "permissions")
def fchmod(s: Session, slot: int, mode: int) -> None:
    os.fchmod(s.descriptor(slot), mode)


@call("slot")
def fchown(s: Session, slot: int) -> None:
    os.fchown(s.descriptor(slot), -1, -1)


@call("slot")
def fstatvfs(s: Session, slot: int) -> Any:
    status = os.fstatvfs(s.descriptor(slot))
    return status.f_flag & os.ST_RDONLY


@call("slot")
def fpathconf(s: Session, slot: int) -> Any:
    return os.fpathconf(s.descriptor(slot), "PC_NAME_MAX")


@call("slot")
def fchdir(s: Session, slot: int) -> str:
    os.fchdir(s.place(slot))
    return os.getcwd()


@call("slot", "path", "bool")
def name_descriptor(s: Session, slot: int, path: Any, follow: bool) -> None:
    """Give a nameless file a name, as the manual page of open(2) describes."""
    source = f"/proc/self/fd/{s.descriptor(slot)}"
    os.link(source, s.spelled(path), src_dir_fd=0, follow_symlinks=follow)
