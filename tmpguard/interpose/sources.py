"""The sources that tracebacks, ``inspect`` and ``linecache`` show."""

from __future__ import annotations

from typing import Any

from ..invocation import Invocation
from ..mounts import TMP, is_below
from . import files, originals
from .paths import is_odd, place


def open(invocation: Invocation, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
    """``tokenize``'s own ``open``: a file below ``/tmp`` is the invocation's, any other is read as ever.

    The sources of running code have to be found wherever they lie, whatever the application is shown there.
    """
    opener = files.open if _is_below_tmp(invocation, file) else originals.open
    return opener(file, mode, *args, **options)


def _is_below_tmp(invocation: Invocation, file: Any) -> bool:
    if type(file) is int or is_odd(file):
        return False
    try:
        return is_below(place(invocation, file).virtual, TMP)
    except OSError:
        return False
