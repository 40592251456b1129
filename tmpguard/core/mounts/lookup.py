"""The look-up of a path: the walk that resolves it component by component as the kernel does (C1.2)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, Final

from tmpguard.core import originals
from tmpguard.core.callers import is_reading_sources
from tmpguard.core.errors import os_error
from tmpguard.core.layout import PACKAGE, TMP, is_below

from .table import Bundled, Mount, MountTable, NotInBundle, Place

if TYPE_CHECKING:
    from .ignore import Rule

#: The kernel's own limits: links followed in one resolution, bytes in a path with its terminating NUL.
MAX_LINKS: Final = 40
PATH_MAX: Final = 4096

#: What stands behind a path that is not in the bundle: the kernel says itself that it is not there.
_ABSENT: Final = "/proc/tmpguard: not in the bundle"


def _last_kind(path: str) -> str:
    tail = path.rstrip("/").rpartition("/")[2]
    if tail in (".", ".."):
        return tail
    return "" if tail else "/"


class Namespace:
    """One invocation's view of the file system.

    ``make_scratch`` makes the real directory behind ``/tmp`` and returns its path; it is called on first use
    (C4.7), and ``root`` holds what it gave. ``make_mount_points`` makes the directories in it on which others
    are mounted; it is called when the walk passes through one that leads to them.
    """

    __slots__ = (
        "_bundled",
        "_make_mount_points",
        "_make_scratch",
        "cwd",
        "directories",
        "locked",
        "root",
        "table",
    )

    def __init__(
        self, table: MountTable, make_scratch: Callable[[], str], make_mount_points: Callable[[], None]
    ) -> None:
        self.table = table
        self.cwd = table.cwd
        self.root: str | None = None
        self._make_scratch = make_scratch
        self._make_mount_points = make_mount_points
        #: Read-only directories that turned out to be no links, with their real paths. They cannot change
        #: under an invocation, so each is looked at once.
        self.directories: dict[str, str] = {}
        #: May the mode of a directory that leads to a mount point below /tmp have been changed?
        self.locked = False
        # Descriptors that were opened below /tmp/package, which the disk knows by the project's own path.
        self._bundled: dict[int, Bundled] = {}

    def scratch(self) -> str:
        """The real directory behind ``/tmp``."""
        if self.root is None:
            self.root = self._make_scratch()
        return self.root

    def working_directory(self) -> str:
        """The canonical working directory: the project's, until the invocation changes it (C5.3)."""
        if self.cwd is None:
            self.cwd = originals.getcwd()
        return self.cwd

    def moved(self, old: str, new: str) -> None:
        """What had the canonical path ``old`` has ``new``: who stands in it goes along."""
        if self.cwd is not None and is_below(self.cwd, old):
            self.cwd = new + self.cwd[len(old) :]

    def real(self, virtual: str, mount: Mount) -> str:
        """What stands on the real disk at the canonical path ``virtual`` of ``mount``."""
        if mount is self.table.scratch:
            return self.scratch() + virtual[len(TMP) :]
        if mount is self.table.root:
            return virtual
        return mount.real + virtual[len(mount.virtual) :] or "/"

    def virtual_of(self, real: str) -> str:
        """The path under which the application sees what has the real path ``real``."""
        if self.root is not None and is_below(real, self.root):
            return TMP + real[len(self.root) :]
        return real

    def opened(self, fd: int, real: str) -> None:
        """The descriptor ``fd`` of ``real`` was opened: it has the path that it was opened by (C7.1)."""
        if type(real) is Bundled:
            self._bundled[fd] = real
        elif self._bundled:
            self._bundled.pop(fd, None)

    def path_of(self, fd: int, real: str) -> str:
        """The path under which the application sees what ``fd`` has open, whose real path is ``real``."""
        bundled = self._bundled.get(fd)
        # The descriptor number may be another file's by now.
        return (
            bundled.virtual
            if bundled is not None and bundled.rstrip("/.") == real.rstrip("/.")
            else self.virtual_of(real)
        )

    def knows(self, path: str) -> bool:
        """Is ``path`` an entry, itself perhaps a link, of a read-only directory that was walked before?

        Not so below ``/tmp/package``, where the real path is another one.
        """
        directory = path.rpartition("/")[0]
        return self.directories.get(directory) == directory

    def known_directory(self, path: str) -> str | None:
        """The real path of a read-only directory that was walked before."""
        return self.directories.get(path)

    def seen(self, directory: str, names: list[str]) -> None:
        """A listing of the canonical path ``directory`` had the directories ``names``, which are no links."""
        if self.table.mount_of(directory).writable:
            return
        for name in names:
            child = f"{directory}/{name}" if directory != "/" else "/" + name
            if child not in self.directories:
                mount = self.table.mount_of(child)
                if not mount.writable:
                    self.directories[child] = self.real(child, mount)

    def resolve(self, path: str, *, follow: bool, base: str | None = None) -> Place:
        """Walk ``path`` as a look-up does, from ``base`` (the working directory if None) if it is relative.

        ``follow`` says whether a link in the last component is followed (a trailing slash or a last ``.``
        or ``..`` follows it in any case). A missing last component is no error here.

        Raises OSError: ENOENT, ENOTDIR, ELOOP, EACCES, ENAMETOOLONG as the kernel would.
        """
        return self._resolve(path, base, follow=follow or path.endswith("/"))

    def resolve_entry(self, path: str, *, base: str | None = None) -> Place:
        """Walk to the directory entry that ``path`` names: what mkdir, unlink, rename and their like act on.

        Never follows the last component, trailing slash or not. Raises as :meth:`resolve` does.
        """
        where = self._resolve(path, base, follow=False)
        if where.last in (".", ".."):
            # The entry stands in the directory before it, which has to be one.
            head = path.rstrip("/").removesuffix(where.last)
            holder = self._resolve(head or ".", base, follow=True)
            if not modes.S_ISDIR(originals.stat(holder.real).st_mode):
                raise os_error(ENOTDIR)
            where = where._replace(parent=holder.mount)
        return where

    def _resolve(self, path: str, base: str | None, *, follow: bool) -> Place:
        if not path:
            raise os_error(ENOENT)
        if len(path) >= PATH_MAX // 4 and len(os.fsencode(path)) >= PATH_MAX:
            raise os_error(ENAMETOOLONG)
        last = _last_kind(path)
        slash = path.endswith("/") and last != "/"
        here = "/" if path.startswith("/") else base or self.working_directory()
        here, end = self._walk(here, path, follow=follow or bool(last))
        if type(end) is Place:
            return end
        mount = self.table.mount_of(here)
        real = self.real(here, mount) if end is None else _ABSENT
        # Whether the name may end like that, the kernel tells: only a directory's may.
        if slash:
            real += "/"
        elif last == ".":
            real += "/."
        # At a mount point the directory entry belongs to the file system around it.
        parent = self.table.mount_of(here.rpartition("/")[0] or "/") if here != "/" else mount
        if end is None and self.table.watched is not None:
            end = self.table.watched.rule(here)
        if mount is self.table.package:
            real = Bundled(real)
            real.virtual = here
        return Place(here, real, mount, parent, last, slash, "" if end is None else str(end))

    def _walk(self, here: str, path: str, *, follow: bool) -> tuple[str, Place | Rule | None]:
        """The canonical path that ``path`` leads to.

        With it the Place of a link of /proc that has no path, or the rule by which the path is absent.
        """
        table, directories = self.table, self.directories
        hidden = table.hidden
        names = _components(path)
        slash = path.endswith(("/", "/."))
        links = 0
        while names:
            name = names.pop()
            if name == "..":
                self.search(here)
                here = here.rpartition("/")[0] or "/"
                continue
            child = f"{here}/{name}" if here != "/" else "/" + name
            if child in directories:
                here = child
                continue
            if child in table.points or child in table.ancestors:
                self._cross(here, child)
                here = child
                continue
            rule = None if hidden is None else hidden.rule(child)
            if rule is not None and not is_reading_sources():
                self._check_end(child, names, rule)
                return child, rule
            if not names and not follow:
                return child, None
            real, mode = self._look_at(child, not names, rule is None)
            if mode is None:
                return child, None
            if modes.S_ISLNK(mode):
                links += 1
                target = self._behind_link(child, real, links, not names, slash)
                if isinstance(target, Place):
                    return child, target
                here = "/" if target.startswith("/") else here
                names.extend(_components(target))
                continue
            here = child
        return here, None

    def _look_at(self, path: str, is_last: bool, is_seen: bool) -> tuple[str, int | None]:
        """The real path and the mode of the canonical ``path``; no mode where nothing is there.

        A read-only directory that ``is_seen`` by the application is remembered. Raises OSError where the path
        goes on, unless it ``is_last``, behind what is no directory.
        """
        mount = self.table.mount_of(path)
        real = path if mount is self.table.root else self.real(path, mount)
        try:
            mode = originals.lstat(real).st_mode
        except FileNotFoundError:
            if is_last:
                return real, None
            raise
        if modes.S_ISDIR(mode):
            if is_seen and not mount.writable:
                self.directories[path] = real
        elif not (is_last or modes.S_ISLNK(mode)):
            raise os_error(ENOTDIR)
        return real, mode

    def _cross(self, here: str, child: str) -> None:
        """Go from ``here`` to ``child``, which is a mount point or leads to one below it."""
        if child in self.table.points:
            if self.locked:
                self.search(here)
        elif child != TMP:
            self._make_mount_points()

    def _check_end(self, child: str, names: list[str], rule: Rule) -> None:
        """Raises NotInBundle where the path goes on by ``names`` behind ``child``, which is absent."""
        hidden = self.table.hidden
        assert hidden is not None
        if names:
            raise NotInBundle(str(rule), _is_on_disk("/".join([hidden.real(child), *reversed(names)])))

    def _behind_link(self, link: str, real: str, links: int, is_last: bool, slash: bool) -> Place | str:
        """Where the kernel goes by ``link``, one of so many ``links``: a path, or what only it leads to."""
        if links > MAX_LINKS:
            raise os_error(ELOOP)
        target = originals.readlink(real)
        package = self.table.package
        if self.table.deployed is not None and package is not None and is_below(link, PACKAGE):
            self._check_link(link, target)
        if _is_magic(link):
            return self._behind_magic(link, target, is_last=is_last, slash=slash)
        return target

    def search(self, directory: str) -> None:
        """Raises OSError(EACCES) where the canonical ``directory`` may not be searched.

        The kernel asks that before each component; where the real path leads on below it, it does so itself.
        """
        try:
            originals.lstat(self.real(directory, self.table.mount_of(directory)) + "/.")
        except PermissionError:
            raise
        except OSError:
            pass  # it was removed: who stands in it may still leave it

    def _check_link(self, link: str, target: str) -> None:
        """Raises NotInBundle where ``link`` of the bundle leads out of what is there after the deployment."""
        deployed = self.table.deployed
        assert deployed is not None
        if target.startswith("/") and not any(
            is_below(os.path.normpath(target), directory) for directory in deployed
        ):
            raise NotInBundle(f"the link {link} leads out of it, to {target}", _is_on_disk(target))

    def _behind_magic(self, link: str, target: str, *, is_last: bool, slash: bool) -> Place | str:
        """Where the kernel goes by the ``link`` of /proc: a path, or the Place of what is reached by it only.

        Raises OSError(ENOTDIR) where the path goes on behind a file, which is told before whether the way
        to it may be searched.
        """
        if link.endswith("/cwd"):
            return self.working_directory()
        if _has_no_path(target):
            if slash or not is_last:
                self._check_nameless(link, is_last=is_last)
            return self._magic_place(link, target)
        kind = originals.stat(link).st_mode
        if (slash or not is_last) and not modes.S_ISDIR(kind):
            raise os_error(ENOTDIR)
        # The kernel does not follow a link that a descriptor stands for.
        if modes.S_ISLNK(kind) or (is_last and not _may_be_reached(target)):
            return self._magic_place(link, target)
        return self.path_of(own_descriptor(link), target)

    def _check_nameless(self, virtual: str, *, is_last: bool) -> None:
        """A path goes on behind a file without a name: of a directory nothing is left in it.

        Raises OSError as the look-up does.
        """
        if not modes.S_ISDIR(originals.stat(virtual).st_mode):
            raise os_error(ENOTDIR)
        if not is_last:
            raise os_error(ENOENT)

    def _magic_place(self, virtual: str, target: str) -> Place:
        """A pipe, a socket or an unlinked file behind a descriptor: the link itself is the only way to it."""
        table = self.table
        ours = self.root is not None and target.startswith(self.root + "/")
        return Place(virtual, virtual, table.scratch if ours else table.root, table.root, "", False)


