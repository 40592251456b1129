"""Installs the patched layer, rebinds references that were taken earlier, and uninstalls all of it.

Whatever is in place at installation is the original, even another library's wrapper: our wrappers call it
outside invocations, and :func:`uninstall` restores it. Later patches by other code are left alone.
"""

from __future__ import annotations

import abc
import gc
import operator
import os
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from itertools import chain
from typing import Any, Final, NamedTuple

from tmpguard.core import real
from tmpguard.core.speedups import Sought, set_ready

from . import audit
from .late import Finder
from .references import CAPABILITIES, IN_DEPTH, Search, contents, modules, namespace
from .surface import LATE_MODULES, Candidate, calls, candidates, held_originals, late_calls
from .wrapper import sign

_MISSING: Final = object()


class _Change(NamedTuple):
    """A change to one attribute or dict item: the setter, the owner, the name, and both values."""

    setter: Callable[[Any, Any, object], None]
    #: A module, a class, a function or a dict. Any, because each kind is set and read in its own way.
    owner: Any
    name: Hashable
    before: object
    after: object

    def undo(self) -> None:
        """Restore the earlier value, unless other code has replaced ours since (C7.3)."""
        if self._now() is not self.after:
            return
        if self.before is _MISSING and self.setter is operator.setitem:
            del self.owner[self.name]
        elif self.before is _MISSING:
            delattr(self.owner, str(self.name))  # it was inherited
        else:
            self.setter(self.owner, self.name, self.before)

    def _now(self) -> object:
        if self.setter is operator.setitem:
            return self.owner.get(self.name)
        if isinstance(self.owner, types.FunctionType) or self.name == "__bases__":
            return getattr(self.owner, str(self.name))
        return namespace(self.owner).get(str(self.name))


#: True while everything that an invocation needs is installed.
ready = False

_lock: Final = real.RLock()
_changes: list[_Change] = []
_declared: list[tuple[set[object], object]] = []
_replacements: dict[int, tuple[Any, Any]] = {}
#: The late patches. The owners are stored so that no other object can get the same ``id``.
_patched_late: dict[tuple[int, Any], Any] = {}
#: The reference count of each replacement before it was put in place anywhere.
_references: dict[int, int] = {}
#: The modules that were searched, and whether an original was found in them. Only modules with a match are
#: searched in depth again.
_seen: weakref.WeakKeyDictionary[types.ModuleType, bool] = weakref.WeakKeyDictionary()
#: The tables in which originals were found.
_tables: list[dict[Any, Any]] = []

#: Modules that keep the originals: the interpreter uses them to read source files and write bytecode (SURFACE
#: rule 1.1).
_LEFT_ALONE: Final = frozenset({"posix", "_io", "_pyio", "tokenize", "linecache", "importlib", "zipimport"})

#: Keys that show that a dict is the namespace of a module, a class, or a wrapper.
_NAMESPACE_KEYS: Final = frozenset({"__module__", "__name__", "__builtins__", "__wrapped__", "_original"})


def is_installed() -> bool:
    """Whether the patched layer is installed."""
    return bool(_changes)


def install() -> None:
    """Install the patched layer. Does nothing if it is installed."""
    with _lock:
        if _changes:
            return
        if "inspect" in sys.modules:
            # Signatures will be needed. While pyfakefs replaces the file system, nothing can be imported any
            # more once the layer is installed.
            from . import signatures  # noqa: F401
        found = list(candidates())
        search = _search(found)
        made = list(calls(found))
        del found
        _remember(made)
        for owner, name, _, replacement in made:
            if owner is None:
                continue  # only references are replaced
            _change(setattr, owner, name, namespace(owner).get(name, _MISSING), replacement)
        _patch_late()
        _declare_capabilities()
        table = {key: replacement for key, (_, replacement) in _replacements.items()}
        if search is not None:
            _tables[:] = filter(_is_table, search.tables())
        _rebind(table, in_depth=search is not None and search.reaches_in_depth())
        _rebind_tables(_tables, table)
        _rebind_bases()
        _finder.start()


def make_ready() -> None:
    """Install the layer and the audit hook. Called before the first invocation, also after an uninstall."""
    global ready
    with _lock:
        install()
        _patch_late()
        audit.arm()
        ready = True
        set_ready(True)


def uninstall() -> None:
    """Uninstall the patched layer: every name refers to its original object again (C7.3)."""
    global ready
    with _lock:
        if not _changes:
            return
        ready = False
        set_ready(False)
        _finder.stop()
        audit.disarm()
        while _changes:
            _changes.pop().undo()
        while _declared:
            _undeclare(*_declared.pop())
        # Modules that were imported in the meantime hold references to the wrappers.
        table = {id(replacement): original for original, replacement in _replacements.values()}
        _rebind(table, in_depth=True)
        _rebind_tables(_referring(_still_held()), table)
        for kept in (_changes, _replacements, _patched_late, _references):
            kept.clear()


