"""Finds the functions in what ``cdk synth`` writes: a directory of templates and of the functions' code."""

from __future__ import annotations

import os
from typing import Final

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

from . import sam
from .platforms import CDK_MANIFEST
from .project import Deployable

_TEMPLATE: Final = ".template.json"
#: The directory of a stage, in that of the application.
_NESTED: Final = "assembly-"


def is_assembly(path: str) -> bool:
    """Whether ``path`` is a directory that ``cdk synth`` has written."""
    return os.path.isfile(os.path.join(path, CDK_MANIFEST))


def read(path: str) -> list[Deployable]:
    """The functions of all templates in the directory ``path`` and in those of its stages.

    Raises ConfigurationError, with the file, the line and the key, and if there is no template.
    """
    templates = _templates(path)
    if not templates:
        raise ConfigurationError(f"{path}: has no *{_TEMPLATE}: run cdk synth first")
    return [function for template in templates for function in sam.read(template)]


def _templates(path: str) -> list[str]:
    found = []
    try:
        names = sorted(originals.listdir(path))
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read: {exc.strerror}") from None
    for name in names:
        full = os.path.join(path, name)
        if name.endswith(_TEMPLATE):
            found.append(full)
        elif name.startswith(_NESTED) and is_assembly(full):
            found += _templates(full)
    return found
