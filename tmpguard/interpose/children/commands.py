"""Turns the program that the application starts into a command that first enters the namespace."""

from __future__ import annotations

import os
import signal
import stat as modes
from collections.abc import Iterable
from contextlib import suppress
from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR
from typing import TYPE_CHECKING, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.aliases import Environment, StrOrBytesPath
from tmpguard.core.errors import os_error
from tmpguard.core.invocation import Invocation

from .programs import surely_runs

if TYPE_CHECKING:
    from tmpguard.kernel.containment import MountNamespace

#: Signals that the interpreter ignores, and that a child may or may not get restored.
IGNORED: Final = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name))


class ProgramStart(NamedTuple):
    """A program to start: the paths to try, its arguments, its canonical directory and its environment."""

    programs: tuple[bytes, ...]
    args: list[bytes]
    directory: bytes
    #: Entries ``NAME=value``; None for the environment of this process.
    environment: list[bytes] | None


def program_start(
    invocation: Invocation,
    programs: Iterable[StrOrBytesPath],
    args: Iterable[StrOrBytesPath],
    directory: StrOrBytesPath | None = None,
    environment: Iterable[bytes] | None = None,
) -> ProgramStart:
    """The start of a program. Raises TypeError and ValueError as the original does."""
    here = invocation.namespace.working_directory()
    if directory is not None:
        named = os.fsdecode(directory)
        here = named and os.path.join(here, named)  # an empty name does not exist
    start = ProgramStart(
        tuple(map(os.fsencode, programs)),
        [os.fsencode(arg) for arg in args],
        os.fsencode(here),
        None if environment is None else list(environment),
    )
    if any(b"\0" in text for part in start[:2] for text in part) or b"\0" in start.directory:
        raise ValueError("embedded null byte")
    if any(b"\0" in entry for entry in start.environment or ()):
        raise ValueError("embedded null byte")
    return start


def entries_of(environment: Environment | None) -> list[bytes] | None:
    """An environment as ``NAME=value`` entries. Raises TypeError and ValueError as ``os.execve`` does."""
    if environment is None:
        return None
    entries = []
    for key, value in environment.items():
        name = os.fsencode(key)
        if not name or b"=" in name[1:]:
            raise ValueError("illegal environment variable name")
        entries.append(name + b"=" + os.fsencode(value))
    return entries


def searched(name: bytes, path: bytes | None = None) -> tuple[bytes, ...]:
    """The candidate paths for ``name``, in the directories of ``path``, by default those of PATH."""
    if path is None:
        path = os.fsencode(os.environ.get("PATH", os.defpath))
    return tuple(os.path.join(directory, name) for directory in path.split(b":"))


def quick_command(
    invocation: Invocation, namespace: MountNamespace, start: ProgramStart
) -> list[bytes] | None:
    """The quick command if it cannot fail, otherwise None."""
    if any(entry.startswith(b"LD_") for entry in start.environment or ()):
        return None  # the variable is meant for the program, not for the command that enters the namespace
    name = start.args[0] if start.args else b""
    if b"/" in name:
        if start.programs != (name,):
            return None  # the program's argv[0] differs from its path
    elif not name or start.programs != searched(name, _path_in(start.environment)):
        return None
    if not _can_be_entered(invocation, os.fsdecode(start.directory)):
        return None
    if surely_runs(invocation, start.programs, start.directory) is None:
        return None
    return namespace.quick(start.args, start.directory)


def _path_in(environment: list[bytes] | None) -> bytes | None:
    if environment is None:
        return None
    paths = (entry[5:] for entry in environment if entry.startswith(b"PATH="))
    return next(paths, os.fsencode(os.defpath))


def _can_be_entered(invocation: Invocation, directory: str) -> bool:
    try:
        real = invocation.namespace.resolve(directory, follow=True).real
        return modes.S_ISDIR(originals.stat(real).st_mode) and originals.access(real, os.R_OK | os.X_OK)
    except OSError:
        return False


def orders(start: ProgramStart, restored: Iterable[int] = (), **more: object) -> dict[str, object]:
    """The careful command's orders. Signals in ``restored`` get their default action."""
    defaults = frozenset(restored)
    ignored = [(int(one), one not in defaults and signal.getsignal(one) is signal.SIG_IGN) for one in IGNORED]
    return {
        "programs": list(start.programs),
        "args": start.args,
        "cwd": start.directory,
        "environment": start.environment,
        "signals": ignored,
        **more,
    }


def check_programs(invocation: Invocation, start: ProgramStart) -> None:
    """Check that one of the programs can be executed, if nothing could raise the error later.

    Raises OSError for those of the kernel's reasons that depend on the files.
    """
    first: OSError | None = None
    last = os_error(ENOENT)
    for program in start.programs:
        try:
            _check_file(invocation, os.fsdecode(os.path.join(start.directory, program)))
            return
        except OSError as exc:
            last = exc
            if first is None and exc.errno not in (ENOENT, ENOTDIR):
                first = exc
    raise first or last


def _check_file(invocation: Invocation, path: str) -> None:
    real = invocation.namespace.resolve(path, follow=True).real
    if not modes.S_ISREG(originals.stat(real).st_mode):
        raise os_error(EACCES)
    if not originals.access(real, os.X_OK, effective_ids=True):
        raise os_error(EACCES)
    with suppress(PermissionError), originals.open(real, "rb") as file:
        if file.read(2) not in (b"#!", b"\x7fE"):
            raise os_error(ENOEXEC)
