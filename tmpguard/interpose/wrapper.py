"""The callable objects that stand where the standard library's functions stood.

A wrapper is an object and no function: stored as a class attribute it does not bind. It compares and hashes
as the original, so that it is found in ``os.supports_dir_fd`` and its like, and it carries the original's
name, module, documentation and signature (C7.2). Its first step is "no invocation: the original".
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from importlib import import_module
from types import BuiltinFunctionType, MethodType
from typing import Any, Final

from tmpguard.core.invocation import get_current


class Wrapper:
    """Calls ``original`` outside an invocation and ``guarded(invocation, ...)`` within one."""

    def __init__(self, original: Callable[..., Any], guarded: Callable[..., Any], public: str) -> None:
        self._original = original
        self._guarded = guarded
        self._public = public
        _impersonate(self, original)

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        invocation = get_current()
        if invocation is None:
            return self._original(*args, **kwargs)
        return self._guarded(invocation, *args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # A builtin function for those who ask whether it is one; a Python function would bind.
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

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _by_name(self._public)


class NumberWrapper(Wrapper):
    """The same for a call whose first arguments may be descriptor numbers, of whatever type."""

    def __init__(
        self, original: Callable[..., Any], guarded: Callable[..., Any], public: str, numbers: int
    ) -> None:
        super().__init__(original, guarded, public)
        self._numbers = numbers

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        invocation = get_current()
        if invocation is None:
            return self._original(*args, **kwargs)
        for position, value in enumerate(args[: self._numbers]):
            # A truth value is left as it is: since 3.13 the originals warn of it.
            if type(value) not in (int, str, bool) and is_descriptor(value):
                number = operator.index(value)  # type: ignore[arg-type]
                args = (*args[:position], number, *args[position + 1 :])
        return self._guarded(invocation, *args, **kwargs)


def is_descriptor(value: object) -> bool:
    """Is ``value`` a descriptor number, of whatever type?"""
    return type(value) is int or hasattr(type(value), "__index__")


class _Receiver:
    """What a :func:`quick` wrapper is bound to: tells pickle and copy what stands behind it."""

    def __init__(self, public: str) -> None:
        self._module = public.rpartition(".")[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self._module), name)  # what copy makes of a bound method

    def __deepcopy__(self, memo: object) -> _Receiver:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _by_name(self._module)


class _WithoutReceiver(inspect.Signature):
    """The original's signature on a function that is only seen as a bound method.

    ``inspect.signature`` takes the bound argument off, ``inspect.getfullargspec`` does not: there is none.
    """

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        every = tuple(self.parameters.values())
        if changes.get("parameters") == every[1:]:
            changes["parameters"] = every
        return super().replace(**changes)


def quick(original: Callable[..., Any], function: Callable[..., Any], public: str) -> MethodType:
    """A wrapper for the calls that take a microsecond, where a call of a Wrapper object would be felt.

    ``function`` takes a receiver that it ignores, asks for the invocation itself, and is handed out as a
    bound method, which the interpreter calls without leaving its loop and which does not bind again.
    It cannot compare equal to the original: the installation adds it to ``os.supports_dir_fd`` and its like.
    """
    _impersonate(function, original)
    parameters = list(inspect.signature(original).parameters.values())
    function.__signature__ = _WithoutReceiver(parameters)  # type: ignore[attr-defined]
    return MethodType(function, _Receiver(public))


class Told(type):
    """The metaclass of a class that bears the name of one in C, and is ``told`` by errors as that one is.

    They tell a class in C by its module and name, ``mmap.mmap``, and one in Python by its name alone. So that
    is what its name consists of, while those who ask for ``__name__`` are given the last part (C7.2).
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], told: str = "", **options: Any
    ) -> Any:
        if not told:  # a class that is derived from it
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
    """The metaclass of a class that stands where one of the standard library's stood.

    What that one, its ``original``, made before is an instance of the new one as well. Classes derived from
    it are ordinary.
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


def _impersonate(wrapper: object, original: Callable[..., Any]) -> None:
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(wrapper, name, getattr(original, name, None))


def _signature(original: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(original)
    except ValueError as exc:
        raise AttributeError("__signature__") from exc


def _by_name(public: str) -> tuple[Callable[..., Any], tuple[str]]:
    """Pickle as "whatever has this name there": a wrapper is never needed to read the pickle."""
    from pkgutil import resolve_name

    module, _, name = public.rpartition(".")
    return resolve_name, (f"{module}:{name}" if module else name,)
