"""The state of a running script: its open files, the spelling of paths, and how outcomes are recorded.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from typing import Any

#: Larger files are not read: some have enormous holes.
READABLE = 8 << 20

#: A time above this is that of the test, which differs. A time below was set by a call.
LONG_AGO = 10**18


class NotTried(Exception):
    """The call makes no sense at this point: no such handle, or a FIFO that would block."""


class Session:
    """The state of one script: its open handles, by their slots."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.slots: dict[int, Any] = {}
        self.step = 0
        #: True once space was allocated without being written.
        self.has_allocated = False
        #: Slots whose files were opened in the bundle's mount, and slots that hold copies of them.
        self._bundled: set[int] = set()
        self._copied: set[int] = set()
        #: Slots whose raw files were detached from a buffer.
        self.detached: set[int] = set()

    # --- handles ---------------------------------------------------------------------------------------

    def handle(self, slot: int) -> Any:
        if slot not in self.slots:
            raise NotTried("no handle")
        return self.slots[slot]

    def file(self, slot: int) -> Any:
        """The file object in ``slot``."""
        handle = self.handle(slot)
        if isinstance(handle, int):
            raise NotTried("no file")
        return handle

    def descriptor(self, slot: int) -> int:
        """The descriptor in ``slot``, or that of the file there."""
        handle = self.handle(slot)
        if isinstance(handle, int):
            return handle
        if not hasattr(handle, "fileno"):
            raise NotTried("no descriptor")
        return handle.fileno()  # type: ignore[no-any-return]

    def directory(self, slot: int | None) -> int | None:
        """For ``dir_fd=``."""
        return None if slot is None else self.place(slot)

    def place(self, slot: int) -> int:
        """The descriptor in ``slot``, for calls whose result depends on the location of its file."""
        descriptor = self.descriptor(slot)
        if slot in self._copied:
            raise NotTried("a copy")
        return descriptor

    def name(self, slot: int) -> str:
        """The kernel's name of the descriptor in ``slot``."""
        name = os.readlink(f"/proc/self/fd/{self.descriptor(slot)}")
        return name.replace("/tmp/package", self.project) if slot in self._copied else name

    def keep(self, slot: int, handle: Any) -> None:
        """Put ``handle`` into ``slot``. Closes the old handle; its errors count as errors of this call."""
        old = self.slots.pop(slot, None)
        self.slots[slot] = handle
        self._forget(slot)
        close(old)

    def _forget(self, slot: int) -> None:
        self.detached.discard(slot)
        self._bundled.discard(slot)
        self._copied.discard(slot)

    def mark(self, slot: int, path: Any, directory: int | None = None) -> None:
        """Record whether the file at ``path`` is in the bundle's mount."""
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        if directory is not None and directory in self.slots:
            name = os.path.join(self.name(directory), name)
        if (os.path.realpath(name) + "/").startswith("/tmp/package/"):
            self._bundled.add(slot)

    def mark_as(self, slot: int, source: int) -> None:
        """The same for a copy of ``source``. Which of its two names a copy has is unknown."""
        if source in self._bundled:
            self._bundled.add(slot)
            self._copied.add(slot)
        else:
            self._forget(slot)

    def close(self, slot: int) -> None:
        self.handle(slot)
        self._forget(slot)
        close(self.slots.pop(slot))

    # --- values ----------------------------------------------------------------------------------------

    def spelled(self, path: Any) -> Any:
        """The path that a script writes as ``path``.

        ``P/x`` is in the project. ``b:`` makes bytes, and ``p:`` a PathLike. ``fd:N`` is the descriptor in
        slot N, and ``proc:N/x`` a path through it. ``{256}`` stands for 256 letters, and ``<1000>`` for 1000
        times ``./``.
        """
        if not isinstance(path, str):
            return path
        if path.startswith("fd:"):
            return self.descriptor(int(path[3:]))
        if path.startswith("b:"):
            return os.fsencode(self.spelled(path[2:]))
        if path.startswith("p:"):
            return pathlib.PurePosixPath(self.spelled(path[2:]))
        if path.startswith("proc:"):
            slot, slash, rest = path[5:].partition("/")
            return f"/proc/self/fd/{self.place(int(slot))}{slash}{rest}"
        if path == "P" or path.startswith("P/"):
            path = self.project + path[1:]
        elif path.startswith("/tmp/../P"):
            path = "/tmp/.." + self.project + path.removeprefix("/tmp/../P")
        elif path and not path.startswith("/") and _is_locked_in():
            raise NotTried("tmpguard goes to the working directory by its path")
        path = re.sub(r"<(\d+)>", lambda match: "./" * int(match[1]), path)
        return re.sub(r"\{(\d+)\}", lambda match: "n" * int(match[1]), path)

    def opened(self, path: Any, directory: int | None = None) -> Any:
        """The same for calls that open the path. Raises NotTried for a FIFO, which would block."""
        spelled = self.spelled(path)
        try:
            # A Path never ends in a slash.
            named = spelled if isinstance(spelled, int) else pathlib.PurePosixPath(os.fsdecode(spelled))
            blocks = stat.S_ISFIFO(os.stat(named, dir_fd=self.directory(directory)).st_mode)
        except (OSError, ValueError, TypeError):
            blocks = False
        if blocks:
            raise NotTried("a FIFO")
        return spelled

    def tree(self, path: Any) -> Any:
        """The same for calls that walk a tree. Raises NotTried outside ``/tmp`` and the project."""
        spelled = self.spelled(path)
        try:
            real = os.path.realpath(os.fsdecode(spelled)) + "/"
        except (TypeError, ValueError):
            return spelled
        if not real.startswith(("/tmp/", self.project + "/")):
            raise NotTried("too much")
        return spelled

    def data(self, size: int) -> bytes:
        """Lines that identify the call that wrote them."""
        line = bytes([97 + self.step % 26]) * 63 + b"\n"
        return (line * (size // 64 + 1))[:size]


def _is_locked_in() -> bool:
    """True if a directory above the working directory may no longer be searched."""
    try:
        os.stat(os.getcwd())
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def close(handle: Any) -> None:
    if isinstance(handle, int):
        os.close(handle)
    elif hasattr(handle, "cleanup"):
        handle.cleanup()
    elif handle is not None:
        handle.close()


# --- how it is written down ----------------------------------------------------------------------------


def told(value: Any) -> str:
    """``value`` as text, without numbers that differ between processes (see NORMALISED)."""
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r"/fd/\d+", "/fd/N", text)
    text = re.sub(r"/proc/\d+", "/proc/N", text)
    return re.sub(r"/#\d+", "/#N", text)


def told_error(exc: Exception) -> str:
    """The class of an exception and its message; for an OSError, also its errno and names."""
    name = type(exc).__qualname__
    if isinstance(exc, RecursionError):
        return name
    if isinstance(exc, shutil.Error):
        return told(f"{name} {sorted(map(repr, exc.args[0])) if isinstance(exc.args[0], list) else exc}")
    if isinstance(exc, OSError) and exc.errno is not None:
        code = errno.errorcode.get(exc.errno, str(exc.errno))
        names = [told_name(given) for given in (exc.filename, exc.filename2)]
        message = re.sub(r"(?<=: )\d+( -> |$)", "N", str(exc))
        return told(f"{name} {code} {message} ({', '.join(names)})")
    return told(f"{name} {exc}")


def told_name(name: Any) -> str:
    """The name of a file or of an error: a path, or a descriptor."""
    return "a descriptor" if isinstance(name, int) else repr(name)


def told_status(status: os.stat_result) -> list[Any]:
    """The parts of a status that do not depend on the file system (see NORMALISED)."""
    mode = status.st_mode
    size = "" if stat.S_ISDIR(mode) else status.st_size
    links = "" if stat.S_ISDIR(mode) else status.st_nlink
    time = status.st_mtime_ns if status.st_mtime_ns < LONG_AGO else "now"
    return [stat.filemode(mode), size, links, status.st_uid, status.st_gid, time]


def told_tree() -> list[str]:
    """The entries of ``/tmp`` and the contents of its files, without the bundle."""
    return sorted(_entries("/tmp"))


def _entries(directory: str) -> Iterator[str]:
    try:
        listed = os.listdir(directory)
    except PermissionError:
        yield f"{directory} may not be read"
        return
    for name in listed:
        path = f"{directory}/{name}"
        if path == "/tmp/package":
            continue
        shown: list[Any] = [path]
        try:
            status = os.lstat(path)
            shown += told_status(status)
            if stat.S_ISLNK(status.st_mode):
                text = told(os.readlink(path))
                shown[2] = len(text)  # an inode number in it may have more digits in one place
                shown.append(text)
            elif stat.S_ISREG(status.st_mode):
                shown += [content(path, status.st_size), sorted(os.listxattr(path))]
            elif stat.S_ISDIR(status.st_mode):
                shown.append(sorted(os.listxattr(path)))
                yield from _entries(path)
        except PermissionError as exc:
            shown.append(f"may not be read: {exc.filename}")
        yield told(" ".join(map(str, shown)))


def content(path: Any, size: int) -> str:
    """A short form of a file's content."""
    if size > READABLE:
        return "large"
    with open(path, "rb") as file:
        return f"{zlib.crc32(file.read()):08x}"
