"""File operations in an invocation on what is not in its ``/tmp``: the project's own files, say.

The plain side does the same to the same kind of files. Both have been there before.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

from .measure import Batch, Prepare, Row

NAMES = 20


@contextlib.contextmanager
def project(guarded: bool, directory: str) -> Iterator[str]:
    """A project of some files, not below ``/tmp``, and the invocation in which they are used."""
    with tempfile.TemporaryDirectory(prefix="project-", dir="/var/tmp") as root, contextlib.chdir(root):
        yield from _used(guarded, directory, root)


def _used(guarded: bool, directory: str, root: str) -> Iterator[str]:
    os.makedirs(root + "/package/templates")
    for number in range(NAMES):
        with open(f"{root}/package/templates/{number:02}.html", "wb") as file:
            file.write(os.urandom(4096))
    if not guarded:
        yield root
        return
    import tmpguard

    with tmpguard.invocation(scratch_root=directory, bundle=root):
        yield root


def repeated(call: Callable[[str], object], path: str, *, relative: bool = False) -> Prepare:
    """``call`` with the absolute path of what is at ``path`` in the project, or with ``path`` itself."""

    def prepare(guarded: bool, directory: str) -> Iterator[Batch]:
        with project(guarded, directory) as root:
            given = path if relative else f"{root}/{path}"

            def batch(count: int) -> None:
                for _ in range(count):
                    call(given)

            yield batch

    return prepare


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def status(path: str) -> None:
    os.stat(path)


def exists(path: str) -> None:
    os.path.exists(path)


def names(path: str) -> None:
    os.listdir(path)


FILE = "package/templates/07.html"
FOLDER = "package/templates"

ROWS = (
    Row("outside `/tmp`: read a file of 4 KiB", 1.40, repeated(read, FILE)),
    Row("outside `/tmp`: read a file of 4 KiB by a relative path", 1.40, repeated(read, FILE, relative=True)),
    Row("outside `/tmp`: `os.stat`", 1.30, repeated(status, FILE)),
    Row("outside `/tmp`: `os.stat` by a relative path", 1.30, repeated(status, FILE, relative=True)),
    Row("outside `/tmp`: `os.path.exists`", 1.30, repeated(exists, FILE)),
    Row("outside `/tmp`: `os.listdir` of 20 names", 1.40, repeated(names, FOLDER)),
    Row("outside `/tmp`: `os.listdir` by a relative path", 1.40, repeated(names, FOLDER, relative=True)),
)
