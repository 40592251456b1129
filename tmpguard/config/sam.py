"""Makes a guard from a template of AWS SAM or CloudFormation: its size and bundle are those of one function.

The size is its ``EphemeralStorage``. tmpguard reads resources of the types ``AWS::Serverless::Function`` and
``AWS::Lambda::Function``, and ``Globals.Function`` for the former. It does not resolve the short forms of
CloudFormation's functions (``!Ref``, ``!Sub``, ``!GetAtt``): a size given by one of them is an error.
"""

from __future__ import annotations

import os
from typing import Any, Final

from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError

from . import yamlfile
from .platforms import PLATFORMS
from .project import Deployable, checked_path, choose
from .yamlfile import Node

PLATFORM: Final = PLATFORMS["aws-lambda"]

_SERVERLESS: Final = "AWS::Serverless::Function"
#: The property that names the code, by the type of the function.
_TYPES: Final = {_SERVERLESS: "CodeUri", "AWS::Lambda::Function": "Code"}


def read(path: str | os.PathLike[str]) -> list[Deployable]:
    """The functions of a template. Raises ConfigurationError with the file, the line and the key."""
    top = yamlfile.read(path)
    base = os.path.dirname(os.path.abspath(top.file.path))
    globals_node = top.get("Globals")
    of_all = globals_node.get("Function") if globals_node else None
    resources = top.get("Resources")
    if resources is None:
        raise top.error("has no Resources: give a template of AWS SAM or CloudFormation")
    found = []
    for name, node in resources.items():
        # A CloudFormation loop appears here as a list.
        kind = node.get("Type") if isinstance(node.value, dict) else None
        if kind is not None and isinstance(kind.value, str) and kind.value in _TYPES:
            found.append(_function(name, node, kind.value, of_all, base))
    return found


def _function(name: str, node: Node, kind: str, of_all: Node | None, base: str) -> Deployable:
    properties = [node.get("Properties"), of_all if kind == _SERVERLESS else None]

    def given(key: str) -> Node | None:
        for holder in properties:
            if holder is not None and (value := holder.get(key)) is not None:
                return value
        return None

    storage, code = given("EphemeralStorage"), given(_TYPES[kind])
    size = storage
    if storage is not None and not storage.tag and isinstance(storage.value, dict):
        size = storage.get("Size") or storage
    local = code is not None and not code.tag and isinstance(code.value, str) and "://" not in code.value
    directory = os.path.join(base, code.text()) if local and code is not None else base
    return Deployable("function", name, node, os.path.normpath(directory), code or node, size)


def options_of(
    path: object, function: object, overrides: dict[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """The options for :meth:`tmpguard.Guard.from_sam`, and where the template gives the storage size.

    The latter is None if the size does not come from the template. Raises ConfigurationError.
    """
    given = dict(overrides)
    if given.setdefault("platform", PLATFORM.name) != PLATFORM.name:
        raise ConfigurationError(
            f'platform={given["platform"]!r} does not match an AWS template: it is always "{PLATFORM.name}"'
        )
    size_from = None
    with unguarded():
        name = checked_path(path, "template.yaml")
        one = choose(read(name), function, name)
        if given.get("storage_size") is None and (size := one.size("free", PLATFORM)) is not None:
            given["storage_size"], size_from = size, one.size_from()
        if "bundle" not in given:
            given["bundle"] = one.existing_directory()
    return given, size_from
