"""The messages between the supervisor and an instance's janitor. Both sides run the same Python."""

from __future__ import annotations

import _socket
import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Message = tuple[Any, ...]

#: Above the size of any message, in bytes: a finding has two paths and a stack.
LARGEST: Final = 128 * 1024


class Channel:
    """The janitor's end of the socket."""

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket

    def fileno(self) -> int:
        """For poll()."""
        return self._socket.fileno()

    def send(self, *message: Any) -> None:
        """Send a message; waits while the supervisor has many to read. Raises OSError once it is gone."""
        self._socket.send(marshal.dumps(message))

    def send_descriptor(self, descriptor: int, *message: Any) -> None:
        """Send a message with a descriptor."""
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))]
        self._socket.sendmsg([marshal.dumps(message)], rights)

    def receive(self) -> Message | None:
        """The next message; None once the supervisor is gone."""
        data = self._socket.recv(LARGEST)
        return marshal.loads(data) if data else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
