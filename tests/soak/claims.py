"""What a request says that its report has to say; the two are compared while it runs and when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import tmpguard

PAGE = 4096


def pages(size: int) -> int:
    """The bytes that a file of ``size`` bytes costs."""
    return -(-size // PAGE) * PAGE


@dataclass
class Claims:
    """The figures of one request, in bytes; None for one that cannot be foretold.

    ``ways`` are the operations that were done, for what is said about a wrong figure.
    """

    ways: str
    used: int | None = 0
    peak: int | None = 0
    files: int | None = 0
    violations: int | None = 0
    #: When the request began, by the monotonic clock.
    began: float = field(default_factory=time.monotonic)

    def void(self, why: str) -> None:
        """Nothing can be foretold: something got in the way."""
        self.ways += f" ({why})"
        self.used = self.peak = self.files = self.violations = None

    def wrong(self, report: tmpguard.Report, when: str) -> str:
        """What is wrong in the report, ``""`` if nothing is."""
        told = {
            "used": (self.used, report.used_bytes),
            "peak": (self.peak, report.peak_bytes),
            "files": (self.files, report.files),
            "violations": (self.violations, len(report.violations)),
        }
        wrong = [
            f"{name} is {found} and not {expected}"
            for name, (expected, found) in told.items()
            if expected is not None and found != expected
        ]
        return f"{self.ways}, {when}: {', '.join(wrong)}" if wrong else ""
