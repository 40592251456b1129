"""Finds the place that a path has for another thread.

The kernel looks up each component, and symlinks are followed here: for the kernel, ``/proc/self`` would be
this process. What was found stays open. So a call that is made there is about what was looked at, even if a
link on the way is exchanged meanwhile.
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENAMETOOLONG

from .tracing import group_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PATH_MAX: Final = 4096
#: Symlinks that the kernel follows in one path.
_MOST_LINKS: Final = 40


class Place:
    """What ``path`` means in the directory ``parent``. ``target`` is what is there, -1 if nothing is.

    Both are descriptors that permit no more than to look, and are open until the end of a ``with`` block.
    """

    __slots__ = ("parent", "path", "target")

    def __init__(self, parent: int, path: bytes, target: int = -1) -> None:
        self.parent = parent
        self.path = path
        self.target = target

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in {self.parent, self.target} - {-1}:
            os.close(descriptor)

    def whole_path(self) -> bytes:
        """The path for calls that take no descriptor of a directory."""
        if not self.path or self.path.startswith(b"/"):
            return self.path
        return b"/proc/self/fd/%d/%s" % (self.parent, self.path)


def look_up(
    thread: int, start: bytes, path: bytes, *, follows: bool = True, only_parent: bool = False
) -> Place:
    """The place of ``path`` for ``thread``, relative to the directory ``start``. Raises OSError.

    ``follows`` if the call follows a symlink at the end. With ``only_parent``, it changes an entry of a
    directory, whatever that is: then there is no ``target``.
    """
    if len(path) >= _PATH_MAX:
        raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG))
    walk = _Walk(thread, _look(b"/" if path.startswith(b"/") else start, os.O_PATH))
    if not path:
        return Place(walk.at, path, walk.at)  # the start itself, with AT_EMPTY_PATH
    try:
        return walk.to_end(path, follows, only_parent)
    except BaseException:
        os.close(walk.at)
        raise


class _Walk:
    """On its way along a path. ``at`` is the descriptor of where it has come to."""

    def __init__(self, thread: int, at: int) -> None:
        self._thread = thread
        self._links = 0
        self.at = at

    def to_end(self, path: bytes, follows: bool, only_parent: bool) -> Place:
        while True:
            name, slash, rest = path.lstrip(b"/").partition(b"/")
            name, rest = name or b"/", rest.lstrip(b"/")
            if only_parent and not rest:
                return Place(self.at, name + slash)
            try:
                found = _look(name, os.O_PATH | os.O_NOFOLLOW, self.at)
            except FileNotFoundError:
                if rest:
                    raise
                return Place(self.at, name + slash)
            if stat.S_ISLNK(os.fstat(found).st_mode) and (rest or slash or follows):
                text = self._text_of(found, name, is_last=not rest)
                if not text and not rest:
                    return Place(self.at, b"/proc/self/fd/%d%s" % (self.at, slash), self.at)
                path = text + slash + rest
            elif rest:
                self._go(found)
                path = rest
            else:
                return Place(self.at, name + slash, found)

    def _go(self, descriptor: int) -> None:
        os.close(self.at)
        self.at = descriptor

    def _text_of(self, link: int, name: bytes, *, is_last: bool) -> bytes:
        """Go to where the text of a symlink starts, and return it; b"" if the link has led to its target."""
        try:
            text = self._own_text(link)
        finally:
            os.close(link)
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP))
        if not text:
            self._go(_look(name, os.O_PATH, self.at))
        elif is_last:
            self._check_permission(name)
        if text.startswith(b"/"):
            self._go(_look(b"/", os.O_PATH))
        return text

    def _own_text(self, link: int) -> bytes:
        """The text of an open symlink for the thread; b"" if the kernel follows the link without it."""
        text = os.readlink(b"", dir_fd=link)
        if os.fstat(link).st_dev != os.stat("/proc").st_dev:
            return text
        process = os.readlink(b"/proc/self")
        if text == process:  # /proc/self
            return b"%d" % group_of(self._thread)
        if text.startswith(process + b"/task/"):  # /proc/thread-self
            return b"%d/task/%d" % (group_of(self._thread), self._thread)
        return text if text.startswith(b"self/") else b""  # /proc/mounts, /proc/net

    def _check_permission(self, name: bytes) -> None:
        """Not every user may follow a symlink of another one at the end of a path (fs.protected_symlinks)."""
        try:
            os.close(_look(name, os.O_PATH, self.at))
        except PermissionError:
            raise
        except OSError:
            return  # not there, or elsewhere for the thread


def _look(path: bytes, flags: int, directory: int | None = None) -> int:
    return os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
