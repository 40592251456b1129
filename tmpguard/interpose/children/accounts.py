"""The child processes of one invocation: their namespace, who waits for them, and what they have written."""

from __future__ import annotations

import stat as modes
import threading
from errno import ENOSPC, EPERM
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tmpguard.core import originals
from tmpguard.core.callers import Caller, find_caller
from tmpguard.core.context import unguarded
from tmpguard.core.errors import NotPermitted
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import CHILD_OVERRUN
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.wiper import wiper

if TYPE_CHECKING:  # importing it takes a while, and most processes contain no children
    from tmpguard.kernel.containment import Containment, MountNamespace


class Child(NamedTuple):
    """A running child: whose it is, the program, and who started it."""

    invocation: Invocation
    program: str
    caller: Caller


#: The children that may write to an invocation's /tmp, by their process numbers, until they were waited for.
watched: Final[dict[int, Child]] = {}


class MountNamespaces:
    """The namespaces of one /tmp. Made when the first child is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[bool, MountNamespace] = {}

    def get(self, invocation: Invocation, shared_memory: bool) -> MountNamespace:
        """The namespace that sees what ``invocation`` does. Raises NotPermitted."""
        with self._lock:
            if shared_memory not in self._made:
                directory = invocation.namespace.scratch()
                invocation.reusable = False
                # Children may make links there, so no path can be translated by its text alone any more.
                invocation.volume.forget_prefix()
                invocation.make_mount_points()
                containment = cast("Containment", invocation.guard.containment)
                with unguarded():
                    _open_to_all(directory)
                    self._made[shared_memory] = containment.namespace(directory, shared_memory=shared_memory)
            return self._made[shared_memory]

    def close(self, root: ScratchRoot) -> None:
        """Let go of them; children that still run go on."""
        with self._lock:
            made, self._made = self._made, {}
        for namespace in made.values():
            # It may have to wait, and the end of a namespace takes the kernel a while.
            wiper.put(namespace.close, root)


class Children:
    """What an invocation knows of its children."""

    def __init__(self, invocation: Invocation, namespaces: MountNamespaces) -> None:
        self._invocation = invocation
        self.namespaces = namespaces
        self._last: Child | None = None
        self._over = False

    def namespace(
        self, operation: str, program: str, *, shared_memory: bool = False
    ) -> MountNamespace | None:
        """The namespace for a child to be started.

        ``shared_memory`` asks for one in which /dev/shm is as it is: what multiprocessing shares lies there.
        Raises OSError(ESTALE) when the invocation is over, and OSError(EPERM) with a violation where the
        machine no longer permits to make one. None where that is only watched.
        """
        invocation = self._invocation
        if self._is_over():
            raise invocation.stale(operation, program)
        try:
            namespace = self.namespaces.get(invocation, shared_memory)
        except NotPermitted as exc:
            invocation.refuse(operation, EPERM, program, remedy=remedies.not_contained(str(exc)))
            return None
        if self._is_over():  # by another thread, meanwhile
            self.namespaces.close(invocation.guard.scratch)
            raise invocation.stale(operation, program)
        return namespace

    def _is_over(self) -> bool:
        return self._invocation.ended

    # --- what they write -------------------------------------------------------------------------------

    def started(self, process: int, program: str) -> None:
        """A child was started that may write to /tmp."""
        # An overrun is told once, and once more if there was space meanwhile.
        quota = self._invocation.quota
        if quota.balance >= 0:
            self._over = quota.overrun = False
        self._last = watched[process] = Child(self._invocation, program, find_caller())

    def finished(self, program: str) -> None:
        """A child was started that is already over."""
        self._last = Child(self._invocation, program, find_caller())
        self.look(self._last)

    def look(self, child: Child) -> None:
        """``child`` is over: charge what it has written, from the disk (C3.5)."""
        if not self._invocation.ended:
            self._judge(child, self._invocation.quota.measured())

    def wiped(self, usage: Usage) -> None:
        """The invocation is over: ``usage`` is what was left, by children nobody has waited for, too."""
        if self._last is not None:
            self._judge(self._last, usage)

    def _judge(self, child: Child, usage: Usage) -> None:
        guard = self._invocation.guard
        over = usage.bytes > guard.quota_bytes or usage.files > (guard.max_files or usage.files)
        quota = self._invocation.quota
        if over and not self._over and not quota.overrun:
            remedy = remedies.child_overrun(usage.bytes, usage.files)
            self._invocation.note(CHILD_OVERRUN, ENOSPC, child.program, remedy, child.caller)
        self._over = over
        quota.overrun = quota.overrun or usage.bytes > guard.quota_bytes

    # --- the end ---------------------------------------------------------------------------------------

    def over(self) -> None:
        """/tmp is no more. Children that still run go on, in one that is being emptied."""
        for process, child in list(watched.items()):
            if child.invocation.ended:
                watched.pop(process, None)
        self.namespaces.close(self._invocation.guard.scratch)


def children_of(invocation: Invocation) -> Children:
    """The children of ``invocation``; those of all invocations that share its /tmp share the namespaces."""

    def make() -> Children:
        children = Children(invocation, invocation.volume.attached(MountNamespaces, MountNamespaces))
        invocation.observe_end(children)
        return children

    return invocation.attached(Children, make)


def ended(process: int) -> None:
    """The child with that number was waited for."""
    child = watched.pop(process, None)
    if child is not None:
        children_of(child.invocation).look(child)


def _open_to_all(directory: str) -> None:
    """Have /tmp look as it does everywhere; the directory around it lets nobody in."""
    if modes.S_IMODE(originals.stat(directory).st_mode) == 0o700:
        originals.chmod(directory, 0o1777)
