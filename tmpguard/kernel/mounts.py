"""The steps by which the kernel's mounts are made: for contained children and for ``tmpguard run``.

A step that fails raises :class:`StepFailed`, which names it. Like :mod:`.syscalls`, this also runs in a fresh
interpreter. Needs Linux 5.12.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from .syscalls import (
    AT_FDCWD,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    OPEN_TREE,
    mount,
    syscall,
    unmount,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_MS_NOSUID_NODEV: Final = 2 | 4
_MS_RDONLY: Final = 1
_MS_NOEXEC: Final = 8
_MS_REMOUNT: Final = 32
_MS_REC_PRIVATE: Final = 0x4000 | 1 << 18
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOUNT_ATTR_RDONLY: Final = 1


class StepFailed(Exception):
    """A step that the machine does not permit."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step}: {os.strerror(code)}")
        self.step = step
        self.code = code


class step:
    """Names the step that fails: ``with step("mount(proc)"): ...`` raises StepFailed in place of OSError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self._name, error.errno or 0) from None


def quoted(path: bytes) -> str:
    """``path`` as text, for the name of a step."""
    return repr(path)[1:]


def unshare_mounts(flags: int, names: str, *, own_user: bool) -> None:
    """Unshare the mount namespace, the namespaces in ``flags``, and with ``own_user`` the user namespace.

    In the user namespace, the user and the group keep their numbers.
    """
    uid, gid = os.geteuid(), os.getegid()
    if own_user:
        flags, names = flags | CLONE_NEWUSER, f"CLONE_NEWUSER | {names}"
    with step(f"unshare({names})"):
        unshare(flags | CLONE_NEWNS)
    if own_user:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")


def write(path: str, text: str) -> None:
    """Write ``text`` to a file of /proc."""
    with step(f"writing {path}"), open(path, "w") as file:
        file.write(text)


def make_private() -> None:
    """Make all mounts private: later mounts do not propagate into or out of the namespace."""
    with step("mount(MS_PRIVATE)"):
        mount(None, b"/", None, _MS_REC_PRIVATE, None)


def make_root_read_only() -> None:
    """Make all mounts read-only."""
    with step("mount_setattr('/')"):
        _set_read_only(AT_FDCWD, b"/", _AT_RECURSIVE)


class Tree:
    """A copy of the mounts at ``path``, to be attached even when something covers ``path``."""

    def __init__(self, path: bytes, *, writable: bool = False) -> None:
        with step(f"open_tree({quoted(path)})"):
            flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
            self._descriptor = syscall(OPEN_TREE, AT_FDCWD, path, flags)
        if not writable:
            with step(f"mount_setattr({quoted(path)})"):
                _set_read_only(self._descriptor, b"", _AT_RECURSIVE | _AT_EMPTY_PATH)

    def is_directory(self) -> bool:
        """True if it is the tree of a directory, false if it is a single file."""
        return stat.S_ISDIR(os.fstat(self._descriptor).st_mode)

    def attach(self, target: bytes) -> None:
        """Mount it on ``target``."""
        with step(f"move_mount({quoted(target)})"):
            syscall(MOVE_MOUNT, self._descriptor, b"", AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
        os.close(self._descriptor)


def _set_read_only(directory: int, path: bytes, flags: int) -> None:
    attributes = _MOUNT_ATTR_RDONLY.to_bytes(8, sys.byteorder) + bytes(24)
    syscall(MOUNT_SETATTR, directory, path, flags, attributes, len(attributes))


def mount_tmpfs(target: bytes, options: str) -> None:
    """Mount an empty tmpfs on ``target``."""
    with step(f"mount(tmpfs, {quoted(target)})"):
        mount(b"tmpfs", target, b"tmpfs", _MS_NOSUID_NODEV, options.encode())


def limit_files(target: bytes, inodes: int) -> None:
    """Limit the number of inodes of the tmpfs on ``target``."""
    with step(f"remount(tmpfs, {quoted(target)})"):
        mount(None, target, None, _MS_NOSUID_NODEV | _MS_REMOUNT, f"nr_inodes={inodes}".encode())


def mount_proc() -> None:
    """Mount this PID namespace's own /proc."""
    with step("mount(proc)"):
        mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV | _MS_NOEXEC, None)


def mounts_below(directory: bytes) -> Iterator[bytes]:
    """The mount points inside ``directory``, relative to it."""
    prefix = directory.rstrip(b"/") + b"/"
    with open("/proc/self/mountinfo", "rb") as file:
        lines = file.read().splitlines()
    for line in lines:
        path = line.split(b" ")[4]
        for character in b" \t\n\\":
            path = path.replace(b"\\%03o" % character, bytes([character]))
        if path.startswith(prefix):
            yield path[len(prefix) :]


# --- leaving files out ---------------------------------------------------------------------------------


def hide_entries(target: bytes, ignored: list[bytes], scratch: bytes) -> None:
    """Hide the entries ``ignored``, relative to ``target``, in the tree that is mounted there.

    An overlay on ``target`` has a layer of whiteouts above the tree itself, so later changes of the tree are
    seen. ``scratch`` is a name for a directory that is needed meanwhile.
    """
    os.mkdir(scratch)
    mount_tmpfs(scratch, "mode=755,nr_inodes=0")
    made: set[bytes] = set()
    for name in ignored:
        _copy_directory(target, scratch, os.path.dirname(name), made)
        with step(f"mknod({quoted(name)})"):
            os.mknod(os.path.join(scratch, name), 0o20000)  # a character device 0:0 is a whiteout
    for name in sorted(made, reverse=True):  # after their contents are made: this sets their times
        _copy_status(os.path.join(target, name), os.path.join(scratch, name))
    upper, lower = os.open(scratch, os.O_PATH), os.open(target, os.O_PATH)
    with step(f"mount(overlay, {quoted(target)})"):
        # By descriptor: the options would need escapes for a colon or a comma in a name.
        layers = f"lowerdir=/proc/self/fd/{upper}:/proc/self/fd/{lower}"
        mount(b"overlay", target, b"overlay", _MS_NOSUID_NODEV | _MS_RDONLY, layers.encode())
    os.close(upper)
    os.close(lower)
    with step(f"umount({quoted(scratch)})"):
        unmount(scratch)
    os.rmdir(scratch)


def _copy_directory(source: bytes, target: bytes, name: bytes, made: set[bytes]) -> None:
    """Make the directory ``name`` in ``target`` as it is in ``source``, parents included."""
    if name in made:
        return
    if name:
        _copy_directory(source, target, os.path.dirname(name), made)
        os.mkdir(os.path.join(target, name))
    made.add(name)


def _copy_status(source: bytes, target: bytes) -> None:
    """Copy the mode, the owner and the times, because an overlay shows those of the upper layer."""
    status = os.stat(source)
    with suppress(OSError):  # the owner is another user, and this is not root
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
