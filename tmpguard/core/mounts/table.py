"""The mounts of a guard. Only this module and ``lookup`` decide where a path leads and if it is writable.

A :class:`MountTable` belongs to a guard. It has the root file system (read-only, as it is on the machine),
``/tmp`` (writable, charged to the quota), ``/tmp/package`` (the bundle, read-only) and the writable mounts of
``writable=``. If the project or the interpreter is below the real ``/tmp``, those directories are mounted at
their own paths (C1.1, C1.4, C1.5, C5.1).

A :class:`~.lookup.Namespace` is one invocation's view of the table: the scratch directory mounted at
``/tmp``, the working directory, and the walk that resolves a path as the kernel does (C1.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import ENOENT
from typing import Final, NamedTuple

from tmpguard.core.errors import os_error
from tmpguard.core.layout import PACKAGE, TMP, is_below
from tmpguard.core.spelling import is_encodable

from .bundle import Hidden, Unlisted
from .known import Knowing, working_directory

#: How many tails a guard caches, and the longest path cached: half a megabyte at most.
_TAILS_KEPT: Final = 2048
_LONGEST_KEPT: Final = 255


#: The suffixes of the files that SQLite creates next to a database.
_JOURNALS: Final = ("-journal", "-wal", "-shm")


class Mount:
    """One mounted file system or file: its mount point, the real path, and whether it is writable."""

    __slots__ = ("charged", "real", "virtual", "writable")

    def __init__(self, virtual: str, real: str, *, writable: bool, charged: bool = False) -> None:
        self.virtual = virtual
        self.real = real
        self.writable = writable
        self.charged = charged

    def __repr__(self) -> str:
        return f"<Mount {self.virtual} {'rw' if self.writable else 'ro'}>"


class Bind(NamedTuple):
    """A bind mount for the kernel: the real ``source``, its mount point, and whether it is writable."""

    source: str
    target: str
    writable: bool


class Place(NamedTuple):
    """Where a path leads.

    ``virtual`` is the canonical path that the application sees. ``real`` is the path for the original
    functions. ``mount`` is the mount on which the path lies. ``parent`` is the mount of its directory entry;
    they differ at a mount point. ``last`` is the kind of the last component: ``""``, ``"."``, ``".."`` or
    ``"/"``, like the kernel's ``LAST_NORM``, ``LAST_DOT``, ``LAST_DOTDOT`` and ``LAST_ROOT``. ``slash`` says
    whether the path ended in a slash. ``why`` says why the path is absent although it exists on disk: the
    rule that leaves it out of the bundle (C5.2); "" for all others.
    """

    virtual: str
    real: str
    mount: Mount
    parent: Mount
    last: str
    slash: bool
    why: str = ""


class Bundled(str):
    """The real path of a file below ``/tmp/package``. Its descriptors report the path ``virtual``."""

    __slots__ = ("virtual",)

    virtual: str


class NotInBundle(FileNotFoundError):
    """A path leads through something that is not in the bundle; ``why`` is as in :class:`Place`.

    ``there`` says whether the path exists on disk.
    """

    def __init__(self, why: str, there: bool) -> None:
        super().__init__(ENOENT, os.strerror(ENOENT))
        self.why = why
        self.there = there


class MountTable(Knowing):
    """The mounts of one guard, shared by all of its invocations. Immutable but for ``cwd`` and the caches."""

    __slots__ = (
        "_inner",
        "_mounted",
        "_process_cwd",
        "_writable",
        "ancestors",
        "cwd",
        "deployed",
        "files",
        "hidden",
        "journals",
        "lists_all",
        "package",
        "points",
        "root",
        "scratch",
        "unlisted",
        "watched",
    )

    def __init__(
        self,
        *,
        bundle: str | None,
        writable: Iterable[str],
        pinned: Iterable[str],
        cwd: str | None,
        hidden: Hidden | None = None,
        enforce: bool = True,
        deployed: tuple[str, ...] | None = None,
    ):
        super().__init__()
        #: The files that are hidden because they are not in the bundle; None if there are none.
        self.hidden = hidden if enforce else None
        #: The files that are not in the bundle, if their use is only recorded (C2.5).
        self.watched = None if enforce else hidden
        #: True if listings of directories outside /tmp leave nothing out (C5.2).
        self.lists_all = hidden is None
        #: Where an absolute link in the bundle may point: nothing else exists after the deployment. None for
        #: anywhere.
        self.deployed = deployed
        self.root = Mount("/", "", writable=False)
        self.scratch = Mount(TMP, "", writable=True, charged=True)
        #: The guarded start-up's last working directory, or else the project; None for the process's own
        #: (C5.3).
        self.cwd = cwd
        self._process_cwd = working_directory()
        pinned = frozenset(pinned)
        writable = frozenset(writable)
        #: The mount points that are files.
        self.files = frozenset(path for path in writable if not os.path.isdir(path))
        #: SQLite's journals of those files. They may be created and removed in a read-only directory.
        self.journals = frozenset(path + suffix for path in self.files for suffix in _JOURNALS)
        inner = [Mount(path, path, writable=False) for path in pinned]
        inner += [Mount(path, path, writable=True) for path in writable if is_below(path, TMP)]
        # ``bundle`` is what is seen below /tmp/package; None on a platform that has none (C5.1).
        self.package = None if bundle is None else Mount(PACKAGE, bundle.rstrip("/"), writable=False)
        if self.package is not None:
            inner.append(self.package)
        journals = [Mount(path, path, writable=True) for path in self.journals]
        # The longest first: a mount inside another one covers part of it.
        self._inner = _longest_first([*inner, *(one for one in journals if is_below(one.virtual, TMP))])
        outer = [Mount(path, path.rstrip("/"), writable=True) for path in writable]
        self._writable = _longest_first(
            mount for mount in [*outer, *journals] if not is_below(mount.virtual, TMP)
        )
        #: The mount points below /tmp, and the directories on the way to them (/tmp included).
        self.points = frozenset(mount.virtual for mount in inner)
        self.ancestors = frozenset(
            ancestor for point in self.points for ancestor in _ancestors(point) if is_below(ancestor, TMP)
        )
        shown = frozenset(mount.virtual for mount in inner if mount.virtual not in pinned)
        shown |= {ancestor for point in shown for ancestor in _ancestors(point)}
        #: By directory, the names that its listing leaves out: they can be reached only by path (C1.5).
        self.unlisted = _by_directory((self.points | self.ancestors) - shown)
        #: The part after /tmp of paths that need no walk; "" for those that do. See :meth:`tail_of`.
        self.tails = {}
        #: Prefixes of paths that may lead to a mount point.
        self._mounted = tuple(sorted((self.points | self.ancestors) - {TMP}))

    def tail_of(self, path: str) -> str:
        """The part of ``path`` after ``/tmp`` if its text alone shows that it leads below ``/tmp``, else "".

        This holds only while there are no symlinks in ``/tmp`` (DESIGN, decision 2). Dot names, doubled
        slashes and paths that start with a mount point need a walk. The result is cached, because most paths
        are used several times.
        """
        if not path.startswith("/tmp/"):
            return ""  # not cached: it would displace useful entries
        unclear = "/." in path or "//" in path or path == "/tmp/" or path.startswith(self._mounted)
        unclear = unclear or not is_encodable(path)
        tail = "" if unclear else path[len(TMP) :]
        if len(path) <= _LONGEST_KEPT:
            if len(self.tails) >= _TAILS_KEPT:
                self.tails.clear()
            self.tails[path] = tail
        return tail

    def start_directory(self) -> str:
        """The initial working directory of an invocation: the project's, or the start-up's last one (C5.3).

        Raises OSError(ENOENT) if there is none.
        """
        here = working_directory()
        if here is None or (self.cwd is not None and here == self._process_cwd):
            here = self.cwd
        if here is None:
            raise os_error(ENOENT)
        return here

    def start_in(self, virtual: str) -> None:
        """A guarded start-up changed to the canonical path ``virtual``, where requests will start (C5.3)."""
        self.cwd, self._process_cwd = virtual, working_directory()

    def mount_of(self, virtual: str) -> Mount:
        """The mount on which the canonical path ``virtual`` lies."""
        if virtual.startswith("/tmp/") or virtual == TMP:  # is_below() without the call, for walks
            for mount in self._inner:
                if is_below(virtual, mount.virtual):
                    return mount
            return self.scratch
        for mount in self._writable:
            if is_below(virtual, mount.virtual):
                return mount
        return self.root

    def holder_of(self, virtual: str) -> Mount:
        """The mount on which the directory entry of the canonical path ``virtual`` lies.

        At a mount point, that is the file system around it.
        """
        if virtual == "/" or virtual in self.journals:
            return self.mount_of(virtual)
        return self.mount_of(virtual.rpartition("/")[0] or "/")

    def binds(self) -> list[Bind]:
        """The mounts except the root and /tmp itself, outer ones first, for the kernel to mount."""
        mounts = [one for one in (*self._inner, *self._writable) if one.virtual not in self.journals]
        mounts.sort(key=lambda mount: len(mount.virtual))
        return [Bind(mount.real or "/", mount.virtual, mount.writable) for mount in mounts]


def _longest_first(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    return tuple(sorted(mounts, key=lambda mount: -len(mount.virtual)))


def _ancestors(path: str) -> list[str]:
    found = []
    while path not in ("", "/"):
        path = path.rpartition("/")[0]
        found.append(path or "/")
    return found


def _by_directory(paths: Iterable[str]) -> dict[str, Unlisted]:
    found: dict[str, set[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, set()).add(name)
    return {directory: Unlisted(frozenset(names)) for directory, names in found.items()}
