"""Child processes that see an invocation's files as /tmp: its mount namespace, and what enters it.

The namespace of an invocation is made when its first child is started, in one of two ways, and is held by
descriptors of it, so that no process has to stay for it:

``bwrap``
    bubblewrap mounts what there is to see.
``python``
    the same by system calls, from :mod:`~tmpguard.kernel.trampoline` in a fresh interpreter (Linux 5.12).

A child enters it by nsenter of util-linux where all is known that could go wrong, by the trampoline where
not, or where there is no nsenter. Either enters the namespace and becomes the program: so the process that
the application has started, waits for and sends signals to is the program itself. A user without privileges
gets a user namespace, in which it keeps its number.
"""

from __future__ import annotations

import itertools
import marshal
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.errors import NotPermitted
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.table import Bind, MountTable

from .descriptors import raised
from .namespaces import PATIENCE, Wanted, by_bwrap, held

#: The ways in the order in which they are tried, and whether nsenter is used at all: tests choose their own.
WAYS: tuple[str, ...] = ("bwrap", "python")
NSENTER = True

_SHARED_MEMORY: Final = Bind("/dev/shm", "/dev/shm", True)

_TRAMPOLINE: Final = f"{__package__}.trampoline"

#: Unloads the code and the orders from a descriptor; see :mod:`~tmpguard.kernel.trampoline`.
_BOOT: Final = "import marshal;f=open({},'rb');c=marshal.load(f);o=marshal.load(f);f.close();exec(c);main(o)"

#: Is /tmp the scratch directory, can it be written, and is it where the process stands?
_CHECK: Final = b'[ "$(pwd)" = /tmp ] && echo > /tmp/check'


class Means(NamedTuple):
    """How namespaces are made and entered here."""

    way: str
    #: Are they made in a user namespace of their own?
    own_user: bool
    #: The program of util-linux, "" for none.
    nsenter: str


class Containment:
    """Makes the namespaces of one guard's invocations.

    They are tried with ``directory`` as /tmp, in which the mount points are and nothing else. Raises
    NotPermitted where no way of making one works. ``read_only=False`` leaves the rest of the file system
    as it is.
    """

    def __init__(self, table: MountTable, directory: str, *, read_only: bool = True) -> None:
        self._binds = table.binds()
        self._read_only = read_only
        self._ways = WAYS
        self._nsenter = [shutil.which("nsenter") or "", ""] if NSENTER else [""]
        self.interpreter = _interpreter()
        self.means = self._choose(directory)

    def _choose(self, directory: str) -> Means:
        """Find a way that works, by trying. Raises NotPermitted."""
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
                    continue  # it does not know all that is asked of it
                return Means(way, own_user, nsenter)
        finally:
            namespace.close()
        raise NotPermitted("entering it failed")

    def namespace(self, directory: str, *, shared_memory: bool = False) -> MountNamespace:
        """A namespace with the real ``directory`` as /tmp, and /dev/shm writable or not.

        Raises NotPermitted.
        """
        try:
            return self._make(self.means, directory, shared_memory)
        except NotPermitted:
            # The process may have given up privileges since it was asked.
            self.means = self._choose(directory)
            return self._make(self.means, directory, shared_memory)

    def _make(self, means: Means, directory: str, shared_memory: bool = False) -> MountNamespace:
        binds = [*self._binds, _SHARED_MEMORY] if shared_memory else self._binds
        wanted = Wanted(directory, binds, self._read_only, means.own_user)
        if means.way == "bwrap":
            with held(by_bwrap(wanted)) as process:
                return MountNamespace(process, self.interpreter, means.nsenter)
        mounts = [(directory, TMP, True), *wanted.binds]
        orders = {
            "mounts": [(os.fsencode(source), os.fsencode(target), rw) for source, target, rw in mounts],
            "read only": wanted.read_only,
            "own user namespace": wanted.own_user,
        }
        with _loaded(orders) as memory, held(_boot(self.interpreter, memory), (memory,)) as process:
            return MountNamespace(process, self.interpreter, means.nsenter)


def _user_namespaces() -> tuple[bool, ...]:
    """Whether to try with a user namespace: the superuser needs none, unless it lacks the privilege."""
    return (False, True) if os.geteuid() == 0 else (True,)


