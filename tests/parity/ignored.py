"""The part of the parity table in which files of the project are not deployed.

Standard library only: the child process gets this file as text.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.operations import OPERATIONS, SHARE, Outcome, entries, is_row, told_of
from tests.parity.places import empty_tmp, make_tmp, paths

RULES = "# not deployed\nmissing\n"


def deploy(project: str) -> None:
    """The project files that are deployed besides those of :func:`tests.parity.places.make_project`."""
    os.symlink("dir/missing", f"{project}/to-ignored")
    with open(f"{project}/.genezioignore", "w") as file:
        file.write(RULES)


def add_ignored(project: str, directories: bool) -> None:
    """Files or directories with the names that are missing on the other side."""
    for path in (f"{project}/missing", f"{project}/dir/missing", f"{project}/tree/missing"):
        if directories:
            os.makedirs(f"{path}/new")
        else:
            with open(path, "w") as file:
                file.write("not deployed")


def _is_concerned(operation: str, name: str) -> bool:
    if operation in ("os.walk", "os.listdir", "os.scandir", "shutil.copytree from"):
        return not name.startswith("/tmp/") or "package" in name
    return any(word in name for word in ("missing", "dangling", "ignored"))


def _is_in_share(row: str, directories: bool) -> bool:
    """A share of the rows, different ones for files and for directories."""
    return zlib.crc32(f"{row} {directories}".encode("utf-8", "surrogateescape")) % SHARE == 0


def outcomes(project: str, directories: bool, start: Callable[[], Any]) -> Iterator[tuple[str, Outcome]]:
    """The outcomes by operation and path; ``start`` provides an empty ``/tmp``."""
    named = paths(project)
    for root, spelled in (("P", project), ("/tmp/package", "/tmp/package")):
        for name in ("to-ignored", "missing/", "dir/missing", "tree/missing/new", "tree/missing/.."):
            named[f"{root}/{name}"] = f"{spelled}/{name}"
    for operation in OPERATIONS:
        fresh = False
        for name, path in named.items():
            if not (_is_concerned(operation, name) and is_row(operation, path, name)):
                continue
            if not _is_in_share(f"{operation} {name}", directories):
                continue
            if not fresh:
                start()
                make_tmp(project, links=True)
            before = entries()
            told = told_of(operation, path)
            fresh = entries() == before
            yield f"{operation} {name}", [told]


def table(project: str, directories: bool) -> dict[str, Outcome]:
    """Every outcome on the kernel's set-up."""
    os.umask(0o022)
    return dict(outcomes(project, directories, empty_tmp))
