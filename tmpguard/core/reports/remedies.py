"""What to do about a refusal, as text: the exception's note and the violation's ``remedy`` (C2.4).

All of these texts are built here from plain values; the code that refuses chooses one. Remedies for specific
libraries are in the table of :mod:`~tmpguard.core.reports.libraries`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import ENOSPC
from typing import Final, NamedTuple

from tmpguard.core.layout import PACKAGE, TMP, is_below
from tmpguard.core.storage.forgotten import Maker

from .libraries import Refusal, find
from .report import NATIVE_OVERRUN

#: The prefix of an exception's note.
NOTE: Final = "tmpguard: "


def add_note(error: BaseException, remedy: str) -> None:
    """Add ``remedy`` to ``error`` as a note, unless it is empty."""
    if remedy:
        error.add_note(f"{NOTE}{remedy}")


# --- a read-only file system ---------------------------------------------------------------------------

_ONLY: Final = f"only {TMP} is writable"
_AT_START: Final = f"{_ONLY}, and what the start writes there is gone before the first request"


class Change(NamedTuple):
    """A change that is refused: by which ``operation``, and the ``path`` as it was given.

    ``package`` is the installed package that asked, "" for the application itself, and ``named`` how the
    application named the file to it, None where it did not.
    """

    operation: str
    path: str
    package: str = ""
    named: str | None = None

    def instead(self, directory: str) -> str:
        """What to do instead; ``directory`` is the working directory, or that of the bundle."""
        name = os.path.basename(self.path.rstrip("/")) or "it"
        if os.path.normpath(self.path) == TMP:
            return f"{TMP} is where it is mounted: empty it, it can be neither removed nor replaced"
        if is_removal(self.operation):
            return f"leave {name} as it is, or leave it out of the deployment"
        if is_metadata(self.operation):
            return f"change {name} before deployment, or a copy of it in {TMP}"
        if self.package and self.named is None:
            more = "" if self.path.startswith("/") else f", or call os.chdir('{TMP}') before"
            return f"give {self.package} a path below {TMP}{more}"
        return f"write to {_below_tmp(self.named or self.path, directory)}"


def is_removal(operation: str) -> bool:
    """Does ``operation`` remove what is there?"""
    return operation.rpartition(".")[2].rpartition(" ")[2] in _REMOVING


def is_metadata(operation: str) -> bool:
    """Does ``operation`` change a mode, an owner, a time or an attribute, and no data?"""
    return operation.rpartition(".")[2].lstrip("fl") in _METADATA


_REMOVING: Final = frozenset({"remove", "unlink", "rmdir"})
_METADATA: Final = frozenset({"chmod", "chown", "utime", "chflags", "setxattr", "removexattr"})


def _below_tmp(path: str, directory: str) -> str:
    """Where in /tmp to write what was to be written to ``path``: tmp/a.txt to /tmp/a.txt as well."""
    if path.startswith("/"):
        inside = is_below(path, directory) and directory not in ("", "/")
        path = os.path.relpath(path, directory) if inside else path.rstrip("/").rpartition("/")[2]
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if parts[:1] == [TMP[1:]]:
        del parts[0]
    return "/".join([TMP, *parts])


def outside(change: Change, project: str) -> str:
    """A change outside ``/tmp``: "only /tmp is writable; write to /tmp/a.txt".

    ``project`` is the working directory.
    """
    return f"{_ONLY}; {change.instead(project)}"


def in_bundle(change: Change, virtual: str) -> str:
    """A change of ``virtual``, a canonical path below ``/tmp/package``."""
    return f"{PACKAGE} is the read-only bundle; {change._replace(path=virtual).instead(PACKAGE)}"


def at_start(change: Change) -> str:
    """A change outside ``/tmp`` during start-up. A write to ``/tmp`` is no remedy: no request sees it."""
    name = os.path.basename(change.path.rstrip("/")) or "it"
    if is_removal(change.operation) or is_metadata(change.operation):
        return f"{_ONLY}; {change.instead('')}"
    return f"{_AT_START}: create {name} during a request ({TMP}/{name}), or ship it with the project"


#: A change that did not go through any function that tmpguard has replaced.
NOT_REPLACED: Final = (
    "this call reached the file system by a reference that tmpguard could not replace; "
    "build the guard before the module that holds it is imported, or call it through os or io"
)


def not_in_bundle(why: str) -> str:
    """A file that is not deployed; ``why`` names the rule."""
    return f"not in the bundle: {why}"


# --- a file of another invocation ----------------------------------------------------------------------

_MADE: Final = {
    Maker.START: f"was made by the start-up, and what that writes to {TMP} is gone before the first request",
    Maker.REQUEST: f"was made by another request, and each request has a {TMP} of its own",
    Maker.INSTANCE: f"was made in an earlier instance, whose {TMP} is gone",
    Maker.UNGUARDED: f"was made by code outside any request, whose {TMP} no request sees",
    Maker.OTHER: f"was there before the request, and the {TMP} of each request is empty at first",
}
_LASTING: Final = "keep what must last in a database server or object storage"


def made_elsewhere(path: str, maker: Maker, keeper: str = "") -> str:
    """A file below ``/tmp`` that ``maker`` had made (C7.4).

    ``keeper`` is the installed package that keeps the path, "" if the application named it in this call.
    """
    if keeper:
        what = f"make the object of {keeper} that keeps this path in each request"
    elif maker in (Maker.START, Maker.UNGUARDED, Maker.OTHER):
        what = "make it in each request, or ship it with the project"
    else:
        what = f"make it in each request, and {_LASTING}"
    return f"{path} {_MADE[maker]}: {what}"


#: A file operation for an invocation that has ended.
OVER: Final = "the invocation that this code runs for has ended"


def held(size: int) -> str:
    """A file of ``size`` bytes that was removed at the end of an invocation, and is still open."""
    kilobytes = -(-size // 1024)
    cost = f"it takes {kilobytes:,} KB of the next request's {TMP}"
    return f"close it before the response: until it is closed, {cost}"


#: A test's own temporary directory.
TEST_DIRECTORY: Final = (
    "pytest's temporary directories are read-only for the application; to allow writes there, set "
    "writable_tmp_path=True in the marker or tmpguard_writable_tmp_path = true in the ini file"
)

# --- a full /tmp; sizes in MB --------------------------------------------------------------------------


def full(size: int) -> str:
    """The quota of ``size`` is used up."""
    return f"{TMP} is full: all of its {size} MB (storage_size={size}) are used; remove files or allow more"


#: The ENOSPC of the real disk, which is no refusal of the quota.
DISK_FULL: Final = (
    "the disk of this machine that holds the scratch directories is full, not the quota of this request: "
    "free space there, or choose another one by scratch_root"
)


def note_full_disk(exc: BaseException) -> None:
    """Say of an ENOSPC that came from the real disk that it did (C4.6). One of the quota has its own note."""
    if isinstance(exc, OSError) and exc.errno == ENOSPC and not getattr(exc, "__notes__", None):
        add_note(exc, DISK_FULL)


def too_many_files(limit: int | None) -> str:
    """There are already as many files as ``max_files`` permits."""
    return f"{TMP} has reached its limit of {limit} files (max_files); remove some or allow more"


def native_overrun(size: int) -> str:
    """Native code has written past the quota of ``size``."""
    return (
        f"{NATIVE_OVERRUN}: {TMP} holds more than its {size} MB (storage_size={size}); "
        "remove files or allow more"
    )


def child_overrun(size: int, files: int) -> str:
    """Child processes have written past the quota: ``/tmp`` holds ``size`` bytes in ``files`` files."""
    return (
        f"what child processes write is measured when they end: {TMP} holds {size} bytes in {files} files; "
        "nothing more can be written until files are removed"
    )


# --- child processes -----------------------------------------------------------------------------------

CHILDREN_REFUSED: Final = (
    'children="refuse" lets no child process start: do the work in Python, or give children="contain" '
    "if the machine permits it"
)

#: A child that sees the real file system.
CHILD_UNGUARDED: Final = (
    'a child process sees the real file system: with children="contain" it sees the request\'s, with '
    'children="refuse" none is started'
)

#: The same as the pytest plugin says it.
CHILDREN_UNGUARDED: Final = (
    "a child process sees the real file system: set tmpguard_children = contain (it sees the request's) or "
    "refuse (none is started) in the ini file, or children= in the marker"
)

SUBINTERPRETER: Final = (
    "a subinterpreter sees the real file system and cannot be contained: use threads, or processes with "
    'children="contain"'
)

NO_SHARED_MEMORY: Final = (
    "the platform has no /dev/shm, which multiprocessing's locks and shared memory need: use threads, "
    "or send data between processes by multiprocessing.Pipe"
)

FORK_SERVER: Final = (
    "the fork server of multiprocessing serves all requests and cannot be contained: use the start method "
    '"spawn" or "fork"'
)


def not_contained(reason: str) -> str:
    """The machine no longer permits containing children."""
    return f"no child can be contained: {reason}"


def named_vfs() -> str:
    """The URI of an ATTACH names a VFS, which has the real file system."""
    return "leave vfs= out of the URI"


# --- known libraries -----------------------------------------------------------------------------------


def advice(
    operation: str,
    code: int,
    path: str,
    remedy: str,
    *,
    project: str,
    functions: Iterable[str] = (),
    package: str = "",
    at_start: bool = False,
) -> str:
    """What to do about a refusal: ``remedy``, unless the table has a more specific one.

    ``path`` is as the application gave it, and ``project`` is its working directory. ``functions`` are the
    library functions on the way to the call, and ``package`` is the installed package that made it.
    ``at_start`` is true during start-up, when no request is running. Never raises.
    """
    try:
        absolute = os.path.normpath(os.path.join(project, path))
        is_change = is_removal(operation) or is_metadata(operation)
        row = find(Refusal(operation, code, absolute, project, functions, package, changes=is_change))
        if row is None:
            return remedy
        say = row.say.format(to=f"{TMP}/{os.path.basename(absolute)}")
    except Exception:  # a generic remedy is better than raising a different error in the application
        return remedy
    if code == ENOSPC:
        return f"{remedy}; {say}"
    return f"{_AT_START if at_start else _ONLY}; {say}"
