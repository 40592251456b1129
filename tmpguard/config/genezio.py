"""Makes a guard from a Genezio project: the limits and the bundle come from its ``genezio.yaml``.

tmpguard reads only these keys: under ``backend`` the ``path``, ``functions`` (``name``, ``path``,
``type``, ``handler``, ``entry``, ``storageSize``, ``timeout``, ``cooldownTime``,
``maxConcurrentRequestsPerInstance``, ``maxConcurrentInstances``) and ``classes`` (``name``, ``path``,
``storageSize``) and the ``name`` and ``runtime`` of the ``language``, and the ``path`` and ``storageSize`` of
``container``, ``nextjs`` and the like. It ignores all others. Merge keys (``<<``) are not part of YAML 1.2
and have no effect, here or in a deployment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Final

from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.ignore import IGNORE_FILE

from . import yamlfile
from .nodes import Node
from .notices import log_once
from .options import Options, checked_plan
from .platforms import PLATFORMS, PROJECT_FILE
from .project import (
    Deployable,
    checked_path,
    choose,
    listed,
    misspelt,
    only_functions,
    seconds,
    text,
    whole_number,
)

#: The keys besides ``backend`` that deploy something with a storage size.
KINDS: Final = ("container", "nextjs", "nuxt", "nitro", "nestjs", "remix", "streamlit")

#: The keys of which each file has at least one.
_KNOWN: Final = ("name", "backend", "frontend", "services", "yamlVersion", "region", *KINDS)

PLATFORM: Final = PLATFORMS["genezio"]


def read(path: str | os.PathLike[str]) -> list[Deployable]:
    """Everything that the file deploys, in file order. Raises as :func:`deployed_by` does."""
    return deployed_by(yamlfile.read(path))


def deployed_by(top: Node) -> list[Deployable]:
    """Everything that the file with the top node ``top`` deploys, in file order.

    Raises ConfigurationError with the file, the line and the key. Storage sizes are checked later, on use,
    because they depend on the plan.
    """
    if not any(key in _KNOWN for key in top.mapping()):
        keys = ", ".join(_KNOWN[:4])
        raise top.error(
            f"is neither a {PROJECT_FILE} nor a template of AWS SAM or CloudFormation nor a serverless.yml: "
            f"it has none of the keys {keys}, ..."
        )
    base = os.path.dirname(os.path.abspath(top.file.path))
    found: list[Deployable] = []
    if backend := top.get("backend"):
        found += _of_backend(backend, base)
    for kind in KINDS:
        if node := top.get(kind):
            found.append(_of_kind(kind, node, base))
    return found


def _of_backend(backend: Node, base: str) -> Iterator[Deployable]:
    path_node = backend.get("path")
    place = os.path.join(base, text(path_node) or ".")
    functions, classes = backend.get("functions"), backend.get("classes")
    lines: dict[str, int] = {}
    language_node = backend.get("language")
    language = text(language_node.get("name")) if language_node is not None else None
    runtime = text(language_node.get("runtime")) if language_node is not None else None
    for node in functions.entries() if functions else ():
        one = _function(node, place, path_node or backend)._replace(language=language, runtime=runtime)
        if one.name in lines:
            raise node.error(f"duplicate name {one.name!r}, first used in line {lines[one.name]}")
        lines[one.name] = node.line
        yield one
    for node in classes.entries() if classes else ():
        name = text(node.get("name")) or text(node.get("path"))
        if name is None:
            raise node.error("has neither a name nor a path")
        yield _deployable("class", name, node, place, path_node or backend)
    if functions is None and classes is None:
        # The platform finds the classes in the sources; each has the default size.
        yield Deployable("backend", "backend", backend, place, path_node or backend, None)


def _function(node: Node, place: str, place_node: Node) -> Deployable:
    name, path_node = node.get("name"), node.get("path")
    if name is None:
        raise node.error("has no name")
    directory = os.path.join(place, text(path_node) or ".")
    return _deployable("function", name.text(), node, directory, path_node or place_node)


def _of_kind(kind: str, node: Node, base: str) -> Deployable:
    path_node = node.get("path")
    directory = os.path.join(base, text(path_node) or ".")
    if kind == "container" and os.path.isfile(directory):
        directory = os.path.dirname(directory)  # the path names the Dockerfile
    return _deployable(kind, kind, node, directory, path_node or node)


def _deployable(kind: str, name: str, node: Node, directory: str, directory_node: Node) -> Deployable:
    return Deployable(
        kind,
        name,
        node,
        os.path.normpath(directory),
        directory_node,
        node.get("storageSize"),
        text(node.get("handler")),
        text(node.get("entry")),
        whole_number(node.get("maxConcurrentRequestsPerInstance")),
        text(node.get("type")),
        None,
        whole_number(node.get("maxConcurrentInstances")),
        seconds(node.get("cooldownTime")),
        seconds(node.get("timeout")),
        wrong=misspelt(node, "storageSize"),
    )


# --- the options of a guard ----------------------------------------------------------------------------


def options_of(path: object, function: object, overrides: Options) -> tuple[Options, str | None]:
    """The options for :meth:`tmpguard.Guard.from_genezio`, and where the file gives the storage size.

    The latter is None if the size does not come from the file. Raises ConfigurationError.
    """
    given = overrides.copy()
    size_from = None
    with unguarded():
        name = checked_path(path, PROJECT_FILE)
        one = choose(read(name), function, name)
        plan = _plan_of(given)
        if given.get("storage_size") is None and (size := one.size(plan, PLATFORM)) is not None:
            given["storage_size"], size_from = size, one.size_from()
        if "bundle" not in given:
            given |= _bundle_of(one, given)
    return given, size_from


def _bundle_of(one: Deployable, given: Options) -> Options:
    """The options for the function's directory and for the ``.genezioignore`` next to the project file."""
    bundle = one.existing_directory()
    beside = os.path.join(os.path.dirname(os.path.abspath(one.node.file.path)), IGNORE_FILE)
    if bundle is None or "ignore" in given or not os.path.lexists(beside):
        return {"bundle": bundle}
    return {"bundle": bundle, "ignore": beside}


