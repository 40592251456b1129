"""Runs functions on the kernel set-up that is the reference of the contract.

This is a child process in its own mount namespace: everything is read-only (``mount_setattr(2)``), with a
tmpfs of 1 MiB on ``/tmp``. The child runs the same interpreter. It imports all modules before ``/tmp`` is
covered, because the interpreter may be there, and receives the code to run as text on its standard input.

Linux only. If namespaces are not permitted, the tests that need them are skipped with the reason.
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

#: The time limit of one call in seconds. It only serves to report calls that hang.
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
    """An interpreter that answers calls. ``job`` is the first line of its input."""

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
        with contextlib.suppress(BrokenPipeError):  # answer() reports why it died
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def ask(self, function: str, *arguments: object) -> None:
        """Request a call of ``function(*arguments)`` with a fresh ``/tmp``."""
        self._send([function, arguments])

    def answer(self) -> Any:
        """The result of the call. Skips the test if namespaces are not permitted."""
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
    """A child on the kernel's set-up. It answers calls of the functions in the last of ``modules``.

    Each module may import the standard library and the modules before it. The function ``prepare``, if the
    last one has it, is called once. ``bundle`` is mounted on ``/tmp/package``. Each call starts with an empty
    ``/tmp`` that has room for ``files`` files (0: no limit). ``user`` is the user id to run as (0: the
    current one).
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
