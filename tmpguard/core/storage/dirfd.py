"""Directories by descriptor: follows no symlink and enters no mount, whatever the modes (C4.2, C4.4)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBUSY, ENOENT
from typing import Final

from tmpguard.core import originals

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: The permissions that the owner needs to list a directory and to examine its entries.
_LOOKING: Final = 0o500
_MOUNT_ID: Final = b"mnt_id:"


class MountPoint(OSError):
    """Another file system, or a bind mount, is mounted there, and is not entered."""

    def __init__(self, name: str) -> None:
        super().__init__(EBUSY, "Something is mounted there", name)


def listed(directory: int) -> list[str]:
    """The current names in the open directory ``directory``.

    On btrfs, a descriptor shows the names as they were when it was opened or last rewound.
    """
    originals.lseek(directory, 0, os.SEEK_SET)
    return originals.listdir(directory)


def mount_of(descriptor: int) -> str:
    """An identifier of the mount that ``descriptor`` is on. Bind mounts have their own."""
    try:
        info = originals.os_open(f"/proc/self/fdinfo/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno != ENOENT:
            raise  # no descriptor is free, for example: then it is unknown
    else:
        try:
            _, found, rest = originals.read(info, 4096).partition(_MOUNT_ID)
        finally:
            originals.close(info)
        if found:
            return rest.split(None, 1)[0].decode()
    return f"device {originals.fstat(descriptor).st_dev}"  # /proc is not mounted


@contextmanager
def opened_directory(parent: int, name: str, mount: str) -> Iterator[int]:
    descriptor = open_directory(parent, name, mount)
    try:
        yield descriptor
    finally:
        originals.close(descriptor)


def open_directory(parent: int, name: str, mount: str) -> int:
    """Open the directory ``name``, after making it accessible to its owner if need be; follows no symlink.

    Raises MountPoint if it is not on ``mount``.
    """
    try:
        descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        unlock(parent, name, mount)
        descriptor = originals.os_open(name, DIRECTORY, dir_fd=parent)
    try:
        _check_mount(descriptor, name, mount)
    except BaseException:
        originals.close(descriptor)
        raise
    return descriptor


def _check_mount(descriptor: int, name: str, mount: str) -> None:
    if mount_of(descriptor) != mount:
        raise MountPoint(name)


@contextmanager
def readable_directory(parent: int, path: str, mount: str) -> Iterator[tuple[int, bool]]:
    """A descriptor of the directory ``path``, and whether its owner lacks the permissions to examine it: then
    its mode is changed for the duration of the block.

    Raises MountPoint if it is not on ``mount``.
    """
    before = None
    try:
        descriptor = originals.os_open(path, DIRECTORY, dir_fd=parent)
    except PermissionError:
        before = modes.S_IMODE(originals.stat(path, dir_fd=parent, follow_symlinks=False).st_mode)
        descriptor = open_directory(parent, path, mount)
    try:
        _check_mount(descriptor, path, mount)
        mode = modes.S_IMODE(originals.fstat(descriptor).st_mode)
        if mode & _LOOKING != _LOOKING:
            before = mode
            originals.fchmod(descriptor, mode | _LOOKING)
        yield descriptor, before is not None
    finally:
        if before is not None:
            originals.fchmod(descriptor, before)
        originals.close(descriptor)


@contextmanager
def unlocked(directory: str) -> Iterator[None]:
    """Within the block, the owner has all permissions on ``directory``, whatever its mode."""
    mode = modes.S_IMODE(originals.lstat(directory).st_mode)
    if mode & 0o700 == 0o700:
        yield
        return
    originals.chmod(directory, mode | 0o700)
    try:
        yield
    finally:
        originals.chmod(directory, mode)


def unlock(parent: int, name: str, mount: str) -> None:
    """Give the owner all permissions on the directory ``name``, by descriptor: chmod would follow a symlink.

    Raises MountPoint if it is not on ``mount``.
    """
    descriptor = originals.os_open(
        name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
    )
    try:
        _check_mount(descriptor, name, mount)
        originals.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        originals.close(descriptor)
