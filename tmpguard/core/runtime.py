"""The machine and the interpreter that tmpguard runs on: Linux, and CPython with its global lock."""

from __future__ import annotations

import sys

from .errors import ConfigurationError


def check() -> None:
    """Raise ConfigurationError if no guard can work here. The message says what to do about it."""
    if problem := _problem():
        raise ConfigurationError(f"tmpguard needs {problem}")


def _problem() -> str | None:
    # In a variable, so that the type checker checks both branches on every platform.
    system = sys.platform
    if system != "linux":
        return f"Linux, and this is {system}: run the application or its tests in a Linux container"
    if sys.implementation.name != "cpython":
        return f"CPython, whose functions it replaces, and this is {sys.implementation.name}"
    # Checks that span two steps (the quota's credit, who ends an invocation) rely on the lock, and files are
    # closed when the last reference to them is dropped.
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return (
            "the global interpreter lock, and this interpreter runs without it: "
            "start it with PYTHON_GIL=1 in the environment, or with -X gil=1"
        )
    return None