def _remember(made: list[tuple[Any, str, Any, Any]]) -> None:
    """Record each replacement, and its reference count before it is put in place."""
    _list_replacements(made)
    listed = Counter(id(call[-1]) for call in made)
    _references.update((key, count - listed[key]) for key, count in _counted())


def _list_replacements(made: list[tuple[Any, str, Any, Any]]) -> None:
    """In a function of its own, whose variables hold no reference when the references are counted."""
    for owner, _, original, replacement in made:
        if not isinstance(owner, type):
            _replacements.setdefault(id(original), (original, replacement))


def _still_held() -> list[Any]:
    """The replacements that other objects refer to. Only a search of all objects can find the holders."""
    shared = {key for key, count in _counted() if count != _references[key]}
    return [replacement for _, replacement in _replacements.values() if id(replacement) in shared]


def _counted() -> list[tuple[int, int]]:
    """The ``id`` and the reference count of each replacement."""
    return [(id(replacement), sys.getrefcount(replacement)) for _, replacement in _replacements.values()]


def _change(
    setter: Callable[[Any, Any, object], None], owner: object, name: Hashable, before: object, after: object
) -> None:
    setter(owner, name, after)
    _changes.append(_Change(setter, owner, name, before, after))


def _patch_late() -> None:
    """Patch the modules in the late table that were imported since the last call."""
    for setter, owner, name, replacement in late_calls():
        if (id(owner), name) not in _patched_late:
            _patched_late[id(owner), name] = owner
            table = owner if setter is operator.setitem else namespace(owner)
            _change(setter, owner, name, table.get(name, _MISSING), replacement())
    if "inspect" in sys.modules:
        sign()


def _patch_imported(_: types.ModuleType) -> None:
    """Patch a module that was just imported, if the layer is still installed."""
    with _lock:
        if _changes:
            _patch_late()


_finder: Final = Finder(LATE_MODULES, _patch_imported)


def _declare_capabilities() -> None:
    for capability in CAPABILITIES:
        functions = getattr(os, capability)
        for original, replacement in list(_replacements.values()):
            if original in functions and replacement not in functions:
                functions.add(replacement)
                _declared.append((functions, replacement))


def _undeclare(functions: set[object], replacement: object) -> None:
    functions.discard(replacement)


# --- references taken before ---------------------------------------------------------------------------


def _search(found: list[Candidate]) -> Search | None:
    """Search for other holders of the originals. None if no module was imported since the last search."""
    if all(_seen.get(module) is not None or _is_left_alone(key) for key, module in modules()):
        return None
    sought = [one for one in found if not isinstance(one.owner, type)]
    return Search((one.original for one in sought), chain((one.original for one in found), held_originals()))


def _rebind(table: dict[int, Any], *, in_depth: bool) -> None:
    """Replace references in other modules: in globals and, if ``in_depth``, in classes and default arguments.

    Objects are compared by identity, and no attribute of any object is accessed, so lazy modules and settings
    are not triggered.
    """
    sought = Sought(table)
    for key, module in modules():
        if _is_left_alone(key):
            continue
        before, found = len(_changes), _seen.get(module)
        if sought.is_in(contents(module)):
            _rebind_names(module, table)
        if found or (found is None and in_depth) or key in IN_DEPTH:
            _rebind_in_depth(key, module, table)
        _seen[module] = bool(found) or len(_changes) > before


def _rebind_names(module: types.ModuleType, table: dict[int, Any]) -> None:
    for name, value in list(namespace(module).items()):
        if id(value) in table:
            _change(setattr, module, name, value, table[id(value)])


def _rebind_in_depth(key: str, module: types.ModuleType, table: dict[int, Any]) -> None:
    for value in list(namespace(module).values()):
        if type(value) is types.FunctionType:
            if value.__defaults__ or value.__kwdefaults__:
                _rebind_function(value, table)
        elif type(value) in (type, abc.ABCMeta) and value.__module__ == key:
            _rebind_class(value, table)


def _referring(objects: list[Any]) -> list[dict[Any, Any]]:
    """The dicts that hold one of ``objects``, such as a table of openers."""
    holders = gc.get_referrers(*objects) if objects else []
    return [holder for holder in holders if type(holder) is dict and _is_table(holder)]


def _is_table(holder: dict[Any, Any]) -> bool:
    """Whether ``holder`` is not a namespace. Those are handled elsewhere, or left alone."""
    return _NAMESPACE_KEYS.isdisjoint(holder)


def _rebind_tables(holders: list[dict[Any, Any]], table: dict[int, Any]) -> None:
    for holder in holders:
        for key, value in list(holder.items()):
            if id(value) in table:
                _change(operator.setitem, holder, key, value, table[id(value)])


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
    """Make classes that were derived from an original derive from its replacement."""
    for original, replacement in list(_replacements.values()):
        if not isinstance(original, type):
            continue
        derivatives: list[type] = type.__subclasses__(original)
        for derived in derivatives:
            if derived is not replacement:
                bases = tuple(replacement if base is original else base for base in derived.__bases__)
                with suppress(TypeError):  # incompatible memory layouts: such a class stays unchanged
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
