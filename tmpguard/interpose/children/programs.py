"""Decides whether a program is sure to run. Then no interpreter is needed in the child to report errors.

The kernel may refuse to execute a program for many reasons. A program is sure to run if it is a regular file
outside the writable mounts, the user may execute it, it is built for this machine, and its interpreters
exist. Any other program may still run.
"""

from __future__ import annotations

import os
import stat as modes
import struct
from functools import lru_cache
from typing import Final

from tmpguard.core import originals
from tmpguard.core.invocation import Invocation

_HEAD: Final = 4096
_PT_INTERP: Final = 3
_SHEBANG_LIMIT: Final = 256


def surely_runs(invocation: Invocation, programs: tuple[bytes, ...], directory: bytes) -> bytes | None:
    """The first of ``programs`` that exists, relative to ``directory``, if it is sure to run."""
    for program in programs:
        path = os.fsdecode(os.path.join(directory, program))
        try:
            return program if _is_sound(invocation, path, 1) else None
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            return None
    return None


def _is_sound(invocation: Invocation, path: str, scripts: int) -> bool:
    """True if ``path`` is sure to run. At most ``scripts`` scripts may precede the binary."""
    where = invocation.namespace.resolve(path, follow=True)
    status = originals.stat(where.real)
    if where.mount.writable or not modes.S_ISREG(status.st_mode):
        return False
    if not originals.access(where.real, os.X_OK, effective_ids=True):
        return False
    kind, interpreter = _kind(
        where.real, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    )
    if kind == "script":
        return bool(scripts) and _is_sound(invocation, interpreter, scripts - 1)
    return kind == "static" or (kind == "dynamic" and _is_sound(invocation, interpreter, 0))


@lru_cache(maxsize=512)
def _kind(real: str, *identity: int) -> tuple[str, str]:
    """The kind of the file (``script``, ``static``, ``dynamic`` or ``unknown``), and its interpreter."""
    with originals.open(real, "rb") as file:
        head = file.read(_HEAD)
        if head.startswith(b"#!"):
            line = head[2:_SHEBANG_LIMIT].partition(b"\n")
            words = line[0].split()
            if line[1] and words and words[0].startswith(b"/"):
                return "script", os.fsdecode(words[0])
            return "unknown", ""
        if head[:6] != _own_head()[:6] or head[18:20] != _own_head()[18:20] or head[4] != 2:
            return "unknown", ""
        for offset, size in _interpreters(head):
            file.seek(offset)
            return "dynamic", os.fsdecode(file.read(size).rstrip(b"\0"))
    return "static", ""


def _interpreters(head: bytes) -> list[tuple[int, int]]:
    """The offset and size of the dynamic linker's name in a 64-bit binary."""
    order = "<" if head[5] == 1 else ">"
    (first,) = struct.unpack_from(f"{order}Q", head, 0x20)
    size, count = struct.unpack_from(f"{order}HH", head, 0x36)
    found = []
    for start in range(first, first + size * count, size):
        if start + size > len(head):
            raise ValueError("the program header is beyond the part of the file that was read")
        kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, start)
        if kind == _PT_INTERP:
            found.append((offset, length))
    return found


@lru_cache(maxsize=1)
def _own_head() -> bytes:
    with originals.open("/proc/self/exe", "rb") as file:
        return file.read(20)
