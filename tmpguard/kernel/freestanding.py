"""Runs modules of tmpguard in a fresh interpreter that imports nothing else of it.

The interpreter starts with ``-I -S``, so neither the application's environment nor its packages have a say
in it. It reads the modules' code and its orders from a descriptor, makes the modules in the given order, and
calls ``main`` of the last one with the orders. Such a module may import the standard library and those before
it.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.errors import NotPermitted
from tmpguard.core.layout import SOURCE_ROOT

from .descriptors import raised

#: Makes the modules, their packages first, and calls the last one's ``main``.
_BOOT: Final = """\
import marshal, sys
with open({}, "rb") as file:
    modules = marshal.load(file)
    orders = marshal.load(file)
for name, code in modules:
    module = sys.modules[name] = type(sys)(name)
    package, _, last = name.rpartition(".")
    if package:
        setattr(sys.modules[package], last, module)
    if code is None:
        module.__path__ = []
    else:
        module.__package__ = package
        exec(code, module.__dict__)
module.main(orders)
"""


def command(interpreter: str, descriptor: int) -> list[str]:
    """The command that runs what :func:`loaded` has put into ``descriptor``."""
    return [interpreter, "-I", "-S", "-B", "-c", _BOOT.format(descriptor)]


_code: Final[dict[tuple[str, ...], bytes]] = {}


@contextmanager
def loaded(modules: tuple[str, ...], orders: Mapping[str, Any]) -> Iterator[int]:
    """An in-memory file with the code of ``modules`` and the orders, which have to be built-in types."""
    if modules not in _code:
        packages = dict.fromkeys(package for name in modules for package in _packages(name))
        code = [(package, None) for package in packages] + [(name, _code_of(name)) for name in modules]
        _code[modules] = marshal.dumps(code)
    descriptor = raised(os.memfd_create("tmpguard", os.MFD_CLOEXEC))
    try:
        with originals.open(descriptor, "wb", closefd=False) as file:
            file.write(_code[modules] + marshal.dumps(dict(orders)))
        originals.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        originals.close(descriptor)


def _packages(name: str) -> list[str]:
    """The packages that contain the module, outer ones first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _code_of(name: str) -> Any:
    # Find it by path alone: pytest installs an import hook whose loader returns no code.
    spec = PathFinder.find_spec(name, [os.path.join(os.path.dirname(SOURCE_ROOT), *name.split(".")[:-1])])
    assert spec is not None
    loader: Any = spec.loader
    return loader.get_code(name)


def find_interpreter() -> str:
    """The interpreter that runs this, not a virtual environment's link to it. Raises NotPermitted."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [getattr(sys, "_base_executable", None), sys.executable]
    candidates.append(os.path.join(sys.base_exec_prefix, "bin", name))
    for path in candidates:
        # In an embedded Python these may name the server that embeds it.
        if path and os.path.basename(path).startswith("python") and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise NotPermitted(
        f"there is no interpreter to start children with: sys.executable is {sys.executable!r}"
    )
