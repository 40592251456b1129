"""What a project file says of one thing that it deploys, and the guard that is made from it."""

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
    """A function, or another thing that is deployed and has a ``/tmp``, as the project file has it."""

    #: ``"function"``, ``"class"`` or the key of the project file that it stands under.
    kind: str
    name: str
    #: Where it stands in the file: for errors.
    node: Node
    #: The directory whose files are deployed, joined but not looked at; None where the file names none.
    directory: str | None
    #: What names the directory, for errors.
    directory_node: Node
    #: The storage size in MB as it stands in the file; None where it is not given.
    size_node: Node | None
    handler: str | None = None
    entry: str | None = None
    concurrency: int | None = None

    def size(self, plan: str, platform: Platform) -> int | None:
        """The storage size in MB, None where the file gives none.

        Raises ConfigurationError with the file, the line and the key for one that cannot be (C3.1).
        """
        node = self.size_node
        if node is None:
            return None
        value = node.value
        if node.tag or isinstance(value, (dict, list, bool, type(None))):
            raise node.error(f"{node.described().rstrip(',')}: give a whole number of MB")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 64.0 is the same number to the deploying tools
        if problem := size_problem(value, plan, platform):
            raise node.error(problem)
        assert isinstance(value, int)
        return value

    def existing_directory(self) -> str | None:
        """The directory. Raises ConfigurationError with the file, the line and the key if there is none."""
        if self.directory is None or os.path.isdir(self.directory):
            return self.directory
        what = "is no directory" if os.path.lexists(self.directory) else "does not exist"
        raise self.directory_node.error(f"{os.path.normpath(self.directory)} {what}")

    def told_by(self) -> str:
        """Where the storage size stands, for the log."""
        node = self.size_node or self.node
        missing = "" if self.size_node is not None else ", which gives no size"
        return f'{node.file.path}:{node.line}, {self.kind} "{self.name}"{missing}'


def checked_path(path: object, example: str) -> str:
    """The path of a project file. Raises ConfigurationError for what is none."""
    if not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path):
        raise ConfigurationError(f"{path!r} is no path: give that of a {example}")
    return os.fsdecode(path)


def choose(found: Sequence[Deployable], name: object, path: str, option: str = "function") -> Deployable:
    """The one that is called ``name``; without a name the only one there is.

    Raises ConfigurationError, with those there are, where there is none or more than one.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"{option}={name!r} is no name: give a string, one of {listed(found)}")
    if not found:
        raise ConfigurationError(f"{path}: deploys nothing that has a /tmp: no function is in it")
    if name is None:
        candidates = only_functions(found)
        if len(candidates) > 1:
            first = candidates[0].name
            raise ConfigurationError(
                f'{path}: has {len(candidates)} of them, {listed(candidates)}: say which, {option}="{first}"'
            )
        return candidates[0]
    for one in found:
        if one.name == name:
            return one
    raise ConfigurationError(f"{path}: has no {option} {name!r}: it has {listed(found)}")


def only_functions(found: Sequence[Deployable]) -> Sequence[Deployable]:
    """The functions among them where there are any: what else is deployed is not Python's as a rule."""
    return [one for one in found if one.kind == "function"] or found


def listed(found: Iterable[Deployable]) -> str:
    """Their names, for an error."""
    names = [f'"{one.name}"' for one in found]
    if len(names) > _LISTED:
        names[_LISTED:] = [f"and {len(names) - _LISTED} more"]
    return ", ".join(names)


def whole_number(node: Node | None) -> int | None:
    """A count of at least 1, or None where it is not given."""
    if node is None:
        return None
    value = node.value
    if node.tag or isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise node.error(f"{node.described()}: give a whole number from 1 up")
    return value


def text(node: Node | None) -> str | None:
    """A string, or None where it is not given."""
    return None if node is None else node.text()
