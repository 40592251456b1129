"""Which files are exposed: open by a descriptor that native code may write to (C3.5)."""

from __future__ import annotations

import os
from collections.abc import Callable

from .credit import step
from .measuring import Measured
from .native_writers import Exposed
from .pages import allocated


class Exposing(Measured):
    """The part of a quota that knows the exposed files."""

    __slots__ = ()

    @step
    def expose(
        self, descriptor: int, status: os.stat_result, path: str, on_overrun: Callable[[str], None]
    ) -> None:
        """From now on, native code may write to ``descriptor``, of the file of ``status`` at ``path``.

        ``on_overrun`` is called with the path if it exceeds the quota.
        """
        exposed = self._exposed.get(status.st_ino)
        if exposed is None or not exposed.is_of(status):
            if not self._exposed and self.overrun:
                self._measured()  # the overrun may be over: then the next one is reported again
            self._on_overrun = on_overrun
            exposed = Exposed(status, path)
            exposed.known = allocated(status, f"/proc/self/fd/{descriptor}", follow=0)
            self.cuts += 1  # what is being written to it at this moment is charged twice
        exposed.add(descriptor)  # first: a file without a descriptor is no longer exposed
        self._exposed[status.st_ino] = exposed

    def conceal(self, descriptor: int) -> bool:
        """``descriptor`` is about to be closed. Is an overrun found only now?"""
        with self.lock:
            if not self._exposed:
                return False
            before = self.overrun
            for exposed in self._exposed.copy().values():
                exposed.drop(descriptor)
            self.check()
            return self.overrun and not before

    def share(self) -> None:
        """A child process has the exposed files, and may still write to them when they are closed here."""
        if not self._exposed:
            return  # without the lock, for which a fork would wait
        with self.lock:
            for exposed in self._exposed.copy().values():
                exposed.shared = True

    def still_open(self) -> list[tuple[tuple[int, int], str]]:
        """The device and inode, and the real path, of each exposed file that is open by a descriptor."""
        if not self._exposed:
            return []
        found = self._exposed.copy().values()
        return [(exposed.key, exposed.path) for exposed in found if exposed.is_open()]
