"""What is logged, once per process, about project files that the application has not named."""

from __future__ import annotations

import logging
import os
from typing import Final

from tmpguard.core import originals

from .platforms import AWS_PROJECT_FILES, CDK_DIRECTORY, CDK_MANIFEST

#: How many bytes of a file are searched for the name of the platform.
_HEAD: Final = 1 << 16

logger = logging.getLogger("tmpguard")
_logged: Final[set[str]] = set()


def log_once(level: int, message: str) -> None:
    """Log ``message`` once per process."""
    if message not in _logged:
        _logged.add(message)
        logger.log(level, "tmpguard: %s", message)


def note_aws_project(storage_size: int, size_from: str) -> None:
    """Log that a project file in the working directory that deploys to AWS is not applied.

    It is not, because the application did not ask for it, and because it usually deploys several functions of
    different sizes. ``size_from`` says where the ``storage_size`` in MB comes from instead. Parses nothing.
    """
    for name in AWS_PROJECT_FILES:
        if _deploys_to_aws(f"{name}/{CDK_MANIFEST}" if name == CDK_DIRECTORY else name):
            log_once(
                logging.INFO,
                f"{name} is not applied: /tmp has {storage_size} MB ({size_from}); "
                f'guard=Guard.from_project("{name}") takes the limits of a function from it',
            )
            return


def _deploys_to_aws(path: str) -> bool:
    """Whether the file ``path`` exists and names the platform: other tools use the same file names."""
    if not os.path.isfile(path):
        return False
    try:
        descriptor = originals.os_open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return b"aws" in originals.read(descriptor, _HEAD).lower()
    except OSError:
        return False
    finally:
        originals.close(descriptor)
