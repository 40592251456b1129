"""Where things are: the two paths that every platform's layout is told by, and tmpguard's own source."""

from __future__ import annotations

import os
from typing import Final

#: The one writable mount (C1.1), and where the deployed project is seen (C5.1).
TMP: Final = "/tmp"
PACKAGE: Final = "/tmp/package"

#: The directory of tmpguard's own source, without a trailing slash: what tells its frames from others'.
SOURCE_ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def is_below(path: str, directory: str) -> bool:
    """Is ``path`` the ``directory`` or something in it? Both are canonical."""
    return path == directory or path.startswith(directory if directory == "/" else directory + "/")
