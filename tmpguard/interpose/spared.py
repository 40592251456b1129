"""Lets pyfakefs patch everything that it patches, except tmpguard's own modules.

During a test, pyfakefs gives every module a fake ``os`` and fake functions. tmpguard's modules need the real
ones, because pyfakefs itself calls them through the wrappers that it finds in the real ``os``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from types import ModuleType
from typing import Any, Final, cast

from .wrapper import is_quick

_PACKAGE: Final = __name__.partition(".")[0]


class _Skipped(set[Any]):
    """The modules that pyfakefs leaves alone: its own selection, and all of tmpguard's."""

    def __contains__(self, module: object) -> bool:
        if issubclass(type(module), ModuleType) and _is_ours(module):
            return True
        return super().__contains__(module)


def _is_ours(module: object) -> bool:
    name = ModuleType.__getattribute__(cast(ModuleType, module), "__dict__").get("__name__")
    return isinstance(name, str) and (name == _PACKAGE or name.startswith(f"{_PACKAGE}."))


def skipped_modules(original: AbstractSet[Any]) -> AbstractSet[Any]:
    """``Patcher.SKIPMODULES``, with tmpguard's modules."""
    # Not imported: another thread may be importing it.
    patcher: Any = vars(sys.modules["pyfakefs.fake_filesystem_unittest"])["Patcher"]
    patcher.clear_fs_cache()  # it remembers the modules that it has found
    return _Skipped(original)


def is_file_function(original: Callable[[object, object], bool]) -> Callable[[object, object], bool]:
    """``Patcher._is_fs_function``, which would otherwise not recognize a quick wrapper."""

    @functools.wraps(original)
    def _is_fs_function(self: object, function: object) -> bool:
        return original(self, function.__func__ if is_quick(function) else function)

    return _is_fs_function
