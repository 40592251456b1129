"""Reports when a module from a given set has been imported, so that it can be patched before it is used.

A request, or :func:`tmpguard.cold_start`, may be the first to import such a module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Finder:
    """Calls ``done`` with each module in ``names`` right after its import. Other finders find the modules."""

    def __init__(self, names: Container[str], done: Callable[[ModuleType], None]) -> None:
        self._names = names
        self._done = done
        self._sought: set[str] = set()

    def start(self) -> None:
        """Start reporting imports."""
        # First, because a finder that loads modules itself, such as pytest's, does not consult later ones.
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Stop reporting imports. Idempotent."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that another finder finds, with a loader that also calls ``done``; None for others."""
        if name not in self._names or name in self._sought:
            return None
        self._sought.add(name)  # another finder may consult all finders, including this one
        try:
            spec = self._found(name, path, target)
        finally:
            self._sought.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self._done)  # type: ignore[assignment]
        return spec

    def _found(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path.copy():
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            if (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None


class _Loader:
    """Loads a module with ``loader``, and then calls ``done`` with it."""

    def __init__(self, loader: Any, done: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._done = done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        # The module's code sees its own loader, not this one.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._done(module)

    # A module's warnings name the line that imports it: they skip frames of importlib, by this file name.
    exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap>")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
