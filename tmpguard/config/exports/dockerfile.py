"""The Dockerfile of a function. The storage is a matter of running it: its first lines say how."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Final

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

from .deployment import MB, PORT, USER, Deployment
from .servers import server_of

#: The versions where the project file gives none.
_PYTHON: Final = "3.13"
_NODE: Final = "22"
_NODE_FILES: Final = (".js", ".mjs", ".cjs")


def tmp_options(deployment: Deployment) -> str:
    """The options of the tmpfs at ``/tmp``. Docker's default forbids to run programs from it."""
    return f"rw,exec,nosuid,nodev,size={deployment.size * MB},mode=1777"


#: The options of the tmpfs at ``/dev/shm`` where the platform has none: what needs it fails there, too.
NO_SHARED_MEMORY: Final = "ro,nosuid,nodev,noexec,size=4096"


def tmpfs(deployment: Deployment) -> list[str]:
    """What is mounted, as ``PATH:OPTIONS``."""
    mounts = [f"/tmp:{tmp_options(deployment)}"]
    if not deployment.platform.shared_memory:
        mounts.append(f"/dev/shm:{NO_SHARED_MEMORY}")
    return mounts


def dockerfile(deployment: Deployment, file_name: str, command: str | None = None) -> str:
    """The text of the Dockerfile, to be written to ``file_name``. ``command`` replaces the one that serves.

    Raises ConfigurationError if the function cannot be built from its directory.
    """
    one = deployment.one
    if one.directory is None:
        raise one.node.error("its code is not in a directory here: build its image elsewhere")
    given = tuple(shlex.split(command)) if command is not None else None
    steps = _of_lambda(deployment, given) if deployment.is_lambda else _of_server(deployment, given)
    run = ["docker run --read-only", *(f"--tmpfs {mount}" for mount in tmpfs(deployment))]
    if deployment.memory is not None:
        run.append(f"--memory {deployment.memory}m")
    run.append(f"-p {PORT}:{PORT} {deployment.image}")
    build = shlex.join(["-t", deployment.image, "-f", file_name, os.path.relpath(deployment.context)])
    head = [
        f"# Written by tmpguard export docker for {one.name!r} in {os.path.basename(one.node.file.path)}.",
        f"# Build: docker build {build}",
        "# Run:   " + " \\\n#        ".join(run),
    ]
    return "\n".join([*head, *steps]) + "\n"


def _of_lambda(deployment: Deployment, given: tuple[str, ...] | None) -> list[str]:
    """The image that AWS provides has the runtime, and the emulator of its interface, which serves HTTP."""
    one = deployment.one
    found = re.fullmatch(r"(python)(3\.\d+)|(nodejs)(\d+)\.x", one.runtime or "")
    if found is None:
        raise one.node.error(
            f"the runtime {one.runtime or 'is not given'}: tmpguard exports Python and Node.js"
        )
    language, version = found[1] or found[3], found[2] or found[4]
    if one.handler is None:
        raise one.node.error("has no handler")
    root = "${LAMBDA_TASK_ROOT}/"
    install = _python_packages(deployment, root) if found[1] else _node_packages(deployment, root)
    return [
        f"FROM public.ecr.aws/lambda/{language}:{version}",
        *install,
        _copy(deployment, "", root),
        f"EXPOSE {PORT}",
        f"CMD {json.dumps(given or [one.handler])}",
    ]


def _of_server(deployment: Deployment, given: tuple[str, ...] | None) -> list[str]:
    one = deployment.one
    entry = one.entry or ""
    if entry.endswith(_NODE_FILES) or (given is not None and (one.language or "") in ("js", "ts")):
        steps = ["ENV NODE_ENV=production", *_node_packages(deployment, "./")]
        image, serving = f"node:{_version(deployment, _NODE)}-slim", given or ("node", entry)
    elif given is not None:
        steps, image, serving = _python_packages(deployment, "./"), _python_image(deployment), given
    else:
        steps, serving = _served_python(deployment)
        image = _python_image(deployment)
    return [
        f"FROM {image}",
        f"ENV PORT={PORT}",
        "WORKDIR /app",
        *steps,
        _copy(deployment, "", "./"),
        f"USER {USER}:{USER}",
        f"EXPOSE {PORT}",
        f"CMD {json.dumps(serving)}",
    ]


