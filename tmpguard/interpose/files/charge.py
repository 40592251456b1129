"""Charges what is written through a raw file to the quota of its invocation."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from errno import ENOSPC, ESTALE
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import ReadableBuffer
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.storage.charging import Full
from tmpguard.core.storage.openfiles import file_bytes, may_write
from tmpguard.core.storage.pages import pages
from tmpguard.core.storage.quota import Quota

_write = originals.FileIO.write

#: As many bytes tell whether a write is the one that was refused before.
_COMPARED: Final = 512


class Charge:
    """Charges the writes of one raw file to the quota of its invocation (C3.5).

    Its methods take the place of the raw file's own, on the instance: so the raw file is an ordinary
    :class:`io.FileIO`, which the standard buffers know how to ask quickly whether it is closed.

    Raises OSError(ENOSPC) past the quota (C3.4) and OSError(ESTALE) when the invocation is over (C4.5).
    """

    __slots__ = (
        "_appending",
        "_cuts",
        "_end",
        "_nameless",
        "_raw",
        "_refused",
        "_retrying",
        "descriptor",
        "exposed",
        "invocation",
        "quota",
    )

    def __init__(self, invocation: Invocation, raw: io.FileIO, *, empty: bool = False) -> None:
        self.invocation = invocation
        #: None once the invocation is over.
        self.quota: Quota | None = invocation.mounted.quota
        # The raw file holds its charge: a reference back would leave a forgotten file to the collector.
        self._raw = weakref.ref(raw)
        self.descriptor: int = raw.fileno()
        # The offset of the next write while the file is known to end there and to have no holes: then the
        # cost of a write is known. None where it is not, and while a write is under way.
        self._end = 0 if empty and not (self.quota.shared and self._is_shared()) else None
        # As many files were cut when that was so: another may be this one, and its last page is gone.
        self._cuts = self.quota.cuts
        # Was nothing but written since the disk was last asked? Then it is worth while to find the end.
        self._appending = empty
        self._nameless = False
        #: The first of the bytes that were refused last, and whether a flush that nobody asked for runs.
        self._refused: bytes | None = None
        self._retrying = False
        #: May native code have its descriptor?
        self.exposed = False

    def attach(self, raw: Any) -> None:
        """Have the writes of the raw file charged; a nameless file is given back when it is closed (C3.2)."""
        raw.write = self.write
        raw.seek = self.seek
        raw.truncate = self.truncate
        raw.fileno = self.fileno
        if self._end is None and self.is_nameless(raw):
            raw.close = self.close

    def is_nameless(self, raw: io.FileIO) -> bool:
        """Was the file unlinked before it was opened here?"""
        self._nameless = self._end is None and not originals.fstat(self.descriptor).st_nlink
        return self._nameless

    def start_at_end(self, quota: Quota) -> None:
        """The file was opened to append to it."""
        status = originals.fstat(self.descriptor)
        size, inode = status.st_size, status.st_ino
        if status.st_nlink and status.st_blocks * 512 >= (size + 4095) & -4096 and inode not in quota.shared:
            self._end, self._appending = size, True

    def forget_end(self) -> None:
        """Another file was opened while this one was: it may be the same one."""
        with self.invocation.quota.lock:
            self._end = None
            quota = self.invocation.quota
            quota.shared.add(originals.fstat(self.descriptor).st_ino)
            quota.cuts += 1

    def raw(self) -> io.FileIO:
        """The raw file. Raises ValueError when it is closed and gone.

        The collector of cycles clears references before files are closed: a buffer that is flushed then
        still has its descriptor.
        """
        raw = self._raw()
        if raw is not None:
            return raw
        if not self.invocation.owns(self.descriptor):
            raise ValueError("I/O operation on closed file.")
        return originals.FileIO(self.descriptor, "w", closefd=False)

    def write(self, data: Any, /) -> int | None:
        raw = self._raw() or self.raw()
        quota = self.quota
        if quota is None:
            if self._is_known(data):
                raise os_error(ESTALE)
            raise self.invocation.stale("write", raw.name)
        kind = type(data)
        if kind is memoryview:
            size = data.nbytes
        elif kind is bytes:
            size = len(data)
        elif (view := bytes_of(data)) is not None:
            size = view.nbytes
        else:
            return _write(raw, data)
        with quota.lock:
            end = self._end
            if end is not None and self._cuts == quota.cuts:
                # What is new are the pages between the one it ends in now and the one it will end in.
                cost = ((end + size + 4095) & -4096) - ((end + 4095) & -4096)
                if cost <= quota.credit:
                    self._end = None
                    try:
                        quota.credit -= cost
                        written: int | None = _write(raw, data)
                    except BaseException as exc:
                        quota.doubt()
                        remedies.note_full_disk(exc)
                        raise
                    if written == size and self._cuts == quota.cuts:
                        self._end = end + size
                    else:
                        quota.doubt()  # it was written in part, or a finalizer or a signal handler came in
                    return written
            return self._write_what_fits(raw, quota, data, size)

    def _write_what_fits(self, raw: io.FileIO, quota: Quota, data: ReadableBuffer, size: int) -> int | None:
        """The lock is held (C3.4)."""
        if raw.closed or not memoryview(data).c_contiguous:
            return _write(raw, data)  # which says so
        self._end = None
        stamp = quota.stamp + 1
        try:
            fits = quota.charge(self.descriptor, size)
        except Full:
            fits = 0
        if size and not fits and not may_write(self.descriptor):
            return _write(raw, data)  # which says so
        if size and not fits:
            touched(self.descriptor)
            if self._is_known(data):
                raise os_error(ENOSPC)
            self._refused = bytes(memoryview(data).cast("B")[:_COMPARED])
            warned: Any = raw  # the method has no type: io looks it up when it collects an unclosed file
            warned._dealloc_warn = partial(self._dealloc_warn, type(warned)._dealloc_warn)
            remedy = full_remedy(self.invocation)
            raise self.invocation.refusal("write", ENOSPC, None, remedy=remedy, about=raw.name)
        try:
            written: int | None = _write(raw, data if fits == size else memoryview(data).cast("B")[:fits])
        except BaseException as exc:
            quota.doubt()
            remedies.note_full_disk(exc)
            raise
        if written != fits or quota.stamp != stamp:
            quota.doubt()
        elif self._appending:
            self._cuts, self._end = quota.cuts, self._found_end()
            if quota.stamp != stamp:
                self._end = None
        self._appending = True
        return written

    def _found_end(self) -> int | None:
        """The end of the file, if that is where it is written to and it has no holes."""
        assert self.quota is not None
        status = originals.fstat(self.descriptor)
        size = status.st_size
        if status.st_blocks * 512 < pages(size) or not status.st_nlink or self._is_shared():
            return None
        return size if originals.lseek(self.descriptor, 0, os.SEEK_CUR) == size else None

    def _is_shared(self) -> bool:
        """Does another open file write to the same one?"""
        shared = self.invocation.quota.shared
        return bool(shared) and originals.fstat(self.descriptor).st_ino in shared

    def _dealloc_warn(self, original: Callable[[Any, Any], None], file: Any) -> None:
        """The interpreter is about to close the file, since nobody did: it flushes what is left."""
        self._retrying = True
        raw = self._raw()
        if raw is not None:
            original(raw, file)

    def _is_known(self, data: Any) -> bool:
        """Are these bytes that were refused before, and that only a finalizer or the end tries again?

        One refusal is one violation (C2.3), and whatever line runs now has not made it.
        """
        if not self._retrying or self._refused is None:
            return False
        return bytes(memoryview(data).cast("B")[:_COMPARED]).startswith(self._refused)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        # From here on its end is no longer known without asking the disk.
        self._end, self._appending = None, False
        return originals.FileIO.seek(self.raw(), offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        raw, quota = self.raw(), self.quota
        if quota is None:
            raise self.invocation.stale("truncate", raw.name)
        self._end, self._appending = None, False
        change = partial(originals.FileIO.truncate, raw, size)
        if raw.closed:
            return change()  # which says so
        return quota.changing(self.descriptor, change)

    def fileno(self) -> int:
        """From here on native code may write to the file: it is looked at until it is closed."""
        raw = self._raw()
        descriptor: int = self.descriptor if raw is None else originals.FileIO.fileno(raw)
        if raw is not None and not self.exposed and self.quota is not None:
            try:
                self.invocation.expose(descriptor)
            except OSError:
                return descriptor  # it was closed by its number: there is nothing to look at
            self.exposed = True
            if type(raw) is originals.FileIO:  # the class of ours closes it by a method of its own
                raw.close = self.close  # type: ignore[method-assign]
        return descriptor

    def close(self) -> None:
        """Of an exposed file, and of a nameless one: its pages are free when nothing has it open any more.

        Raises OSError(ENOSPC), when it is closed, for what native code wrote to it past the quota.
        """
        raw, quota = self._raw(), self.quota
        if raw is None:
            return
        exceeded = False
        if quota is not None and not raw.closed and raw.closefd:
            if self.exposed:
                exceeded = quota.conceal(self.descriptor)
            if self._nameless:
                status = originals.fstat(self.descriptor)
                if not status.st_nlink:  # else it was given a name meanwhile
                    quota.unlinked(status, file_bytes(self.descriptor))
        originals.FileIO.close(raw)
        if exceeded:
            raise self.invocation.exceeded(raw.name)

    def retire(self, file: Any) -> None:
        """The invocation is over: take what ``file``, which writes through the raw file, still holds in its
        buffers (None: it was collected), and have every later write refused (C4.5)."""
        self._retrying = True
        if file is None:  # most files
            self.quota = None
            return
        with suppress(OSError, ValueError):
            if not file.closed:
                file.flush()
        self.quota = None
        if _is_gone(file):
            return
        for door in (file, getattr(file, "buffer", None)):
            if door is not None:
                door.write = _StaleWrite(self.invocation, file.name)
                if not isinstance(door, originals.FileIO):  # which has no buffer
                    door.close = _StaleClose(door)


def charge_of(invocation: Invocation, raw: io.FileIO, *, empty: bool = False) -> Charge | None:
    """What charges the writes of ``raw``, a file of the scratch directory that is ``empty`` or not.

    None for a FIFO: what goes through it is not the file system's (C1.3).
    """
    return Charge(invocation, raw, empty=empty) if _is_seekable(raw.fileno()) else None


def _is_seekable(descriptor: int) -> bool:
    """Whether the file has an offset.

    A raw file that was not asked before remembers whether its first seek succeeded. So it is not asked here.
    """
    try:
        originals.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def bytes_of(data: ReadableBuffer) -> memoryview | None:
    """The bytes of ``data``; None for what the original refuses in its own words, or takes for none."""
    try:
        return memoryview(data).cast("B")
    except TypeError:
        return None


def touched(descriptor: int) -> None:
    """A write for which there is no space has altered the file's times all the same."""
    with suppress(OSError):
        originals.utime(descriptor)


