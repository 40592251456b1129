"""The working directory, which is the invocation's own (C5.3)."""

from __future__ import annotations

import fcntl
import os
import stat as modes
from errno import EACCES, ENOENT, ENOTDIR
from typing import Any

from tmpguard.core import originals
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.interpose.paths import (
    alive_to_read,
    base_of,
    is_directory,
    is_odd,
    place,
    reraise,
    truth_as_descriptor,
)

_stat = originals.stat


def getcwd(invocation: Invocation) -> str:
    namespace = invocation.namespace
    here = namespace.working_directory()
    if not is_directory(place(invocation, here).real):
        raise os_error(ENOENT)
    return here


def getcwdb(invocation: Invocation) -> bytes:
    return os.fsencode(getcwd(invocation))


def chdir(invocation: Invocation, path: Any) -> None:
    """For this invocation only (C5.3)."""
    alive_to_read(invocation, "os.chdir", path)
    if type(path) is int:
        try:
            fchdir(invocation, path)
        except OSError as exc:
            reraise(exc, path)
        return
    if is_odd(path):
        originals.chdir(path)
    try:
        where = place(invocation, path, operation="os.chdir")
        if not modes.S_ISDIR(_stat(where.real).st_mode):
            raise os_error(ENOTDIR)
        if not originals.access(where.real, os.X_OK):
            raise os_error(EACCES)
    except OSError as exc:
        reraise(exc, path)
    invocation.namespace.cwd = where.virtual


def fchdir(invocation: Invocation, fd: Any) -> None:
    if type(fd) is bool:
        fd = truth_as_descriptor(fd)
    fcntl.fcntl(fd, fcntl.F_GETFD)  # has the words for what is none
    descriptor = fd if isinstance(fd, int) else fd.fileno()
    if not modes.S_ISDIR(originals.fstat(descriptor).st_mode):
        raise os_error(ENOTDIR)
    if not originals.access(".", os.X_OK, dir_fd=descriptor):
        raise os_error(EACCES)
    invocation.namespace.cwd = base_of(invocation, descriptor)
