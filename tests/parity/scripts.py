"""Runs a script: a list of calls with their slots, paths and sizes.

This runs in both places: in an invocation, and in a child process on the kernel's set-up. The child receives
this file as text, so it only imports the standard library and the other files that the child receives.
"""

from __future__ import annotations

import codecs
import importlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.archives import MEMBERS  # noqa: F401 - adds its calls
from tests.parity.further import TREES  # noqa: F401 - adds its calls
from tests.parity.handles import CALLS
from tests.parity.names import LOOKS  # noqa: F401 - adds its calls
from tests.parity.newer import INFOS  # noqa: F401 - adds its calls
from tests.parity.places import make_tmp
from tests.parity.session import NotTried, Session, told, told_error, told_tree
from tests.parity.trees import METHODS  # noqa: F401 - adds its calls

#: One call: its name and its arguments.
Call = list[Any]

#: The result or the error of a call, and the space in use and free afterwards.
Outcome = list[Any]


class _Names:
    """The random names of :mod:`tempfile`, the same in both places."""

    def __init__(self) -> None:
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number += 1
        return f"name{self._number}"


def load() -> None:
    """Import now what is otherwise imported on demand: another user may not be able to read it."""
    for encoding in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(encoding)
    for module in ("grp", "pwd", "zlib", "bz2", "lzma"):
        importlib.import_module(module)


def prepare() -> None:
    """Sort listings. Their order differs between file systems, but results may depend on it."""
    load()
    warnings.simplefilter("ignore")
    list_directory, scan_directory = os.listdir, os.scandir
    os.listdir = lambda path=None: sorted(list_directory(path))  # type: ignore[assignment]
    os.scandir = lambda path=None: _Sorted(scan_directory(path))  # type: ignore[assignment]


class _Sorted:
    """An iterator like the one that :func:`os.scandir` returns."""

    def __init__(self, entries: Any) -> None:
        self._entries = entries
        self._sorted: Iterator[Any] | None = None

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        if self._sorted is None:
            self._sorted = iter(sorted(self._entries, key=lambda entry: entry.name))  # type: ignore[no-any-return]
        return next(self._sorted)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries.close()


def run(
    script: list[Call], project: str, watched: bool, observe: Callable[[], Any] | None = None
) -> list[Outcome]:
    """The outcomes of the calls of ``script`` and of closing open files, and the final contents of ``/tmp``.

    With ``watched``, the space in use is recorded after each call, which makes the guard measure it, and
    otherwise only at the end. The result of ``observe`` after each call is added to its outcome.
    """
    os.umask(0o022)
    os.chdir(project)
    tempfile._name_sequence = _Names()  # type: ignore[attr-defined]
    tempfile.tempdir = "/tmp"  # it is determined once per process, usually before /tmp is full
    session = Session(project)
    outcomes: list[Outcome] = []

    def add(name: str, arguments: list[Any]) -> None:
        outcome: Outcome = [_told_of(session, name, arguments), _usage() if watched else None]
        outcomes.append(outcome if observe is None else [*outcome, observe()])
        session.step += 1

    try:
        for name, *arguments in script:
            add(name, arguments)
        for slot in sorted(session.slots):
            add("close", [slot])
    finally:
        for slot in list(session.slots):
            session.slots.pop(slot)
    outcomes.append([told_tree(), _usage()])
    os.umask(0o022)
    return outcomes


def _told_of(session: Session, name: str, arguments: list[Any]) -> str:
    try:
        if name == "make":
            make_tmp(session.project, links=arguments[0])
            return "made"
        if name == "pid":  # differs between processes: tests the comparison itself
            return str(os.getpid())
        function, _ = CALLS[name]
        return "gives " + told(function(session, *arguments))
    except NotTried as exc:
        return f"not tried: {exc}"
    except Exception as exc:
        return told_error(exc)


def _usage() -> Any:
    return [*shutil.disk_usage("/tmp"), os.statvfs("/tmp").f_ffree]
