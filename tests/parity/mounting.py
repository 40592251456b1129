"""Mount namespaces, and a loop that answers calls in one.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

#: The exit code of a child for which the machine did not permit a step. Its standard error names the step.
NOT_PERMITTED = 77

_NEWNS, _NEWUSER = 0x20000, 0x10000000
_PRIVATE, _BIND, _DETACH = 1 << 18 | 0x4000, 4096, 2  # the first is MS_PRIVATE | MS_REC
_NOSUID_NODEV = 6
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _CAPABILITY_VERSION, _CAP_SYS_ADMIN = 4, 8, 0x20080522, 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        print(f"{what}: {os.strerror(code)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(NOT_PERMITTED)


def _give(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def enter_namespace() -> None:
    """Enter a new mount namespace, inside a new user namespace if this is not root."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEWNS if uid == 0 else _NEWNS | _NEWUSER), "unshare")
    if uid:
        _give("/proc/self/setgroups", "deny")
        _give("/proc/self/uid_map", f"{uid} {uid} 1")
        _give("/proc/self/gid_map", f"{gid} {gid} 1")
    _check(_libc.mount(b"none", b"/", None, _PRIVATE, None), "private mounts")


def bind(source: str, target: str) -> None:
    """Mount the directory or file ``source`` on ``target``."""
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _BIND, None), f"a mount on {target}")


def mount_tmpfs(target: str, size: int, files: int = 0) -> None:
    """Mount a tmpfs of ``size`` bytes and ``files`` inodes (0: no limit) on ``target``."""
    options = b"size=%d,nr_inodes=%d,mode=1777" % (size, files)
    _check(_libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", _NOSUID_NODEV, options), "a tmpfs")


def unmount(target: str) -> None:
    """Unmount ``target``."""
    _check(_libc.umount2(os.fsencode(target), _DETACH), f"unmounting {target}")


def make_read_only(*writable: str) -> None:
    """Make all mounts read-only, except for the directories ``writable``."""
    for path in writable:
        _check(_libc.mount(os.fsencode(path), os.fsencode(path), None, _BIND, None), f"a mount on {path}")
    _set(b"/", _AT_RECURSIVE, _RDONLY, 0)
    for path in writable:
        _set(os.fsencode(path), 0, 0, _RDONLY)


def _set(path: bytes, flags: int, add: int, clear: int) -> None:
    attributes = struct.pack("QQQQ", add, clear, 0, 0)
    _check(
        _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, attributes, ctypes.c_size_t(32)), "read-only"
    )


def become(user: int) -> None:
    """Become ``user``, who is subject to file modes. Of root's capabilities, only CAP_SYS_ADMIN is kept."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keeping rights")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    kept = struct.pack("6I", 1 << _CAP_SYS_ADMIN, 1 << _CAP_SYS_ADMIN, 0, 0, 0, 0)
    _check(_libc.capset(header, kept), "giving up rights")
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "owning /proc/self")


class Tmp:
    """A tmpfs of ``size`` bytes on ``/tmp``, with the directory ``bundle`` on ``/tmp/package``.

    ``files`` is the number of its inodes, not counting the root and the mount point (0: no limit).
    """

    def __init__(self, size: int, bundle: str, files: int = 0) -> None:
        self.size = size
        self.inodes = files + 1 + bool(bundle) if files else 0
        self.bundle = os.open(bundle, os.O_PATH) if bundle else -1
        self._is_mounted = False

    def make(self) -> None:
        """Mount it, or replace it by a new, empty one."""
        if self._is_mounted:
            os.chdir("/")
            _check(_libc.umount2(b"/tmp", _DETACH), "unmounting /tmp")
        options = b"size=%d,nr_inodes=%d,mode=1777" % (self.size, self.inodes)
        _check(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID_NODEV, options), "a tmpfs on /tmp")
        self._is_mounted = True
        if self.bundle >= 0:
            os.mkdir("/tmp/package", 0o755)
            source = b"/proc/self/fd/%d" % self.bundle
            _check(_libc.mount(source, b"/tmp/package", None, _BIND, None), "the bundle's mount")


def answer(before: Callable[[], None], functions: dict[str, Callable[..., Any]]) -> None:
    """Answer the calls on the standard input, one per line: ``[function, arguments]``."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        before()
        print(json.dumps(functions[name](*arguments)), flush=True)
