"""Which violations a test expects: by errno or by path pattern."""

from __future__ import annotations

import errno as codes
import fnmatch
import os
import re
from collections.abc import Callable, Iterable

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.reports.report import Violation

#: Returns True if the test allows the violation.
Matcher = Callable[[Violation], bool]

_ALLOWED = "give the name or the number of one, such as EROFS or 30, or a path pattern"

#: A string that looks like an errno name is taken for one, or for a mistake: paths do not look like that.
_ERRNO_NAME = re.compile(r"E[A-Z0-9]+")


def matchers_of(allow: object, directory: str) -> tuple[Matcher, ...]:
    """The matchers of ``allow=[...]``: errno names (``"EROFS"``), errno numbers and path patterns.

    A violation's relative path is relative to ``directory``.

    Raises ConfigurationError for anything else.
    """
    if isinstance(allow, (str, bytes, os.PathLike)) or not isinstance(allow, Iterable):
        raise ConfigurationError(
            f"allow={allow!r} is not a list: give errno names or numbers and path patterns, "
            'allow=["EROFS", "*/uploads/*"]'
        )
    return tuple(_matcher(item, directory) for item in allow)


def _matcher(item: object, directory: str) -> Matcher:
    if isinstance(item, os.PathLike):
        item = os.fspath(item)
    if isinstance(item, str) and item.isdigit():
        item = int(item)  # an ini file holds only strings
    if isinstance(item, int) and not isinstance(item, bool):
        if item not in codes.errorcode:
            raise ConfigurationError(f"allow=[{item!r}]: there is no such errno: {_ALLOWED}")
        return _ByErrno(item)
    if isinstance(item, str) and item:
        if _ERRNO_NAME.fullmatch(item):
            if not isinstance(getattr(codes, item, None), int):
                raise ConfigurationError(f"allow=[{item!r}]: there is no such errno: {_ALLOWED}")
            return _ByErrno(getattr(codes, item))
        return _ByPath(item, directory)
    raise ConfigurationError(f"allow=[{item!r}] is neither an errno nor a path pattern: {_ALLOWED}")


class _ByErrno:
    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, violation: Violation) -> bool:
        return violation.errno == self._number


class _ByPath:
    """A shell pattern, matched against the absolute path and the path as the application spelled it."""

    def __init__(self, pattern: str, directory: str) -> None:
        self._match = re.compile(fnmatch.translate(pattern)).match
        self._directory = directory

    def __call__(self, violation: Violation) -> bool:
        path = violation.path
        absolute = os.path.normpath(os.path.join(self._directory, path))
        return bool(path) and bool(self._match(path) or self._match(absolute))
