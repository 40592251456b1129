"""tmpguard: each request gets the file system of a serverless function.

``/tmp`` writable, limited and wiped, everything else read-only; in the ordinary process. See the README.
"""

from __future__ import annotations

from .coldstart import cold_start
from .context import current
from .errors import ConfigurationError
from .guard import Guard, invocation
from .interpose.install import install, uninstall
from .invocation import Invocation
from .report import Leftover, Location, Report, Violation
from .reporter import drain

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Guard",
    "Invocation",
    "Leftover",
    "Location",
    "Report",
    "Violation",
    "cold_start",
    "current",
    "drain",
    "install",
    "invocation",
    "uninstall",
]
