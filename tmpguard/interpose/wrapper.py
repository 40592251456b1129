"""The callable objects that replace the standard library's functions.

A wrapper is an object, not a function, so it does not bind when it is stored as a class attribute. It
compares and hashes as the original, so it is found in ``os.supports_dir_fd`` and similar sets. It has the
original's name, documentation and signature (C7.2). Without an invocation, it calls the original at once.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable
from importlib import import_module
from types import BuiltinFunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from tmpguard.core.errors import shorten
from tmpguard.core.invocation import Invocation, get_current, redirecting
from tmpguard.core.mounts.known import forget
from tmpguard.core.speedups import extension
from tmpguard.core.storage import outlived

from .given import is_descriptor
from .watching.calls import Watched, plainly

if TYPE_CHECKING:
    from inspect import Signature  # slow to import, and nothing but itself asks for signatures


class Wrapper:
    """Calls ``original`` outside an invocation and ``guarded(invocation, ...)`` within one.

    Within an invocation that only watches, ``watched`` calls the original (C2.5).
    """

    def __init__(
        self,
        original: Callable[..., Any],
        guarded: Callable[..., Any],
        public: str,
        watched: Watched = plainly,
    ) -> None:
        self._original = original
        self._guarded = guarded
        self._watch = watched
        self._public = public
        _impersonate(self, original, public)

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        invocation = get_current()
        if invocation is None:
            return self._original(*args, **kwargs)
        if invocation.watches:
            return self._call_watched(invocation, args, kwargs)
        try:
            return self._guarded(invocation, *args, **kwargs)
        except FileNotFoundError:
            if not invocation.mounted.mend():
                raise
        except OSError as exc:
            shorten(exc)
            raise
        return self._guarded(invocation, *args, **kwargs)

    def _call_watched(
        self, invocation: Invocation, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Any:
        try:
            return self._watch(invocation, self._original, args, kwargs)
        except OSError as exc:
            shorten(exc)
            raise

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # isinstance() must still recognize a builtin function. A Python function would bind.
        kind = type(self._original)
        return kind if kind is BuiltinFunctionType else Wrapper

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Wrapper):
            return bool(self._original == other._original)
        return bool(self._original == other)

    def __hash__(self) -> int:
        return hash(self._original)

    def __repr__(self) -> str:
        return repr(self._original)

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":
            return _signature(self._original)
        if name.startswith("_") and not name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._original, name)

    def __reduce__(self) -> Reduced:
        return as_global(self, self.__module__, self._public.rpartition(".")[2])


#: The position of the argument with the descriptor through which each call changes a file.
_CHANGED: Final = {
    **dict.fromkeys(
        (
            *("os.write", "os.writev", "os.pwrite", "os.pwritev", "os.ftruncate", "os.truncate"),
            *("os.posix_fallocate", "os.sendfile", "os.fchmod", "os.fchown", "os.chmod", "os.chown"),
            *("os.utime", "os.setxattr", "os.removexattr"),
        ),
        0,
    ),
    "os.copy_file_range": 1,
    "os.splice": 1,
}


class NumberWrapper(Wrapper):
    """A wrapper of a call whose first arguments may be descriptor numbers of any type."""

    def __init__(
        self,
        original: Callable[..., Any],
        guarded: Callable[..., Any],
        public: str,
        watched: Watched,
        numbers: int,
    ) -> None:
        super().__init__(original, guarded, public, watched)
        self._numbers = numbers
        self._changed = _CHANGED.get(public, -1)

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        invocation = get_current()
        if outlived.known and 0 <= self._changed < len(args):
            descriptor = args[self._changed]
            if type(descriptor) is int and (late := outlived.find(descriptor)) is not None:
                raise late.invocation.stale(self._public, late.name)
        if invocation is None:
            return self._original(*args, **kwargs)
        if invocation.watches:
            return self._call_watched(invocation, args, kwargs)
        for position, value in enumerate(args[: self._numbers]):
            # A bool is left as it is: since 3.13 the originals warn about it.
            if type(value) not in (int, str, bool) and is_descriptor(value):
                number = operator.index(value)  # type: ignore[arg-type]
                args = (*args[:position], number, *args[position + 1 :])
        try:
            return self._guarded(invocation, *args, **kwargs)
        except FileNotFoundError:
            if not invocation.mounted.mend():
                raise
        except OSError as exc:
            shorten(exc)
            raise
        return self._guarded(invocation, *args, **kwargs)


class ForgettingWrapper(NumberWrapper):
    """A wrapper of a call that may make the guards' caches wrong.

    It may replace a directory with a symlink, or change the process's working directory. Outside an
    invocation, and in one that only watches, the caches are cleared after the call.
    """

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        if redirecting() is not None:
            return super().__call__(*args, **kwargs)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            forget()


def beside(
    original: Callable[..., Any],
    within: Callable[..., Any],
    public: str,
    watched: Watched,
    *,
    method: bool,
) -> Any:
    """Wrap ``original``, which another library has put in place: within an invocation, call ``within``."""
    if not method:
        return Wrapper(original, lambda _, *args, **options: within(*args, **options), public, watched)

    @functools.wraps(original)
    def chosen(*args: object, **options: object) -> Any:
        return (original if redirecting() is None else within)(*args, **options)

    return chosen


def is_quick(value: object) -> TypeGuard[MethodType]:
    """Whether ``value`` is a wrapper made by :func:`quick`."""
    return type(value) is MethodType and type(value.__self__) is _Receiver


class _Receiver:
    """The receiver of a :func:`quick` wrapper. It lets pickle and copy find the function."""

    def __init__(self, public: str) -> None:
        self._module = public.rpartition(".")[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self._module), name)  # copy rebuilds a bound method by name

    def __deepcopy__(self, memo: object) -> _Receiver:
        return self

    def __reduce__(self) -> Reduced:
        from pkgutil import resolve_name

        return resolve_name, (self._module,)


def quick(original: Callable[..., Any], function: Callable[..., Any], public: str) -> Any:
    """A wrapper for calls that take a microsecond, for which calling a Wrapper object is too slow.

    ``function`` takes a receiver, which it ignores, and gets the invocation itself. With the extension, the
    wrapper is an object that calls ``function`` only if the path is not cached. Without it, the wrapper is a
    bound method: the interpreter calls it without leaving its loop, and it does not bind again. It cannot
    compare equal to the original, so the installation adds it to ``os.supports_dir_fd`` and similar sets.
    """
    if extension is not None:
        return _QuickWrapper(original, function, public)
    _impersonate(function, original, public)
    function.__annotations__ = {}
    unsigned.append([function, original])
    return MethodType(function, _Receiver(public))


if extension is not None:

    class _QuickWrapper(extension.Quick, Wrapper):  # type: ignore[misc]
        """A wrapper whose call is in C."""

        def __init__(self, original: Callable[..., Any], function: Callable[..., Any], public: str) -> None:
            extension.Quick.__init__(self, original, function, public)
            self._public = public
            _impersonate(self, original, public)
            compiled.append(self)


#: The quick wrappers in C. Each holds its original once.
compiled: Final[list[Any]] = []

#: The functions of the quick wrappers that have no signature yet, with their originals.
unsigned: Final[list[list[Any]]] = []


def sign() -> None:
    """Give the quick wrappers their signatures, for :mod:`inspect`, which has been imported."""
    if unsigned:
        from .signatures import Lent

        while unsigned:
            function, original = unsigned.pop()
            function.__signature__ = Lent(original)


class Told(type):
    """The metaclass of a class that replaces one in C and is called ``told`` in error messages.

    Error messages show a class in C with its module, ``mmap.mmap``, and a class in Python by its name alone.
    So its internal name contains the module; ``__name__`` returns the last part (C7.2).
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], told: str = "", **options: Any
    ) -> Any:
        if not told:  # a derived class
            return super().__new__(cls, name, bases, namespace, **options)
        module, _, name = told.rpartition(".")
        return super().__new__(cls, told, bases, {**namespace, "__module__": module, "__qualname__": name})

    def __init__(cls, *args: Any, told: str = "", **options: Any) -> None:
        super().__init__(*args, **options)

    @property
    def __name__(cls) -> str:
        whole: str = _NAME.__get__(cls)
        return whole.removeprefix(f"{cls.__module__}.")

    @__name__.setter
    def __name__(cls, name: str) -> None:
        _NAME.__set__(cls, name)


