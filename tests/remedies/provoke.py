"""The register of provocations: one function for each row of the table, by the row's name.

Each prepares what is needed and returns the step that is then run within an invocation: its bundle and
working directory is the project directory, and the home directory is read-only. The step may raise.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Step = Callable[[], object]
Provocation = Callable[["Places"], Step]

PROVOCATIONS: dict[str, Provocation] = {}


class Places:
    """The directories of a test: the project, the home directory, and where packages are installed."""

    def __init__(self, directory: Path) -> None:
        self.project = directory / "project"
        self.home = directory / "home"
        self.packages = directory / "venv/lib/python3/site-packages"
        for path in (self.project, self.home / ".cache", self.home / ".config", self.home / ".local/share"):
            path.mkdir(parents=True)
        self.packages.mkdir(parents=True)

    def library(self, name: str, source: str) -> ModuleType:
        """Import a module of an installed package that does what ``source`` says.

        It stands for a library that is too large to be installed for the tests, and reaches its files alike.
        """
        *packages, last = name.split(".")
        directory = self.packages
        for package in packages:
            directory /= package
            directory.mkdir(exist_ok=True)
            (directory / "__init__.py").touch()
        (directory / f"{last}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)


def provokes(name: str) -> Callable[[Provocation], Provocation]:
    """Registers the provocation of the row ``name``."""

    def register(function: Provocation) -> Provocation:
        assert name not in PROVOCATIONS, name
        PROVOCATIONS[name] = function
        return function

    return register
