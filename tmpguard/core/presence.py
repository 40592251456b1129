"""Whether there is a directory entry at a real path. A dangling symlink counts as one.

A look-up can fail for other reasons than ENOENT: a directory on the way may not be searchable, or may have
become a file. The functions differ in how they treat that.
"""

from __future__ import annotations

import stat as modes

from . import originals


def is_found(path: str) -> bool:
    """Whether a look-up of ``path`` succeeds. False after any error."""
    try:
        originals.lstat(path)
    except OSError:
        return False
    return True


def is_directory(path: str) -> bool:
    """Whether ``path`` is a directory, and not a symlink to one. False after any error."""
    try:
        return modes.S_ISDIR(originals.lstat(path).st_mode)
    except OSError:
        return False


def is_gone(path: str) -> bool:
    """Whether the kernel reports ENOENT for ``path``. False after any other error: it may exist."""
    try:
        originals.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False
