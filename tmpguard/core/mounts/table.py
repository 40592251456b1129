"""Where does a path lead, and may it be written? This module and ``lookup`` are the only places that answer.

A :class:`MountTable` belongs to a guard: the root file system (read-only, seen as it is on the machine),
``/tmp`` (writable, charged to the quota), ``/tmp/package`` (the bundle, read-only), the writable mounts of
``writable=`` and, where the project or the interpreter lie below the real ``/tmp``, those directories at
their own paths (C1.1, C1.4, C1.5, C5.1).

A :class:`~.lookup.Namespace` is one invocation's view of it: the scratch directory that stands behind
``/tmp``, the working directory, and the walk that resolves a path as the kernel does (C1.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import ENOENT
from typing import Final, NamedTuple

from tmpguard.core.layout import PACKAGE, TMP, is_below

from .bundle import Hidden, Unlisted

#: Tails remembered by a guard, and the characters of a path that still is: half a megabyte at the most.
_TAILS_KEPT: Final = 2048
_LONGEST_KEPT: Final = 255


class Mount:
    """One mounted file system: where it is seen, what stands behind it, whether it may be written."""

    __slots__ = ("charged", "real", "virtual", "writable")

    def __init__(self, virtual: str, real: str, *, writable: bool, charged: bool = False) -> None:
        self.virtual = virtual
        self.real = real
        self.writable = writable
        self.charged = charged

    def __repr__(self) -> str:
        return f"<Mount {self.virtual} {'rw' if self.writable else 'ro'}>"


class Bind(NamedTuple):
    """A directory for the kernel to mount: the real ``source``, where it is seen, may it be written."""

    source: str
    target: str
    writable: bool


class Place(NamedTuple):
    """Where a path leads.

    ``virtual`` is the canonical path that the application would be told, ``real`` the one to call the
    original functions with, ``mount`` what is mounted there, ``parent`` the mount that holds its directory
    entry (they differ at a mount point), ``last`` the kind of the last component as the kernel's
    ``LAST_NORM``, ``LAST_DOT``, ``LAST_DOTDOT`` and ``LAST_ROOT`` tell it: ``""``, ``"."``, ``".."`` and
    ``"/"``, and ``slash`` whether the path ended in a slash. ``why`` says why the path is absent although the
    disk has it: by which rule it is not in the bundle (C5.2); "" for all others.
    """

    virtual: str
    real: str
    mount: Mount
    parent: Mount
    last: str
    slash: bool
    why: str = ""


class Bundled(str):
    """The real path of what is seen below ``/tmp/package`` at ``virtual``, by which its descriptors go."""

    __slots__ = ("virtual",)

    virtual: str


class NotInBundle(FileNotFoundError):
    """A path leads through what is not in the bundle; ``why`` as in :class:`Place`.

    ``there`` tells whether the disk has something at its end.
    """

    def __init__(self, why: str, there: bool) -> None:
        super().__init__(ENOENT, os.strerror(ENOENT))
        self.why = why
        self.there = there


class MountTable:
    """The mounts of one guard, shared by all of its invocations. Immutable but for what it remembers."""

    __slots__ = (
        "_inner",
        "_mounted",
        "_writable",
        "ancestors",
        "cwd",
        "deployed",
        "hidden",
        "package",
        "points",
        "root",
        "scratch",
        "tails",
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
        #: What is not in the bundle and so not seen; None where that leaves nothing out.
        self.hidden = hidden if enforce else None
        #: What is not in the bundle where that is only recorded (C2.5).
        self.watched = None if enforce else hidden
        #: Where a link of the bundle may lead by an absolute path: nothing else is there after the
        #: deployment. None: anywhere.
        self.deployed = deployed
        self.root = Mount("/", "", writable=False)
        self.scratch = Mount(TMP, "", writable=True, charged=True)
        self.cwd = cwd
        pinned = frozenset(pinned)
        inner = [Mount(path, path, writable=False) for path in pinned]
        inner += [Mount(path, path, writable=True) for path in writable if is_below(path, TMP)]
        self.package = None if bundle is None else Mount(PACKAGE, bundle.rstrip("/"), writable=False)
        if self.package is not None:
            inner.append(self.package)
        # The longest first: a mount inside another one hides what the outer one has there.
        self._inner = tuple(sorted(inner, key=lambda mount: -len(mount.virtual)))
        self._writable = tuple(
            Mount(path, path.rstrip("/"), writable=True)
            for path in sorted(writable, key=len, reverse=True)
            if not is_below(path, TMP)
        )
        #: The mount points below /tmp, and the directories on the way to them (/tmp included).
        self.points = frozenset(mount.virtual for mount in inner)
        self.ancestors = frozenset(
            ancestor for point in self.points for ancestor in _ancestors(point) if is_below(ancestor, TMP)
        )
        shown = frozenset(mount.virtual for mount in inner if mount.virtual not in pinned)
        shown |= {ancestor for point in shown for ancestor in _ancestors(point)}
        #: By directory, the names that its listing leaves out: they are there for their paths only (C1.5).
        self.unlisted = _by_directory((self.points | self.ancestors) - shown)
        #: What stands behind /tmp in paths that need no walk; "" for those that do. See :meth:`tail_of`.
        self.tails: dict[str, str] = {}
        #: Beginnings of paths that may lead to a mount point.
        self._mounted = tuple(sorted((self.points | self.ancestors) - {TMP}))

    def tail_of(self, path: str) -> str:
        """What stands behind ``/tmp`` in ``path`` where its text alone tells that it leads below ``/tmp``, as
        long as there are no symlinks there (DESIGN, decision 2); "" where it does not.

        Not so with dot names, doubled slashes, a mount point at its start. Remembered, as most paths are used
        several times.
        """
        if not path.startswith("/tmp/"):
            return ""  # not remembered: they would take the place of those that are
        unclear = "/." in path or "//" in path or path == "/tmp/" or path.startswith(self._mounted)
        tail = "" if unclear else path[len(TMP) :]
        if len(path) <= _LONGEST_KEPT:
            if len(self.tails) >= _TAILS_KEPT:
                self.tails.clear()
            self.tails[path] = tail
        return tail

    def mount_of(self, virtual: str) -> Mount:
        """The mount on which the canonical path ``virtual`` lies."""
        if is_below(virtual, TMP):
            for mount in self._inner:
                if is_below(virtual, mount.virtual):
                    return mount
            return self.scratch
        for mount in self._writable:
            if is_below(virtual, mount.virtual):
                return mount
        return self.root

    def binds(self) -> list[Bind]:
        """The mounts but for the root and /tmp itself, the outer ones first: for a kernel to mount them."""
        mounts = sorted([*self._inner, *self._writable], key=lambda mount: len(mount.virtual))
        return [Bind(mount.real or "/", mount.virtual, mount.writable) for mount in mounts]


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
