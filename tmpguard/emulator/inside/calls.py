"""The system calls that change a file system: what the observer sees of an instance.

A call's shape names its arguments: ``p0`` is a path in argument 0, ``d0p1`` one in argument 1 relative to the
directory in argument 0, ``f0`` a descriptor. The first of two paths is the one that a finding names.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: What a seccomp filter passes with a call: sample the space in use before it (it may free some) or not.
PLAIN: Final = 0
FREES: Final = 1

_ROWS: Final = (
    # name, number on x86-64, on arm64, shape, may it free space?
    ("open", 2, -1, "p0", PLAIN),
    ("open", 257, 56, "d0p1", PLAIN),
    ("open", 437, 437, "d0p1", PLAIN),
    ("open", 85, -1, "p0", FREES),
    ("mkdir", 83, -1, "p0", PLAIN),
    ("mkdir", 258, 34, "d0p1", PLAIN),
    ("mknod", 133, -1, "p0", PLAIN),
    ("mknod", 259, 33, "d0p1", PLAIN),
    ("rmdir", 84, -1, "p0", PLAIN),
    ("unlink", 87, -1, "p0", FREES),
    ("unlink", 263, 35, "d0p1", FREES),
    ("rename", 82, -1, "p0p1", FREES),
    ("rename", 264, 38, "d0p1d2p3", FREES),
    ("rename", 316, 276, "d0p1d2p3", FREES),
    ("link", 86, -1, "p1p0", PLAIN),
    ("link", 265, 37, "d2p3d0p1", PLAIN),
    ("symlink", 88, -1, "p1", PLAIN),
    ("symlink", 266, 36, "d1p2", PLAIN),
    ("chmod", 90, -1, "p0", PLAIN),
    ("chmod", 91, 52, "f0", PLAIN),
    ("chmod", 268, 53, "d0p1", PLAIN),
    ("chmod", 452, 452, "d0p1", PLAIN),
    ("chown", 92, -1, "p0", PLAIN),
    ("lchown", 94, -1, "p0", PLAIN),
    ("chown", 93, 55, "f0", PLAIN),
    ("chown", 260, 54, "d0p1", PLAIN),
    ("utime", 132, -1, "p0", PLAIN),
    ("utime", 235, -1, "p0", PLAIN),
    ("utime", 261, -1, "d0p1", PLAIN),
    ("utime", 280, 88, "d0p1", PLAIN),
    ("truncate", 76, 45, "p0", FREES),
    ("truncate", 77, 46, "f0", FREES),
    ("fallocate", 285, 47, "f0", FREES),
    ("setxattr", 188, 5, "p0", PLAIN),
    ("setxattr", 189, 6, "p0", PLAIN),
    ("setxattr", 190, 7, "f0", PLAIN),
    ("setxattr", 463, 463, "d0p1", PLAIN),
    ("removexattr", 197, 14, "p0", PLAIN),
    ("removexattr", 198, 15, "p0", PLAIN),
    ("removexattr", 199, 16, "f0", PLAIN),
    ("removexattr", 466, 466, "d0p1", PLAIN),
)

#: Calls on files that are open already.
_WRITES: Final = (
    ("write", 1, 64, "f0", PLAIN),
    ("write", 18, 68, "f0", PLAIN),
    ("write", 20, 66, "f0", PLAIN),
    ("write", 296, 70, "f0", PLAIN),
    ("write", 328, 287, "f0", PLAIN),
    ("sendfile", 40, 71, "f0", PLAIN),
    ("copy_file_range", 326, 285, "f2", PLAIN),
    ("splice", 275, 76, "f2", PLAIN),
    ("close", 3, 57, "f0", FREES),
    ("close", 33, -1, "f1", FREES),
    ("close", 292, 24, "f1", FREES),
    ("close", 436, 436, "f0", FREES),
)

#: Flags of open() that ask for more than reading: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE.
OPEN_CHANGES: Final = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000

#: The argument that has the flags of open(), by the call's number.
_FLAGS: Final = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}

#: The descriptor to which a process writes the stack of a thread; see :mod:`.stacks`.
DESCRIPTOR: Final = 1023

OPENAT2: Final = 437
IO_URING_SETUP: Final = 425

#: The machine, its identification in seccomp filters, and the numbers of bind, listen and rt_sigreturn.
MACHINE: Final = os.uname().machine
_MACHINES: Final = {
    "x86_64": (0xC000003E, 49, 50, 15, 317),
    "aarch64": (0xC00000B7, 200, 201, 139, 277),
}
KNOWN_MACHINE: Final = MACHINE in _MACHINES
ARCHITECTURE, BIND, LISTEN, SIGRETURN, SECCOMP = _MACHINES.get(MACHINE, (0, -1, -1, -1, -1))


class SystemCall:
    """One of the calls on this machine.

    ``paths`` has for each path the argument of its directory (-1: the working directory) and its own.
    ``descriptor`` is the argument of a descriptor, -1 if there is none. ``flags`` is that of open()'s flags.
    """

    __slots__ = ("descriptor", "flags", "frees", "name", "number", "paths")

    def __init__(self, name: str, number: int, shape: str, frees: int) -> None:
        self.name = name
        self.number = number
        self.frees = frees
        self.flags = _FLAGS.get(MACHINE, {}).get(number, -1)
        self.descriptor = int(shape[1:]) if shape.startswith("f") else -1
        self.paths: list[tuple[int, int]] = []
        directory = -1
        for kind, argument in zip(shape[::2], map(int, shape[1::2]), strict=True):
            if kind == "d":
                directory = argument
            elif kind == "p":
                self.paths.append((directory, argument))
                directory = -1


def _calls(rows: tuple[tuple[str, int, int, str, int], ...]) -> dict[int, SystemCall]:
    found = {}
    for name, x86_64, aarch64, shape, frees in rows:
        number = x86_64 if MACHINE == "x86_64" else aarch64
        if number >= 0:
            found[number] = SystemCall(name, number, shape, frees)
    return found


CHANGES: Final = _calls(_ROWS)
WRITES: Final = _calls(_WRITES)
CALLS: Final = {**CHANGES, **WRITES}
