"""Which command serves a Python application, by what its entry file says. The file is parsed, not run."""

from __future__ import annotations

import ast
import re
from typing import Final, NamedTuple

from .deployment import PORT

#: The interface of the objects that a package makes.
_INTERFACES: Final = {
    "blacksheep": "asgi",
    "bottle": "wsgi",
    "django.core.asgi": "asgi",
    "django.core.wsgi": "wsgi",
    "falcon": "wsgi",
    "falcon.asgi": "asgi",
    "fastapi": "asgi",
    "flask": "wsgi",
    "litestar": "asgi",
    "quart": "asgi",
    "starlette": "asgi",
    "tmpguard.asgi": "asgi",
    "tmpguard.wsgi": "wsgi",
}


class Server(NamedTuple):
    """The command of a container, and the package that it needs."""

    command: tuple[str, ...]
    package: str


def server_of(source: str, entry: str, name: str) -> Server | None:
    """The server for the object ``name`` in the file ``entry`` with the text ``source``.

    None if that is not clear: the object comes from another module, or is a handler of events.
    """
    module = entry.removesuffix(".py").removeprefix("./").replace("/", ".")
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not re.fullmatch(r"\w+(\.\w+)*", name):
        return None
    interface = interface_of(source, name)
    if interface == "asgi":
        command = ("python", "-m", "uvicorn", f"{module}:{name}", "--host", "0.0.0.0", "--port", str(PORT))
        return Server(command, "uvicorn")
    if interface == "wsgi":
        return Server(
            ("python", "-m", "waitress", f"--listen=0.0.0.0:{PORT}", f"{module}:{name}"), "waitress"
        )
    return None


def interface_of(source: str, name: str) -> str | None:
    """``"asgi"``, ``"wsgi"``, or None if the source does not show it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    origins = _origins(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            return _of_function(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                found = _of_call(node.value, origins)
                if found is not None:
                    return found
    return None


def _origins(tree: ast.Module) -> dict[str, str]:
    """Where the names that the module imports come from: ``{"FastAPI": "fastapi.FastAPI"}``."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                found[one.asname or one.name.partition(".")[0]] = (
                    one.name if one.asname else one.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for one in node.names:
                found[one.asname or one.name] = f"{node.module}.{one.name}"
    return found


def _of_call(call: ast.Call, origins: dict[str, str]) -> str | None:
    names: list[str] = []
    function: ast.expr = call.func
    while isinstance(function, ast.Attribute):
        names.insert(0, function.attr)
        function = function.value
    if not isinstance(function, ast.Name) or function.id not in origins:
        return None
    place = ".".join([origins[function.id], *names])
    while place:
        if place in _INTERFACES:
            return _INTERFACES[place]
        place = place.rpartition(".")[0]
    return None


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    arguments = [one.arg for one in node.args.args]
    if isinstance(node, ast.AsyncFunctionDef):
        return "asgi" if len(arguments) == 3 else None
    return "wsgi" if arguments[1:] == ["start_response"] else None
