"""tmpguard: each request gets the file system of a serverless function.

``/tmp`` is writable, limited and wiped; everything else is read-only. All of this happens in the ordinary
process. See the README.

Importing the package is cheap: each name below is imported from its module on first use (PEP 562).

General layout, from the top down. A layer imports only from the layers below it; a test enforces this.

``pytest_plugin``, ``testing``  the pytest plugin and its guarded clients
``asgi``, ``wsgi``, ``django``  the middleware; ``metrics`` and ``__main__`` are on the same level
``guard``                       validated options, from which it makes invocations
``reporting``                   the report of many requests, as data, text and a page
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
    from tmpguard.core.reports.report import Child, Leftover, Report, Violation
    from tmpguard.guard import Guard, cold_start, guarded, invocation
    from tmpguard.interpose.install import install, uninstall
    from tmpguard.reporting.file import ReportFile

__all__ = [
    "Child",
    "ConfigurationError",
    "Guard",
    "Invocation",
    "Leftover",
    "Location",
    "Report",
    "ReportFile",
    "Violation",
    "__version__",
    "cold_start",
    "current",
    "drain",
    "guarded",
    "install",
    "invocation",
    "uninstall",
]

#: The module of each public name.
_MODULES = {
    "Child": "core.reports.report",
    "ConfigurationError": "core.errors",
    "Guard": "guard",
    "Invocation": "core.invocation",
    "Leftover": "core.reports.report",
    "Location": "core.callers",
    "Report": "core.reports.report",
    "ReportFile": "reporting.file",
    "Violation": "core.reports.report",
    "cold_start": "guard",
    "current": "core.invocation",
    "drain": "core.reports.delivery",
    "guarded": "guard",
    "install": "interpose.install",
    "invocation": "guard",
    "uninstall": "interpose.install",
}


#: There is one for each interface, so this package has none.
_WHICH = (
    "import TmpGuardMiddleware from tmpguard.asgi (FastAPI, Starlette, any ASGI application), tmpguard.wsgi "
    "(Flask, any WSGI application) or tmpguard.django"
)


if not TYPE_CHECKING:  # it would hide each misspelled name from a type checker

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if name == "TmpGuardMiddleware":
            raise ImportError(_WHICH, name=__name__)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
