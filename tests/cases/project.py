"""A deployed project of a test: its files, and what its start and its requests were refused."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import tmpguard

#: Marks the line of an application that a violation has to name.
MARK = "  # <--"


class Project:
    """A directory with an application in it, which is the bundle of ``guard``, 1 MB of storage."""

    def __init__(self, directory: Path, scratch_root: Path) -> None:
        self.directory = directory
        self.scratch_root = scratch_root
        self.reports: list[tmpguard.Report] = []
        self._marked: tuple[str, int] | None = None
        self._guard: tmpguard.Guard | None = None

    @property
    def guard(self) -> tmpguard.Guard:
        if self._guard is None:
            self._guard = tmpguard.Guard(
                bundle=self.directory,
                scratch_root=self.scratch_root,
                storage_size=1,
                on_report=self.reports.append,
            )
        return self._guard

    def write(self, name: str, source: str, directory: Path | None = None) -> Path:
        """Add a file; the line with the mark is the one that violations have to name."""
        path = (directory or self.directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for number, line in enumerate(source.splitlines(), 1):
            if line.endswith(MARK):
                self._marked = (str(path), number)
        return path

    def load(self, name: str) -> ModuleType:
        """Import a module of the project without a guard: what it does at import is no matter of the test."""
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def start(self, name: str) -> BaseException | None:
        """Import a module in a cold start; the exception that it failed with."""
        importlib.invalidate_caches()
        try:
            with tmpguard.cold_start(guard=self.guard):
                importlib.import_module(name)
        except Exception as exc:
            return exc
        return None

    def violations(self) -> list[tmpguard.Violation]:
        """All violations so far, of all invocations that are over."""
        assert tmpguard.drain(30)
        return [violation for report in self.reports for violation in report.violations]

    def finding(self, operation: str, path: Any, code: int) -> tmpguard.Violation:
        """The one violation, which has to be this and to name the marked line."""
        (violation,) = self.violations()
        return self.named(violation, operation, path, code)

    def named(
        self, violation: tmpguard.Violation, operation: str, path: Any, code: int
    ) -> tmpguard.Violation:
        assert (violation.operation, violation.path, violation.errno) == (operation, str(path), code)
        assert violation.location is not None
        assert (violation.location.file, violation.location.line) == self._marked
        return violation


def forget(directory: Path, before: set[str]) -> None:
    """Forget the modules that were imported from below ``directory`` since ``before``."""
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{directory}/"):
            del sys.modules[name]
