"""Makes a guard from a template of AWS SAM or CloudFormation: its size and bundle are those of one function.

The size is its ``EphemeralStorage``. tmpguard reads resources of the types ``AWS::Serverless::Function`` and
``AWS::Lambda::Function``, and ``Globals.Function`` for the former. It does not resolve the short forms of
CloudFormation's functions (``!Ref``, ``!Sub``, ``!GetAtt``): a size given by one of them is an error. The
templates that the CDK writes name the code in their metadata.
"""

from __future__ import annotations

import os
from typing import Final

from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError

from . import yamlfile
from .nodes import Node
from .options import Options
from .platforms import PLATFORMS
from .project import Deployable, checked_path, choose, misspelt

PLATFORM: Final = PLATFORMS["aws-lambda"]

_SERVERLESS: Final = "AWS::Serverless::Function"
#: A template has one of these keys.
_MARKS: Final = ("Resources", "AWSTemplateFormatVersion", "Transform")

#: The memory in MB and the seconds of a function that gives none.
_MEMORY: Final = 128
_TIMEOUT: Final = 3

#: What SAM itself leaves out of a function's code.
LEFT_OUT: Final = (".aws-sam",)

#: The property that names the code, by the type of the function.
_TYPES: Final = {_SERVERLESS: "CodeUri", "AWS::Lambda::Function": "Code"}

#: In the metadata of a resource: the directory of its code, and the construct that it was made from.
_ASSET: Final = "aws:asset:path"
_CONSTRUCT: Final = "aws:cdk:path"


def read(path: str | os.PathLike[str]) -> list[Deployable]:
    """The functions of a template. Raises ConfigurationError with the file, the line and the key."""
    return functions_of(yamlfile.read(path))


def is_template(top: Node) -> bool:
    """Whether the file with the top node ``top`` is a template of SAM or CloudFormation."""
    return isinstance(top.value, dict) and any(key in top.value for key in _MARKS)


def functions_of(top: Node) -> list[Deployable]:
    """The functions of the template with the top node ``top``. Raises as :func:`read` does."""
    base = os.path.dirname(os.path.abspath(top.file.path))
    globals_node = top.get("Globals")
    of_all = globals_node.get("Function") if globals_node else None
    resources = top.get("Resources")
    if resources is None:
        raise misspelt(top, "Resources") or top.error(
            "has no Resources: give a template of AWS SAM or CloudFormation"
        )
    found = []
    for name, node in resources.items():
        # A CloudFormation loop appears here as a list.
        kind = node.get("Type") if isinstance(node.value, dict) else None
        if kind is not None and isinstance(kind.value, str) and kind.value in _TYPES:
            found.append(_Function(name, node, kind.value, of_all, base).read())
    return found


class _Function:
    """One function of a template, whose properties may be in ``Globals``, too."""

    def __init__(self, name: str, node: Node, kind: str, of_all: Node | None, base: str) -> None:
        self.name = name
        self.node = node
        self.base = base
        self.kind = kind
        self.holders = [node.get("Properties"), of_all if kind == _SERVERLESS else None]
        self.metadata = node.get("Metadata")

    def read(self) -> Deployable:
        code = self.given(_TYPES[self.kind])
        directory, directory_node = self.code(code)
        handler, runtime = _plain(self.given("Handler")), _plain(self.given("Runtime"))
        python = runtime is not None and runtime.startswith("python")
        entry = None
        if handler and python and directory is not None and (directory_node is not self.node):
            entry = entry_of(handler, directory)
        size, wrong = self.size()
        return Deployable(
            "function",
            self.name,
            self.node,
            None if directory is None else os.path.normpath(directory),
            directory_node,
            size,
            handler=handler,
            entry=entry,
            timeout=number(self.given("Timeout"), _TIMEOUT),
            runtime=runtime,
            memory=number(self.given("MemorySize"), _MEMORY),
            wrong=wrong,
        )

    def given(self, key: str) -> Node | None:
        for holder in self.holders:
            if holder is not None and (value := holder.get(key)) is not None:
                return value
        return None

    def size(self) -> tuple[Node | None, ConfigurationError | None]:
        """The node of the size, and what is wrong with it."""
        storage = self.given("EphemeralStorage")
        if storage is None:
            for holder in self.holders:
                if (wrong := misspelt(holder, "EphemeralStorage")) is not None:
                    return None, wrong
            return None, None
        if storage.tag:
            return storage, None
        if not isinstance(storage.value, dict):
            return storage, storage.error(
                f"{storage.described()}: give a mapping, EphemeralStorage: {{Size: 512}}"
            )
        size = storage.get("Size")
        # Anything else is a function of CloudFormation's, {"Fn::If": ...}.
        return size or storage, None if size is not None else misspelt(storage, "Size")

    def code(self, code: Node | None) -> tuple[str | None, Node]:
        """The directory of the code, and the node that names it. None if it is not in a directory here."""
        asset = _plain(self.metadata.get(_ASSET)) if self.metadata is not None else None
        if asset is not None and self.metadata is not None:
            directory = os.path.join(self.base, asset)
            node = self.metadata.get(_ASSET) or self.node
            # A file is an archive that was made elsewhere.
            return (None if os.path.isfile(directory) else directory), node
        if code is not None and not code.tag and isinstance(code.value, str) and "://" not in code.value:
            return os.path.join(self.base, code.text()), code
        inline = code is not None and isinstance(code.value, dict) and "ZipFile" in code.value
        synthesized = self.metadata is not None and self.metadata.get(_CONSTRUCT) is not None
        return (None if inline or synthesized else self.base), self.node


def _plain(node: Node | None) -> str | None:
    """A string that is written out; None for anything else."""
    return None if node is None or node.tag or not isinstance(node.value, str) else node.value


def number(node: Node | None, default: int) -> int | None:
    """A whole number that is written out, or the default if none is given; None for anything else."""
    if node is None:
        return default
    value = None if node.tag else node.value
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def entry_of(handler: str, directory: str) -> str:
    """The file of the module of a ``handler``, as ``shop/app.py`` of ``shop.app.handle``."""
    module = handler.rpartition(".")[0].replace(".", "/")
    package = f"{module}/__init__.py"
    return package if os.path.isfile(os.path.join(directory, package)) else f"{module}.py"


def options_of(path: object, function: object, overrides: Options) -> tuple[Options, str | None]:
    """The options for :meth:`tmpguard.Guard.from_sam`, and where the template gives the storage size.

    The latter is None if the size does not come from the template. Raises ConfigurationError.
    """
    with unguarded():
        name = checked_path(path, "template.yaml")
        return chosen(read(name), name, function, overrides)


def chosen(
    found: list[Deployable], path: str, function: object, overrides: Options
) -> tuple[Options, str | None]:
    """The options for the ``function`` among those that the file or directory ``path`` deploys to AWS."""
    given = overrides.copy()
    platform = given.setdefault("platform", PLATFORM.name)
    if platform != PLATFORM.name:
        raise ConfigurationError(
            f'platform={platform!r} does not match an AWS template: it is always "{PLATFORM.name}"'
        )
    size_from = None
    one = choose(found, function, path)
    if given.get("storage_size") is None and (size := one.size("free", PLATFORM)) is not None:
        given["storage_size"], size_from = size, one.size_from()
    if "bundle" not in given:
        given["bundle"] = one.existing_directory()
        if one.ignore is not None and "ignore" not in given:
            given["ignore"] = one.ignore
    return given, size_from
