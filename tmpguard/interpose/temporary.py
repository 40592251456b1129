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
from tmpguard.core.invocation import Invocation, redirecting
from tmpguard.core.layout import TMP
from tmpguard.core.presence import is_directory

from .given import Given
from .paths import resolve

_Closer: Final[Any] = tempfile._TemporaryFileCloser  # type: ignore[attr-defined]
#: The method that unlinks the file: ``cleanup`` since 3.12.
CLOSING: Final = "cleanup" if hasattr(_Closer, "cleanup") else "close"


def default_directory(original: Callable[[], Any]) -> Callable[[], Any]:
    """``tempfile._gettempdir``: within an invocation, the first usual directory that is writable (C1.1)."""

    @functools.wraps(original)
    def _gettempdir() -> Any:
        invocation = redirecting()
        if invocation is None:
            return original()
        chosen = tempfile.tempdir
        candidates = tempfile._candidate_tempdir_list()  # type: ignore[attr-defined]
        if chosen is not None:
            if chosen not in candidates:
                return chosen  # the application's own choice
            candidates.insert(0, chosen)
        absolute = map(os.path.abspath, candidates)
        found = next((path for path in absolute if _may_be_written(invocation, path)), TMP)
        return sys.intern(found)  # each call returns the same object

    return _gettempdir


def _may_be_written(invocation: Invocation, path: str) -> bool:
    if path == TMP:
        return True
    try:
        where = resolve(invocation, Given(path))
    except OSError:
        return False
    return where.mount.writable and is_directory(where.real)


def closer_init(original: Callable[..., None]) -> Callable[..., None]:
    """The constructor of the object that closes and unlinks a named temporary file."""

    @functools.wraps(original)
    def __init__(self: Any, *args: object, **options: object) -> None:
        original(self, *args, **options)
        self.invocation = redirecting()

    return __init__


def closing(original: Callable[..., Any]) -> Callable[..., Any]:
    """The method that closes and unlinks a named temporary file (:data:`CLOSING`)."""

    @functools.cache
    def find_position() -> int:
        import inspect  # slow to import, and hardly anybody passes it

        return list(inspect.signature(original).parameters).index("unlink") - 1

    @functools.wraps(original)
    def close(self: Any, *args: object, **options: object) -> Any:
        # The default was bound before tmpguard was installed.
        position = find_position() if args else 0
        unlink = args[position] if len(args) > position else options.get("unlink", os.unlink)
        invocation = getattr(self, "invocation", None)
        if invocation is not None and invocation.ended:
            unlink = _wiped_already
        options["unlink"] = unlink
        if invocation is None or invocation.ended:
            return original(self, *args[:position], **options)
        return finalizing(invocation, original, self, *args[:position], **options)

    return close


def _wiped_already(name: object) -> None:
    pass


class _Within:
    """Calls ``call`` within ``invocation``. Does nothing once it is over: the wipe has removed everything."""

    def __init__(self, invocation: Invocation, call: Callable[..., Any]) -> None:
        self._invocation = invocation
        self._call = call

    def __call__(self, *args: object, **options: object) -> Any:
        if self._invocation.ended:
            return None
        return finalizing(self._invocation, self._call, *args, **options)


def directory_init(original: Callable[..., None]) -> Callable[..., None]:
    """The constructor of :class:`tempfile.TemporaryDirectory`."""

    @functools.wraps(original)
    def __init__(self: Any, *args: object, **options: object) -> None:
        original(self, *args, **options)
        invocation = redirecting()
        if invocation is None:
            return
        self._rmtree = _Within(invocation, self._rmtree)
        _, call, arguments, keywords = self._finalizer.detach()
        self._finalizer = weakref.finalize(self, _Within(invocation, call), *arguments, **keywords)

    return __init__


class _ProcessDirectory:
    """The temporary directory of :mod:`multiprocessing` in one invocation's ``/tmp``."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="pymp-")


def process_directory(original: Callable[[], str]) -> Callable[[], str]:
    """:func:`multiprocessing.util.get_temp_dir`: one directory per invocation, and one for the process."""

    @functools.wraps(original)
    def get_temp_dir() -> str:
        invocation = redirecting()
        if invocation is None:
            return original()
        return invocation.attached(_ProcessDirectory, _ProcessDirectory).path

    return get_temp_dir
