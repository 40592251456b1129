"""Temporary files and directories of ``tempfile`` that outlive the invocation in which they were created.

They remove themselves by name when they are closed or garbage-collected. Outside the invocation, that name
would refer to the real ``/tmp``. So each one remembers its invocation.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, Final

from tmpguard.core.context import finalizing
from tmpguard.core.invocation import Invocation, get_current
from tmpguard.core.layout import TMP

from .given import Given
from .paths import is_directory, resolve

_Closer: Final[Any] = tempfile._TemporaryFileCloser  # type: ignore[attr-defined]
#: The method that unlinks the file: ``cleanup`` since 3.12.
CLOSING: Final = "cleanup" if hasattr(_Closer, "cleanup") else "close"

_closer_init: Final = _Closer.__init__
_closing: Final = getattr(_Closer, CLOSING)
_directory_init: Final[Callable[..., None]] = tempfile.TemporaryDirectory.__init__
_system_directory: Final = tempfile._gettempdir  # type: ignore[attr-defined]


@functools.wraps(_system_directory)
def gettempdir() -> Any:
    """The default directory: within an invocation, the first usual directory that is writable (C1.1)."""
    invocation = get_current()
    if invocation is None:
        return _system_directory()
    chosen = tempfile.tempdir
    candidates = tempfile._candidate_tempdir_list()  # type: ignore[attr-defined]
    if chosen is not None:
        if chosen not in candidates:
            return chosen  # the application's own choice
        candidates.insert(0, chosen)
    absolute = map(os.path.abspath, candidates)
    found = next((path for path in absolute if _may_be_written(invocation, path)), TMP)
    return sys.intern(found)  # each call returns the same object


def _may_be_written(invocation: Invocation, path: str) -> bool:
    if path == TMP:
        return True
    try:
        where = resolve(invocation, Given(path))
    except OSError:
        return False
    return where.mount.writable and is_directory(where.real)


@functools.wraps(_closer_init)
def closer_init(self: Any, *args: object, **options: object) -> None:
    _closer_init(self, *args, **options)
    self.invocation = get_current()


@functools.wraps(_closing)
def closing(self: Any, *args: object, **options: object) -> None:
    invocation = getattr(self, "invocation", None)
    options.setdefault("unlink", os.unlink)  # its own default was bound before the layer was installed
    if invocation is None:
        _closing(self, *args, **options)
    elif invocation.ended:
        _closing(self, *args, **{**options, "unlink": _wiped_already})
    else:
        finalizing(invocation, _closing, self, *args, **options)


def _wiped_already(name: object) -> None:
    pass


class _Within:
    """Calls ``call`` within ``invocation``; does nothing once that is over, since the wipe has done it."""

    def __init__(self, invocation: Invocation, call: Callable[..., Any]) -> None:
        self._invocation = invocation
        self._call = call

    def __call__(self, *args: object, **options: object) -> Any:
        if self._invocation.ended:
            return None
        return finalizing(self._invocation, self._call, *args, **options)


@functools.wraps(_directory_init)
def directory_init(self: Any, *args: object, **options: object) -> None:
    _directory_init(self, *args, **options)
    invocation = get_current()
    if invocation is None:
        return
    self._rmtree = _Within(invocation, self._rmtree)
    _, call, arguments, keywords = self._finalizer.detach()
    self._finalizer = weakref.finalize(self, _Within(invocation, call), *arguments, **keywords)


class _ProcessDirectory:
    """The temporary directory of :mod:`multiprocessing` in one invocation's ``/tmp``."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="pymp-")


def process_directory(original: Callable[[], str]) -> Callable[[], str]:
    """:func:`multiprocessing.util.get_temp_dir`: one directory per invocation, and one for the process."""

    @functools.wraps(original)
    def get_temp_dir() -> str:
        invocation = get_current()
        if invocation is None:
            return original()
        return invocation.attached(_ProcessDirectory, _ProcessDirectory).path

    return get_temp_dir
