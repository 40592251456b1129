"""Starts an instance: runs in a fresh interpreter and makes the janitor and the application from it.

There are three processes. The *launcher*, which this is at first, takes the new namespaces, starts the
janitor and only waits for it. The *janitor* is process 1 of the instance's PID namespace: it makes the
storage, starts the application, observes it and collects its orphans. When it ends, for whatever reason, the
kernel ends every process of the instance and takes the mounts away. The *application* is the command that the
user gave.

A container may forbid namespaces and yet have the storage itself: a read-only root and a tmpfs on /tmp
(Docker's ``--read-only --tmpfs /tmp:size=128m``). Then the instance uses that, the only one that there can
be, and the janitor ends the processes that descend from it.

The supervisor sends commands and gets reports through a socket that keeps message boundaries; each message is
a marshalled tuple whose first item is its kind.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is built on: imports in no time
import _socket
import errno as codes
import os

from tmpguard.kernel import mounts
from tmpguard.kernel.syscalls import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, prctl, unshare

from . import janitor, storage
from .family import Family
from .messages import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_MAPS: Final = ("uid_map", "gid_map")


def main(orders: dict[str, Any]) -> NoReturn:
    """Carry out ``orders``, which the supervisor has written."""
    channel = Channel(_socket.socket(fileno=orders["control"]))
    _end_with_parent(orders["parent"])
    is_alone = True
    try:
        _take_namespaces()
    except mounts.StepFailed as exc:
        if not storage.is_given():
            _give_up(channel, exc.step, exc.code)
        is_alone = False
    process = os.fork()
    if process == 0:
        _become_janitor(channel, orders, is_alone)
    channel.close()
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    _, status = os.waitpid(process, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _end_with_parent(parent: int) -> None:
    prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before this took effect


def _give_up(channel: Channel, step: str, code: int, detail: str = "") -> NoReturn:
    channel.send("refused", step, code, detail)
    os._exit(1)


def _take_namespaces() -> None:
    flags, names = CLONE_NEWPID | CLONE_NEWIPC, "CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC"
    if os.geteuid() == 0:
        try:
            mounts.unshare_mounts(flags, names, own_user=False)
            return
        except mounts.StepFailed as exc:
            if exc.code != codes.EPERM:
                raise
    mounts.unshare_mounts(flags, names, own_user=True)


def _become_janitor(channel: Channel, orders: dict[str, Any], is_alone: bool) -> NoReturn:
    try:
        prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)  # a fork clears it
        prctl(_PR_SET_DUMPABLE, 1)  # unshare has made /proc/self root's
        orders["umask"] = os.umask(0o022)
        if is_alone:
            storage.make(orders)
            if os.geteuid() == 0:  # everybody else loses at exec the rights to change mounts
                _lock_mounts()
        else:
            storage.claim()
            prctl(_PR_SET_CHILD_SUBREAPER, 1)
            orders["end with janitor"] = True
            orders["directory"] = orders["environment"][b"PWD"] = orders["project"]
        os.chdir(orders["directory"])
        janitor.run(channel, orders, Family(is_alone=is_alone))
    except mounts.StepFailed as exc:
        _give_up(channel, exc.step, exc.code)
    except OSError as exc:
        _give_up(channel, "setting up", exc.errno or 0, str(exc.filename or ""))


def _lock_mounts() -> None:
    """Go on in a user namespace, in which the mounts made so far cannot be changed any more.

    Every user and group keeps its number. Only a process of the outer namespace may write such a map.
    """
    taken, written = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.read(taken[0], 1)
        code = 0
        try:
            for name in _MAPS:
                mounts.write(f"/proc/1/{name}", _identity(name))
        except mounts.StepFailed as exc:
            code = exc.code
        os.write(written[1], bytes([code]))
        os._exit(0)
    with mounts.step("unshare(CLONE_NEWUSER | CLONE_NEWNS)"):
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
    os.write(taken[1], b"x")
    code = os.read(written[0], 1)[0]
    for descriptor in (*taken, *written):
        os.close(descriptor)
    os.waitpid(helper, 0)
    if code:
        raise mounts.StepFailed("writing /proc/1/uid_map", code)
    prctl(_PR_SET_DUMPABLE, 1)


def _identity(name: str) -> str:
    """A map in which each ID of this namespace keeps its number."""
    with open(f"/proc/self/{name}") as file:
        lines = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in lines)
