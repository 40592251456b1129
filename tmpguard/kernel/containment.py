"""Gives child processes an invocation's files as /tmp: makes its mount namespace and starts children in it.

The namespace of an invocation is made when its first child is started. Open descriptors keep it alive, so no
process has to stay for it. There are two ways to make it:

``bwrap``
    bubblewrap sets up the mounts.
``python``
    :mod:`~tmpguard.kernel.holder` does the same by system calls in a fresh interpreter (Linux 5.12).

A child enters the namespace through util-linux's nsenter if the program is sure to start. Otherwise, or if
nsenter is not installed, it enters through the trampoline, which reports errors exactly. Either one enters
the namespace and then executes the program. The process that the application starts, waits for and sends
signals to is therefore the program itself. An unprivileged user gets a user namespace, in which its user ID
stays the same.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from tmpguard.core import originals, real
from tmpguard.core.errors import NotPermitted
from tmpguard.core.layout import TMP, is_below
from tmpguard.core.mounts.table import Bind, MountTable

from .descriptors import raised
from .freestanding import command, find_interpreter, loaded
from .namespaces import PATIENCE, Wanted, by_bwrap, held

#: The ways in the order in which they are tried, and whether nsenter is used at all. Tests replace both.
WAYS: tuple[str, ...] = ("bwrap", "python")
NSENTER = True

_SHARED_MEMORY: Final = Bind("/dev/shm", "/dev/shm", True)

#: What runs in a fresh interpreter to start a program, and to make a namespace.
_TRAMPOLINE: Final = ("tmpguard.kernel.trampoline",)
_HOLDER: Final = ("tmpguard.kernel.syscalls", "tmpguard.kernel.mounts", "tmpguard.kernel.holder")

#: Checks that /tmp is the scratch directory, is writable, and is the working directory.
_CHECK: Final = b'[ "$(pwd)" = /tmp ] && echo > /tmp/check'


class Means(NamedTuple):
    """How namespaces are made and entered on this machine."""

    way: str
    #: Whether each namespace gets a user namespace of its own.
    own_user: bool
    #: The path of util-linux's nsenter, "" if it is not used.
    nsenter: str


class Containment:
    """Makes the namespaces of one guard's invocations.

    Each way is tried with ``directory`` as /tmp, which contains the mount points and nothing else. Raises
    NotPermitted if none of them works.
    """

    def __init__(self, table: MountTable, directory: str) -> None:
        self._binds = table.binds()
        self._ways = WAYS
        self._nsenter = [shutil.which("nsenter") or "", ""] if NSENTER else [""]
        self.interpreter = find_interpreter()
        self.means = self._choose(directory)

    def _choose(self, directory: str) -> Means:
        """Find a way that works by trying each. Raises NotPermitted."""
        refusals: list[str] = []
        for way, own_user in itertools.product(self._ways, _user_namespaces()):
            try:
                return self._try(way, own_user, directory)
            except NotPermitted as exc:
                refusals.append(f"{way}: {exc}")
        raise NotPermitted("; ".join(dict.fromkeys(refusals)))

    def _try(self, way: str, own_user: bool, directory: str) -> Means:
        namespace = self._make(Means(way, own_user, ""), directory)
        try:
            namespace.check(directory)
            for nsenter in self._nsenter:
                namespace.nsenter = nsenter
                try:
                    namespace.check(directory)
                except NotPermitted:
                    continue  # an nsenter that lacks an option
                return Means(way, own_user, nsenter)
        finally:
            namespace.close()
        raise NotPermitted("entering it failed")

    def namespace(self, directory: str, *, shared_memory: bool = False) -> MountNamespace:
        """A namespace with the real ``directory`` as /tmp; ``shared_memory`` makes /dev/shm writable.

        Raises NotPermitted.
        """
        try:
            return self._make(self.means, directory, shared_memory)
        except NotPermitted:
            # The process may have dropped privileges since the way was chosen.
            self.means = self._choose(directory)
            return self._make(self.means, directory, shared_memory)

    def _seen_as(self, path: str) -> list[str]:
        """The paths at which a child would find the real ``path``."""
        binds = [*self._binds, Bind("/", "/", False), Bind("", TMP, True)]
        found = []
        for bind in binds:
            if bind.source and is_below(path, bind.source):
                seen = f"{bind.target.rstrip('/')}{path[len(bind.source.rstrip('/')) :]}"
                around = [other.target for other in binds if is_below(seen, other.target)]
                if max(around, key=len) == bind.target:
                    found.append(seen)
        return found

    def _make(self, means: Means, directory: str, shared_memory: bool = False) -> MountNamespace:
        binds = [*self._binds, _SHARED_MEMORY] if shared_memory else self._binds
        # The process's other scratch directories lie beside this one: what is seen there is this one (C4.1).
        claim = os.path.dirname(directory)
        binds = [*binds, *(Bind(directory, path, False) for path in self._seen_as(claim))]
        wanted = Wanted(directory, binds, means.own_user)
        if means.way == "bwrap":
            with held(by_bwrap(wanted)) as process:
                return MountNamespace(process, self.interpreter, means.nsenter)
        mounts = [(directory, TMP, True), *wanted.binds]
        orders = {
            "mounts": [(os.fsencode(source), os.fsencode(target), rw) for source, target, rw in mounts],
            "own user namespace": wanted.own_user,
        }
        with (
            loaded(_HOLDER, orders) as memory,
            held(command(self.interpreter, memory), (memory,)) as process,
        ):
            return MountNamespace(process, self.interpreter, means.nsenter)


def _user_namespaces() -> tuple[bool, ...]:
    """Whether to try with a user namespace: root needs one only if it lacks CAP_SYS_ADMIN."""
    return (False, True) if os.geteuid() == 0 else (True,)


# --- the namespace of one invocation -------------------------------------------------------------------


class MountNamespace:
    """The mount namespace of the running ``process``. Open descriptors keep it alive until :meth:`close`."""

    def __init__(self, process: int, interpreter: str, nsenter: str) -> None:
        self._interpreter = interpreter
        self.nsenter = nsenter
        self._user = -1
        self._mount = _namespace_of(process, "mnt")
        self._identity = originals.fstat(self._mount).st_ino
        if not os.path.samestat(
            originals.stat(f"/proc/{process}/ns/user"), originals.stat("/proc/self/ns/user")
        ):
            self._user = _namespace_of(process, "user")
        self._entering: list[int] = []
        self._lock = real.RLock()

    def quick(self, arguments: list[bytes], directory: bytes) -> list[bytes] | None:
        """The command that enters the namespace and executes ``arguments`` in ``directory``.

        None if there is no such command here. Use it only for a program that is sure to start: otherwise the
        application would see an error of nsenter's instead of the program's.
        """
        if not self.nsenter:
            return None
        # nsenter reopens the descriptors by path: inherited ones would stay open in the program.
        process = originals.readlink("/proc/self")
        if originals.stat(f"/proc/{process}").st_uid != os.geteuid():
            return None  # after a change of user, /proc does not permit it
        command = [self.nsenter, f"--mount=/proc/{process}/fd/{self._mount}"]
        if self._user >= 0:
            command += [f"--user=/proc/{process}/fd/{self._user}", "--preserve-credentials"]
        return [*map(os.fsencode, command), b"--wdns=" + directory, b"--", *arguments]

    @contextmanager
    def careful(self, orders: dict[str, Any]) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """The command that enters, executes the program in ``orders`` and reports any error exactly.

        Also yields the descriptors that the command has to inherit. They can be closed once it has started.
        """
        given = {"user": self._user, "mount": self._mount, **_NO_ORDERS, **orders}
        with loaded(_TRAMPOLINE, given) as memory:
            inherited = [memory, self._mount, self._user, *given["inherited"]]
            yield command(self._interpreter, memory), tuple(fd for fd in inherited if fd >= 0)

    def entering(self, process: int) -> None:
        """Note that ``process`` was started with the quick command: it needs the descriptors to enter."""
        with self._lock:
            self._entering = [one for one in self._entering if self._is_entering(one)]
            self._entering.append(process)

    def _is_entering(self, process: int) -> bool:
        try:
            if originals.stat(f"/proc/{process}/ns/mnt").st_ino == self._identity:
                return False
            return _parent_of(process) == os.getpid()  # otherwise it has ended and its PID was reused
        except OSError:
            return False  # it has ended, or now runs as another user

    def check(self, directory: str) -> None:
        """Check that a child in the namespace writes to ``directory``. Raises NotPermitted."""
        arguments = [b"/bin/sh", b"-c", _CHECK]
        command = self.quick(arguments, b"/tmp")
        if command is not None:
            self._check("nsenter", directory, command, ())
            return
        orders = {"programs": arguments[:1], "args": arguments, "cwd": b"/tmp", "environment": []}
        with self.careful(orders) as (careful, descriptors):
            self._check("setns", directory, careful, descriptors)

    def _check(
        self, means: str, directory: str, command: list[str] | list[bytes], descriptors: tuple[int, ...]
    ) -> None:
        done = subprocess.run(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        try:
            originals.unlink(f"{directory}/check")
        except FileNotFoundError:
            reason = os.fsdecode(done.stderr).strip().rpartition("\n")[2]
            raise NotPermitted(f"entering by {means}: {reason or f'status {done.returncode}'}") from None

    def close(self) -> None:
        """Release the namespace, which lives on for the processes in it. Waits for those still entering."""
        deadline = real.monotonic() + PATIENCE
        while any(map(self._is_entering, self._entering)) and real.monotonic() < deadline:
            real.sleep(0.001)
        for descriptor in (self._mount, self._user):
            if descriptor >= 0:
                originals.close(descriptor)
        self._mount = self._user = -1


_NO_ORDERS: Final[dict[str, Any]] = {
    "cwd": None,
    "environment": None,
    "signals": [],
    "inherited": [],
    "groups": None,
    "gid": None,
    "uid": None,
    "close from": None,
    "errors": -1,
    "unstarted": b"noexec",
    "no directory": b"noexec",
}


def _parent_of(process: int) -> int:
    with originals.open(f"/proc/{process}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def _namespace_of(process: int, kind: str) -> int:
    try:
        return raised(originals.os_open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        raise NotPermitted(f"opening /proc/{process}/ns/{kind}: {exc.strerror}") from None
