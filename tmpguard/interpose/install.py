"""Puts the patched layer in place, rebinds the references that were taken before, and takes it out again."""

from __future__ import annotations

import abc
import gc
import operator
import os
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from . import audit
from .surface import calls, late_calls

_MISSING: Final = object()


class _Change(NamedTuple):
    """One name that was given another value: where, by which means, what it was, and what it is now."""

    setter: Callable[[Any, Any, Any], None]
    owner: Any
    name: Any
    before: Any
    after: Any

    def undo(self) -> None:
        """Put back what was there, unless somebody else has meanwhile put something else there (C7.3)."""
        if self._now() is not self.after:
            return
        if self.before is _MISSING:
            delattr(self.owner, self.name)  # it was inherited
        else:
            self.setter(self.owner, self.name, self.before)

    def _now(self) -> Any:
        if self.setter is operator.setitem:
            return self.owner.get(self.name)
        if isinstance(self.owner, types.FunctionType) or self.name == "__bases__":
            return getattr(self.owner, self.name)
        return _namespace(self.owner).get(self.name)


def _namespace(owner: Any) -> Any:
    """The namespace of a module or a class, without waking a lazy one."""
    if issubclass(type(owner), types.ModuleType):
        return types.ModuleType.__getattribute__(owner, "__dict__")
    return vars(owner)


#: Did everything go in that an invocation needs? False again after :func:`uninstall`.
ready = False

_lock: Final = threading.RLock()
_changes: list[_Change] = []
_declared: list[tuple[set[Any], Any]] = []
_replacements: dict[int, tuple[Any, Any]] = {}
_patched_late: set[tuple[Any, str]] = set()
#: How many references there were to each replacement when it was nowhere in place.
_references: dict[int, int] = {}
#: The modules that were looked through, and whether one of ours was found in them. They need not be looked
#: through again, but for those with findings: what is added to them later shows among an object's referrers.
_seen: weakref.WeakKeyDictionary[types.ModuleType, bool] = weakref.WeakKeyDictionary()
#: The tables in which originals were found.
_tables: list[dict[Any, Any]] = []

#: These keep the originals: the interpreter reads sources and writes bytecode by them (SURFACE rule 1.1).
_LEFT_ALONE: Final = frozenset({"posix", "_io", "_pyio", "tokenize", "linecache", "importlib", "zipimport"})

#: What a dict has that is the namespace of a module, a class, or a wrapper.
_NAMESPACE_KEYS: Final = frozenset({"__module__", "__name__", "__builtins__", "_original"})

#: The sets of ``os`` that tell which functions take what; a quick wrapper has to be added to them.
_CAPABILITIES: Final = (
    "supports_dir_fd",
    "supports_effective_ids",
    "supports_fd",
    "supports_follow_symlinks",
)


def is_installed() -> bool:
    """Is the patched layer in place?"""
    return bool(_changes)


def install() -> None:
    """Put the patched layer in place. Does nothing where it is."""
    with _lock:
        if _changes:
            return
        made = list(calls())
        _remember(made)
        for owner, name, _, replacement in made:
            _change(setattr, owner, name, _namespace(owner).get(name, _MISSING), replacement)
        _patch_late()
        _declare_capabilities()
        table = {key: replacement for key, (_, replacement) in _replacements.items()}
        if _rebind(table):
            _tables[:] = _referring([original for original, _ in _replacements.values()])
        _rebind_tables(_tables, table)
        _rebind_bases()


def make_ready() -> None:
    """Before the first invocation, and after an :func:`uninstall`: the layer and its backstop."""
    global ready
    with _lock:
        install()
        _patch_late()
        audit.arm()
        ready = True


def uninstall() -> None:
    """Take the patched layer out: every name is again the very object it was (C7.3)."""
    global ready
    with _lock:
        if not _changes:
            return
        ready = False
        audit.disarm()
        while _changes:
            _changes.pop().undo()
        while _declared:
            _undeclare(*_declared.pop())
        # Modules that were imported meanwhile took the wrappers.
        table = {id(replacement): original for original, replacement in _replacements.values()}
        _rebind(table)
        _rebind_tables(_referring(_still_held()), table)
        for kept in (_changes, _replacements, _patched_late, _references):
            kept.clear()


def _remember(made: list[tuple[Any, str, Any, Any]]) -> None:
    """Note what takes whose place, and how many references there are to it before it does."""
    for owner, _, original, replacement in made:
        if not isinstance(owner, type):
            _replacements.setdefault(id(original), (original, replacement))
    del original, replacement
    listed = Counter(id(call[-1]) for call in made)
    _references.update((key, count - listed[key]) for key, count in _counted())


def _still_held() -> list[Any]:
    """The replacements that somebody else has, too. Who it is tells only a search through all objects."""
    shared = {key for key, count in _counted() if count != _references[key]}
    return [replacement for _, replacement in _replacements.values() if id(replacement) in shared]


