"""What ``_speedups.c`` has and ``speedups.py`` does not declare; the rest is declared there."""

from collections.abc import Callable
from typing import Any

REVISION: int

def __getattr__(name: str) -> Any: ...

class Quick:
    """A wrapper of ``os.stat``, ``os.lstat`` or ``io.open``, by its ``public`` name.

    Outside an invocation, and for a path that is cached, it calls ``original``. Otherwise it calls ``within``
    with itself and the arguments.
    """

    def __init__(self, original: Callable[..., Any], within: Callable[..., Any], public: str, /) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
