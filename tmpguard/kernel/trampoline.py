"""Runs in a fresh interpreter to start a program in an invocation's mount namespace.

This needs a single-threaded process that has not executed the program yet: it cannot be done safely between
fork and exec in a process that has threads. So a fresh interpreter (:mod:`.freestanding`) enters the
namespace and executes the program in its own place. It imports only built-in modules, and ``ctypes`` for
system calls that the interpreter lacks. Linux only; this module must not import the rest of tmpguard.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is built on: imports in no time
import posix
from errno import EACCES, ENOENT, ENOTDIR

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would take longer than everything else
    from typing import Any, Final, NoReturn

CLONE_NEWNS: Final = 0x20000
CLONE_NEWUSER: Final = 0x10000000

_posix: Any = posix  # for functions that only newer versions have


def main(orders: dict[str, Any]) -> NoReturn:
    """Carry out ``orders``."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    for descriptor in orders["inherited"]:
        posix.set_inheritable(descriptor, False)
    message = orders["unstarted"]
    try:
        environment = _environment(orders)
        _enter(orders)
        message = orders["no directory"]
        if orders["cwd"] is not None:
            posix.chdir(orders["cwd"])
        message = orders["unstarted"]
        _become(orders)
        if orders["close from"] is not None:
            for name in posix.listdir("/proc/self/fd"):
                if int(name) >= orders["close from"] and int(name) not in orders["inherited"]:
                    _close(int(name))
        for number, ignored in orders["signals"]:
            _signal.signal(number, _signal.SIG_IGN if ignored else _signal.SIG_DFL)
        message = b""
        _execute(orders, environment)
    except OSError as exc:
        _give_up(orders, exc, message)


def _enter(orders: dict[str, Any]) -> None:
    for kind, descriptor in ((CLONE_NEWUSER, orders["user"]), (CLONE_NEWNS, orders["mount"])):
        if descriptor >= 0:
            _setns(descriptor, kind)
            posix.close(descriptor)


def _become(orders: dict[str, Any]) -> None:
    """Switch to the user and the groups that the program is to run as."""
    if orders["groups"] is not None:
        posix.setgroups(orders["groups"])
    if orders["gid"] is not None:
        posix.setregid(orders["gid"], orders["gid"])
    if orders["uid"] is not None:
        posix.setreuid(orders["uid"], orders["uid"])


def _execute(orders: dict[str, Any], environment: dict[bytes, bytes]) -> NoReturn:
    """Execute the first program that can be executed; otherwise raise the most informative error."""
    first: OSError | None = None
    last = OSError(ENOENT, "")
    for program in orders["programs"]:
        try:
            if orders["args"] and orders["args"][0]:
                posix.execve(program, orders["args"], environment)
            _execve(program, orders["args"], environment)
        except OSError as exc:
            last = exc
            if first is None and exc.errno not in (ENOENT, ENOTDIR):
                first = exc
    raise first or last


def _environment(orders: dict[str, Any]) -> dict[bytes, bytes]:
    """The program's environment: the one given, or the one that this process was started with."""
    entries = orders["environment"]
    if entries is None:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    environment = {}
    for entry in entries:
        name, separator, value = entry[1:].partition(b"=")
        if separator:
            environment[entry[:1] + name] = value
    return environment


def _close(descriptor: int) -> None:
    try:
        posix.close(descriptor)
    except OSError:
        return


def _give_up(orders: dict[str, Any], exc: OSError, message: bytes) -> NoReturn:
    """Report why the program does not run, in the form that subprocess expects."""
    if orders["errors"] >= 0:
        posix.write(orders["errors"], b"OSError:%X:%s" % (exc.errno or 0, message))
        posix._exit(255)
    name = repr(orders["programs"][0])[2:-1]
    posix.write(2, f"{name}: {posix.strerror(exc.errno or 0)}\n".encode())
    posix._exit(126 if exc.errno == EACCES else 127)


# --- system calls that the interpreter may lack ---------------------------------------------------------


def _setns(descriptor: int, kind: int) -> None:
    if hasattr(_posix, "setns"):
        _posix.setns(descriptor, kind)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.setns(descriptor, kind), ctypes.get_errno())


def _execve(program: bytes, args: list[bytes], environment: dict[bytes, bytes]) -> None:
    """posix.execve() rejects an empty name."""
    import ctypes

    def array(texts: list[bytes]) -> Any:
        return (ctypes.c_char_p * (len(texts) + 1))(*texts)

    libc = ctypes.CDLL(None, use_errno=True)
    entries = [name + b"=" + value for name, value in environment.items()]
    _check(libc.execve(program, array(args), array(entries)), ctypes.get_errno())


def _check(result: int, code: int) -> None:
    if result < 0:
        raise OSError(code, posix.strerror(code))
