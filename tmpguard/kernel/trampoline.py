"""Runs in a fresh interpreter to make an invocation's mount namespace, or to start a program in one.

Both need a single-threaded process that has not executed the program yet. Neither can be done safely between
fork and exec in a process that has threads. A fresh interpreter therefore starts with ``-I -S`` and reads the
code of this module and its orders from a descriptor. It then either reports that the namespace is ready or
executes the program in its own place. It imports only built-in modules, and ``ctypes`` for system calls that
the interpreter lacks. Linux only; this module must not import the rest of tmpguard.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is built on: imports in no time
import posix
import sys
from errno import EACCES, ENOENT, ENOTDIR

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would take longer than everything else
    import ctypes
    from typing import Any, Final, NoReturn

CLONE_NEWNS: Final = 0x20000
CLONE_NEWUSER: Final = 0x10000000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18

# System calls that libc may not wrap. Their numbers are the same on all current architectures.
OPEN_TREE: Final = 428
MOVE_MOUNT: Final = 429
MOUNT_SETATTR: Final = 442

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
MOUNT_ATTR_RDONLY: Final = 1

_posix: Any = posix  # for functions that only newer versions have


class NotPermitted(Exception):
    """The machine does not permit a step."""


def main(orders: dict[str, Any]) -> None:
    """Carry out ``orders``."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if "programs" in orders:
        _start(orders)
    else:
        _make(orders)


# --- starting a program --------------------------------------------------------------------------------


def _start(orders: dict[str, Any]) -> NoReturn:
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
            if hasattr(_posix, "setns"):
                _posix.setns(descriptor, kind)
            else:
                _check(_libc().setns(descriptor, kind))
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
            _libc().execve(program, orders["args"], environment)  # posix.execve rejects an empty name
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


# --- making a namespace --------------------------------------------------------------------------------


def _make(orders: dict[str, Any]) -> None:
    """Make the mounts, report the result on standard output, and wait for standard input to close."""
    try:
        _mount(orders)
    except NotPermitted as exc:
        print(f"refused {exc}", flush=True)
        return
    print(f"ready {posix.getpid()}", flush=True)
    sys.stdin.read()


def _mount(orders: dict[str, Any]) -> None:
    libc = _libc()
    uid, gid = posix.geteuid(), posix.getegid()
    flags, what = CLONE_NEWNS, "CLONE_NEWNS"
    if orders["own user namespace"]:
        flags, what = flags | CLONE_NEWUSER, "CLONE_NEWUSER | CLONE_NEWNS"
    _step(f"unshare({what})", libc.unshare(flags))
    if orders["own user namespace"]:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _step("mount(MS_PRIVATE)", libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    # Open all of them before mounting the first, which may cover the sources of the others.
    trees = []
    for source, target, writable in orders["mounts"]:
        shown = repr(source)[1:]
        tree = libc.syscall(OPEN_TREE, AT_FDCWD, source, OPEN_TREE_CLONE | AT_RECURSIVE | posix.O_CLOEXEC)
        _step(f"open_tree({shown})", min(tree, 0))
        if not writable:
            _step(f"mount_setattr({shown})", _read_only(libc, tree, b""))
        trees.append((tree, target))
    if orders["read only"]:
        _step("mount_setattr('/')", _read_only(libc, AT_FDCWD, b"/"))
    for tree, target in trees:
        moved = libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
        _step(f"move_mount({repr(target)[1:]})", moved)
        posix.close(tree)


def _read_only(libc: _Libc, directory: int, path: bytes) -> int:
    attributes = MOUNT_ATTR_RDONLY.to_bytes(8, sys.byteorder) + bytes(24)
    flags = AT_RECURSIVE | (0 if path else AT_EMPTY_PATH)
    return libc.syscall(MOUNT_SETATTR, directory, path, flags, attributes, len(attributes))


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as exc:
        raise NotPermitted(f"writing {path}: {exc.strerror}") from None


# --- system calls --------------------------------------------------------------------------------------


def _libc() -> _Libc:
    try:
        import ctypes
    except ImportError as exc:
        raise NotPermitted(f"calling libc by ctypes: {exc}") from None
    libc = ctypes.CDLL(None, use_errno=True)
    # Pass all arguments as whole registers: an int would leave the upper half undefined.
    word, pointer = ctypes.c_long, ctypes.c_char_p
    libc.mount.argtypes = (pointer, pointer, pointer, ctypes.c_ulong, pointer)
    libc.syscall.restype = word
    return _Libc(libc, word)


class _Libc:
    """The few functions of libc that are needed, with the argument types that the kernel expects."""

    def __init__(self, libc: ctypes.CDLL, word: type[ctypes.c_long]) -> None:
        self._libc = libc
        self._word = word
        self.unshare = libc.unshare
        self.setns = libc.setns
        self.mount = libc.mount

    def execve(self, program: bytes, args: list[bytes], environment: dict[bytes, bytes]) -> None:
        import ctypes

        def array(texts: list[bytes]) -> Any:
            return (ctypes.c_char_p * (len(texts) + 1))(*texts)

        entries = [name + b"=" + value for name, value in environment.items()]
        _check(self._libc.execve(program, array(args), array(entries)))

    def syscall(self, *arguments: int | bytes) -> int:
        words = [self._word(value) if isinstance(value, int) else value for value in arguments]
        return self._libc.syscall(*words)  # type: ignore[no-any-return]


def _errno() -> int:
    import ctypes

    return ctypes.get_errno()


def _check(result: int) -> None:
    if result < 0:
        raise OSError(_errno(), posix.strerror(_errno()))


def _step(what: str, result: int) -> None:
    if result < 0:
        raise NotPermitted(f"{what}: {posix.strerror(_errno())}")
