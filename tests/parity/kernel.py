"""Runs functions on the kernel set-up that the contract takes as its reference.

That is a process in a mount namespace of its own: everything read-only, by ``mount_setattr(2)``, and a tmpfs
of 1 MiB on ``/tmp``. The child is the same interpreter. It imports what it needs before ``/tmp`` is covered,
since the interpreter may lie there, and gets the code to run as text on its standard input.

Linux only. Where namespaces are not permitted the tests that need them are skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.parity import mounting

TMPFS_BYTES = 1 << 20

#: How long one call may take, in seconds: far more than any does, so that one that hangs is told.
PATIENCE = 30

CHILD = r"""
import json, sys, types

job = json.loads(sys.stdin.readline())
for name, source in job["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
mounting = sys.modules["tests.parity.mounting"]
mounting.enter_namespace()
mounting.make_read_only()
getattr(module, "prepare", lambda: None)()
tmp = mounting.Tmp(job["size"], job["bundle"], job["files"])
if job["user"]:
    mounting.become(job["user"])
mounting.answer(tmp.make, vars(module))
"""


class NoAnswer(AssertionError):
    """A child hung or died."""


class Child:
    """An interpreter that answers calls. ``job`` is the first line that it gets."""

    def __init__(self, arguments: Sequence[str], job: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._send(job)

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it died of is told when the answer is missing
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def ask(self, function: str, *arguments: object) -> None:
        """Have ``function(*arguments)`` called, from a fresh ``/tmp``."""
        self._send([function, arguments])

    def answer(self) -> Any:
        """What the call gave, from JSON. Skips the test where the machine permits no namespace."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise NoAnswer(f"no answer within {PATIENCE} seconds")
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read().strip()
        if code == mounting.NOT_PERMITTED:
            pytest.skip(f"no read-only root with a tmpfs here: {errors}")
        raise NoAnswer(f"the child ended with {code}: {errors}")

    def call(self, function: str, *arguments: object) -> Any:
        self.ask(function, *arguments)
        return self.answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def child(modules: Sequence[ModuleType], bundle: str = "", files: int = 0, user: int = 0) -> Child:
    """A child on the kernel's set-up that answers calls of the functions of the last of ``modules``.

    The modules may import the standard library and those before them. ``bundle`` is mounted on
    ``/tmp/package``. A function ``prepare`` of theirs is called at first. Each call starts from an empty
    ``/tmp``, which holds as many ``files`` (0: any number). It runs as ``user``, if that is not 0.
    """
    job = {
        "modules": [(module.__name__, inspect.getsource(module)) for module in (mounting, *modules)],
        "size": TMPFS_BYTES,
        "bundle": bundle,
        "files": files,
        "user": user,
    }
    return Child(["-I", "-S", "-B", "-c", CHILD], job)


@contextlib.contextmanager
def closing(child: Child) -> Iterator[Child]:
    try:
        yield child
    finally:
        child.close()


def run(modules: Sequence[ModuleType], function: str, *arguments: object, bundle: str = "") -> Any:
    """What ``function(*arguments)`` of the last of ``modules`` returns on the kernel's set-up."""
    with closing(child(modules, bundle)) as started:
        return started.call(function, *arguments)
