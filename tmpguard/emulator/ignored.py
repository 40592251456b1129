"""Which entries of a project an instance leaves out, because a ``.genezioignore`` names them (C5.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from tmpguard.core.layout import is_below
from tmpguard.core.mounts.ignore import Ignore

#: A Node project's packages, which the platform installs, are there whatever the file says.
_PACKAGES = "node_modules"


def ignored_entries(ignore: Ignore | None, project: str, kept: Sequence[str] = ()) -> list[str]:
    """The entries that the rules leave out, relative to ``project``; nothing inside another one.

    ``kept`` are paths in the project that stay whatever the rules say, with the directories that lead there.
    """
    if ignore is None or not ignore.rules:
        return []
    base = os.path.dirname(ignore.file)
    offset = os.path.relpath(project, base) if is_below(project, base) else "."
    return sorted(_found(ignore, project, "" if offset == "." else offset + "/", "", kept))


def _found(ignore: Ignore, project: str, offset: str, directory: str, kept: Sequence[str]) -> Iterator[str]:
    try:
        with os.scandir(f"{project}/{directory}") as listing:
            entries = list(listing)
    except OSError:
        return  # it is hidden from the application, too
    for entry in entries:
        name = directory + entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        path = f"{project}/{name}"
        if name == _PACKAGES or any(is_below(path, place) for place in kept):
            continue
        rule = ignore.match(offset + name, is_directory)
        if rule is None or any(is_below(place, path) for place in kept):
            if is_directory:
                yield from _found(ignore, project, offset, f"{name}/", kept)
        else:
            yield name
