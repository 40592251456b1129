"""What an exported deployment consists of: the functions of a project file, each with all that is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.mounts.bundle import find_ignore
from tmpguard.core.mounts.ignore import IGNORE_FILE, Ignore

from .. import genezio, projects
from ..options import size_problem
from ..platforms import Platform
from ..project import Deployable, listed, only_functions

MB: Final = 1_048_576

#: The port on which an exported container listens.
PORT: Final = 8080
#: Who runs its application. Nobody that a base image knows.
USER: Final = 65532

#: What a name may be, of a service of Kubernetes as of Docker.
_LONGEST: Final = 63


@dataclass(frozen=True)
class Deployment:
    """One function, ready to be exported."""

    #: The name, as a label of DNS.
    name: str
    one: Deployable
    platform: Platform
    #: The size of ``/tmp`` in MB.
    size: int
    #: The requests that run at once in one container; None if the project file does not say.
    concurrency: int | None
    #: The files that are not deployed.
    ignore: Ignore | None
    #: The image's name, with its tag.
    image: str

    @property
    def directory(self) -> str | None:
        """The directory of its code."""
        return self.one.directory

    @property
    def context(self) -> str:
        """The directory that Docker gets: the one to which the patterns of left out files are relative."""
        assert self.one.directory is not None
        directory = os.path.abspath(self.one.directory)
        base = os.path.dirname(self.ignore.file) if self.ignore is not None else directory
        return base if os.path.commonpath([base, directory]) == base else directory

    @property
    def memory(self) -> int | None:
        """The memory of a container in MB, if the project file says what the function has.

        What is in ``/tmp`` is memory, too.
        """
        return None if self.one.memory is None else self.one.memory + self.size

    @property
    def is_lambda(self) -> bool:
        """Whether its code is for AWS Lambda's runtime, whatever serves it."""
        return self.platform is not genezio.PLATFORM


def deployments(
    path: str, plan: str, only: Collection[str], size: int | None, image: str | None
) -> list[Deployment]:
    """The deployments of the functions of the project file ``path``, or of those whose names are in ``only``.

    ``size`` and ``image`` take precedence over the file. Raises ConfigurationError.
    """
    project = projects.read(path)
    found = [*_chosen(project.functions, path, only)]
    made = [_deployment(one, project.platform, plan, size, image) for one in found]
    first: dict[str, str] = {}
    for one in made:
        if one.name in first:
            raise ConfigurationError(
                f"{path}: the functions {first[one.name]!r} and {one.one.name!r} would both be {one.name!r}: "
                "choose by --function"
            )
        first[one.name] = one.one.name
    if image is not None and len(made) > 1:
        raise ConfigurationError(
            f"--image {image} would be that of {len(made)} functions: choose by --function"
        )
    return made


def _chosen(found: list[Deployable], path: str, only: Collection[str]) -> Iterable[Deployable]:
    candidates = only_functions(found)
    if not candidates:
        raise ConfigurationError(f"{path}: deploys nothing that has a /tmp: it has no functions")
    unknown = [name for name in only if all(one.name != name for one in found)]
    if unknown:
        raise ConfigurationError(f"{path}: has no function {unknown[0]!r}: it has {listed(found)}")
    return [one for one in found if one.name in only] if only else candidates


def _deployment(
    one: Deployable, platform: Platform, plan: str, size: int | None, image: str | None
) -> Deployment:
    megabytes = size
    if size is not None:
        if problem := size_problem(size, plan, platform):
            raise ConfigurationError(f"--storage-size {size}: {problem}")
    elif one.size_is_computed:
        assert one.size_node is not None
        raise one.size_node.error(f"{one.size_node.described()}: give --storage-size")
    else:
        megabytes = one.size(plan, platform)
    name = dns_label(one.name)
    directory = one.existing_directory()
    return Deployment(
        name=name,
        one=one,
        platform=platform,
        size=megabytes or platform.default,
        concurrency=one.concurrency if platform is genezio.PLATFORM else 1,
        ignore=_ignore(one, platform) if directory is not None else None,
        image=image or f"{name}:latest",
    )


def _ignore(one: Deployable, platform: Platform) -> Ignore | None:
    """The patterns of the files that are not deployed."""
    if one.ignore is not None or platform is not genezio.PLATFORM:
        return one.ignore
    assert one.directory is not None
    beside = os.path.join(os.path.dirname(os.path.abspath(one.node.file.path)), IGNORE_FILE)
    return find_ignore(beside if os.path.lexists(beside) else IGNORE_FILE, os.path.abspath(one.directory))


def dns_label(name: str) -> str:
    """``name`` as a label of DNS (RFC 1035): ``My_Function`` becomes ``my-function``."""
    label = re.sub("[^a-z0-9]+", "-", re.sub("([a-z])([A-Z])", r"\1-\2", name).lower()).strip("-")
    if not label[:1].isalpha():
        label = f"f-{label}".rstrip("-")
    return label[:_LONGEST].rstrip("-")
