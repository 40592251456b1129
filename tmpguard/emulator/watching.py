"""Notices that the files of a project have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

#: Directories in which nobody edits.
_SKIPPED: Final = frozenset(
    (".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".mypy_cache", ".ruff_cache")
)
_SKIPPED_ENDS: Final = (".pyc", ".swp", "~")

#: The time of the last change and the size of each file.
State = dict[str, tuple[int, int]]


def state_of(project: str, left_out: Sequence[str] = ()) -> State:
    """The state of the project's files; ``left_out`` are files that tmpguard itself writes."""
    return {path: state for path, state in _walk(project) if path not in left_out}


def _walk(directory: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with os.scandir(directory) as listing:
            entries = list(listing)
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED and not os.path.exists(f"{entry.path}/pyvenv.cfg"):
                    yield from _walk(entry.path)
            elif not entry.name.endswith(_SKIPPED_ENDS):
                status = entry.stat()
                yield entry.path, (status.st_mtime_ns, status.st_size)
        except OSError:
            continue  # it has just gone


def changed(before: State, after: State) -> list[str]:
    """The files that are new, gone or different."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
