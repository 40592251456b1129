"""What an invocation knows of the guard that made it: the checked options, and what its invocations share."""

from __future__ import annotations

from collections.abc import Callable

from tmpguard.core.mounts.table import MountTable
from tmpguard.core.reports.log import Journal
from tmpguard.core.reports.report import Report
from tmpguard.core.storage.scratch import ScratchRoot


class Policy:
    """The base class of :class:`tmpguard.Guard`, which checks the options and sets the attributes.

    The room below the guard's works with these alone: ``storage_size`` in MB (1 MB = 1,048,576 bytes),
    ``quota_bytes`` the same in bytes; ``max_files``, None for no limit (C3.6); ``enforce``, false where
    refusals are only recorded (C2.5); ``children``, ``"allow"``, ``"refuse"`` or ``"contain"`` (C6.3);
    ``writable``, the canonical paths of the writable mounts (C1.4).
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
    #: Says on the logger what its invocations were refused.
    journal: Journal
    #: What makes the namespaces of contained children, for those who start them: a
    #: ``kernel.containment.Containment``. None where ``children`` is not ``"contain"``.
    containment: object | None
    #: Called with each finished report on a background thread; None for nobody.
    on_report: Callable[[Report], object] | None
    #: Reports that ``on_report`` was not called with, since too many waited for it already.
    dropped_reports = 0
