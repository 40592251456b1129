"""The credit of a quota: the bytes that are known to still fit, and the steps that change it.

A finalizer or a signal handler may run at any point, and a signal may raise an exception at any point. So
everything that takes several statements is a :func:`step`, and whatever runs in the middle of one can see
that. If a step finds that its figures were overtaken, or if it is interrupted, the credit is in doubt: then
the disk is measured before anything else is charged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from tmpguard.core import real

from .native_writers import Exposed

C = TypeVar("C", bound="Credit")
P = ParamSpec("P")
T = TypeVar("T")

#: How often a step is worked out again because a signal handler or a finalizer came in between.
TRIES: Final = 20


def step(body: Callable[Concatenate[C, P], T]) -> Callable[Concatenate[C, P], T]:
    """A method that runs with the lock held and the credit shown, after what native code has written
    meanwhile was charged."""

    @wraps(body)
    def stepped(self: Any, /, *args: Any) -> Any:  # without keywords, which take time
        with self.lock:
            self.stamp += 1
            thread = real.get_ident()
            if self._stepping == thread:
                return body(self, *args)  # type: ignore[call-arg]  # within another step of this thread
            if self._stepping:  # a thread was in the middle of one when this process was forked
                self._stepping = 0
                self.doubt()
            try:
                self._stepping = thread
                if self._veiled:
                    self._unveil()
                return body(self, *args)  # type: ignore[call-arg]
            except OSError:
                raise
            except BaseException:
                self._doubtful = True
                raise
            finally:
                self._stepping = 0
                if self._exposed or self._doubtful:
                    self._veil()

    return cast("Callable[Concatenate[C, P], T]", stepped)


class Credit:
    """The bytes that are known to still fit. Thread-safe; ``lock`` is held during each charged write."""

    __slots__ = (
        "_doubtful",
        "_exposed",
        "_stepping",
        "_veiled",
        "_withheld",
        "credit",
        "cuts",
        "limit",
        "lock",
        "stamp",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.credit = limit
        # Re-entrant: a garbage collection may flush a forgotten file of the same invocation.
        self.lock = real.RLock()
        #: Incremented by each step. To detect interference, compare it before and after.
        self.stamp = 0
        #: How often a file was cut, or may have been: the last page of any file may be gone.
        self.cuts = 0
        #: The thread that is within a step; 0 for none.
        self._stepping = 0
        # Was a step interrupted or overtaken? Then the credit means nothing until the disk was measured.
        self._doubtful = False
        #: By inode, the files that native code may be writing to.
        self._exposed: dict[int, Exposed] = {}
        # While there are any, or while the credit is in doubt, it is withheld: then nothing fits, so whatever
        # is charged becomes a step.
        self._withheld = 0
        self._veiled = False

    @property
    def balance(self) -> int:
        """The credit, whether it is withheld or not."""
        return self.credit + self._withheld

    def doubt(self) -> None:
        """Something changed while the credit was being worked out: measure before it is used again."""
        self._doubtful = True
        if not self._stepping:
            self._veil()

    def _veil(self) -> None:
        if not self._veiled:
            # Negative, so that even a write that costs nothing does not fit.
            self.credit, self._withheld, self._veiled = -1, self.credit + self._withheld + 1, True

    def _unveil(self) -> None:
        self.credit, self._withheld, self._veiled = self.credit + self._withheld, 0, False
        self._catch_up()

    def _catch_up(self) -> None:
        """Make the credit exact again after it was withheld."""
        raise NotImplementedError
