"""Fixed paths: the two that describe the layout of every platform, and tmpguard's own source."""

from __future__ import annotations

import os
from typing import Final

#: The one writable mount (C1.1), and the mount point of the deployed project (C5.1).
TMP: Final = "/tmp"
PACKAGE: Final = "/tmp/package"

#: The directory of tmpguard's own source, and the prefix of its files, which identifies tmpguard's frames.
SOURCE_ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE_PREFIX: Final = SOURCE_ROOT + "/"


def is_below(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or inside it. Both are canonical."""
    return path == directory or path.startswith(directory if directory == "/" else directory + "/")


#: Memory that processes share by its names (C1.6).
SHARED_MEMORY: Final = "/dev/shm"