class VeiledNamespace(Namespace):
    """The same where files are not in the bundle: what a known directory holds is not known by that."""

    __slots__ = ()

    def knows(self, path: str) -> bool:
        hidden = self.table.hidden or self.table.watched
        assert hidden is not None
        return super().knows(path) and not hidden.may_hide(path)

    def known_directory(self, path: str) -> str | None:
        return self.directories.get(path) if self.table.watched is None else None


def namespace_of(
    table: MountTable, make_scratch: Callable[[], str], make_mount_points: Callable[[], None]
) -> Namespace:
    """The namespace for an invocation of the guard whose mounts are in ``table``."""
    veiled = table.hidden is not None or table.watched is not None
    return (VeiledNamespace if veiled else Namespace)(table, make_scratch, make_mount_points)


def _components(path: str) -> list[str]:
    """The components of ``path`` that move, the first one last."""
    return [name for name in reversed(path.split("/")) if name and name != "."]


def _is_magic(virtual: str) -> bool:
    """Is it one of the links of /proc that the kernel follows without reading their text?"""
    if not virtual.startswith("/proc/"):
        return False
    head, _, tail = virtual.rpartition("/")
    return head.endswith(("/fd", "/ns")) or tail in ("cwd", "root", "exe")


def _is_on_disk(real: str) -> bool:
    """Does the real path lead to something, whatever the application is shown there?"""
    try:
        originals.stat(real)
    except OSError:
        return False
    return True


def _may_be_reached(real: str) -> bool:
    """May this process search the directories that lead to ``real``?"""
    try:
        originals.lstat(real)
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def own_descriptor(path: str) -> int:
    """The descriptor number of this process whose link in /proc ``path`` is, -1 where it is none."""
    head, _, tail = path.rpartition("/")
    if not head.endswith("/fd") or not tail.isdecimal():
        return -1
    ours = head == "/dev/fd" or head.startswith(
        ("/proc/self/", "/proc/thread-self/", f"/proc/{os.getpid()}/")
    )
    return int(tail) if ours else -1


def _has_no_path(target: str) -> bool:
    return not target.startswith("/") or target.endswith(" (deleted)")
