"""The nodes of a project file: its values, each with its file, its line and its key, for errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tmpguard.core.errors import ConfigurationError

#: The deepest nesting of mappings and lists.
DEEPEST: Final = 100


class File:
    """A project file, which makes the errors about its contents. ``path`` is as given."""

    def __init__(self, path: str) -> None:
        self.path = path

    def error(self, line: int, key: str, problem: str) -> ConfigurationError:
        """The error ``genezio.yaml:9: backend.functions[0].storageSize: problem``."""
        return ConfigurationError(f"{self.path}:{line}: {f'{key}: ' if key else ''}{problem}")


Scalar = str | int | float | bool | None


class Node:
    """A value in a project file: ``key`` is its path from the top, ``line`` counts from 1."""

    __slots__ = ("file", "key", "line", "tag", "value")

    def __init__(self, file: File, line: int, tag: str, value: Value) -> None:
        self.file = file
        self.line = line
        self.tag = tag
        self.value = value
        self.key = ""

    def error(self, problem: str) -> ConfigurationError:
        """The error that names the file, the line and the key."""
        return self.file.error(self.line, self.key, problem)

    def described(self) -> str:
        """A short description of the value, for an error."""
        if self.tag:
            return f"{self.tag} (not resolved here)"
        kinds = {dict: "a mapping", list: "a list", type(None): "no value"}
        if isinstance(self.value, bool):
            return str(self.value).lower()
        return kinds.get(type(self.value)) or f"{self.value!r}"

    # --- typed access, or an error -------------------------------------------------------------------

    def get(self, name: str) -> Node | None:
        """The value of the key ``name`` of a mapping; None if there is no such key."""
        node: Node | None = self.mapping().get(name)
        return None if node is None else node._at(f"{self.key}.{name}" if self.key else name)

    def mapping(self) -> dict[str, Node]:
        """The nodes of a mapping. Raises ConfigurationError for anything else."""
        if self.tag or not isinstance(self.value, dict):
            raise self.error(f"expected a mapping, found {self.described()}")
        return self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """The keys and values of a mapping."""
        for name, node in self.mapping().items():
            yield name, node._at(f"{self.key}.{name}" if self.key else name)

    def entries(self) -> Iterator[Node]:
        """The nodes of a list. Raises ConfigurationError for anything else."""
        if self.tag or not isinstance(self.value, list):
            raise self.error(f"expected a list, found {self.described()}")
        for number, node in enumerate(self.value):
            yield node._at(f"{self.key}[{number}]")

    def text(self) -> str:
        """A string. Raises ConfigurationError for anything else, and for an empty one."""
        if self.tag or not isinstance(self.value, str):
            raise self.error(f"expected a string, found {self.described()}")
        if not self.value or "\0" in self.value:
            raise self.error(f"{self.value!r} is empty or contains a NUL byte")
        return self.value

    def _at(self, key: str) -> Node:
        # An alias is the same node under another key.
        node = Node(self.file, self.line, self.tag, self.value)
        node.key = key
        return node


Value = dict[str, Node] | list[Node] | Scalar
