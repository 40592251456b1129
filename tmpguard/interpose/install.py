"""Puts the patched layer in place, rebinds the references that were taken before, and takes it out again."""

from __future__ import annotations

import abc
import gc
import operator
import os
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Final

from . import audit
from .surface import calls

_lock: Final = threading.RLock()
_restore: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
_replacements: dict[int, tuple[Any, Any]] = {}
#: The modules that were looked through when the layer was put in place, by identity.
_seen: set[int] = set()

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
    return bool(_restore)


def install() -> None:
    """Put the patched layer in place. Does nothing where it is."""
    with _lock:
        if _restore:
            return
        for owner, name, original, replacement in list(calls()):
            _set(owner, name, replacement)
            if not isinstance(owner, type):
                _replacements[id(original)] = (original, replacement)
        _declare_capabilities()
        _rebind({key: replacement for key, (_, replacement) in _replacements.items()})
        _seen.update(id(module) for module in sys.modules.values())
        _rebind_tables(list(_replacements.values()))


def is_ready() -> bool:
    """Is everything in place that an invocation needs?"""
    return audit.is_armed()


def make_ready() -> None:
    """Before the first invocation, and after an :func:`uninstall`: the layer and its backstop."""
    with _lock:
        install()
        audit.arm()


def uninstall() -> None:
    """Take the patched layer out: every name is again the very object it was (C7.3)."""
    with _lock:
        if not _restore:
            return
        audit.disarm()
        while _restore:
            undo, arguments = _restore.pop()
            undo(*arguments)
        # Modules that were imported meanwhile took the wrappers.
        _rebind({id(replacement): original for original, replacement in _replacements.values()})
        _rebind_tables([(replacement, original) for original, replacement in _replacements.values()])
        _restore.clear()
        _replacements.clear()
        _seen.clear()


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, type) and name not in vars(owner):
        _restore.append((delattr, (owner, name)))  # it was inherited
    else:
        _restore.append((setattr, (owner, name, vars(owner)[name])))
    setattr(owner, name, value)


def _declare_capabilities() -> None:
    for capability in _CAPABILITIES:
        functions = getattr(os, capability)
        for original, replacement in list(_replacements.values()):
            if original in functions and replacement not in functions:
                functions.add(replacement)
                _restore.append((functions.discard, (replacement,)))


# --- references taken before ---------------------------------------------------------------------------


def _rebind(table: dict[int, Any]) -> None:
    """Replace what other modules took by name: in their globals, classes, and functions' defaults.

    By identity alone, and without asking any object for an attribute: lazy modules and settings stay asleep.
    """
    for key, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType) or id(module) in _seen or _is_left_alone(key):
            continue
        namespace = vars(module)
        for name, value in list(namespace.items()):
            if id(value) in table:
                _replace(setattr, (module, name), value, table)
            elif type(value) is types.FunctionType:
                if value.__defaults__ or value.__kwdefaults__:
                    _rebind_function(value, table)
            elif type(value) in (type, abc.ABCMeta) and value.__module__ == module.__name__:
                _rebind_class(value, table)


def _rebind_tables(pairs: list[tuple[Any, Any]]) -> None:
    """Replace the functions that stand as values in dicts, wherever those are: tables of openers, say.

    Not in namespaces: those of modules and classes were dealt with, or are left alone.
    """
    table = {id(old): new for old, new in pairs}
    for holder in gc.get_referrers(*(old for old, _ in pairs)):
        if type(holder) is not dict or not (_is_seen_namespace(holder) or _NAMESPACE_KEYS.isdisjoint(holder)):
            continue
        for key, value in list(holder.items()):
            if id(value) in table:
                _replace(operator.setitem, (holder, key), value, table)


def _is_seen_namespace(holder: dict[Any, Any]) -> bool:
    """Is it the namespace of a module that was looked through before, and took a function since then?"""
    name = holder.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return id(module) in _seen and vars(module) is holder and not _is_left_alone(str(name))


def _is_left_alone(name: str) -> bool:
    return name.partition(".")[0] in _LEFT_ALONE or name.startswith("tmpguard.")


def _replace(setter: Callable[..., None], where: tuple[Any, ...], value: Any, table: dict[int, Any]) -> None:
    _restore.append((setter, (*where, value)))
    setter(*where, table[id(value)])


def _rebind_class(owner: type, table: dict[int, Any]) -> None:
    for name, value in list(vars(owner).items()):
        if id(value) in table:
            _replace(type.__setattr__, (owner, name), value, table)
        elif type(value) is staticmethod and id(value.__func__) in table:
            _restore.append((type.__setattr__, (owner, name, value)))
            type.__setattr__(owner, name, staticmethod(table[id(value.__func__)]))
        elif type(value) is types.FunctionType:
            _rebind_function(value, table)


def _rebind_function(function: types.FunctionType, table: dict[int, Any]) -> None:
    defaults = function.__defaults__
    if defaults and any(id(value) in table for value in defaults):
        _restore.append((setattr, (function, "__defaults__", defaults)))
        function.__defaults__ = tuple(table.get(id(value), value) for value in defaults)
    keywords = function.__kwdefaults__
    if keywords and any(id(value) in table for value in keywords.values()):
        _restore.append((setattr, (function, "__kwdefaults__", keywords)))
        function.__kwdefaults__ = {name: table.get(id(value), value) for name, value in keywords.items()}