def full_remedy(invocation: Invocation) -> str:
    """What to do when ``/tmp`` is full (C2.4)."""
    if invocation.quota.overrun:
        return invocation.exceeded_remedy()
    return remedies.full(invocation.guard.storage_size)


def too_many(invocation: Invocation) -> str:
    """What to do when ``max_files`` are there (C2.4)."""
    return remedies.too_many_files(invocation.guard.max_files)


# --- past the end of the invocation (C4.5) ---------------------------------------------------------------


class _StaleWrite:
    """Stands for ``write`` on a file whose invocation is over."""

    def __init__(self, invocation: Invocation, name: object) -> None:
        self._invocation = invocation
        self._name = name

    def __call__(self, *args: object) -> int:
        raise self._invocation.stale("write", self._name)


class _StaleClose:
    """Stands for ``close`` there: what was written too late is lost, and the close is none the worse."""

    def __init__(self, file: io.IOBase) -> None:
        self._file = weakref.ref(file)

    def __call__(self) -> None:
        file = self._file()
        if file is not None:
            with suppress(OSError):
                type(file).close(file)


def _is_gone(file: io.IOBase) -> bool:
    """Is it closed, or was the file that it buffered taken out of it?"""
    try:
        return bool(file.closed)
    except ValueError:
        return True
