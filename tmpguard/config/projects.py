"""Finds and reads the project file of any platform: by its name in a directory, and by what is in it."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final, NamedTuple

from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError

from . import cdk, genezio, sam, serverless, yamlfile
from .options import Options
from .platforms import AWS_PROJECT_FILES, CDK_DIRECTORY, PROJECT_FILE, Platform
from .project import Deployable, checked_path

#: What is looked for in a directory, in this order.
NAMES: Final = (PROJECT_FILE, *AWS_PROJECT_FILES)


class Project(NamedTuple):
    """What a project file deploys, and to which platform."""

    platform: Platform
    functions: list[Deployable]
    #: The paths in a function's code that the deploying tool leaves out by itself.
    left_out: Collection[str] = ()


def found_in(directory: str) -> str | None:
    """The path of the project file in ``directory``; None if there is none."""
    for name in NAMES:
        path = os.path.join(directory, name) if directory != "." else name
        if cdk.is_assembly(path) if name == CDK_DIRECTORY else os.path.isfile(path):
            return path
    return None


def missing(directory: str) -> str:
    """The message for a directory in which there is no project file."""
    *most, last = NAMES
    where = "here" if directory == "." else f"in {directory}"
    return f"there is no {', '.join(most)} or {last} {where}"


def read(path: str) -> Project:
    """The project of the file ``path``, or of a directory that the CDK has written.

    Raises ConfigurationError with the file, the line and the key.
    """
    if os.path.isdir(path) and cdk.is_assembly(path):
        return Project(sam.PLATFORM, cdk.read(path))
    top = yamlfile.read(path)
    if serverless.is_serverless(top):
        return Project(serverless.PLATFORM, serverless.functions_of(top))
    if sam.is_template(top):
        return Project(sam.PLATFORM, sam.functions_of(top), sam.LEFT_OUT)
    return Project(genezio.PLATFORM, genezio.deployed_by(top))


def options_of(path: object, function: object, overrides: Options) -> tuple[Options, str | None]:
    """The options for :meth:`tmpguard.Guard.from_project`, and where the file gives the storage size.

    The latter is None if the size does not come from the file. Raises ConfigurationError.
    """
    with unguarded():
        name = found_in(".") if path is None else checked_path(path, PROJECT_FILE)
        if name is None:
            raise ConfigurationError(f"{missing('.')}: give the project file")
        if os.path.isdir(name) and not cdk.is_assembly(name):
            inside = found_in(name)
            if inside is None:
                raise ConfigurationError(f"{missing(name)}: give the project file")
            name = inside
        project = read(name)
        if project.platform is genezio.PLATFORM:
            return genezio.options_of(name, function, overrides)
        return sam.chosen(project.functions, name, function, overrides)
