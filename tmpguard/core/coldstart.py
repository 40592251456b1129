"""Guards what runs before the first request: imports, and the start-up of an ASGI application.

Most failures of a deployment happen there: a directory made when a module is imported, a log file opened, a
cache database. ::

    with tmpguard.cold_start() as start:
        from shop.main import app
    assert not start.report.violations

The start is an invocation of its own, with all that one has: the working directory is the bundle, ``/tmp``
is empty, limited and gone afterwards. So what the start writes there is gone before the first request, as
each request has a ``/tmp`` of its own (C4.1). A module that was imported before runs no code a second time,
and has nothing to be found: guard the first import, in a process of its own if need be.

The interpreter's writing of bytecode (``__pycache__``) is no finding, nor is that of an import hook such as
pytest's: both do without where they cannot write.

A thread, a task or an open file that the start leaves behind stays the start's: when it goes on with files
after the end it gets ESTALE, and the operation is among the report's ``late_writes`` (C4.5).
"""

from __future__ import annotations

from .invocation import Invocation


class ColdStart(Invocation):
    """The invocation of a start: its report has ``cold_start`` true, and its remedies speak of a start."""

    cold_start = True
