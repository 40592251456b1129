"""Memory that the janitor shares with the supervisor: the most bytes that were in use at one time.

The use of a tmpfs falls only in a few system calls. The janitor samples it just before each of them, and the
supervisor at the end, so no peak is missed. The samples are in memory that both have mapped.
"""

from __future__ import annotations

import mmap
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SIZE: Final = 4096

#: The period's number, which the supervisor writes; the number and the peak that the janitor last saw.
_period: Final = struct.Struct("Q")
_seen: Final = struct.Struct("QQ")
_SEEN_AT: Final = 8
#: Whether a request is running, which the supervisor writes.
_active: Final = struct.Struct("Q")
_ACTIVE_AT: Final = 24


class Peak:
    """One side's view of the memory behind ``descriptor``."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._number = 0
        self._highest = 0

    def sample(self, tmp: int) -> None:
        """Note how much of the file system of the descriptor ``tmp`` is in use. For the janitor."""
        # Before looking: if the next period begins meanwhile, what is seen is not its own.
        number = self.period()
        status = os.fstatvfs(tmp)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        if number > self._number or (number == self._number and used > self._highest):
            self._number, self._highest = number, used
            _seen.pack_into(self._memory, _SEEN_AT, number, used)

    def period(self) -> int:
        """The number of this period. For the janitor."""
        return _period.unpack_from(self._memory)[0]  # type: ignore[no-any-return]

    def highest(self) -> int:
        """The largest sample of this period, in bytes; 0 if there was none. For the supervisor."""
        number, highest = _seen.unpack_from(self._memory, _SEEN_AT)
        return highest if number == self._number else 0

    def start_period(self) -> None:
        """Forget the samples so far. For the supervisor."""
        self._number += 1
        _period.pack_into(self._memory, 0, self._number)

    def set_active(self, active: bool) -> None:
        """Say whether a request is running. For the supervisor."""
        _active.pack_into(self._memory, _ACTIVE_AT, active)

    def is_active(self) -> bool:
        """Is a request running? For the janitor."""
        return bool(_active.unpack_from(self._memory, _ACTIVE_AT)[0])

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
