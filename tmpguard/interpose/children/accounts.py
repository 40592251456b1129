"""The child processes of an invocation: their mount namespace, waiting for them, and what they write."""

from __future__ import annotations

import stat as modes
from errno import ENOSPC, EPERM
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tmpguard.core import originals, real
from tmpguard.core.callers import Caller, find_caller
from tmpguard.core.context import unguarded
from tmpguard.core.errors import NotPermitted
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import CHILD_OVERRUN
from tmpguard.core.storage.pages import Usage
from tmpguard.core.storage.scratch import ScratchRoot
from tmpguard.core.storage.wiper import wiper

if TYPE_CHECKING:  # slow to import, and most processes contain no children
    from tmpguard.kernel.containment import Containment, MountNamespace


class WatchedChild(NamedTuple):
    """A running child: its invocation, its program, and the caller that started it."""

    invocation: Invocation
    program: str
    caller: Caller


#: The children that may write to an invocation's /tmp, by process ID, until they have been waited for.
watched: Final[dict[int, WatchedChild]] = {}


class MountNamespaces:
    """The mount namespaces of one /tmp. Created when the first child is started."""

    def __init__(self) -> None:
        self._lock = real.RLock()
        self._made: dict[bool, MountNamespace] = {}

    def get(self, invocation: Invocation, shared_memory: bool) -> MountNamespace:
        """The namespace with the same file system as ``invocation``. Raises NotPermitted."""
        with self._lock:
            if shared_memory not in self._made:
                directory = invocation.namespace.scratch()
                invocation.reusable = False
                # Children may create symlinks there, so no path can be translated by its text alone any more.
                invocation.volume.forget_prefix()
                invocation.make_mount_points()
                containment = cast("Containment", invocation.guard.containment)
                with unguarded():
                    _open_to_all(directory)
                    self._made[shared_memory] = containment.namespace(directory, shared_memory=shared_memory)
            return self._made[shared_memory]

    def close(self, root: ScratchRoot) -> None:
        """Release the namespaces. Children that are still running continue."""
        with self._lock:
            made, self._made = self._made, {}
        for namespace in made.values():
            # On the wiper's thread: closing may block, and the kernel takes a while to destroy a namespace.
            wiper.put(namespace.close, root)


class Children:
    """An invocation's record of its children."""

    def __init__(self, invocation: Invocation, namespaces: MountNamespaces) -> None:
        self._invocation = invocation
        self.namespaces = namespaces
        self._last: WatchedChild | None = None
        self._over = False

    def namespace(self, operation: str, program: str, *, shared_memory: bool = False) -> MountNamespace:
        """The namespace for a new child.

        With ``shared_memory``, the namespace keeps the real /dev/shm, which multiprocessing uses for shared
        objects. Raises OSError(ESTALE) if the invocation is over. If the machine no longer permits a
        namespace, a violation is recorded and OSError(EPERM) is raised.
        """
        invocation = self._invocation
        if self._is_over():
            raise invocation.stale(operation, program)
        try:
            namespace = self.namespaces.get(invocation, shared_memory)
        except NotPermitted as exc:
            remedy = remedies.not_contained(str(exc))
            raise invocation.refusal(operation, EPERM, program, remedy=remedy) from None
        if self._is_over():  # another thread ended it in the meantime
            self.namespaces.close(invocation.guard.scratch)
            raise invocation.stale(operation, program)
        return namespace

    def _is_over(self) -> bool:
        return self._invocation.ended

    # --- what they write -------------------------------------------------------------------------------

    def started(self, process: int, program: str) -> None:
        """A child that may write to /tmp was started."""
        # An overrun is reported once, and again if there was free space in between.
        quota = self._invocation.quota
        if quota.balance >= 0:
            self._over = quota.overrun = False
        self._last = watched[process] = WatchedChild(self._invocation, program, find_caller())

    def finished(self, program: str) -> None:
        """A child was started and has already exited."""
        self._last = WatchedChild(self._invocation, program, find_caller())
        self.look(self._last)

    def look(self, child: WatchedChild) -> None:
        """``child`` has exited: measure the disk and charge what the child has written (C3.5)."""
        if not self._invocation.ended:
            self._judge(child, self._invocation.quota.measured())

    def wiped(self, usage: Usage) -> None:
        """The invocation is over. ``usage`` is what was left in /tmp, also by children not waited for."""
        if self._last is not None:
            self._judge(self._last, usage)

    def _judge(self, child: WatchedChild, usage: Usage) -> None:
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
        """The invocation is over. Children that are still running continue while their /tmp is wiped."""
        for process, child in list(watched.items()):
            if child.invocation.ended:
                watched.pop(process, None)
        self.namespaces.close(self._invocation.guard.scratch)


def children_of(invocation: Invocation) -> Children:
    """The children of ``invocation``. Invocations that share a /tmp share its namespaces."""

    def make() -> Children:
        children = Children(invocation, invocation.volume.attached(MountNamespaces, MountNamespaces))
        invocation.observe_end(children)
        return children

    return invocation.attached(Children, make)


def ended(process: int) -> None:
    """The child with that process ID has been waited for."""
    child = watched.pop(process, None)
    if child is not None:
        children_of(child.invocation).look(child)


def _open_to_all(directory: str) -> None:
    """Give /tmp its usual mode. The directory above it stays private."""
    if modes.S_IMODE(originals.stat(directory).st_mode) == 0o700:
        originals.chmod(directory, 0o1777)
