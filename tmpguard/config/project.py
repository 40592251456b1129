"""What a project file says about each thing it deploys, as input for a guard's options."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.ignore import Ignore

from .nodes import Node
from .options import size_problem
from .platforms import Platform

#: Names listed in an error.
_LISTED = 20
#: From which similarity on one key is taken for another, misspelt.
_ALIKE = 0.8


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
    #: ``httpServer`` and the like, and the language of its code.
    type: str | None = None
    language: str | None = None
    #: The most instances; None if it is not given.
    instances: int | None = None
    #: Seconds until an idle instance ends, and for one request; None if they are not given.
    cooldown: float | None = None
    timeout: float | None = None
    #: ``python3.13`` and the like, and the memory in MB; None if they are not given.
    runtime: str | None = None
    memory: int | None = None
    #: The patterns that leave files out of its code, if the project file itself has them.
    ignore: Ignore | None = None
    #: What in the project file was not evaluated: line and message.
    unevaluated: tuple[tuple[int, str], ...] = ()
    #: Why its storage size is not what it seems.
    wrong: ConfigurationError | None = None

    def size(self, plan: str, platform: Platform) -> int | None:
        """The storage size in MB, None if the file gives none.

        Raises ConfigurationError with the file, the line and the key if the size is not valid (C3.1).
        """
        if self.wrong is not None:
            raise self.wrong
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

    @property
    def size_is_computed(self) -> bool:
        """True if the size is an expression that only the deployment evaluates."""
        node = self.size_node
        return self.wrong is None and node is not None and (bool(node.tag) or isinstance(node.value, dict))

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
    """The item in ``found`` with the given ``name``; if ``name`` is None, the only item.

    Raises ConfigurationError, with a list of the names, if there is none, or more than one.
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
    named = [one for one in found if one.name == name]
    if named:
        if (files := sorted({one.node.file.path for one in named})) and len(files) > 1:
            raise ConfigurationError(f"{path}: {option} {name!r} is in {', '.join(files)}: give one of them")
        return named[0]
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


def misspelt(holder: Node | None, wanted: str) -> ConfigurationError | None:
    """The error for a key of ``holder`` that is almost ``wanted``; None if there is no such key."""
    if holder is None or holder.tag or not isinstance(holder.value, dict):
        return None
    for name, node in holder.items():
        if name == wanted:
            continue
        alike = difflib.SequenceMatcher(None, name.lower(), wanted.lower()).ratio()
        if alike >= _ALIKE:
            return node.error(f"is not a key that the deployment reads: did you mean {wanted}?")
    return None


def whole_number(node: Node | None) -> int | None:
    """A count of at least 1, or None if it is not given."""
    if node is None:
        return None
    value = node.value
    if node.tag or isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise node.error(f"{node.described()}: give a whole number, 1 or more")
    return value


def seconds(node: Node | None) -> float | None:
    """A duration of 0 or more seconds, or None if it is not given."""
    if node is None:
        return None
    value = node.value
    if (
        node.tag
        or isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < math.inf
    ):
        raise node.error(f"{node.described()}: give seconds, 0 or more")
    return float(value)


def text(node: Node | None) -> str | None:
    """A string, or None if it is not given."""
    return None if node is None else node.text()
