"""What a project file says about each thing it deploys, as input for a guard's options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tmpguard.core.errors import ConfigurationError

from .options import size_problem
from .platforms import Platform
from .yamlfile import Node

#: Names listed in an error.
_LISTED = 20


class Deployable(NamedTuple):
    """A function, or anything else that is deployed with a ``/tmp``, as the project file describes it."""

    #: ``"function"``, ``"class"`` or its key in the project file.
    kind: str
    name: str
    #: Its node in the file, for errors.
    node: Node
    #: The directory whose files are deployed. It may not exist. None if the file does not name one.
    directory: str | None
    #: The node that names the directory, for errors.
    directory_node: Node
    #: The storage size in MB as written in the file; None if it is not given.
    size_node: Node | None
    handler: str | None = None
    entry: str | None = None
    concurrency: int | None = None

    def size(self, plan: str, platform: Platform) -> int | None:
        """The storage size in MB, None if the file gives none.

        Raises ConfigurationError with the file, the line and the key if the size is not valid (C3.1).
        """
        node = self.size_node
        if node is None:
            return None
        value = node.value
        if node.tag or isinstance(value, (dict, list, bool, type(None))):
            raise node.error(f"{node.described()}: give a whole number of MB")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # the deploying tools treat 64.0 as 64
        if problem := size_problem(value, plan, platform):
            raise node.error(problem)
        assert isinstance(value, int)
        return value

    def existing_directory(self) -> str | None:
        """The directory. Raises ConfigurationError with the file, line and key if it does not exist."""
        if self.directory is None or os.path.isdir(self.directory):
            return self.directory
        what = "is not a directory" if os.path.lexists(self.directory) else "does not exist"
        raise self.directory_node.error(f"{os.path.normpath(self.directory)} {what}")

    def size_from(self) -> str:
        """Where the file gives the storage size, for the log."""
        node = self.size_node or self.node
        missing = "" if self.size_node is not None else ", which gives no size"
        return f'{node.file.path}:{node.line}, {self.kind} "{self.name}"{missing}'


def checked_path(path: object, example: str) -> str:
    """The path of a project file. Raises ConfigurationError for anything that is not a path."""
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path):
        raise ConfigurationError(f"{path!r} is not a path: give the path of a {example}")
    return os.fsdecode(path)


def choose(found: Sequence[Deployable], name: object, path: str, option: str = "function") -> Deployable:
    """The one called ``name``; without a name, the only one.

    Raises ConfigurationError with a list of the names if there is no such one, or more than one.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"{option}={name!r} is not a name: give a string, one of {listed(found)}")
    if not found:
        raise ConfigurationError(f"{path}: deploys nothing that has a /tmp: it has no functions")
    if name is None:
        candidates = only_functions(found)
        if len(candidates) > 1:
            first = candidates[0].name
            raise ConfigurationError(
                f"{path}: has {len(candidates)} candidates, {listed(candidates)}: "
                f'choose one, {option}="{first}"'
            )
        return candidates[0]
    for one in found:
        if one.name == name:
            return one
    raise ConfigurationError(f"{path}: has no {option} {name!r}: it has {listed(found)}")


def only_functions(found: Sequence[Deployable]) -> Sequence[Deployable]:
    """The functions among ``found`` if there are any: the rest is usually not Python."""
    return [one for one in found if one.kind == "function"] or found


def listed(found: Iterable[Deployable]) -> str:
    """The names of ``found``, for an error."""
    names = [f'"{one.name}"' for one in found]
    if len(names) > _LISTED:
        names[_LISTED:] = [f"and {len(names) - _LISTED} more"]
    return ", ".join(names)


def whole_number(node: Node | None) -> int | None:
    """A count of at least 1, or None if it is not given."""
    if node is None:
        return None
    value = node.value
    if node.tag or isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise node.error(f"{node.described()}: give a whole number, 1 or more")
    return value


def text(node: Node | None) -> str | None:
    """A string, or None if it is not given."""
    return None if node is None else node.text()
