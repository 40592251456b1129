"""Reads a JSON file into :mod:`.nodes`, which know their line.

Not every JSON file is a YAML file: tabs, pairs of surrogates and long keys are different. The standard
library decides whether the text is JSON; its tokens are then known to be in order.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from .nodes import DEEPEST, File, Node, Value

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|[^\s{}\[\],:"]+|\n')


def build(text: str, file: File) -> Node:
    """The top node of the JSON ``text``. Raises ConfigurationError, with the line, if it is not valid."""
    try:
        # Numbers are left as they are: the interpreter refuses to convert thousands of digits.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise file.error(exc.lineno, "", f"is not valid JSON: {exc.msg}") from None
    except ValueError as exc:
        raise file.error(1, "", f"is not valid JSON: {exc}") from None
    except RecursionError:
        raise _too_deep(file, 1) from None
    return _nodes(text, file)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _too_deep(file: File, line: int) -> Exception:
    return file.error(line, "", f"is nested deeper than {DEEPEST} mappings and lists")


def _nodes(text: str, file: File) -> Node:
    #: The open mappings and lists, each with its children so far. The outermost holds the top node.
    stack: list[tuple[Node, list[Node]]] = [(Node(file, 1, "", []), [])]
    line = 1
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == "\n":
            line += 1
        elif token in "{[":
            if len(stack) > DEEPEST:
                raise _too_deep(file, line)
            empty: Value = {} if token == "{" else []
            stack.append((Node(file, line, "", empty), []))
        elif token in "}]":
            node, children = stack.pop()
            node.value = _mapping(children, file) if isinstance(node.value, dict) else children
            stack[-1][1].append(node)
        else:
            stack[-1][1].append(Node(file, line, "", _scalar(token)))
    return stack[0][1][0]


def _scalar(token: str) -> str | int | float | bool | None:
    if len(token) > 100 and token[0] != '"':
        return token
    made: str | int | float | bool | None = json.loads(token)
    return made


def _mapping(children: list[Node], file: File) -> dict[str, Node]:
    """The mapping for alternating keys and values."""
    found: dict[str, Node] = {}
    first: dict[str, int] = {}
    for key, value in zip(children[::2], children[1::2], strict=True):
        name = str(key.value)
        if name in first:
            raise file.error(key.line, "", f"duplicate key {name!r}, first used in line {first[name]}")
        first[name] = key.line
        found[name] = value
    return found