def _interpreter() -> str:
    """The interpreter to run the trampoline with: the same as this one, not an environment's link to it."""
    if sys.platform != "linux":
        raise NotPermitted("it needs the mount namespaces of Linux")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [getattr(sys, "_base_executable", None), sys.executable]
    candidates.append(os.path.join(sys.base_exec_prefix, "bin", name))
    for path in candidates:
        # Where Python is embedded it is a server that they name.
        if path and os.path.basename(path).startswith("python") and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise NotPermitted(
        f"there is no interpreter to start children with: sys.executable is {sys.executable!r}"
    )


# --- one invocation's ----------------------------------------------------------------------------------


class MountNamespace:
    """A mount namespace, that of the running ``process``: held by descriptors until :meth:`close`."""

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
        self._lock = threading.Lock()

    def quick(self, arguments: list[bytes], directory: bytes) -> list[bytes] | None:
        """The command that enters and becomes ``arguments`` in ``directory``; None if there is none here.

        Only for a program that is sure to run: what goes wrong here is no error of the program's.
        """
        if not self.nsenter:
            return None
        # The descriptors are opened anew by their path: inherited ones would stay open in the program.
        process = originals.readlink("/proc/self")
        if originals.stat(f"/proc/{process}").st_uid != os.geteuid():
            return None  # a process that has changed its user may not be looked into
        command = [self.nsenter, f"--mount=/proc/{process}/fd/{self._mount}"]
        if self._user >= 0:
            command += [f"--user=/proc/{process}/fd/{self._user}", "--preserve-credentials"]
        return [*map(os.fsencode, command), b"--wdns=" + directory, b"--", *arguments]

    @contextmanager
    def careful(self, orders: dict[str, Any]) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """The command that enters, becomes the program of ``orders`` and tells exactly what goes wrong.

        With it come the descriptors that it has to inherit, which can be closed once it was started.
        """
        given = {"user": self._user, "mount": self._mount, **_NO_ORDERS, **orders}
        with _loaded(given) as memory:
            inherited = [memory, self._mount, self._user, *given["inherited"]]
            yield _boot(self._interpreter, memory), tuple(fd for fd in inherited if fd >= 0)

    def entering(self, process: int) -> None:
        """``process`` was started with the quick command: the descriptors are needed until it has entered."""
        with self._lock:
            self._entering = [one for one in self._entering if self._is_entering(one)]
            self._entering.append(process)

    def _is_entering(self, process: int) -> bool:
        try:
            if originals.stat(f"/proc/{process}/ns/mnt").st_ino == self._identity:
                return False
            return _parent_of(process) == os.getpid()  # else it is over, and another process has its number
        except OSError:
            return False  # it is over, or has become another user's

    def check(self, directory: str) -> None:
        """Start something in it, and see what comes of it in ``directory``. Raises NotPermitted."""
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
            said = os.fsdecode(done.stderr).strip().rpartition("\n")[2]
            raise NotPermitted(f"entering by {means}: {said or f'status {done.returncode}'}") from None

    def close(self) -> None:
        """Let go of the namespace: it lives on for the processes in it. Waits for those still entering."""
        deadline = time.monotonic() + PATIENCE
        while any(map(self._is_entering, self._entering)) and time.monotonic() < deadline:
            time.sleep(0.001)
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


# --- the trampoline ------------------------------------------------------------------------------------


def _boot(interpreter: str, descriptor: int) -> list[str]:
    return [interpreter, "-I", "-S", "-B", "-c", _BOOT.format(descriptor)]


_code = b""


@contextmanager
def _loaded(orders: dict[str, Any]) -> Iterator[int]:
    """A file in memory with the trampoline's code and its orders, until the trampoline was started."""
    global _code
    if not _code:
        # By the path alone: pytest puts a loader of its own before the others, which gives no code.
        spec = PathFinder.find_spec(_TRAMPOLINE, [os.path.dirname(__file__)])
        assert spec is not None
        loader: Any = spec.loader
        _code = marshal.dumps(loader.get_code(_TRAMPOLINE))
    descriptor = raised(os.memfd_create("tmpguard", os.MFD_CLOEXEC))
    try:
        with originals.open(descriptor, "wb", closefd=False) as file:
            file.write(_code + marshal.dumps(orders))
        originals.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        originals.close(descriptor)
