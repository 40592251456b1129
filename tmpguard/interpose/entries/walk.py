"""A top-down ``os.walk`` that processes a whole directory at a time instead of each entry.

The standard library's own version calls :func:`os.scandir` and then methods of each entry, which would be
slow for a bundle of tens of thousands of files. The results are the same.
"""

from __future__ import annotations

import functools
import itertools
import operator
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, AnyStr, Final

from tmpguard.core import originals
from tmpguard.core.aliases import StrOrBytes
from tmpguard.core.invocation import redirecting

from .listing import open_listing
from .scan import DirEntry, unveiled

Visit = tuple[Any, list[Any], list[Any]]
OnError = Callable[[OSError], object] | None

_IS_LINK: Final = os.DirEntry.is_symlink
_IS_DIRECTORY: Final = os.DirEntry.is_dir


def _guarded(
    top: AnyStr | os.PathLike[AnyStr], topdown: bool, onerror: OnError, followlinks: bool
) -> Iterator[Visit]:
    if redirecting() is None or not topdown or followlinks:
        return originals.walk(top, topdown, onerror, followlinks)
    sys.audit("os.walk", top, topdown, onerror, followlinks)
    return _visits(os.fspath(top), onerror)


# A Python function, because it replaces one. Since 3.12 that is a generator function.
if sys.version_info >= (3, 12):

    @functools.wraps(originals.walk)
    def walk(
        top: AnyStr | os.PathLike[AnyStr],
        topdown: bool = True,
        onerror: OnError = None,
        followlinks: bool = False,
    ) -> Iterator[Visit]:
        yield from _guarded(top, topdown, onerror, followlinks)

else:

    @functools.wraps(originals.walk)
    def walk(
        top: AnyStr | os.PathLike[AnyStr],
        topdown: bool = True,
        onerror: OnError = None,
        followlinks: bool = False,
    ) -> Iterator[Visit]:
        return _guarded(top, topdown, onerror, followlinks)


del walk.__wrapped__  # references to the original are rebound to the replacement: this one would be cyclic


def _visits(top: StrOrBytes, onerror: OnError) -> Iterator[Visit]:
    pending = [iter([top])]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
            continue
        try:
            directories, others = _contents(path)
        except OSError as exc:
            if onerror is not None:
                onerror(exc)
            continue
        yield path, directories, others
        # The caller may have changed the list, and the files on disk.
        below = _without_links(path, directories)
        pending.append(below if sys.version_info < (3, 12) else iter(list(below)))


def _without_links(path: StrOrBytes, names: list[Any]) -> Iterator[Any]:
    for name in names:
        invocation, full = redirecting(), os.path.join(path, name)
        is_known = invocation is not None and full in invocation.guard.mounts.fresh().directories
        if is_known or not os.path.islink(full):
            yield full


def _contents(path: StrOrBytes) -> tuple[list[Any], list[Any]]:
    """The names in the directory ``path``: directories, including symlinks to one, and everything else."""
    invocation = redirecting()
    known = None if invocation is None else invocation.guard.mounts.fresh()
    read = None if invocation is None else open_listing(invocation, path)
    with originals.scandir(path) if read is None else read.entries as entries:
        batch: list[Any] = list(entries)
    veil = None if read is None else read.veil
    links: set[Any] = set()
    # Uses C functions as far as possible: a walk of a large bundle spends most of its time here.
    try:
        if read is not None and any(map(_IS_LINK, batch)):
            links = {entry.name for entry in batch if entry.is_symlink()}
            batch = [DirEntry.of(entry, read) if entry.name in links else entry for entry in batch]
        if veil is not None and (links or isinstance(path, bytes)):
            batch, veil = unveiled(batch, veil), None
        kinds = list(map(_is_directory if links else _IS_DIRECTORY, batch))
    except OSError:
        kinds = list(map(_is_directory, batch))
    others = [entry.name for entry in batch]
    directories: list[Any] = []
    if any(kinds):
        directories = list(itertools.compress(others, kinds))
        others = list(itertools.compress(others, map(operator.not_, kinds)))
    if veil is not None:
        directories = directories and veil.take_out(directories, True)
        others = veil.take_out(others, False)
    if read is not None and known is not None and read.virtual is not None and type(path) is str:
        unlinked = [name for name in directories if name not in links]
        read.invocation.namespace.seen(read.virtual, unlinked, known)
    return directories, others


def _is_directory(entry: os.DirEntry[Any] | DirEntry) -> bool:
    try:
        return bool(entry.is_dir())
    except OSError:
        return False