def _counted() -> list[tuple[int, int]]:
    """How many references there are to each replacement."""
    return [(id(replacement), sys.getrefcount(replacement)) for _, replacement in _replacements.values()]


def _change(setter: Callable[[Any, Any, Any], None], owner: Any, name: Any, before: Any, after: Any) -> None:
    setter(owner, name, after)
    _changes.append(_Change(setter, owner, name, before, after))


def _patch_late() -> None:
    """Patch what is imported by now and was not before."""
    for owner, name, replacement in late_calls():
        if (owner, name) not in _patched_late:
            _patched_late.add((owner, name))
            _change(setattr, owner, name, _namespace(owner).get(name, _MISSING), replacement())


def _declare_capabilities() -> None:
    for capability in _CAPABILITIES:
        functions = getattr(os, capability)
        for original, replacement in list(_replacements.values()):
            if original in functions and replacement not in functions:
                functions.add(replacement)
                _declared.append((functions, replacement))


def _undeclare(functions: set[Any], replacement: Any) -> None:
    functions.discard(replacement)


# --- references taken before ---------------------------------------------------------------------------


def _rebind(table: dict[int, Any]) -> bool:
    """Replace what other modules took by name: in their globals, classes, and functions' defaults.

    By identity alone, and without asking any object for an attribute: lazy modules and settings stay asleep.
    True if there were modules that had not been looked through before.
    """
    news = False
    for key, module in list(sys.modules.items()):
        # By type: even isinstance would ask a lazy object for its class.
        if not issubclass(type(module), types.ModuleType) or _is_left_alone(key):
            continue
        found = _seen.get(module)
        if found is False:
            continue
        news = news or found is None
        before = len(_changes)
        _rebind_module(key, module, table)
        _seen[module] = bool(found) or len(_changes) > before
    return news


def _rebind_module(key: str, module: types.ModuleType, table: dict[int, Any]) -> None:
    for name, value in list(_namespace(module).items()):
        if id(value) in table:
            _change(setattr, module, name, value, table[id(value)])
        elif type(value) is types.FunctionType:
            if value.__defaults__ or value.__kwdefaults__:
                _rebind_function(value, table)
        elif type(value) in (type, abc.ABCMeta) and value.__module__ == key:
            _rebind_class(value, table)


def _referring(objects: list[Any]) -> list[dict[Any, Any]]:
    """The dicts that hold one of ``objects``: tables of openers, say, and what took one since it was seen.

    No namespaces else: those of modules and classes were dealt with, or are left alone.
    """
    holders = gc.get_referrers(*objects) if objects else []
    return [
        holder
        for holder in holders
        if type(holder) is dict and (_NAMESPACE_KEYS.isdisjoint(holder) or _is_seen_namespace(holder))
    ]


def _rebind_tables(holders: list[dict[Any, Any]], table: dict[int, Any]) -> None:
    for holder in holders:
        for key, value in list(holder.items()):
            if id(value) in table:
                _change(operator.setitem, holder, key, value, table[id(value)])


def _is_seen_namespace(holder: dict[Any, Any]) -> bool:
    """Is it the namespace of a module that was looked through before, and took a function since then?"""
    name = holder.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if not issubclass(type(module), types.ModuleType) or _is_left_alone(str(name)):
        return False
    return module in _seen and _namespace(module) is holder


def _is_left_alone(name: str) -> bool:
    return name.partition(".")[0] in _LEFT_ALONE or name.startswith("tmpguard.")


def _rebind_class(owner: type, table: dict[int, Any]) -> None:
    for name, value in list(vars(owner).items()):
        if id(value) in table:
            _change(type.__setattr__, owner, name, value, table[id(value)])
        elif type(value) is staticmethod and id(value.__func__) in table:
            _change(type.__setattr__, owner, name, value, staticmethod(table[id(value.__func__)]))
        elif type(value) is types.FunctionType:
            _rebind_function(value, table)


def _rebind_bases() -> None:
    """Have classes that were derived from an original derive from what stands in its place."""
    for original, replacement in list(_replacements.values()):
        if not isinstance(original, type):
            continue
        derivatives: list[type] = type.__subclasses__(original)
        for derived in derivatives:
            if derived is not replacement:
                bases = tuple(replacement if base is original else base for base in derived.__bases__)
                with suppress(TypeError):  # the objects of some are made otherwise: those stay as they are
                    _change(type.__setattr__, derived, "__bases__", derived.__bases__, bases)


def _rebind_function(function: types.FunctionType, table: dict[int, Any]) -> None:
    defaults = function.__defaults__
    if defaults and any(id(value) in table for value in defaults):
        after = tuple(table.get(id(value), value) for value in defaults)
        _change(setattr, function, "__defaults__", defaults, after)
    keywords = function.__kwdefaults__
    if keywords and any(id(value) in table for value in keywords.values()):
        named = {name: table.get(id(value), value) for name, value in keywords.items()}
        _change(setattr, function, "__kwdefaults__", keywords, named)