_NAME: Final[Any] = type.__dict__["__name__"]


class StandIn(Told):
    """The metaclass of a class that replaces one of the standard library, its ``original``.

    Instances of the original are instances of the new class as well. Derived classes are ordinary.
    """

    original: type

    def __instancecheck__(cls, instance: object) -> bool:
        if "original" in vars(cls):
            return isinstance(instance, cls.original)
        return super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "original" in vars(cls):
            return issubclass(subclass, cls.original)
        return super().__subclasscheck__(subclass)


def _impersonate(wrapper: object, original: Callable[..., Any], public: str) -> None:
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(wrapper, name, getattr(original, name, None))
    if getattr(original, "__module__", None) in _PRIVATE:
        # That module still has the original, so pickle would find it instead of the wrapper.
        wrapper.__module__ = public.rpartition(".")[0]


#: C modules that are not patched. Their functions are replaced in the public modules that re-export them.
_PRIVATE: Final = frozenset({"posix", "_io"})


def _signature(original: Callable[..., Any]) -> Signature:
    import inspect

    try:
        return inspect.signature(original)
    except ValueError as exc:
        raise AttributeError("__signature__") from exc


#: What ``__reduce__`` returns: the name of a global, or a function and its arguments.
Reduced = str | tuple[Callable[..., Any], tuple[str]]


def as_global(value: object, module: str, name: str) -> Reduced:
    """Pickle ``value`` as the global ``name`` of ``module``: no wrapper is needed to read the pickle.

    If that name refers to another object, ``value`` is pickled as whatever has this name at load time.
    """
    if getattr(sys.modules.get(module), name, None) is value:
        return name
    from pkgutil import resolve_name

    return resolve_name, (f"{module}:{name}",)
