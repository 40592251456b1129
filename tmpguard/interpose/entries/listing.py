"""The calls that list a directory: ``os.listdir`` and ``os.scandir`` (C7.1)."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import PathOrDescriptor, StrOrBytes
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.private import Leaving
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import base_of, hold, quick_known_directory, quick_real, resolve
from tmpguard.interpose.raising import alive_to_read, reraise

from .scan import Listing, Scan

#: A path as an error names it.
_Name = int | StrOrBytes | bytearray | memoryview | None


class _Directory(NamedTuple):
    """A directory to list.

    ``real`` is the argument for the original, ``given`` the path as it appears in an error, and ``virtual``
    the canonical path, if it was needed. ``has_mounts`` says whether the directory contains mount points, and
    ``veil`` which names to leave out.
    """

    real: PathOrDescriptor | None
    given: _Name
    virtual: str | None = None
    has_mounts: bool = False
    veil: Leaving | None = None


def listdir(invocation: Invocation, path: PathOrDescriptor | None = None) -> Any:
    """:func:`os.listdir`: a list of str, or of bytes for a bytes path."""
    if (real := quick_known_directory(invocation, path)) is not None:
        try:
            return originals.listdir(real)
        except OSError as exc:
            reraise(exc, path)
    directory = _directory(invocation, path, "os.listdir")
    try:
        names = originals.listdir(directory.real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, directory.given, "os.listdir")
    return names if directory.veil is None else _unveiled(names, directory.veil)


def _unveiled(names: list[Any], veil: Leaving) -> list[Any]:
    texts = list(map(os.fsdecode, names)) if names and isinstance(names[0], bytes) else names
    hidden = veil.hidden(texts)
    if not hidden:
        return names
    return [name for name, text in zip(names, texts, strict=True) if text not in hidden]


def scandir(invocation: Invocation, path: PathOrDescriptor | None = None) -> Scan:
    """:func:`os.scandir`. The entries have the paths that the application sees."""
    return Scan.of(open_listing(invocation, path))


def open_listing(invocation: Invocation, path: PathOrDescriptor | None) -> Listing:
    """Open a directory for :func:`os.scandir`. Raises OSError as it does."""
    directory = _directory(invocation, path, "os.scandir")
    if isinstance(directory.real, (str, bytes)):
        hold(invocation, os.fsdecode(directory.real))  # it stays open until everything is read
    try:
        entries = originals.scandir(directory.real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, directory.given, "os.scandir")
    base = base_of(invocation, path) if type(path) is int else None
    name = _name_of(directory)
    genuine = base is not None or (type(name) is type(directory.real) and name == directory.real)
    _, _, virtual, has_mounts, veil = directory
    return Listing(entries, invocation, name, base, virtual, has_mounts, veil, genuine)


def _name_of(directory: _Directory) -> StrOrBytes:
    """The directory in the paths of its entries."""
    given = directory.given
    if isinstance(given, (str, bytes)):
        return given
    if given is None:
        return "."
    return "" if isinstance(given, int) else bytes(given)


def _directory(invocation: Invocation, path: PathOrDescriptor | None, operation: str) -> _Directory:
    """The directory that ``path`` leads to."""
    if type(path) is int:
        try:
            base = base_of(invocation, path)
            if invocation.owns(path):
                _refresh(path)
            return _seen(invocation, path, path, base)
        except OSError:
            return _Directory(path, path)  # the original raises the error
    if type(path) is str and (known := invocation.namespace.known_directory(path)) is not None:
        return _seen(invocation, known, path, path)
    given = Given("." if path is None else path)
    alive_to_read(invocation, operation, given)
    name = None if path is None else given.name
    if given.odd:
        return _Directory(name, name)
    real = quick_real(invocation, given.text)
    if real is not None and given.text.rstrip("/") not in invocation.guard.mounts.ancestors:
        return _Directory(given.like(real), name)
    try:
        where = resolve(invocation, given, operation=operation)
    except OSError as exc:
        reraise(exc, name, operation)
    return _seen(invocation, given.like(where.real), name, where.virtual)


def _refresh(directory: int) -> None:
    """Make the open ``directory`` show its current entries, as on a tmpfs.

    On btrfs, a descriptor shows the entries at the time when it was opened or last rewound.
    """
    if not originals.lseek(directory, 0, os.SEEK_CUR):
        originals.lseek(directory, 0, os.SEEK_SET)


def _seen(invocation: Invocation, real: PathOrDescriptor, given: _Name, virtual: str | None) -> _Directory:
    """The directory with the canonical path ``virtual``, if that is known. Creates its mount points."""
    table = invocation.guard.mounts
    has_mounts = virtual in table.ancestors
    if has_mounts:
        invocation.make_mount_points()
    veil = None if virtual is None else invocation.namespace.veil(virtual)
    return _Directory(real, given, virtual, has_mounts, veil)
