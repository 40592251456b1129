"""The rooms of tmpguard import downwards only, and no module is part of a circle (docs/architecture.md).

Imports within functions and those for types alone count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support import PROJECT

#: From the top down. What stands in one line does not import from each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("pytest_plugin", "emulator"),
    ("testing",),
    ("__init__", "asgi", "wsgi", "django", "metrics", "apps", "fastapi", "flask", "starlette"),
    ("guard", "reporting"),
    ("interpose",),
    ("config", "kernel"),
    ("core",),
)

PACKAGE = PROJECT / "tmpguard"


def modules() -> dict[str, Path]:
    """Every module by its name within the package (``core.invocation``), and ``__init__``, the front door."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name if name == "__init__" else name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules of tmpguard that the module ``name`` imports, wherever in it."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (known(alias.name) for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = package.split(".") if package not in ("", "__init__") else []
                kept = parts[: len(parts) - node.level + 1]
                source = ".".join(["tmpguard", *kept, *filter(None, [source])])
            if is_ours(source):
                yield from (known(f"{source}.{alias.name}") for alias in node.names)


def is_ours(name: str) -> bool:
    return name == "tmpguard" or name.startswith("tmpguard.")


def known(name: str) -> str:
    """The module that ``name`` is, or is a name in."""
    inner = name.removeprefix("tmpguard").removeprefix(".")
    while inner and inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner or "__init__"


IMPORTS = {name: set(imported(name, path)) - {name} for name, path in MODULES.items()}


def layer(name: str) -> int:
    room = name.partition(".")[0]
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def test_every_module_has_its_layer() -> None:
    assert {name.partition(".")[0] for name in MODULES} == {room for rooms in LAYERS for room in rooms}


def test_imports_go_down_only() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if layer(other) < layer(name)
        or (layer(other) == layer(name) and other.partition(".")[0] != name.partition(".")[0])
    ]
    assert upwards == []


def test_no_module_is_part_of_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_the_core_imports_no_web_framework() -> None:
    frameworks = {"starlette", "fastapi", "flask", "werkzeug", "django", "asgiref"}
    for name, path in MODULES.items():
        if layer(name) >= layer("guard"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                assert not frameworks & {one.partition(".")[0] for one in names}, name