def _served_python(deployment: Deployment) -> tuple[list[str], tuple[str, ...]]:
    """The steps and the command for the application that the project file names."""
    one = deployment.one
    if one.entry is None:
        raise one.node.error("has no entry: give --command, the command that starts its server")
    if not one.entry.endswith(".py"):
        raise one.node.error(f"entry {one.entry!r} is neither Python nor JavaScript: give --command")
    if one.handler is None:
        return _python_packages(deployment, "./"), ("python", one.entry)
    server = server_of(_source(deployment, one.entry), one.entry, one.handler)
    if server is None:
        raise one.node.error(
            f"{one.entry} does not show which server {one.handler!r} needs: give --command, as in "
            f"--command 'python -m uvicorn main:app --host 0.0.0.0 --port {PORT}'"
        )
    return _python_packages(deployment, "./", server.package), server.command


def _source(deployment: Deployment, entry: str) -> str:
    assert deployment.directory is not None
    path = os.path.join(deployment.directory, entry)
    try:
        with originals.open(path, encoding="utf-8") as file:
            return str(file.read())
    except (OSError, ValueError) as exc:
        raise deployment.one.node.error(f"the entry file {path} cannot be read: {exc}") from None


def _python_image(deployment: Deployment) -> str:
    return f"python:{_version(deployment, _PYTHON)}-slim"


def _version(deployment: Deployment, default: str) -> str:
    """The version in ``python3.11.x``, ``nodejs20.x`` and the like."""
    found = re.search(r"(\d+(\.\d+)?)(\.x)?\Z", deployment.one.runtime or "")
    return found[1] if found is not None else default


def _python_packages(deployment: Deployment, root: str, *more: str) -> list[str]:
    steps = ["ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"]
    listed = _deployed(deployment, "requirements.txt")
    if listed:
        steps.append(_copy(deployment, "requirements.txt", root))
    needed = [f"-r {root}requirements.txt"] if listed else []
    if needed or more:
        steps.append(f"RUN pip install --no-cache-dir {' '.join([*needed, *more])}")
    return steps


def _node_packages(deployment: Deployment, root: str) -> list[str]:
    if not _deployed(deployment, "package.json"):
        return []
    steps = [_copy(deployment, "package.json", root)]
    if locked := _deployed(deployment, "package-lock.json"):
        steps.append(_copy(deployment, "package-lock.json", root))
    here = "" if root == "./" else f" --prefix {root}"
    return [*steps, f"RUN npm {'ci' if locked else 'install'} --omit=dev{here}"]


def _deployed(deployment: Deployment, name: str) -> bool:
    """Whether the file ``name`` is among the function's files, and not left out."""
    assert deployment.directory is not None
    if not os.path.isfile(os.path.join(deployment.directory, name)):
        return False
    ignore = deployment.ignore
    return ignore is None or ignore.match(_inside(deployment, name), False) is None


def _inside(deployment: Deployment, name: str) -> str:
    """The path of a file of the function, relative to the context."""
    assert deployment.directory is not None
    path = os.path.relpath(os.path.join(os.path.abspath(deployment.directory), name), deployment.context)
    return "" if path == "." else path


def _copy(deployment: Deployment, name: str, target: str) -> str:
    source = _inside(deployment, name)
    # Docker takes brackets for a pattern.
    source = re.sub(r"([*?\[\\])", r"[\1]", f"{source}/" if not name else source)
    pair = [source if source != "/" else "./", target]
    plain = not re.search(r"\s", source)
    return f"COPY --chown={USER}:{USER} {' '.join(pair) if plain else json.dumps(pair)}"


def problem_of(path: str, exc: OSError) -> ConfigurationError:
    """The error for a file that cannot be written."""
    return ConfigurationError(f"{path}: cannot be written: {exc.strerror}")
