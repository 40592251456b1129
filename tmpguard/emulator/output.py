"""What an instance's processes print."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

#: Gets each line, without its end, and the stream's name: "stdout" or "stderr".
OnOutput = Callable[[str, str], None]

#: Lines that are kept for an error, and the most bytes of a line.
_LINES: Final = 40
_LONGEST: Final = 64 * 1024


class Output:
    """Reads both streams as long as anybody writes to them."""

    def __init__(self, on_output: OnOutput | None) -> None:
        self._on_output = on_output
        self._last: deque[str] = deque(maxlen=_LINES)
        self._open: dict[int, str] = {}
        self._parts: dict[int, bytes] = {}
        self._finished = asyncio.get_running_loop().create_future()

    def add(self, descriptor: int, stream: str) -> None:
        """Read from ``descriptor``, which is the stream of this name."""
        os.set_blocking(descriptor, False)
        self._open[descriptor], self._parts[descriptor] = stream, b""
        asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = (self._parts[descriptor] + data).split(b"\n")
        if rest and (not data or len(rest) > _LONGEST):
            lines.append(rest)
            rest = b""
        self._parts[descriptor] = rest
        for line in lines:
            self._tell(line, self._open[descriptor])
        if not data:
            self._close(descriptor)

    def _tell(self, line: bytes, stream: str) -> None:
        text = line.removesuffix(b"\r").decode(errors="replace")
        self._last.append(text)
        if self._on_output is not None:
            self._on_output(text, stream)

    def _close(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        del self._open[descriptor], self._parts[descriptor]
        if not self._open and not self._finished.done():
            self._finished.set_result(None)

    async def finish(self, seconds: float) -> None:
        """Wait for the rest once the processes have ended, and close the streams."""
        if self._open:
            await asyncio.wait([self._finished], timeout=seconds)
        for descriptor in list(self._open):
            self._close(descriptor)

    def last_lines(self) -> str:
        """The last lines of both streams."""
        return "\n".join(self._last)
