"""Reads a YAML or JSON file into nodes that know their line, without constructing any object of the file.

A project file is one document of UTF-8 text of at most a megabyte, without duplicate keys; anything else is
an error. Scalars are resolved by the rules of YAML 1.2, which the deploying tools use: ``0100`` is a hundred
and ``yes`` is a string.

An alias is not a copy but the node that it names. The cost of reading is therefore limited by the size of the
file, whatever its aliases expand to, as long as no code walks the whole tree.

PyYAML is imported only when the first such file is read.
"""

from __future__ import annotations

import os
import re
import stat as modes
from types import ModuleType
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

from . import jsonfile
from .nodes import DEEPEST, File, Node, Scalar, Value

#: The largest file, in bytes: the limit that AWS sets for a CloudFormation template.
SIZE_LIMIT: Final = 1 << 20

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_BASED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULLS: Final = ("", "~", "null", "Null", "NULL")
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read(path: str | os.PathLike[str]) -> Node:
    """The top node of the YAML file ``path``, or of the JSON file if its name ends in ``.json``.

    Raises ConfigurationError if the file is missing, unreadable, too large, not a regular file or not valid
    YAML or JSON.
    """
    name = os.fsdecode(path)
    data = _data(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        raise File(name).error(line, "", f"is not UTF-8: byte 0x{data[exc.start]:02x}") from None
    if _is_json(name, text):
        return jsonfile.build(text.removeprefix("\ufeff"), File(name))
    return _Builder(File(name)).build(text)


def _is_json(name: str, text: str) -> bool:
    """``.template`` is CloudFormation's own ending, for both languages."""
    return name.endswith(".json") or (name.endswith(".template") and text.lstrip("\ufeff \t\r\n")[:1] == "{")


def _data(name: str) -> bytes:
    if "\0" in name:
        raise ConfigurationError(f"{name!r} contains a NUL byte: give a file")
    try:
        # O_NONBLOCK: if the file is a pipe, do not wait for a writer.
        descriptor = originals.os_open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise ConfigurationError(f"{name}: cannot be read: {exc.strerror}") from None
    try:
        status = originals.fstat(descriptor)
        if modes.S_ISDIR(status.st_mode):
            raise ConfigurationError(f"{name}: is a directory: give the file in it")
        if not modes.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{name}: is not a regular file")
        data = b""
        # Files in /proc report a size of 0, so the limit applies to what is read.
        while len(data) <= SIZE_LIMIT and (piece := originals.read(descriptor, SIZE_LIMIT + 1 - len(data))):
            data += piece
    except OSError as exc:
        raise ConfigurationError(f"{name}: cannot be read: {exc.strerror}") from None
    finally:
        originals.close(descriptor)
    if len(data) > SIZE_LIMIT:
        raise ConfigurationError(
            f"{name}: is larger than the limit of {SIZE_LIMIT:,} bytes for a project file"
        )
    return data


class _Builder:
    """Builds nodes from the events of PyYAML's parser, which neither recurses nor constructs objects."""

    def __init__(self, file: File) -> None:
        self.file = file
        #: The open mappings and lists, each with its children so far and its anchor.
        self._open: list[tuple[Node, list[Node], str | None]] = []
        #: The node that each anchor names; None while that node is open.
        self._anchors: dict[str, Node | None] = {}
        self._top: Node | None = None

    def build(self, text: str) -> Node:
        yaml = _yaml()
        try:
            # The C parser reads a megabyte in half a second, the pure Python one in ten.
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                self._take(event, yaml)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            line = mark.line + 1 if mark else 1
            problem = " ".join(filter(None, (exc.context, exc.problem)))
            if "nesting depth" in problem:  # the C parser looks ahead and has its own limit
                raise self._too_deep(line) from None
            raise self.file.error(line, "", f"is not valid YAML: {problem}") from None
        except yaml.YAMLError as exc:
            # A character that YAML does not allow; the exception gives a position but no line.
            reason = getattr(exc, "reason", None) or exc
            position = getattr(exc, "position", 0)
            line = text.encode()[:position].count(b"\n") + 1
            raise self.file.error(line, "", f"is not valid YAML: {reason}") from None
        if self._top is None:
            raise ConfigurationError(f"{self.file.path}: is empty")
        return self._top

    def _take(self, event: Any, yaml: ModuleType) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            tag, value = _scalar(event.tag, event.value, event.implicit[0])
            self._put(Node(self.file, line, tag, value), event.anchor)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(self._open) >= DEEPEST:
                raise self._too_deep(line)
            empty: Value = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._open.append((Node(self.file, line, _own_tag(event.tag), empty), [], event.anchor))
            if event.anchor is not None:
                self._anchors[event.anchor] = None
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            node, children, anchor = self._open.pop()
            node.value = self._mapping(children) if isinstance(node.value, dict) else children
            self._put(node, anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.DocumentStartEvent) and self._top is not None:
            raise self.file.error(line, "", "starts a second document: a project file has only one")

    def _too_deep(self, line: int) -> ConfigurationError:
        return self.file.error(line, "", f"is nested deeper than {DEEPEST} mappings and lists")

    def _put(self, node: Node, anchor: str | None = None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1][1].append(node)
        else:
            self._top = node

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            raise self.file.error(line, "", f"is not valid YAML: *{anchor} names nothing")
        target = self._anchors[anchor]
        if target is None:
            raise self.file.error(line, "", f"*{anchor} is inside the value that it names")
        self._put(target)

    def _mapping(self, children: list[Node]) -> dict[str, Node]:
        """The mapping for alternating keys and values."""
        found: dict[str, Node] = {}
        first: dict[object, int] = {}
        for name, value in zip(children[::2], children[1::2], strict=True):
            if isinstance(name.value, (dict, list)):
                continue  # no code looks for such a key
            kind = (type(name.value), name.value)
            if kind in first:
                text = f"duplicate key {name.value!r}, first used in line {first[kind]}"
                raise self.file.error(name.line, "", text)
            first[kind] = name.line
            found[name.value if isinstance(name.value, str) else str(name.value)] = value
        return found


def _own_tag(tag: str | None) -> str:
    """A tag that YAML itself does not define, such as ``!Ref``; "" for any other, or none."""
    return "" if tag is None or tag == "!" or tag.startswith(_TAG) else tag


def _scalar(tag: str | None, text: str, plain: bool) -> tuple[str, Scalar]:
    """The tag and the value of a scalar by the core schema of YAML 1.2."""
    own = _own_tag(tag)
    if own or tag == "!" or tag == f"{_TAG}str" or (tag is None and not plain):
        return own, text
    return "", _resolved(text)


def _resolved(text: str) -> Scalar:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    # Longer text stays a string: the interpreter refuses to convert thousands of digits.
    if len(text) <= 100:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _yaml() -> ModuleType:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError("PyYAML is needed to read a project file: pip install pyyaml") from None
    return yaml  # type: ignore[no-any-return]
