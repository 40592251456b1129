"""The functions that wait for child processes. They charge what the children have written (C3.5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tmpguard.core import originals
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

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if not self._watched:
            return self._original(*args, **kwargs)
        try:
            result = self._original(*args, **kwargs)
        except ChildProcessError:
            if self._takes_process and args:
                self._ended(args[0])  # other code has already waited for it
            raise
        process = self._process_of(result)
        if process:
            self._ended(process)
        return result


def _of_status(result: Any) -> int:
    process, status = result[:2]
    return 0 if os.WIFSTOPPED(status) or os.WIFCONTINUED(status) else process


def _of_waitid(result: Any) -> int:
    return result.si_pid if result is not None and result.si_code in _OVER else 0


_OVER = tuple(getattr(os, name) for name in ("CLD_EXITED", "CLD_KILLED", "CLD_DUMPED") if hasattr(os, name))


def _waiting(name: str, process_of: Callable[[Any], int] = _of_status) -> Waiting | None:
    original = getattr(originals, name)
    return None if original is None else Waiting(original, f"os.{name}", process_of)


waitpid = _waiting("waitpid")
wait = _waiting("wait")
wait3 = _waiting("wait3")
wait4 = _waiting("wait4")
waitid = _waiting("waitid", _of_waitid)
