"""What an invocation knows about its guard: the validated options, and state shared by all invocations."""

from __future__ import annotations

from typing import Any

from tmpguard.core.mounts.table import MountTable
from tmpguard.core.reports.log import Journal
from tmpguard.core.speedups import PolicyFields
from tmpguard.core.storage.forgotten import Forgotten
from tmpguard.core.storage.ledger import Makers
from tmpguard.core.storage.scratch import ScratchRoot


class Policy(PolicyFields):
    """The base class of :class:`tmpguard.Guard`, which checks the options and sets the attributes.

    The packages below the guard use only these attributes. ``storage_size`` is in MB (1 MB = 1,048,576
    bytes), ``quota_bytes`` is the same in bytes. ``max_files`` is None for no limit (C3.6). ``enforce`` is
    false if it only watches (C2.5). ``lifetime`` is ``"invocation"`` or ``"instance"``. ``children`` is
    ``"allow"``, ``"refuse"`` or ``"contain"`` (C6.3). ``writable`` are the canonical paths of the writable
    mounts (C1.4).
    """

    storage_size: int
    quota_bytes: int
    max_files: int | None
    lifetime: str
    children: str
    writable: tuple[str, ...]
    #: The writable mounts, and ``/dev/shm`` if the platform has it (C1.6).
    passed_through: tuple[str, ...]
    #: True if the platform has ``/dev/shm``.
    shared_memory: bool
    mounts: MountTable
    #: Holds the scratch directories of the guard's invocations.
    scratch: ScratchRoot
    #: The names of files that ended invocations left (C7.4).
    forgotten: Forgotten
    #: Who made files in the real /tmp, if the guard only watches (C2.5).
    makers: Makers
    #: Logs the refusals of its invocations.
    journal: Journal
    #: Makes the namespaces of contained children: a ``kernel.containment.Containment``. None if ``children``
    #: is not ``"contain"``.
    containment: object | None
    #: The number of reports dropped because too many were already waiting for ``on_report``.
    dropped_reports = 0

    def invocation(self) -> Any:
        """A new invocation."""
        raise NotImplementedError