def _plan_of(given: Options) -> str:
    platform = given.setdefault("platform", "genezio")
    if platform != "genezio":
        raise ConfigurationError(
            f'platform={platform!r} does not match a {PROJECT_FILE}: it is always "genezio"; leave it out'
        )
    return checked_plan(given.get("plan", "free"), PLATFORM)


def detected_options(given: Options) -> tuple[Options, str | None]:
    """What the ``genezio.yaml`` in the working directory adds to the options ``given``.

    Also returns where the file gives the storage size.

    The application did not ask for this file. A file that cannot be read or parsed, or that has functions of
    different sizes, is therefore only logged. A storage size that is not allowed raises ConfigurationError,
    because the deployment would refuse it.
    """
    with unguarded():
        return _of_file(given)


def _of_file(given: Options) -> tuple[Options, str | None]:
    """The options that the file adds, and where it gives the storage size."""
    try:
        found = only_functions(read(PROJECT_FILE))
    except ConfigurationError as exc:
        log_once(logging.WARNING, f"{exc}; the file is not used")
        return {}, None
    more: Options = {}
    size_from = None
    if given.get("storage_size") is None and found:
        plan = checked_plan(given.get("plan", "free"), PLATFORM)
        more, size_from = _size_of(found, plan)
    if len(found) == 1 and "bundle" not in given:
        try:
            more |= _bundle_of(found[0], given)
        except ConfigurationError as exc:
            log_once(logging.WARNING, f"{exc}; the bundle is the working directory")
    return more, size_from


def _size_of(found: Sequence[Deployable], plan: str) -> tuple[Options, str | None]:
    """The largest size in ``found``: the function is unknown, and no write may be refused wrongly."""
    sizes = [(one.size(plan, PLATFORM), one) for one in found]
    size, largest = max(sizes, key=lambda pair: pair[0] or PLATFORM.default)
    if len({one_size or PLATFORM.default for one_size, _ in sizes}) > 1:
        log_once(
            logging.WARNING,
            f"{PROJECT_FILE} has functions of different sizes, {listed(found)}: /tmp has the largest size; "
            f'choose one with guard=Guard.from_genezio("{PROJECT_FILE}", function="{found[0].name}")',
        )
        size = size or PLATFORM.default
    return ({}, None) if size is None else ({"storage_size": size}, largest.size_from())
