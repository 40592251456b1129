"""The calls that list a directory: ``os.listdir`` and ``os.scandir`` (C7.1)."""

from __future__ import annotations

import os
from typing import Any

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.bundle import Unlisted, Veil
from tmpguard.interpose.paths import (
    alive_to_read,
    base_of,
    hold,
    is_odd,
    like,
    place,
    plain,
    quick_real,
    reraise,
)

from .scan import Listing, Scan


def listdir(invocation: Invocation, path: Any = None) -> Any:
    alive_to_read(invocation, "os.listdir", "." if path is None else path)
    real, _, _, veil = _listed(invocation, path, "os.listdir")
    try:
        names = originals.listdir(real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, path)
    return names if veil is None else _unveiled(names, veil)


def _unveiled(names: list[Any], veil: Veil | Unlisted) -> list[Any]:
    texts = list(map(os.fsdecode, names)) if names and isinstance(names[0], bytes) else names
    hidden = veil.hidden(texts)
    if not hidden:
        return names
    return [name for name, text in zip(names, texts, strict=True) if text not in hidden]


def scandir(invocation: Invocation, path: Any = None) -> Scan:
    return Scan.of(open_listing(invocation, path))


def open_listing(invocation: Invocation, path: Any) -> Listing:
    """What :func:`os.scandir` begins with. Raises OSError as it does."""
    alive_to_read(invocation, "os.scandir", "." if path is None else path)
    real, virtual, has_mounts, veil = _listed(invocation, path, "os.scandir")
    if isinstance(real, (str, bytes)):
        hold(invocation, real)  # until all was read
    try:
        entries = originals.scandir(real)
    except OSError as exc:
        if type(path) is int:
            raise
        reraise(exc, path)
    given: Any = "" if type(path) is int else "." if path is None else plain(path)
    base = base_of(invocation, path) if type(path) is int else None
    genuine = type(path) is int or (type(given) is type(real) and given == real)
    return Listing(entries, invocation, given, base, virtual, has_mounts, veil, genuine)


def _listed(
    invocation: Invocation, path: Any, operation: str
) -> tuple[Any, str | None, bool, Veil | Unlisted | None]:
    """What to list for ``path``; its canonical path, if that was needed; whether there are mount points in
    it, which are made first; what to leave out."""
    table = invocation.guard.mounts
    ancestors = table.ancestors
    virtual: str | None
    real: Any
    if type(path) is int:
        try:
            virtual, real = base_of(invocation, path), path
        except OSError:
            return path, None, False, None  # the call itself will say so
    else:
        given = "." if path is None else path
        if is_odd(given):
            return path, None, False, None
        real = quick_real(invocation, given)
        if real is not None and given.rstrip("/") not in ancestors:
            return real, None, False, None
        real = invocation.namespace.known_directory(given) if type(given) is str else None
        if real is not None:
            virtual = given
        else:
            try:
                where = place(invocation, given, operation=operation)
            except OSError as exc:
                reraise(exc, path)
            virtual, real = where.virtual, like(given, where.real)
    if virtual in ancestors:
        invocation.make_mount_points()
        veil: Veil | Unlisted | None = table.unlisted.get(virtual)
    else:
        veil = None
    if veil is None and table.hidden is not None and virtual is not None:
        veil = table.hidden.veil(virtual)
    return real, virtual, virtual in ancestors, veil
