"""Runs in a foreign suite's process: carries out the way to run it, and records what becomes of each test.

``plain``: without tmpguard. ``installed``: a guard is built and its layer is in use, but no invocation is
current. ``requests``: also, each request of the framework's own test client is an invocation. ``each``: each
test is an invocation, with its own directories for temporary files in ``/tmp``. ``whole``: the whole run is
one invocation.
"""

from __future__ import annotations

import json
import logging
import os
import posix
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

JOB = json.loads(os.environ["FOREIGN_JOB"])
WAY = JOB["way"]

#: The directory for temporary files outside of the tests.
SHARED = os.environ["TMPDIR"]

#: Only these tests, if there are any.
WANTED = frozenset(JOB["wanted"])


def stable(test: str) -> str:
    """The id of a test without the path of this run, which some have in their parameters."""
    return test.replace(JOB["place"], "PLACE")


class Recorder:
    """Writes a line of JSON for each outcome, at once: the process may not live to the end.

    By a function of ``posix`` that only this object holds: the suites replace those of ``os``.
    """

    def __init__(self) -> None:
        self._write = posix.write
        self._getpid = posix.getpid
        self._descriptor = posix.open(JOB["record"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._process = posix.getpid()

    def tell(self, test: str, outcome: str, message: str = "") -> None:
        if self._getpid() == self._process:  # and not a forked child that came out of its test
            line = json.dumps({"id": stable(test), "outcome": outcome, "message": message[-4000:]})
            self._write(self._descriptor, line.encode() + b"\n")


RECORDER = Recorder()


def make_guard(**options: Any) -> Any:
    """A guard that allows what the suite itself is: it writes to its own directory and the one for its
    temporary files, where that is not /tmp."""
    import tmpguard

    # It would log each refusal, and the suites look at what is logged.
    logging.getLogger("tmpguard").disabled = True
    return tmpguard.Guard(
        storage_size=2048,
        plan="enterprise",
        platform="genezio",
        bundle=None,
        ignore=None,
        writable=JOB["writable"],
        scratch_root=JOB["scratch"],
        **options,
    )


class Layer:
    """What is put around the suite, by the way to run it."""

    def __init__(self) -> None:
        self._guard: Any = None

    def start(self) -> None:
        """Before the suite's modules are imported."""
        if WAY == "plain":
            return
        self._guard = make_guard(children="contain" if WAY in ("each", "whole") else "allow")
        with self._guard.invocation():
            os.path.exists("/tmp/first")  # arms the audit hook, which stays
        if WAY == "whole":
            self._guard.invocation().__enter__()  # ends with the process
            tempfile.tempdir = os.environ["TMPDIR"] = "/tmp"
        if WAY == "requests":
            HOOKS[JOB["framework"]](self._guard)

    @contextmanager
    def test(self) -> Iterator[None]:
        """Around each test, the setting up of its own things included."""
        if WAY != "each":
            yield
            return
        with self._guard.invocation(), _temporary_directory("/tmp"):
            yield


@contextmanager
def outside() -> Iterator[None]:
    """Around what several tests share."""
    if WAY != "each":
        yield
        return
    from tmpguard.core.context import unguarded

    with unguarded(), _temporary_directory(SHARED):
        yield


@contextmanager
def _temporary_directory(path: str) -> Iterator[None]:
    """Those of a test go to /tmp; those that several tests share go where all of these see them."""
    before, before_there = tempfile.tempdir, os.environ["TMPDIR"]
    tempfile.tempdir = os.environ["TMPDIR"] = path
    try:
        yield
    finally:
        tempfile.tempdir, os.environ["TMPDIR"] = before, before_there


def _starlette(guard: Any) -> None:
    from starlette import testclient

    from tmpguard.asgi import TmpGuardMiddleware

    transport: Any = testclient._TestClientTransport
    before = transport.__init__

    def __init__(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        before(self, TmpGuardMiddleware(app, guard=guard), *args, **kwargs)

    transport.__init__ = __init__


def _werkzeug(guard: Any) -> None:
    from werkzeug import test

    from tmpguard.wsgi import TmpGuardMiddleware

    before = test.run_wsgi_app

    def run_wsgi_app(app: Any, *args: Any, **kwargs: Any) -> Any:
        return before(TmpGuardMiddleware(app, guard=guard), *args, **kwargs)

    test.run_wsgi_app = run_wsgi_app


def _django(guard: Any) -> None:
    from django.core.handlers.base import BaseHandler
    from django.test import override_settings

    before: Any = BaseHandler.load_middleware

    def load_middleware(self: Any, is_async: bool = False) -> None:
        from tmpguard.django import TmpGuardMiddleware

        before(self, is_async)
        with override_settings(TMPGUARD={"guard": guard}):
            self._middleware_chain = TmpGuardMiddleware(self._middleware_chain)

    BaseHandler.load_middleware = load_middleware  # type: ignore[method-assign]


#: Have each request of a framework's test client be an invocation.
HOOKS: dict[str, Callable[[Any], None]] = {
    "starlette": _starlette,
    "flask": _werkzeug,
    "werkzeug": _werkzeug,
    "django": _django,
}

LAYER = Layer()
