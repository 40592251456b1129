"""tmpguard beside other libraries that patch the same functions."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

# eventlet's own DNS imports all that dnspython can use, also trio, which cannot be imported under eventlet.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")


def need(module: str) -> None:
    """Skip the tests of the importing module where ``module`` is not installed.

    It is not imported: these libraries change the process that imports them.
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # not even the package that it would be in
        found = None
    if found is None:
        pytest.skip(f"{module} is not installed", allow_module_level=True)
