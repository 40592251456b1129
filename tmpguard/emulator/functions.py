"""What a run serves: one command, or the functions of a Genezio project."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tmpguard.config import genezio, projects
from tmpguard.config.options import (
    checked_directory,
    checked_max_files,
    checked_plan,
    checked_platform,
    checked_writable,
    resolved_size,
)
from tmpguard.config.platforms import PROJECT_FILE
from tmpguard.config.project import Deployable, choose
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.layout import SOURCE_ROOT
from tmpguard.core.mounts.bundle import find_ignore
from tmpguard.core.mounts.ignore import IGNORE_FILE

from .http.pool import Limits
from .instance import InstanceSettings

#: Seconds until an idle instance ends, where nothing says how many.
IDLE: Final = 60.0
#: The most instances, and the requests that each runs at once, where nothing says how many.
INSTANCES: Final = 4
CONCURRENCY: Final = 1

#: The port of the first of several functions, and the one on which
#: :mod:`~tmpguard.emulator.hooks.serving.serve` listens in its instance.
FIRST_PORT: Final = 8080

_SERVER_TYPES: Final = ("httpServer", "persistent")
_SERVING: Final = os.path.join(SOURCE_ROOT, "emulator", "hooks", "serving", "serve.py")


@dataclass(frozen=True)
class RunOptions:
    """The options of the command line; None where they are not given."""

    storage_size: int | None = None
    plan: str = "free"
    platform: str = "genezio"
    instances: int | None = None
    concurrency: int | None = None
    lifetime: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    project: str | None = None
    writable: tuple[str, ...] = ()
    idle_timeout: float | None = None
    request_timeout: float | None = None
    start_timeout: float = 30.0
    queue_timeout: float = 30.0
    freeze: bool = False
    observer: bool = True


@dataclass(frozen=True)
class Function:
    """A function, ready to be served."""

    #: "" if it is the only one.
    name: str
    settings: InstanceSettings
    limits: Limits
    #: Seconds for a request, 0 for no limit.
    request_timeout: float
    #: None for the one on which the application listens.
    port: int | None

    @property
    def command(self) -> str:
        """The command as people would write it."""
        program, *arguments = self.settings.command
        if arguments[:1] == [_SERVING]:
            return arguments[-1]
        return shlex.join([os.path.basename(program), *arguments])


def of_command(command: Sequence[str], options: RunOptions) -> Function:
    """The function whose server ``command`` starts. Raises ConfigurationError."""
    project = checked_directory("--project", options.project or ".")
    return Function(
        "",
        _settings(command, project, options, None, find_ignore(IGNORE_FILE, project)),
        _limits(options),
        options.request_timeout or 0.0,
        options.port,
    )


def _settings(
    command: Sequence[str], project: str, options: RunOptions, size: int | None, ignore: Any
) -> InstanceSettings:
    platform = checked_platform(options.platform)
    plan = checked_plan(options.plan, platform)
    given = options.storage_size if options.storage_size is not None else size
    megabytes, _ = resolved_size(given, plan, platform)
    return InstanceSettings(
        command=tuple(command),
        project=project,
        storage_size=megabytes,
        max_files=checked_max_files(None, megabytes, platform),
        ignore=ignore,
        writable=checked_writable(options.writable),
        package=platform.package,
        shared_memory=platform.shared_memory,
        lifetime=options.lifetime or ("instance" if platform.survives else "invocation"),
        freeze=options.freeze,
        observer=options.observer,
        start_timeout=options.start_timeout,
    )


def _limits(options: RunOptions, one: Deployable | None = None) -> Limits:
    """The options' limits; those that are not given are the function's, or else the defaults."""
    idle = options.idle_timeout if options.idle_timeout is not None else one and one.cooldown
    return Limits(
        instances=options.instances or (one and one.instances) or INSTANCES,
        concurrency=options.concurrency or (one and one.concurrency) or CONCURRENCY,
        queue_timeout=options.queue_timeout,
        idle_timeout=IDLE if idle is None else idle,
    )


# --- genezio.yaml --------------------------------------------------------------------------------------


def of_project(options: RunOptions) -> tuple[list[Function], list[str]]:
    """The servers of the ``genezio.yaml`` in the project, and why the other functions are not served.

    Raises ConfigurationError.
    """
    directory = checked_directory("--project", options.project or ".")
    file = os.path.join(directory, PROJECT_FILE)
    if not os.path.isfile(file):
        raise ConfigurationError(
            f"there is no {PROJECT_FILE} in {directory}: give the command that starts the server, as in "
            "tmpguard run -- uvicorn app:app"
        )
    if options.platform != "genezio":
        raise ConfigurationError(f"--platform {options.platform} does not match a {PROJECT_FILE}")
    deployed = genezio.read(file)
    servers = [one for one in deployed if one.kind == "function" and one.type in _SERVER_TYPES]
    if not servers:
        raise ConfigurationError(
            f"{file}: has no function of type httpServer: give the command that starts the server after --"
        )
    functions = [_of_deployable(one, directory, options) for one in servers]
    if len(functions) > 1:
        first = options.port or FIRST_PORT
        functions = [_on_port(one, first + number) for number, one in enumerate(functions)]
    else:
        functions = [replace(functions[0], name="")]
    return functions, list(_not_served(deployed))


def _not_served(deployed: Iterable[Deployable]) -> Iterable[str]:
    for one in deployed:
        if one.kind == "function" and one.type not in _SERVER_TYPES:
            entry, handler = one.entry or "FILE", one.handler or "HANDLER"
            yield f"{one.name} is no server: run it once by tmpguard invoke {entry}:{handler}"


def _of_deployable(one: Deployable, base: str, options: RunOptions) -> Function:
    project = one.existing_directory()
    assert project is not None
    ignore = _ignore_of(one, base, os.path.realpath(project))
    size = one.size(options.plan, genezio.PLATFORM)
    settings = _settings(_command(one), os.path.realpath(project), options, size, ignore)
    timeout = options.request_timeout if options.request_timeout is not None else one.timeout
    return Function(one.name, settings, _limits(options, one), timeout or 0.0, options.port)


def _ignore_of(one: Deployable, base: str, project: str) -> Any:
    """The rules of the ``.genezioignore`` beside the project file in ``base``, or of that in the project."""
    beside = os.path.join(base, IGNORE_FILE)
    is_genezio = os.path.basename(one.node.file.path) == PROJECT_FILE
    return find_ignore(beside if is_genezio and os.path.lexists(beside) else IGNORE_FILE, project)


def _command(one: Deployable) -> tuple[str, ...]:
    """The command that starts a server as the platform does: by its entry and its language."""
    if one.entry is None:
        raise one.node.error("has no entry: give the file that starts the server")
    ending = os.path.splitext(one.entry)[1]
    if ending in (".js", ".mjs", ".cjs"):
        return "node", one.entry
    if ending == ".py":
        if one.handler is None:
            return _python(), one.entry
        return _python(), _SERVING, str(FIRST_PORT), f"{one.entry}:{one.handler}"
    raise one.node.error(
        f"entry {one.entry!r} is neither Python nor JavaScript: give the command that starts it after --"
    )


def _python() -> str:
    """The project's own Python: that of the active environment, or the one that runs tmpguard."""
    environment = os.environ.get("VIRTUAL_ENV")
    path = f"{environment}/bin/python"
    return path if environment and os.path.exists(path) else sys.executable


