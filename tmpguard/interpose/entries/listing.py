"""The calls that list a directory: ``os.listdir`` and ``os.scandir`` (C7.1)."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import PathOrDescriptor, StrOrBytes
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.bundle import Unlisted, Veil
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import base_of, hold, quick_real, resolve
from tmpguard.interpose.raising import alive_to_read, reraise

from .scan import Listing, Scan


class _Directory(NamedTuple):
    """A directory that is to be listed.

    ``real`` is what to call the original with, ``given`` what an error names it by, ``virtual`` its canonical
    path if that was needed. ``has_mounts`` says whether there are mount points in it, ``veil`` what to leave
    out.
    """

    real: Any
    given: Any
    virtual: str | None = None
    has_mounts: bool = False
    veil: Veil | Unlisted | None = None


def listdir(invocation: Invocation, path: PathOrDescriptor | None = None) -> Any:
    directory = _directory(invocation, path, "os.listdir")
    try:
        names = originals.listdir(directory.real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, directory.given)
    return names if directory.veil is None else _unveiled(names, directory.veil)


def _unveiled(names: list[Any], veil: Veil | Unlisted) -> list[Any]:
    texts = list(map(os.fsdecode, names)) if names and isinstance(names[0], bytes) else names
    hidden = veil.hidden(texts)
    if not hidden:
        return names
    return [name for name, text in zip(names, texts, strict=True) if text not in hidden]


def scandir(invocation: Invocation, path: PathOrDescriptor | None = None) -> Scan:
    return Scan.of(open_listing(invocation, path))


def open_listing(invocation: Invocation, path: PathOrDescriptor | None) -> Listing:
    """What :func:`os.scandir` begins with. Raises OSError as it does."""
    directory = _directory(invocation, path, "os.scandir")
    if isinstance(directory.real, (str, bytes)):
        hold(invocation, os.fsdecode(directory.real))  # until all was read
    try:
        entries = originals.scandir(directory.real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, directory.given)
    base = base_of(invocation, path) if type(path) is int else None
    name = _name_of(directory)
    genuine = base is not None or (type(name) is type(directory.real) and name == directory.real)
    _, _, virtual, has_mounts, veil = directory
    return Listing(entries, invocation, name, base, virtual, has_mounts, veil, genuine)


def _name_of(directory: _Directory) -> StrOrBytes:
    """How the paths of its entries begin."""
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
            return _seen(invocation, path, path, base_of(invocation, path))
        except OSError:
            return _Directory(path, path)  # the call itself will say so
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
        reraise(exc, name)
    return _seen(invocation, given.like(where.real), name, where.virtual)


def _seen(invocation: Invocation, real: Any, given: object, virtual: str | None) -> _Directory:
    """The directory with the canonical path ``virtual``, if that is known; its mount points are made."""
    table = invocation.guard.mounts
    has_mounts = virtual in table.ancestors
    veil: Veil | Unlisted | None = None
    if has_mounts:
        invocation.make_mount_points()
        veil = table.unlisted.get(virtual or "")
    if veil is None and table.hidden is not None and virtual is not None:
        veil = table.hidden.veil(virtual)
    return _Directory(real, given, virtual, has_mounts, veil)
