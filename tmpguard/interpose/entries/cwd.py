"""The working directory, which is the invocation's own (C5.3)."""

from __future__ import annotations

import fcntl
import os
import stat as modes
from errno import EACCES, ENOENT, ENOTDIR

from tmpguard.core import originals
from tmpguard.core.aliases import FileDescriptorLike, PathOrDescriptor
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation
from tmpguard.core.presence import is_directory
from tmpguard.interpose.given import Given
from tmpguard.interpose.paths import base_of, resolve, truth_as_descriptor
from tmpguard.interpose.raising import alive_to_read, reraise

_stat = originals.stat


def getcwd(invocation: Invocation) -> str:
    """:func:`os.getcwd` (C5.3). Raises OSError(ENOENT) if the directory was removed."""
    namespace = invocation.namespace
    here = namespace.working_directory()
    if not is_directory(resolve(invocation, Given(here)).real):
        raise os_error(ENOENT)
    return here


def getcwdb(invocation: Invocation) -> bytes:
    """:func:`os.getcwdb`. Raises as :func:`getcwd` does."""
    return os.fsencode(getcwd(invocation))


def chdir(invocation: Invocation, path: PathOrDescriptor) -> None:
    """:func:`os.chdir`, for this invocation only, or with ``lifetime="instance"`` for the instance (C5.3)."""
    if type(path) is int:
        if path < 0:
            return originals.chdir(path)  # raises the right error
        try:
            return fchdir(invocation, path)
        except OSError as exc:
            reraise(exc, path)
    given = Given(path)
    alive_to_read(invocation, "os.chdir", given)
    if given.odd:
        originals.chdir(given.name)  # raises the right error
    try:
        where = resolve(invocation, given, operation="os.chdir")
        if not modes.S_ISDIR(_stat(where.real).st_mode):
            raise os_error(ENOTDIR)
        if not originals.access(where.real, os.X_OK):
            raise os_error(EACCES)
    except OSError as exc:
        reraise(exc, given.name, "os.chdir")
    invocation.change_directory(where.virtual)
    return None


def fchdir(invocation: Invocation, fd: FileDescriptorLike) -> None:
    """:func:`os.fchdir`, with the scope of :func:`chdir`."""
    if type(fd) is bool:
        fd = truth_as_descriptor(fd)
    fcntl.fcntl(fd, fcntl.F_GETFD)  # raises the right error if it is not a descriptor
    descriptor = fd if isinstance(fd, int) else fd.fileno()
    if not modes.S_ISDIR(originals.fstat(descriptor).st_mode):
        raise os_error(ENOTDIR)
    if not originals.access(".", os.X_OK, dir_fd=descriptor):
        raise os_error(EACCES)
    directory = base_of(invocation, descriptor)
    assert directory is not None
    invocation.change_directory(directory)
