"""Makes an instance's storage: ``/tmp`` of its own, everything else read-only, the project where it belongs.

Runs in the fresh interpreter of the :mod:`.launcher`.
"""

from __future__ import annotations

import fcntl
import os

from tmpguard.kernel import mounts
from tmpguard.kernel.mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_TMP: Final = b"/tmp"
_PACKAGE: Final = b"/tmp/package"
_SCRATCH: Final = b"/tmp/.tmpguard"

#: Bytes. /dev/shm has no quota (C1.6), but an instance should not use up the machine's memory.
_SHARED_MEMORY: Final = 1 << 30

#: Stands for no limit: a tmpfs without one does not count its files.
_MANY_FILES: Final = 1 << 31


def make(orders: dict[str, Any]) -> None:
    """Make the mounts of ``orders`` in this mount namespace. Raises StepFailed.

    ``project``, and ``kept`` and ``writable`` with it, are canonical paths. ``kept`` lie below /tmp and stay
    readable at their paths. ``hidden`` and ``hidden in package`` are the entries of the project, relative to
    it, that are left out at its own path and at /tmp/package.
    """
    project: bytes = orders["project"]
    mounts.make_private()
    views = [(path, Tree(path)) for path in orders["kept"]]
    views += [(path, Tree(path, writable=True)) for path in orders["writable"]]
    package = Tree(project) if orders["package"] else None
    own_inner = _inner(project) if orders["hidden"] else []
    package_inner = _inner(project) if orders["hidden in package"] else []
    package_inner += [
        (path[len(project) + 1 :], Tree(path, writable=True))
        for path in orders["writable"]
        if package is not None and path.startswith(project + b"/")
    ]
    mounts.make_root_read_only()
    _mount_proc()
    _mount_tmp(orders)
    for path, tree in sorted(views, key=lambda view: len(view[0])):
        _attach(tree, path)
    if package is not None:
        _attach(package, _PACKAGE)
        if orders["hidden in package"]:
            mounts.hide_entries(_PACKAGE, orders["hidden in package"], _SCRATCH)
        _attach_inner(package_inner, _PACKAGE)
    if orders["hidden"]:
        mounts.hide_entries(project, orders["hidden"], _SCRATCH)
        _attach_inner(own_inner, project)
    if orders["files"]:
        mounts.limit_files(_TMP, used_inodes(_TMP) + orders["files"])


def is_given() -> bool:
    """Is the storage there already: a read-only root, and a file system of its own on /tmp?"""
    root, tmp = os.statvfs("/"), os.statvfs(_TMP)
    is_apart = os.stat("/").st_dev != os.stat(_TMP).st_dev
    return bool(root.f_flag & os.ST_RDONLY) and is_apart and not tmp.f_flag & os.ST_RDONLY


def claim() -> None:
    """Keep other instances from using this machine's own /tmp, for as long as this process lives."""
    descriptor = os.open(_TMP, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with mounts.step("flock('/tmp')"):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def used_inodes(tmp: int | bytes) -> int:
    """The files, directories and links in the tmpfs, its root included."""
    status = os.statvfs(tmp)
    return status.f_files - status.f_ffree


def _inner(project: bytes) -> list[tuple[bytes, Tree]]:
    """Copies of what is mounted inside the project: an overlay does not show it."""
    return [(name, Tree(os.path.join(project, name))) for name in mounts.mounts_below(project)]


def _attach_inner(inner: list[tuple[bytes, Tree]], target: bytes) -> None:
    for name, tree in inner:
        path = os.path.join(target, name)
        if os.path.exists(path):  # otherwise it is hidden
            tree.attach(path)


def _attach(tree: Tree, path: bytes) -> None:
    """Mount ``tree`` on ``path``, which is made first where it lies in the new /tmp."""
    if path.startswith(_TMP + b"/") and not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if tree.is_directory():
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    tree.attach(path)


def _mount_proc() -> None:
    """The instance's own /proc. The settings of the machine in it are read-only even for root."""
    mounts.mount_proc()
    Tree(b"/proc/sys").attach(b"/proc/sys")


def _mount_tmp(orders: dict[str, Any]) -> None:
    mounts.mount_tmpfs(_TMP, f"size={orders['size']},nr_inodes={_MANY_FILES},mode=1777")
    if orders["shared memory"]:
        mounts.mount_tmpfs(b"/dev/shm", f"size={_SHARED_MEMORY},mode=1777")