def _on_port(one: Function, port: int) -> Function:
    environment = {**os.environ, "PORT": str(port)}
    return replace(one, port=port, settings=replace(one.settings, environment=environment))


def of_handler(file: str, name: str | None, options: RunOptions) -> tuple[Function, str]:
    """The handler of a function in the project file, as ``FILE:FUNCTION``, and how it is called.

    ``name`` may be None if there is only one. Options of ``options`` win. Raises ConfigurationError.
    """
    project = projects.read(file)
    one = choose(project.functions, name, file)
    directory = one.existing_directory()
    handler = (one.handler or "").rpartition(".")[2]
    if directory is None or not handler or not (one.entry or "").endswith(".py"):
        raise one.node.error("tmpguard invoke needs a handler of Python in a directory: give MODULE:FUNCTION")
    if options.platform not in (genezio.PLATFORM.name, project.platform.name):
        raise ConfigurationError(f"--platform {options.platform} does not match {file}")
    options = replace(options, platform=project.platform.name, project=options.project or directory)
    given = checked_directory("--project", options.project)
    size = None if options.storage_size is not None else one.size(options.plan, project.platform)
    ignore = one.ignore or _ignore_of(one, os.path.dirname(os.path.abspath(file)), given)
    target = f"{one.entry}:{handler}"
    settings = _settings(handler_command(target), given, options, size, ignore)
    return Function("", settings, _limits(options), options.request_timeout or 0.0, options.port), target


def handler_command(target: str) -> tuple[str, ...]:
    """The command that serves the handler ``module:function``."""
    return _python(), _SERVING, str(FIRST_PORT), target
