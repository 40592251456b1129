"""Starts the application's first process, with the filters that the observer needs."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os

from tmpguard.kernel.syscalls import CLOSE_RANGE, prctl, syscall

from . import arming, filters, tracing
from .calls import KNOWN_MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

_CLOSE_ON_EXEC: Final = 4
_PR_SET_PDEATHSIG: Final = 1
_NOTHING: Final = b"-"
_UNSEEN: Final = "the observer is switched off"


class Started:
    """The application's first process, on its way to execute the command.

    ``result`` is a socket that closes when the command is executed; before that, it says why it is not.
    ``listener`` is the descriptor of its filter, -1 if it has none. ``means`` is how it is observed:
    "ptrace", "notify" or "", and ``reason`` says why not by better means.
    """

    def __init__(self, process: int, result: _socket.socket, listener: int, means: str, reason: str) -> None:
        self.process = process
        self.result = result
        self.listener = listener
        self.means = means
        self.reason = reason


def start(orders: dict[str, Any]) -> Started:
    """Start the command of ``orders``. This thread is its tracer."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    process = os.fork()
    if process == 0:
        ours.close()
        _be_application(theirs, orders)
    theirs.close()
    means, reason = _choose_means(process, orders)
    ours.send(means.encode() or _NOTHING)
    listener = _received_descriptor(ours)
    if listener < 0 and means == "notify":
        means, reason = "", f"{reason}; user notification is not permitted either"
    return Started(process, ours, listener, means, reason)


def not_started(result: _socket.socket) -> tuple[int, str] | None:
    """Why the command was not executed: the error and the program; None where it was."""
    code, _, program = result.recv(8192).partition(b" ")
    return (int(code), program.decode("utf-8", "surrogateescape")) if code else None


def _choose_means(process: int, orders: dict[str, Any]) -> tuple[str, str]:
    """The best way to observe ``process``, which is waiting, and why it is not a better one."""
    if not orders["observe"]:
        return "", _UNSEEN
    if not KNOWN_MACHINE:
        return "", f"the observer does not know this machine: {os.uname().machine}"
    reason = "tracing is switched off"
    if "ptrace" in orders["observe"]:
        try:
            tracing.seize(process)
            return "ptrace", ""
        except OSError as exc:
            reason = f"ptrace: {exc.strerror}"
    return ("notify" if "notify" in orders["observe"] else ""), reason


def _received_descriptor(socket: _socket.socket) -> int:
    _, rights, _, _ = socket.recvmsg(1, _socket.CMSG_SPACE(4))
    return int.from_bytes(rights[0][2], "little") if rights else -1


def _be_application(socket: _socket.socket, orders: dict[str, Any]) -> NoReturn:
    try:
        means = socket.recv(16)
        os.setpgid(0, 0)
        if "end with janitor" in orders:
            prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
        for number in (_signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        os.umask(orders["umask"])
        syscall(CLOSE_RANGE, 3, 0x7FFFFFFF, _CLOSE_ON_EXEC)
        _install_filter(socket, "" if means == _NOTHING else means.decode())
        _execute(socket, orders)
    finally:
        os._exit(127)


def _install_filter(socket: _socket.socket, means: str) -> None:
    listener = -1
    if KNOWN_MACHINE:
        traced = means == "ptrace"
        writes = traced and not arming.POSSIBLE
        program = filters.build(changes="trace" if traced else means, writes=writes, ports=True)
        try:
            listener = filters.install(program, listen=True)
        except OSError:
            if traced:
                filters.install(filters.build(changes="trace", writes=writes, ports=False), listen=False)
    rights = (
        [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, "little"))] if listener >= 0 else []
    )
    socket.sendmsg([b"x"], rights)
    if listener >= 0:
        os.close(listener)


def _execute(socket: _socket.socket, orders: dict[str, Any]) -> None:
    """Execute the command. The socket closes then; before, an error is written to it."""
    program = orders["program"]
    try:
        os.execve(program, orders["command"], orders["environment"])
    except OSError as exc:
        socket.send(b"%d %s" % (exc.errno or 0, program))
