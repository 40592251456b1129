"""Imports modules in ``/tmp`` from the invocation's own ``/tmp``.

The importer accesses files through ``posix`` and ``_io`` directly. Imports outside ``/tmp`` must stay
unaffected, whatever is in the bundle (C5.2). So the importer gets two proxy modules in place of those: they
pass calls to the patched layer if the text of the path leads to ``/tmp``. Extension modules in ``/tmp`` are
not found, because native code loads them.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.aliases import PathOrDescriptor
from tmpguard.core.invocation import Invocation, redirecting
from tmpguard.core.layout import TMP, is_below
from tmpguard.core.spelling import is_encodable
from tmpguard.interpose.entries import change, cwd, listing, look
from tmpguard.interpose.files import builtin_open, descriptors, raw

from .given import Given
from .paths import resolve

#: The functions of ``posix`` that the importer calls with a path, and their replacements for ``/tmp``.
_POSIX: Final[dict[str, Callable[..., Any]]] = {
    "stat": lambda _, path: look.stat(path),
    "listdir": listing.listdir,
    "scandir": listing.scandir,
    "open": descriptors.open,
    "mkdir": change.mkdir,
    "replace": change.replace,
    "unlink": change.unlink,
}

#: The same for ``_io``. Bytecode is written with ``open`` since 3.14, and with ``FileIO`` before.
_IO: Final[dict[str, Callable[..., Any]]] = {
    "open": lambda _, file, mode: builtin_open.open(file, mode),
    "open_code": builtin_open.open_code,
    "FileIO": lambda _, file, mode: raw.FileIO(file, mode),
}


class _Front(types.ModuleType):
    """A proxy for a module. Attributes that it does not have itself come from the module."""

    def __init__(self, module: types.ModuleType, calls: dict[str, Callable[..., Any]]) -> None:
        super().__init__(module.__name__)
        self._module = module
        for name, own in calls.items():
            setattr(self, name, _choosing(getattr(module, name), own))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def posix_front(posix: types.ModuleType) -> types.ModuleType:
    """The importer's replacement for ``posix``."""
    made = _Front(posix, _POSIX)
    vars(made)["getcwd"] = _choosing_directory(posix.getcwd)
    return made


def io_front(io: types.ModuleType) -> types.ModuleType:
    """The replacement for ``_io`` that the importer gets."""
    return _Front(io, _IO)


def site_io(io: types.ModuleType) -> types.ModuleType:
    """The ``io`` of :mod:`site`, which is ``_io`` since 3.14."""
    return io_front(io) if io.__name__ == "_io" else io


def _choosing(original: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: PathOrDescriptor, *args: object) -> Any:
        invocation = redirecting()
        if invocation is None or invocation.ended or not _is_own(invocation, path):
            return original(path, *args)
        return own(invocation, path, *args)

    return call


def _choosing_directory(original: Callable[[], str]) -> Callable[[], str]:
    def getcwd() -> str:
        invocation = redirecting()
        return original() if invocation is None or invocation.ended else cwd.getcwd(invocation)

    return getcwd


def _is_own(invocation: Invocation, path: PathOrDescriptor) -> bool:
    """True if ``path`` (a path or a descriptor) leads to the invocation's ``/tmp`` or to the bundle in it."""
    if isinstance(path, int):
        return invocation.owns(path)
    name = os.fspath(path)
    if not isinstance(name, str) or "\0" in name or not is_encodable(name):
        return False
    if not name.startswith("/"):
        name = f"{invocation.namespace.working_directory()}/{name}"
    elif not name.startswith(TMP) and ".." not in name:
        return False
    name = os.path.normpath(name)
    table = invocation.guard.mounts
    return is_below(name, TMP) and table.mount_of(name) in (table.scratch, table.package)


# --- the sources that tracebacks, `inspect` and `linecache` show ---------------------------------------


def open_source(
    invocation: Invocation, file: PathOrDescriptor, mode: str = "r", *args: Any, **options: Any
) -> Any:
    """``tokenize``'s own ``open``. Files below ``/tmp`` are the invocation's; other reads are unaffected.

    The sources of running code must be found wherever they are, even if the application cannot see them.
    """
    opener = builtin_open.open if _is_below_tmp(invocation, file) else originals.open
    return opener(file, mode, *args, **options)


def _is_below_tmp(invocation: Invocation, file: PathOrDescriptor) -> bool:
    given = Given(file)
    if given.odd:
        return False
    try:
        return is_below(resolve(invocation, given).virtual, TMP)
    except OSError:
        return False
