"""What an invocation knows about its guard: the checked options, and what all of its invocations share."""

from __future__ import annotations

from collections.abc import Callable

from tmpguard.core.mounts.table import MountTable
from tmpguard.core.reports.log import Journal
from tmpguard.core.reports.report import Report
from tmpguard.core.storage.scratch import ScratchRoot


class Policy:
    """The base class of :class:`tmpguard.Guard`, which checks the options and sets the attributes.

    The packages below the guard use only these attributes. ``storage_size`` is in MB (1 MB = 1,048,576
    bytes), ``quota_bytes`` is the same in bytes. ``max_files`` is None for no limit (C3.6). ``enforce`` is
    false if refusals are only recorded (C2.5). ``children`` is ``"allow"``, ``"refuse"`` or ``"contain"``
    (C6.3). ``writable`` are the canonical paths of the writable mounts (C1.4).
    """

    storage_size: int
    quota_bytes: int
    max_files: int | None
    enforce: bool
    children: str
    writable: tuple[str, ...]
    mounts: MountTable
    #: Where the scratch directories of its invocations are.
    scratch: ScratchRoot
    #: Logs the refusals of its invocations.
    journal: Journal
    #: Makes the namespaces of contained children: a ``kernel.containment.Containment``. None if ``children``
    #: is not ``"contain"``.
    containment: object | None
    #: Called with each finished report on a background thread; None for no callback.
    on_report: Callable[[Report], object] | None
    #: The number of reports dropped because too many were already waiting for ``on_report``.
    dropped_reports = 0
