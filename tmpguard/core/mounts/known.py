"""A guard's cache of read-only directories and paths that contain no symlinks.

A request pays for what it does, not for being new (DESIGN, decision 9). Resolving a path costs a system call
per component, and most requests use the same few directories and files. So a guard caches which directories
were not symlinks, and which paths had no symlink in them: those need no walk. Whether a path exists is never
cached; the kernel is asked each time.

The cache becomes wrong when a symlink replaces a directory or a file:

* If another process does that, or this one by native code, by ``posix`` or after an ``os.chroot``, it is
  noticed after :data:`SECONDS` at most.
* If this process does it through ``os``, within an invocation or outside one, :func:`forget` is called, and
  it is noticed at once.

The same is true of the process's own working directory. If it is the invocation's, too, relative paths are
left to the kernel.

Nothing on the writable mounts is cached. A guard caches at most :data:`MOST_CACHED` directories and as many
paths, about 200 bytes each.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final

from tmpguard.core import originals
from tmpguard.core.real import monotonic
from tmpguard.core.speedups import KnownFields, TableFields

#: The lifetime of a cache.
SECONDS: Final = 1.0
#: The most directories and the most paths that a guard caches, and the longest path.
MOST_CACHED: Final = 4096
LONGEST: Final = 255


class Known(KnownFields):
    """One generation of the cache. It is used until it expires, and then replaced as a whole.

    Every entry must have been checked on disk after the generation was created. So code that walks a path
    gets the current generation first, and adds entries to that one. If it is replaced in the meantime, the
    entries are lost, which does no harm.
    """

    __slots__ = ("bases", "directories")

    def __init__(self) -> None:
        #: Directories that are not symlinks: canonical path to real path.
        self.directories: dict[str, str] = {"": ""}  # the root: the text before the slash of its entries
        #: Canonical absolute paths on the root file system without a symlink in any component.
        self.paths = set()
        #: Directories that relative paths start from, and whose own paths contain no symlink.
        self.bases: set[str] = set()
        #: The time, by the monotonic clock, at which the generation expires.
        self.expires = monotonic() + SECONDS
        #: The process's own working directory; None if it was not asked for.
        self.process_directory = None
        #: Paths relative to it without a symlink, so that the kernel need not walk there from the root.
        self.relative = set()

    def add_directory(self, path: str, real: str) -> None:
        """Cache a directory that is not a symlink: its canonical and its real path."""
        if len(path) <= LONGEST:
            if len(self.directories) >= MOST_CACHED:
                self.directories.clear()
                self.directories[""] = ""
            self.directories[path] = real

    def add_path(self, path: str) -> None:
        """Cache a canonical path that contains no symlink."""
        _add(self.paths, path)

    def add_relative(self, path: str, base: str) -> None:
        """Cache a path relative to ``base`` that contains no symlink, if the process is there."""
        if self.process_directory is None:
            self.process_directory = working_directory() or ""
        if self.process_directory == base:
            _add(self.relative, path)

    def add_base(self, path: str) -> None:
        """Cache a directory for relative paths whose canonical path contains no symlink."""
        _add(self.bases, path)


def _add(paths: set[str], path: str) -> None:
    # A path with a trailing slash would also match an empty relative path.
    if len(path) <= LONGEST and not path.endswith("/"):
        if len(paths) >= MOST_CACHED:
            paths.clear()
        paths.add(path)


class Knowing(TableFields):
    """Holds the current cache: the base class of a guard's mount table."""

    __slots__ = ("__weakref__",)

    known: Known

    def __init__(self) -> None:
        self.known = Known()
        _all[id(self)] = weakref.ref(self, _drop(id(self)))

    def fresh(self) -> Known:
        """The current cache; a new one if it has expired."""
        known = self.known
        if monotonic() >= known.expires:
            known = self.known = Known()
        return known


def working_directory() -> str | None:
    """The process's own working directory; None if it was removed."""
    try:
        return originals.getcwd()
    except FileNotFoundError:
        return None


def forget() -> None:
    """Clear all caches: this process has replaced a directory entry, perhaps with a symlink, or has moved."""
    for reference in list(_all.values()):
        knowing = reference()
        if knowing is not None:
            knowing.known = Known()


#: All mount tables. A dict, because one thread may add to it while another one iterates over a copy.
_all: Final[dict[int, weakref.ref[Knowing]]] = {}


def _drop(key: int) -> Callable[[object], object]:
    return lambda _: _all.pop(key, None)
