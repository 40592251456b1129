"""tmpguard: each request gets the file system of a serverless function.

``/tmp`` is writable, limited and wiped; everything else is read-only. All of this happens in the ordinary
process. See the README.

Importing the package is cheap: each name below is imported from its module on first use (PEP 562).

General layout, from the top down. A layer imports only from the layers below it; a test enforces this.

``pytest_plugin``, ``testing``  the pytest plugin and its guarded clients
``asgi``, ``wsgi``, ``django``  the middleware; ``metrics`` and ``__main__`` are on the same level
``guard``                       validated options, from which it makes invocations
``interpose``                   the patched layer under the standard library
``kernel``                      mount namespaces, for child processes
``config``                      options, platforms and project files, and the command line
``core``                        invocations: mounts, storage, reports
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tmpguard.core.version import __version__

if TYPE_CHECKING:
    from tmpguard.core.callers import Location
    from tmpguard.core.errors import ConfigurationError
    from tmpguard.core.invocation import Invocation, current
    from tmpguard.core.reports.delivery import drain
    from tmpguard.core.reports.report import Leftover, Report, Violation
    from tmpguard.guard import Guard, cold_start, invocation
    from tmpguard.interpose.install import install, uninstall

__all__ = [
    "ConfigurationError",
    "Guard",
    "Invocation",
    "Leftover",
    "Location",
    "Report",
    "Violation",
    "__version__",
    "cold_start",
    "current",
    "drain",
    "install",
    "invocation",
    "uninstall",
]

#: The module of each public name.
_MODULES = {
    "ConfigurationError": "core.errors",
    "Guard": "guard",
    "Invocation": "core.invocation",
    "Leftover": "core.reports.report",
    "Location": "core.callers",
    "Report": "core.reports.report",
    "Violation": "core.reports.report",
    "cold_start": "guard",
    "current": "core.invocation",
    "drain": "core.reports.delivery",
    "install": "interpose.install",
    "invocation": "guard",
    "uninstall": "interpose.install",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
