"""Finds references to the originals that were taken before the layer was installed.

Most originals are only referenced by the module that defines them and by modules that imported them by name.
Then the modules' namespaces account for all references, and there is nothing left to search. Only for the
other originals is :func:`gc.get_referrers` called, which looks at every object in the interpreter. And only
if it finds holders that belong to functions or classes are default arguments and class namespaces searched.
"""

from __future__ import annotations

import gc
import os
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from tmpguard.core import originals
from tmpguard.core.speedups import Sought

#: The sets in ``os`` of the functions that support a feature.
CAPABILITIES: Final = (
    "supports_dir_fd",
    "supports_effective_ids",
    "supports_fd",
    "supports_follow_symlinks",
)

#: Modules of the standard library that hold originals in classes and default arguments. They are always
#: searched in depth.
IN_DEPTH: Final = frozenset({"glob", "subprocess", "tempfile"})


def modules() -> Iterator[tuple[str, types.ModuleType]]:
    """The names and modules in ``sys.modules``, without other objects that libraries put there."""
    for key, module in list(sys.modules.items()):
        # issubclass of the type: isinstance would access the ``__class__`` of a lazy object.
        if issubclass(type(module), types.ModuleType):
            yield key, module


def contents(module: types.ModuleType) -> dict[str, Any]:
    """The ``__dict__`` of ``module``, without triggering a lazy module's import."""
    return types.ModuleType.__getattribute__(module, "__dict__")  # type: ignore[no-any-return]


def namespace(owner: object) -> Mapping[str, Any]:
    """The ``__dict__`` of a module or a class, without triggering a lazy module's import."""
    if issubclass(type(owner), types.ModuleType):
        return contents(cast("types.ModuleType", owner))
    return vars(owner)


class Search:
    """Finds what holds references to ``objects``, besides the modules that imported them by name.

    ``known`` yields the objects that the caller refers to, once for each reference.
    """

    def __init__(self, objects: Iterable[Any], known: Iterable[Any]) -> None:
        self._unexplained = _unexplained(objects, known)
        self._holders = gc.get_referrers(*self._unexplained) if self._unexplained else []

    def tables(self) -> list[dict[Any, Any]]:
        """The dicts that hold one of the objects."""
        return [holder for holder in self._holders if type(holder) is dict]

    def reaches_in_depth(self) -> bool:
        """Whether one of the objects is held by a function's default arguments or in a class namespace."""
        if gc.get_freeze_count() > _FROZEN_AT_START:
            return True  # frozen objects are not reported as referrers
        types_ = [one for one in self._unexplained if isinstance(one, type)]
        own = [vars(derived) for owner in types_ for derived in _derived(owner)]
        own = [held for held in own if "original" in held]  # the classes that replace them
        inherited = {id(one) for owner in types_ for one in _inheritances(owner)}
        asked = list(map(id, self._unexplained))
        for holder in self._holders:
            kind = type(holder)
            if kind is dict and "__module__" in holder:
                if not any(_is_same(holder, held) for held in own):
                    return True
            elif kind is tuple:
                if id(holder) not in inherited and list(map(id, holder)) != asked:
                    return True
            elif kind is staticmethod:
                return True
        return originals.FileIO in types_ and self._is_held_in_secret()

    def _is_held_in_secret(self) -> bool:
        """Whether an object that the garbage collector does not report may hold ``io.FileIO``.

        In 3.11 it is a static type, and a tuple of nothing but static types is not tracked.
        """
        if originals.FileIO.__flags__ & _HEAP_TYPE:
            return False
        secret = [one for one in _inheritances(originals.FileIO) if not gc.is_tracked(one)]
        holders = [*self._holders, *secret]
        found = sum(one is originals.FileIO for holder in holders for one in gc.get_referents(holder))
        return sys.getrefcount(originals.FileIO) - found != _BUILT_IN


#: The number of references to ``io.FileIO`` from the interpreter and from the count itself, if it is a static
#: type. If another patch version has a different number, that only costs a search in depth.
_BUILT_IN: Final = 8

_HEAP_TYPE: Final = 1 << 9

#: More objects than 3.12 freezes at startup, and far fewer than a running interpreter has.
_FROZEN_AT_START: Final = 1000


def _unexplained(objects: Iterable[Any], known: Iterable[Any]) -> list[Any]:
    """The ``objects`` that are referenced by something other than module namespaces."""
    unique = list({id(one): one for one in objects}.values())
    probe = object()
    unique.append(probe)
    counts = {id(one): sys.getrefcount(one) for one in unique}
    unique.pop()
    counting = counts.pop(id(probe)) - 1  # the list, and the count itself
    found = Counter(map(id, known))
    sought = Sought(counts)
    for held in _explaining(sought):
        found.update(filter(counts.__contains__, map(id, held)))
    return [one for one in unique if counts[id(one)] - counting != found[id(one)]]


def _explaining(sought: Sought) -> Iterator[Iterable[Any]]:
    """The contents of all that is searched in any case; those of a module only if they hold an object."""
    counted = set()  # a module may have several names, such as os.path and posixpath
    for key, module in modules():
        if id(module) not in counted:
            counted.add(id(module))
            if sought.is_in(contents(module)):
                yield contents(module).values()
        if key in IN_DEPTH:
            yield from _held_in_depth(key, module)
    yield vars(originals).values()
    yield originals._get.__globals__.values()
    for capability in CAPABILITIES:
        yield getattr(os, capability)


def _held_in_depth(key: str, module: types.ModuleType) -> Iterator[Iterable[Any]]:
    for value in list(namespace(module).values()):
        if type(value) is types.FunctionType:
            yield value.__defaults__ or ()
        elif type(value) is type and value.__module__ == key:
            yield vars(value).values()
            for inner in list(vars(value).values()):
                if type(inner) is types.FunctionType:
                    yield inner.__defaults__ or ()
                elif type(inner) is staticmethod:
                    yield (inner.__func__,)


def _is_same(holder: dict[Any, Any], held: Mapping[str, Any]) -> bool:
    """Whether ``holder`` is the dict behind ``held``, the namespace of a class."""
    return all(holder.get(name) is value for name, value in held.items())


def _inheritances(owner: type) -> Iterator[tuple[type, ...]]:
    yield owner.__bases__
    yield owner.__mro__
    for derived in _derived(owner):
        yield from _inheritances(derived)


def _derived(owner: type) -> list[type]:
    return type.__subclasses__(owner)
