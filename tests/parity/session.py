"""What a script of calls runs on: its open files, its spelling of paths, and how outcomes are written down.

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

#: Files above this are not read: some have holes as large as a number can say.
READABLE = 8 << 20

#: A time above this is that of the test, which differs by moments; one below was set by a call.
LONG_AGO = 10**18


class NotTried(Exception):
    """This call makes no sense at this point of the script: no such handle, a FIFO that would block."""


class Session:
    """The state of one script: what it holds open by the numbers of its slots."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.slots: dict[int, Any] = {}
        self.step = 0
        #: Was space allocated that was not written?
        self.has_allocated = False
        #: Slots whose files were opened in the bundle's mount, and those that hold copies of them.
        self._bundled: set[int] = set()
        self._copied: set[int] = set()
        #: Slots whose raw files were under a buffer.
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
        """The descriptor in ``slot``, for calls to which it matters where its file is."""
        descriptor = self.descriptor(slot)
        if slot in self._copied:
            raise NotTried("a copy")
        return descriptor

    def name(self, slot: int) -> str:
        """The name that the kernel has for the descriptor in ``slot``."""
        name = os.readlink(f"/proc/self/fd/{self.descriptor(slot)}")
        return name.replace("/tmp/package", self.project) if slot in self._copied else name

    def keep(self, slot: int, handle: Any) -> None:
        """Put ``handle`` into ``slot``; what was there is closed, and what that raises is this call's."""
        old = self.slots.pop(slot, None)
        self.slots[slot] = handle
        self._forget(slot)
        close(old)

    def _forget(self, slot: int) -> None:
        self.detached.discard(slot)
        self._bundled.discard(slot)
        self._copied.discard(slot)

    def mark(self, slot: int, path: Any, directory: int | None = None) -> None:
        """Note whether what was opened by ``path`` is in the bundle's mount."""
        if isinstance(path, int):
            return
        name = os.fsdecode(path)
        if directory is not None and directory in self.slots:
            name = os.path.join(self.name(directory), name)
        if (os.path.realpath(name) + "/").startswith("/tmp/package/"):
            self._bundled.add(slot)

    def mark_as(self, slot: int, source: int) -> None:
        """The same for a copy of what is in ``source``: of its two names nobody tells a copy's."""
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
        """A path from the way a script writes it.

        ``P/..`` is in the project, ``b:`` makes it bytes and ``p:`` a PathLike, ``fd:N`` is the descriptor
        in slot N and ``proc:N/..`` a path by way of it; ``{256}`` are so many letters.
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
        return re.sub(r"\{(\d+)\}", lambda match: "n" * int(match[1]), path)

    def opened(self, path: Any, directory: int | None = None) -> Any:
        """The same, for calls that open it: not if that would wait for the other end of a FIFO."""
        spelled = self.spelled(path)
        try:
            # A Path has no slash at its end, whatever it is made of.
            named = spelled if isinstance(spelled, int) else pathlib.PurePosixPath(os.fsdecode(spelled))
            blocks = stat.S_ISFIFO(os.stat(named, dir_fd=self.directory(directory)).st_mode)
        except (OSError, ValueError, TypeError):
            blocks = False
        if blocks:
            raise NotTried("a FIFO")
        return spelled

    def tree(self, path: Any) -> Any:
        """The same, for calls that go through a tree: none but those of ``/tmp`` and the project."""
        spelled = self.spelled(path)
        try:
            real = os.path.realpath(os.fsdecode(spelled)) + "/"
        except (TypeError, ValueError):
            return spelled
        if not real.startswith(("/tmp/", self.project + "/")):
            raise NotTried("too much")
        return spelled

    def data(self, size: int) -> bytes:
        """Lines that tell which call wrote them."""
        line = bytes([97 + self.step % 26]) * 63 + b"\n"
        return (line * (size // 64 + 1))[:size]


def _is_locked_in() -> bool:
    """May the directories that lead to the working directory no more be searched?"""
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
    """``value`` as text, without the numbers that differ from process to process (see NORMALISED)."""
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r"/fd/\d+", "/fd/N", text)
    text = re.sub(r"/proc/\d+", "/proc/N", text)
    return re.sub(r"/#\d+", "/#N", text)


def told_error(exc: Exception) -> str:
    """An exception: its class and, of an OSError, errno and names, otherwise the message."""
    name = type(exc).__qualname__
    if isinstance(exc, shutil.Error):
        return told(f"{name} {sorted(map(repr, exc.args[0])) if isinstance(exc.args[0], list) else exc}")
    if isinstance(exc, OSError) and exc.errno is not None:
        code = errno.errorcode.get(exc.errno, str(exc.errno))
        names = [told_name(given) for given in (exc.filename, exc.filename2)]
        message = re.sub(r"(?<=: )\d+( -> |$)", "N", str(exc))
        return told(f"{name} {code} {message} ({', '.join(names)})")
    return told(f"{name} {exc}")


def told_name(name: Any) -> str:
    """What a file or an error has for a name: a path, or a descriptor's number."""
    return "a descriptor" if isinstance(name, int) else repr(name)


def told_status(status: os.stat_result) -> list[Any]:
    """What a status tells but for what is the file system's own affair (see NORMALISED)."""
    mode = status.st_mode
    size = "" if stat.S_ISDIR(mode) else status.st_size
    links = "" if stat.S_ISDIR(mode) else status.st_nlink
    time = status.st_mtime_ns if status.st_mtime_ns < LONG_AGO else "now"
    return [stat.filemode(mode), size, links, status.st_uid, status.st_gid, time]


def told_tree() -> list[str]:
    """All that lies in ``/tmp``, but for what is in the bundle's mount, with the content of files."""
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
                shown[2] = len(text)  # the number of an inode in it has more digits here than there
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
    """A file's content in short."""
    if size > READABLE:
        return "large"
    with open(path, "rb") as file:
        return f"{zlib.crc32(file.read()):08x}"
