"""Reads a ``serverless.yml`` of the Serverless Framework: its functions' sizes and what is in their code.

tmpguard reads these keys: ``provider`` (``name``, ``runtime``, ``memorySize``, ``timeout``), ``functions``
(``handler``, ``image``, ``runtime``, ``ephemeralStorageSize``, ``memorySize``, ``timeout``, ``package``),
``package`` (``patterns``, ``include``, ``exclude``, ``individually``, ``artifact``) and ``useDotenv``. It
resolves the variables ``${self:...}`` and ``${file(...)}`` of YAML and JSON files; what depends on the
command line, the environment or the account is not resolved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.globs import Glob
from tmpguard.core.mounts.ignore import Ignore, Rule, byte_text

from . import yamlfile
from .nodes import Node, Value
from .platforms import PLATFORMS
from .project import Deployable, misspelt
from .sam import entry_of, number

PLATFORM: Final = PLATFORMS["aws-lambda"]

#: What the framework leaves out by itself, besides its own file.
DEFAULTS: Final = (
    ".git/**",
    ".gitignore",
    ".DS_Store",
    "npm-debug.log",
    "yarn-*.log",
    ".serverless/**",
    ".serverless_plugins/**",
)

#: The memory in MB and the seconds of a function that gives none.
_MEMORY: Final = 1024
_TIMEOUT: Final = 6
_SIZE: Final = "ephemeralStorageSize"

_VARIABLE: Final = re.compile(r"\$\{[^{}]*\}")
_OF_ITSELF: Final = re.compile(r"\$\{self:([\w.-]+)\}")
_OF_A_FILE: Final = re.compile(r"\$\{file\(([^(){}]+)\)(?::([\w.-]+))?\}")
#: The longest chain of variables that name variables, and the most variables of a file.
_DEEPEST: Final = 20
_MOST: Final = 20_000


def is_serverless(top: Node) -> bool:
    """Whether the file with the top node ``top`` is a ``serverless.yml``."""
    keys = top.value if isinstance(top.value, dict) else ()
    return "provider" in keys and ("service" in keys or "functions" in keys)


def functions_of(top: Node) -> list[Deployable]:
    """The functions of the file with the top node ``top``.

    Raises ConfigurationError, with the file, the line and the key, for a file that the framework would
    refuse, and for one of another provider than AWS.
    """
    return _Service(top).functions()


class _Packaging(NamedTuple):
    """The ``package`` of the service or of a function."""

    exclude: list[Node]
    include: list[Node]
    individually: bool
    artifact: Node | None


class _Service:
    def __init__(self, top: Node) -> None:
        self.top = top
        self.base = os.path.dirname(os.path.abspath(top.file.path))
        self.variables = _Variables(top)
        provider = self.get(top, "provider")
        name = provider if provider is not None and isinstance(provider.value, str) else None
        name = name or (self.get(provider, "name") if provider is not None else None)
        if name is None or name.value != PLATFORM.name.partition("-")[0]:
            where, found = (name, name.described()) if name is not None else (top, "no provider")
            raise where.error(f"{found}: tmpguard reads serverless.yml files with the provider aws")
        self.provider = provider if provider is not name else None
        self.package = self.packaging(self.get(top, "package"))

    def get(self, node: Node | None, name: str) -> Node | None:
        """The value of a key of a mapping, with its variables resolved; None if it is not given."""
        value = None if node is None else node.get(name)
        return None if value is None or value.value is None else self.variables.resolved(value)

    def functions(self) -> list[Deployable]:
        listed = self.get(self.top, "functions")
        if listed is None:
            return []
        found: list[Deployable] = []
        # The functions may be in several files, in a list.
        for part in listed.entries() if isinstance(listed.value, list) else (listed,):
            for name, node in _evaluated(self.variables.resolved(part)).items():
                found.append(self.function(name, _evaluated(self.variables.resolved(node))))
        return found

    def function(self, name: str, node: Node) -> Deployable:
        handler, runtime = _plain(self.get(node, "handler")), _plain(self.either(node, "runtime"))
        own = self.packaging(self.get(node, "package"))
        zipped = own.artifact or (None if own.individually else self.package.artifact)
        elsewhere = zipped is not None or self.get(node, "image") is not None
        ignore, unevaluated = (None, ()) if elsewhere else self.ignore(own)
        python = runtime is not None and runtime.startswith("python")
        return Deployable(
            "function",
            name,
            node,
            None if elsewhere else self.base,
            node,
            self.size(node),
            handler=handler,
            entry=entry_of(handler, self.base) if handler and python and not elsewhere else None,
            timeout=number(self.either(node, "timeout"), _TIMEOUT),
            runtime=runtime,
            memory=number(self.either(node, "memorySize"), _MEMORY),
            ignore=ignore,
            unevaluated=unevaluated,
            wrong=self.wrong(node),
        )

    def size(self, node: Node) -> Node | None:
        """The node of the function's size. The framework takes text for the number that it is."""
        size = self.get(node, _SIZE)
        text = _plain(size)
        return _copy(size, int(text)) if size and text and re.fullmatch("[0-9]{1,9}", text) else size

    def either(self, node: Node, name: str) -> Node | None:
        """The function's value, or else the provider's."""
        return self.get(node, name) or self.get(self.provider, name)

    def wrong(self, node: Node) -> ConfigurationError | None:
        """What is wrong with the function's size: it is given where the framework does not look for it."""
        given = None if self.provider is None else self.provider.get(_SIZE)
        if given is not None and node.get(_SIZE) is None:
            return given.error(f"has no effect at the provider: give {_SIZE} to each function")
        return misspelt(node, _SIZE)

    # --- what is in the code -----------------------------------------------------------------------------

    def packaging(self, node: Node | None) -> _Packaging:
        if node is None:
            return _Packaging([], [], False, None)
        individually = self.get(node, "individually")
        return _Packaging(
            [*self.strings(node, "exclude")],
            [*self.strings(node, "include"), *self.strings(node, "patterns")],
            individually is not None and individually.value is True,
            self.get(node, "artifact"),
        )

    def strings(self, node: Node, name: str) -> Iterator[Node]:
        for entry in _evaluated(listed).entries() if (listed := self.get(node, name)) is not None else ():
            one = self.variables.resolved(entry)
            if one.tag == "" and not isinstance(one.value, str):
                raise one.error(f"expected a pattern, found {one.described()}")
            yield one

    def ignore(self, own: _Packaging) -> tuple[Ignore, tuple[tuple[int, str], ...]]:
        """The patterns for a function, and those that were not evaluated."""
        # The framework ignores the function's own patterns if all functions share one archive.
        apart = own if own.individually or self.package.individually else _Packaging([], [], False, None)
        defaults = [*DEFAULTS, os.path.basename(self.top.file.path)]
        dotenv = self.get(self.top, "useDotenv")
        if dotenv is not None and dotenv.value is True:
            defaults.append(".env*")
        file = os.path.abspath(self.top.file.path)
        globs = [Glob(Rule(file, 0, one), one, excludes=True) for one in defaults]
        unevaluated = []
        given = [(node, True) for node in (*self.package.exclude, *apart.exclude)]
        given += [(node, False) for node in (*self.package.include, *apart.include)]
        for node, excludes in given:
            try:
                globs.append(_glob(node, excludes))
            except ValueError as exc:
                unevaluated.append((node.line, f"the pattern {node.described()} {exc}: it was not applied"))
        return Ignore(b"", file, patterns=globs), tuple(unevaluated)


