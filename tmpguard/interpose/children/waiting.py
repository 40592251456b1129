"""The functions that wait for child processes. They charge what the children have written (C3.5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from tmpguard.interpose.wrapper import Wrapper

from .accounts import ended, watched


class Waiting(Wrapper):
    """A function that waits for children.

    It works in any thread, because a watcher's thread may belong to no invocation.
    """

    def __init__(self, original: Callable[..., Any], public: str, process_of: Callable[[Any], int]) -> None:
        super().__init__(original, original, public)
        # Kept on the instance: children are also waited for at interpreter exit, when modules are empty.
        self._watched = watched
        self._ended = ended
        self._process_of = process_of
        self._takes_process = public in ("os.waitpid", "os.wait4")

    def __call__(self, /, *args: object, **kwargs: object) -> Any:
        if not self._watched:
            return self._original(*args, **kwargs)
        try:
            result = self._original(*args, **kwargs)
        except ChildProcessError:
            if self._takes_process and args:
                self._ended(cast(int, args[0]))  # other code has already waited for it
            raise
        process = self._process_of(result)
        if process:
            self._ended(process)
        return result


def _of_status(result: tuple[int, ...]) -> int:
    process, status = result[:2]
    return 0 if os.WIFSTOPPED(status) or os.WIFCONTINUED(status) else process


def _of_waitid(result: os.waitid_result | None) -> int:
    return result.si_pid if result is not None and result.si_code in _OVER else 0


_OVER = tuple(getattr(os, name) for name in ("CLD_EXITED", "CLD_KILLED", "CLD_DUMPED") if hasattr(os, name))


def waitpid(original: Callable[..., Any]) -> Waiting:
    """:func:`os.waitpid`."""
    return Waiting(original, "os.waitpid", _of_status)


def wait(original: Callable[..., Any]) -> Waiting:
    """:func:`os.wait`."""
    return Waiting(original, "os.wait", _of_status)


def wait3(original: Callable[..., Any]) -> Waiting:
    """:func:`os.wait3`."""
    return Waiting(original, "os.wait3", _of_status)


def wait4(original: Callable[..., Any]) -> Waiting:
    """:func:`os.wait4`."""
    return Waiting(original, "os.wait4", _of_status)


def waitid(original: Callable[..., Any]) -> Waiting:
    """:func:`os.waitid`."""
    return Waiting(original, "os.waitid", _of_waitid)
