"""What to do about a refusal, as text: the exception's note and the violation's ``remedy`` (C2.4).

All of these texts are made here, from plain values; who refuses chooses one. What is known of particular
libraries stands in the table of :mod:`~tmpguard.core.reports.libraries`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import ENOSPC
from typing import Final

from tmpguard.core.layout import PACKAGE, TMP, is_below

from .libraries import Refusal, find
from .report import NATIVE_OVERRUN

#: What the note of an exception begins with.
NOTE: Final = "tmpguard: "


def add_note(error: BaseException, remedy: str) -> None:
    """Add ``remedy`` to ``error`` as its note; nothing where there is none."""
    if remedy:
        error.add_note(f"{NOTE}{remedy}")


# --- a read-only file system ---------------------------------------------------------------------------

_AT_START: Final = f"only {TMP} is writable, and what the start writes there is gone before the first request"


def outside(path: str, project: str) -> str:
    """A write outside ``/tmp``: "only /tmp is writable; write to /tmp/a.txt".

    ``path`` is as the application gave it; ``project`` is the working directory.
    """
    if path.startswith("/"):
        inside = is_below(path, project) and project != "/"
        path = os.path.relpath(path, project) if inside else path.rstrip("/").rpartition("/")[2]
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return f"only {TMP} is writable; write to {'/'.join([TMP, *parts])}"


def in_bundle(virtual: str) -> str:
    """A write to ``virtual``, a canonical path below ``/tmp/package``."""
    tail = virtual[len(PACKAGE) :].lstrip("/")
    return f"{PACKAGE} is the read-only bundle; write to {TMP}/{tail}".rstrip("/")


def at_start(path: str) -> str:
    """A write outside ``/tmp`` while the application starts: no request would see what is written there."""
    name = os.path.basename(path.rstrip("/")) or "it"
    return f"{_AT_START}: make {name} while a request runs ({TMP}/{name}), or ship it with the project"


#: A change that reached the file system by none of the functions that tmpguard has replaced.
NOT_REPLACED: Final = (
    "this call reached the file system by a reference that tmpguard could not replace; "
    "build the guard before the module that holds it is imported, or call it through os or io"
)


def not_in_bundle(why: str) -> str:
    """A file that was not deployed; ``why`` names the rule."""
    return f"not in the bundle: {why}"


#: A file operation for an invocation that is over.
OVER: Final = "the invocation that this code runs for is over"

#: A test's own temporary directory.
TEST_DIRECTORY: Final = (
    "pytest's temporary directories are read-only for the application; if it may write there, say "
    "writable_tmp_path=True in the marker or tmpguard_writable_tmp_path = true in the ini file"
)

# --- a full /tmp; sizes in MB --------------------------------------------------------------------------


def full(size: int) -> str:
    """The quota of ``size`` is used."""
    return f"{TMP} is full: all of its {size} MB (storage_size={size}) are used; remove files or allow more"


def too_many_files(limit: int | None) -> str:
    """There are as many files as ``max_files`` permits."""
    return f"{TMP} has its {limit} files (max_files); remove some or allow more"


def native_overrun(size: int) -> str:
    """Native code has written past the quota of ``size``."""
    return (
        f"{NATIVE_OVERRUN}: {TMP} holds more than its {size} MB (storage_size={size}); "
        "remove files or allow more"
    )


def child_overrun(size: int, files: int) -> str:
    """Child processes have written past the quota: ``/tmp`` holds ``size`` bytes in ``files`` files."""
    return (
        f"what children write is measured when they are over: {TMP} holds {size} bytes in {files} files; "
        "nothing more can be written until files are removed"
    )


# --- child processes -----------------------------------------------------------------------------------

CHILDREN_REFUSED: Final = (
    'children="refuse" lets no child process start: do it in Python, or give children="contain" '
    "where the machine permits it"
)

FORK_SERVER: Final = (
    "the fork server of multiprocessing serves all requests and cannot be contained: use the method "
    '"spawn" or "fork"'
)


def not_contained(reason: str) -> str:
    """The machine no longer permits what containing a child takes."""
    return f"no child can be contained: {reason}"


# --- known libraries -----------------------------------------------------------------------------------


def advice(
    operation: str,
    code: int,
    path: str,
    remedy: str,
    *,
    project: str,
    functions: Iterable[str] = (),
    at_start: bool = False,
) -> str:
    """What to do about a refusal: ``remedy``, unless the table knows better.

    ``path`` is as the application gave it, ``project`` its working directory; ``functions`` are those of
    libraries on the way to the call; ``at_start`` says that the application starts and no request runs.
    Never raises.
    """
    try:
        absolute = os.path.normpath(os.path.join(project, path))
        row = find(Refusal(operation, code, absolute, project, functions))
        if row is None:
            return remedy
        say = row.say.format(to=f"{TMP}/{os.path.basename(absolute)}")
    except Exception:  # better a plain remedy than another error in the application's place
        return remedy
    if code == ENOSPC:
        return f"{remedy}; {say}"
    return f"{_AT_START if at_start else f'only {TMP} is writable'}; {say}"
