"""Pickles the quick wrappers as the globals that they replace.

Without the C extension, they are bound methods. Libraries that pickle functions by value (cloudpickle, dill)
would take such a wrapper apart, and an unpickler that accepts only certain names would see a different name
than without tmpguard.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Protocol

from .wrapper import as_global, is_quick

Reducer = Callable[[MethodType], Any]


def method_reducer(original: Reducer | None) -> Reducer:
    """A reducer of bound methods for a dispatch table. ``original`` reduces all other bound methods."""

    def reduce(method: MethodType) -> Any:
        if is_quick(method):
            return as_global(method, method.__module__, method.__name__)
        return method.__reduce__() if original is None else original(method)

    return reduce


class _Pickler(Protocol):
    """The methods of dill's pickler that are needed."""

    def save_global(self, obj: object, name: str) -> None: ...

    def save_reduce(self, func: Callable[..., Any], args: tuple[object, ...], *, obj: object) -> None: ...


Saver = Callable[[_Pickler, MethodType], None]


def dill_saver(original: Saver) -> Saver:
    """dill's function for saving bound methods."""

    def save(pickler: _Pickler, method: MethodType) -> None:
        if not is_quick(method):
            return original(pickler, method)
        reduced = as_global(method, method.__module__, method.__name__)
        if isinstance(reduced, str):
            pickler.save_global(method, reduced)
        else:
            pickler.save_reduce(*reduced, obj=method)
        return None

    return save
