"""The calls that copy within the kernel: ``sendfile``, ``copy_file_range``, ``splice``, and clones (C3.5)."""

from __future__ import annotations

import os
import select
import stat as modes
import struct
import termios
from errno import EAGAIN, EINVAL, EOPNOTSUPP, EXDEV
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import FileDescriptorLike
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.storage.openfiles import appends, may_write
from tmpguard.interpose.raising import alive

from .descriptors import charged, is_charged

_FICLONE: Final = 0x40049409
_FICLONERANGE: Final = 0x4020940D


def sendfile(
    invocation: Invocation,
    out_fd: int,
    in_fd: int,
    offset: int | None,
    count: int,
    *rest: object,
    **more: object,
) -> int:
    call = partial(originals.sendfile, out_fd, in_fd, offset)
    if rest or more or not is_charged(invocation, "os.sendfile", out_fd):
        return call(count, *rest, **more)  # type: ignore[no-any-return]
    start = offset if offset is not None else originals.lseek(in_fd, 0, os.SEEK_CUR)
    # A file that is sent to its own end grows before the reader.
    left = _left(in_fd, start)
    size = count if left and _are_same(in_fd, out_fd) else min(count, left)
    return charged(invocation, "os.sendfile", out_fd, size, None, call) if size else call(count)  # type: ignore[no-any-return]


def copy_file_range(
    invocation: Invocation,
    src: int,
    dst: int,
    count: int,
    offset_src: int | None = None,
    offset_dst: int | None = None,
) -> int:
    def call(size: int) -> Any:
        return originals.copy_file_range(src, dst, size, offset_src, offset_dst)

    if type(src) is int and type(dst) is int and count >= 0 and _crosses(invocation, src, dst):
        try:
            call(0)  # what else is wrong with the descriptors is told first
        except OSError as exc:
            if exc.errno != EINVAL:  # a negative offset, told after it
                raise
        raise os_error(EXDEV)
    negative = any(offset is not None and offset < 0 for offset in (offset_src, offset_dst))
    if negative or not is_charged(invocation, "os.copy_file_range", dst):
        return call(count)  # type: ignore[no-any-return]
    start = offset_src if offset_src is not None else originals.lseek(src, 0, os.SEEK_CUR)
    size = min(count, _left(src, start))
    if not size or (_are_same(src, dst) and _overlap(dst, start, offset_dst, size)):
        return call(count)  # type: ignore[no-any-return]
    return charged(invocation, "os.copy_file_range", dst, size, offset_dst, call)  # type: ignore[no-any-return]


def splice(
    invocation: Invocation,
    src: int,
    dst: int,
    count: int,
    offset_src: int | None = None,
    offset_dst: int | None = None,
    flags: int = 0,
) -> int:
    def call(size: int, more: int = 0) -> Any:
        return originals.splice(src, dst, size, offset_src, offset_dst, flags | more)

    # A pipe has no offsets, which the kernel says, and of too little it does nothing.
    refused = count <= 0 or offset_src is not None or (offset_dst is not None and offset_dst < 0)
    if refused or not is_charged(invocation, "os.splice", dst) or not _may_be_spliced(src, dst):
        return call(count)  # type: ignore[no-any-return]
    waits = not flags & os.SPLICE_F_NONBLOCK and os.get_blocking(src)
    at_once = partial(call, more=os.SPLICE_F_NONBLOCK)
    while True:
        hung_up = _is_hung_up(src)  # asked first: the last writer may leave something
        held = _held_in(src)
        if held:
            try:
                return charged(invocation, "os.splice", dst, min(count, held), offset_dst, at_once)  # type: ignore[no-any-return]
            except BlockingIOError:  # another reader has it
                if not waits:
                    raise
        elif hung_up:
            return call(count)  # type: ignore[no-any-return]
        elif not waits:
            raise os_error(EAGAIN)
        else:
            _await_writer(src)  # without the lock, which whoever is going to write may need


def _crosses(invocation: Invocation, src: int, dst: int) -> bool:
    """Is one of two regular files in ``/tmp``, and the other one on another file system?"""
    try:
        regular = all(modes.S_ISREG(originals.fstat(fd).st_mode) for fd in (src, dst))
    except OSError:
        return False
    return regular and invocation.owns(src) != invocation.mounted.owns(dst)


def _may_be_spliced(src: int, dst: int) -> bool:
    """Has the kernel nothing against the descriptors? It says so only where there is something to splice."""
    try:
        piped = modes.S_ISFIFO(originals.fstat(src).st_mode)
    except (OSError, TypeError):
        return False
    return piped and may_write(dst) and not appends(dst)


def _held_in(pipe: int) -> int:
    """The bytes that ``pipe`` holds."""
    return int(struct.unpack("i", originals.fcntl_ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


def _is_hung_up(pipe: int) -> bool:
    """Is there nobody who could write to ``pipe``?"""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _await_writer(pipe: int) -> None:
    """Wait until ``pipe`` holds something, or nobody is left who could write to it."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll()


def _overlap(dst: int, start: int, offset: int | None, size: int) -> bool:
    """Would ``size`` bytes of one file be copied over themselves? The kernel refuses that."""
    target = originals.lseek(dst, 0, os.SEEK_CUR) if offset is None else offset
    return start < target + size and target < start + size


def _are_same(one: int, other: int) -> bool:
    return os.path.samestat(originals.fstat(one), originals.fstat(other))


def _left(fd: int, start: int) -> int:
    """The bytes of the file ``fd`` from ``start`` on; of a directory the kernel copies none."""
    status = originals.fstat(fd)
    return max(0, status.st_size - start) if modes.S_ISREG(status.st_mode) else 0


# --- clones: a tmpfs knows none, which share the pages of another file ----------------------------------


def ioctl(invocation: Invocation, fd: FileDescriptorLike, request: int, *args: Any, **more: Any) -> Any:
    """:func:`fcntl.ioctl`. Raises OSError(EXDEV) or OSError(EOPNOTSUPP) for clones to and from ``/tmp``."""
    files = _cloned(fd, request, args[0]) if request in (_FICLONE, _FICLONERANGE) and args else None
    if files is not None:
        ours = [invocation.owns(number) for number in files]
        if any(ours):
            alive(invocation, "fcntl.ioctl", files[1])
            raise os_error(EOPNOTSUPP if all(ours) else EXDEV)
    return originals.fcntl_ioctl(fd, request, *args, **more)


def _cloned(fd: object, request: int, argument: Any) -> tuple[int, int] | None:
    """The descriptors of the source and of the target; None where the original raises the right error."""
    target: Any = fd if isinstance(fd, int) else getattr(fd, "fileno", lambda: None)()
    source = argument
    if request == _FICLONERANGE:
        try:
            source = int(struct.unpack_from("q", argument)[0])
        except (struct.error, TypeError):
            return None
    if not isinstance(source, int) or not isinstance(target, int):
        return None
    try:
        originals.fstat(source)
        originals.fstat(target)
    except (OSError, OverflowError):
        return None
    return source, target
