"""The supervisor's end of an instance's processes: starts the launcher and hears of it."""

from __future__ import annotations

import asyncio
import fcntl
import marshal
import os
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from tmpguard.kernel import freestanding

from .inside.messages import LARGEST

_KERNEL: Final = ("syscalls", "mounts")
_INSIDE: Final = (
    "messages",
    "calls",
    "tracing",
    "filters",
    "arming",
    "peak",
    "stacks",
    "observer",
    "notifications",
    "family",
    "lookup",
    "ports",
    "replay",
    "activity",
    "storage",
    "application",
    "janitor",
    "launcher",
)
_MODULES: Final = (
    *(f"tmpguard.kernel.{name}" for name in _KERNEL),
    *(f"tmpguard.emulator.inside.{name}" for name in _INSIDE),
)

#: What FIONREAD tells of a socket on which nothing has arrived.
_NO_BYTES: Final = bytes(4)

#: Gets each message of the janitor, with a descriptor that came with it, or -1; None is the end.
OnMessage = Callable[[tuple[Any, ...] | None, int], None]


class Processes:
    """The processes of an instance. All of them end with the launcher, and that with this process."""

    def __init__(self, orders: Mapping[str, Any], peak: int, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = {"control": theirs.fileno(), "peak": peak, "parent": os.getpid(), **orders}
        try:
            with freestanding.loaded(_MODULES, given) as code:
                self._launcher = subprocess.Popen(
                    freestanding.command(freestanding.find_interpreter(), code),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(code, theirs.fileno(), peak),
                    start_new_session=True,
                    cwd="/",
                )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        #: Completed when no process is left.
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._watched = os.pidfd_open(self._launcher.pid)
        self._loop.add_reader(self._watched, self._on_exit)
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._receive_all)

    @property
    def pid(self) -> int:
        """The launcher's."""
        return self._launcher.pid

    def streams(self) -> dict[str, int]:
        """Descriptors of what the processes print, to be closed by who reads them."""
        assert self._launcher.stdout is not None
        assert self._launcher.stderr is not None
        found = {
            "stdout": os.dup(self._launcher.stdout.fileno()),
            "stderr": os.dup(self._launcher.stderr.fileno()),
        }
        self._launcher.stdout.close()
        self._launcher.stderr.close()
        return found

    def receive(self) -> None:
        """Hand on every message that has arrived."""
        descriptor = self._control.fileno()
        # Most often there is none, which this call tells faster than an exception.
        if descriptor >= 0 and fcntl.ioctl(descriptor, termios.FIONREAD, _NO_BYTES) != _NO_BYTES:
            self._receive_all()

    def _receive_all(self) -> None:
        while self._control.fileno() >= 0:
            try:
                data, rights, _, _ = self._control.recvmsg(LARGEST, socket.CMSG_SPACE(4))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, rights = b"", []
            if not data:
                self._close_control()
                self._on_message(None, -1)
                return
            descriptor = int.from_bytes(rights[0][2][:4], "little") if rights else -1
            self._on_message(marshal.loads(data), descriptor)

    def send(self, *message: Any) -> None:
        """Send the janitor a command. Does nothing once it is gone."""
        with suppress(OSError):
            self._control.send(marshal.dumps(message))

    def kill(self) -> None:
        """End all processes at once."""
        self._close_control()
        if self._launcher.returncode is None:
            self._launcher.send_signal(signal.SIGKILL)

    def _close_control(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()

    def _on_exit(self) -> None:
        if self._launcher.poll() is None:
            return
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self.gone.set_result(None)