def _glob(node: Node, excludes: bool) -> Glob:
    """The compiled pattern. Raises ValueError for one that cannot be evaluated."""
    if node.tag or not isinstance(node.value, str):
        raise ValueError("depends on what is not in the file")
    text = byte_text(node.value)
    if text.startswith("!"):
        excludes, text = not excludes, text[1:]
    rule = Rule(os.path.abspath(node.file.path), node.line, node.value)
    return Glob(rule, text.removeprefix("./"), excludes=excludes)


# --- variables -----------------------------------------------------------------------------------------


class _Variables:
    """Resolves the variables that only depend on files of the project."""

    def __init__(self, top: Node) -> None:
        self._top = top
        self._base = os.path.dirname(os.path.abspath(top.file.path))
        self._files: dict[str, Node] = {}
        self._steps = 0

    def resolved(self, node: Node, depth: int = 0) -> Node:
        """``node`` with its variables replaced. If one cannot be, the node has it as its tag."""
        while not node.tag and isinstance(node.value, str) and (found := _VARIABLE.search(node.value)):
            value = self._value(found[0], node, depth)
            if value is not None and found[0] == node.value.strip():
                return value
            if value is None or value.tag or isinstance(value.value, (dict, list)):
                return _copy(node, node.value, found[0])
            node = _copy(node, node.value[: found.start()] + _text(value) + node.value[found.end() :])
        return node

    def _value(self, text: str, node: Node, depth: int) -> Node | None:
        """The value of one variable; None if it cannot be resolved here."""
        self._steps += 1
        if depth > _DEEPEST or self._steps > _MOST:
            return None
        if (found := _OF_ITSELF.fullmatch(text)) is not None:
            return self._below(self._top, found[1], depth)
        if (found := _OF_A_FILE.fullmatch(text)) is None:
            return None
        name = os.path.join(self._base, found[1].strip())
        if not name.endswith((".yml", ".yaml", ".json")):
            return None
        if name not in self._files:
            if not os.path.exists(name):
                raise node.error(f"{text}: {os.path.normpath(name)} does not exist")
            self._files[name] = yamlfile.read(name)
        return self._below(self._files[name], found[2] or "", depth)

    def _below(self, top: Node, keys: str, depth: int) -> Node | None:
        """The value of ``a.b.0`` below the node ``top``."""
        node: Node | None = top
        for key in filter(None, keys.split(".")):
            node = self.resolved(node, depth + 1) if node is not None else None
            if node is None or node.tag:
                return node
            if isinstance(node.value, list):
                entries = [*node.entries()]
                node = dict(enumerate(entries)).get(int(key)) if key.isascii() and key.isdigit() else None
            else:
                node = node.get(key) if isinstance(node.value, dict) else None
        return None if node is None else self.resolved(node, depth + 1)


def _copy(node: Node, value: Value, tag: str = "") -> Node:
    """A copy of ``node`` with another value, and perhaps a tag."""
    made = Node(node.file, node.line, tag, value)
    made.key = node.key
    return made


def _evaluated(node: Node) -> Node:
    """``node``, or an error if it is a variable that was not resolved."""
    if node.tag.startswith("$"):
        raise node.error(
            f"{node.tag}: tmpguard does not evaluate this variable, so it was not checked: "
            "it evaluates ${self:...} and ${file(...)} of YAML and JSON files"
        )
    return node


def _text(node: Node) -> str:
    if isinstance(node.value, bool):
        return str(node.value).lower()
    return "" if node.value is None else str(node.value)


def _plain(node: Node | None) -> str | None:
    """A string that is written out; None for anything else."""
    return None if node is None or node.tag or not isinstance(node.value, str) else node.value
