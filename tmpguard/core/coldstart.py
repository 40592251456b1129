"""Guards the code that runs before the first request: imports, and the start-up of an ASGI application.

Most failures of a deployment happen there: a module creates a directory when it is imported, or opens a log
file or a cache database. ::

    with tmpguard.cold_start() as start:
        from shop.main import app
    assert not start.report.violations

The start is a full invocation of its own: the working directory is the bundle, and ``/tmp`` is empty, limited
and wiped afterwards. Each request has its own ``/tmp`` (C4.1), so files that the start writes to ``/tmp`` are
gone before the first request. Requests start in the directory to which the start-up changed with ``os.chdir``
(C5.3). A module that is already imported does not run again, so nothing in it can be found: guard its first
import, in a separate process if necessary.

Bytecode (``__pycache__``) that the interpreter or an import hook such as pytest's tries to write is not a
violation: both continue without it if they cannot write.

A thread, a task or an open file that the start leaves behind still belongs to the start. If it uses files
after the end, it gets ESTALE, and the operation is among the report's ``late_writes`` (C4.5).
"""

from __future__ import annotations

from .invocation import Invocation


class ColdStart(Invocation):
    """The invocation of a start: ``cold_start`` is true in its report, and its remedies are for a start."""

    cold_start = True

    def _another(self) -> ColdStart:
        return ColdStart(self.guard)

    def change_directory(self, virtual: str) -> None:
        """Change the working directory, for the start-up and for all later requests (C5.3)."""
        super().change_directory(virtual)
        self.guard.mounts.start_in(virtual)
