"""Path resolution: walks a path component by component, as the kernel does (C1.2)."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from contextlib import suppress
from errno import EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, Final

from tmpguard.core import originals
from tmpguard.core.callers import is_reading_sources
from tmpguard.core.errors import os_error
from tmpguard.core.layout import PACKAGE, TMP, is_below
from tmpguard.core.spelling import GONE

from . import private
from .bundle import Unlisted, Veil
from .known import Known
from .private import CLAIMED, Claimed, Unclaimed
from .table import Bundled, Mount, MountTable, NotInBundle, Place

if TYPE_CHECKING:
    from .ignore import Rule

#: The kernel's limits: symlinks followed in one resolution, and bytes in a path including the final NUL.
MAX_LINKS: Final = 40
PATH_MAX: Final = 4096

#: The real path of anything that is not in the bundle. It does not exist, so the kernel reports ENOENT.
_ABSENT: Final = "/proc/tmpguard: not in the bundle"


def _last_kind(path: str) -> str:
    tail = path.rstrip("/").rpartition("/")[2]
    if tail in (".", ".."):
        return tail
    return "" if tail else "/"


def _ending(path: str) -> str:
    """The ending of ``path`` that requires a directory: "/", "/." or, if it has neither, ""."""
    if path.endswith("/"):
        return "/." if _last_kind(path) == "." else "/"
    return "/." if path.endswith("/.") else ""


class Namespace:
    """One invocation's view of the file system.

    ``make_scratch`` creates the real directory behind ``/tmp`` and returns its path, which ``root`` then
    holds; it is called on first use (C4.7). ``make_mount_points`` creates the mount points in that directory;
    it is called when a walk passes through a directory that leads to one.
    """

    __slots__ = (
        "_make_mount_points",
        "_make_scratch",
        "bundled",
        "cwd",
        "locked",
        "root",
        "table",
    )

    def __init__(
        self, table: MountTable, make_scratch: Callable[[], str], make_mount_points: Callable[[], None]
    ) -> None:
        self.table = table
        self.cwd: str | None = None
        self.root: str | None = None
        self._make_scratch = make_scratch
        self._make_mount_points = make_mount_points
        #: True if the mode of a directory that leads to a mount point below /tmp may have been changed.
        self.locked = False
        #: Descriptors opened below /tmp/package. The kernel reports the project's own path for them.
        self.bundled: dict[int, Bundled] = {}

    def scratch(self) -> str:
        """The real directory behind ``/tmp``."""
        if self.root is None:
            self.root = self._make_scratch()
        return self.root

    def working_directory(self) -> str:
        """The canonical working directory: the initial one until the invocation changes it (C5.3)."""
        if self.cwd is None:
            self.cwd = self.table.start_directory()
        return self.cwd

    def moved(self, old: str, new: str) -> None:
        """``old`` was renamed to ``new``: update the working directory if it is inside (canonical paths)."""
        if self.cwd is not None and is_below(self.cwd, old):
            self.cwd = new + self.cwd[len(old) :]

    def real(self, virtual: str, mount: Mount) -> str:
        """The real path of the canonical path ``virtual``, which is on ``mount``."""
        if mount is self.table.scratch:
            return self.scratch() + virtual[len(TMP) :]
        if mount is self.table.root:
            return virtual
        return mount.real + virtual[len(mount.virtual) :] or "/"

    def virtual_of(self, real: str) -> str:
        """The path under which the application sees the real path ``real``."""
        if self.root is not None and is_below(real, self.root):
            return TMP + real[len(self.root) :]
        return real

    def opened(self, fd: int, real: str) -> None:
        """Record that ``real`` was opened as ``fd``, which then shows the path it was opened by (C7.1)."""
        if type(real) is Bundled:
            self.bundled[fd] = real
        elif self.bundled:
            self.bundled.pop(fd, None)

    def path_of(self, fd: int, real: str) -> str:
        """The path under which the application sees the open file ``fd``, whose real path is ``real``."""
        bundled = self.bundled.get(fd)
        # The descriptor number may refer to another file by now.
        return (
            bundled.virtual
            if bundled is not None and bundled.rstrip("/.") == real.rstrip("/.")
            else self.virtual_of(real)
        )

    def knows(self, path: str, known: Known) -> bool:
        """Whether ``path`` is an entry of a cached read-only directory. The entry may be a symlink.

        False below ``/tmp/package``, where the real path differs.
        """
        directory = path.rpartition("/")[0]
        return known.directories.get(directory) == directory and path != TMP

    def known_directory(self, path: str) -> str | None:
        """The real path of the read-only directory ``path``; None if it is not cached."""
        return self.table.fresh().directories.get(path)

    def seen(self, directory: str, names: list[str], known: Known) -> None:
        """Cache the subdirectories ``names`` from a listing of the canonical path ``directory``.

        None of them is a symlink. ``known`` is the cache from before the directory was listed.
        """
        if directory not in known.directories:
            return
        for name in names:
            child = f"{directory}/{name}" if directory != "/" else "/" + name
            if child not in known.directories:
                mount = self.table.mount_of(child)
                if not mount.writable and (real := self.real(child, mount)) not in private.roots:
                    known.add_directory(child, real)

    def resolve(self, path: str, *, follow: bool, base: str | None = None, creating: bool = False) -> Place:
        """Resolve ``path``. A relative path starts at ``base``, or at the working directory if it is None.

        ``follow`` says whether a symlink in the last component is followed; a trailing slash, or ``.`` or
        ``..`` as the last component, always follows it. A missing last component is not an error.
        ``creating`` is true for an open() that creates a missing file.

        Raises OSError with ENOENT, ENOTDIR, ELOOP, EACCES, ENAMETOOLONG or EISDIR, as the kernel would.
        """
        return self._resolve(path, base, follow=follow or path.endswith("/"), creating=creating)

    def resolve_entry(self, path: str, *, base: str | None = None) -> Place:
        """Resolve ``path`` to the directory entry that mkdir, unlink, rename and the like act on.

        The last component is never followed, even with a trailing slash. Raises as :meth:`resolve` does.
        """
        where = self._resolve(path, base, follow=False)
        if where.last in (".", ".."):
            # The entry is in the directory that precedes it, which must be a directory.
            head = path.rstrip("/").removesuffix(where.last)
            holder = self._resolve(head or ".", base, follow=True)
            if not modes.S_ISDIR(originals.stat(holder.real).st_mode):
                raise os_error(ENOTDIR)
            where = where._replace(parent=holder.mount)
        return where

    def _resolve(self, path: str, base: str | None, *, follow: bool, creating: bool = False) -> Place:
        if not path:
            raise os_error(ENOENT)
        if len(path) >= PATH_MAX // 4 and len(os.fsencode(path)) >= PATH_MAX:
            raise os_error(ENAMETOOLONG)
        last = _last_kind(path)
        slash = path.endswith("/") and last != "/"
        known = self.table.fresh()
        if path.startswith("/"):
            base = "/"
        else:
            base = base or self.working_directory()
            if base not in known.bases and not self.table.mount_of(base).writable:
                known = self._known_below(base, known)
        follow = follow or bool(last)
        here, end, ending = self._walk(base, path, known, follow=follow, creating=creating)
        if type(end) is Place:
            return end
        slash = slash or ending == "/"
        if follow and end is None and here == (path if base == "/" else f"{base}/{path}"):
            self._remember(here, known)
        mount = self.table.mount_of(here)
        real = self.real(here, mount) if end is None else _ABSENT
        # Only a directory's name may end like that. The kernel decides.
        if slash:
            real += "/"
        elif last == "." or ending == "/.":
            real += "/."
        parent = self.table.holder_of(here)
        if end is None and self.table.watched is not None:
            end = self.table.watched.rule(here)
        if mount is self.table.package:
            real = Bundled(real)
            real.virtual = here
        return Place(here, real, mount, parent, last, slash, "" if end is None else str(end))

    def _known_below(self, base: str, known: Known) -> Known:
        """``known``, if the path of the directory ``base`` still contains no symlinks.

        A working directory keeps its canonical path for a long time, so a symlink may have replaced one of
        its components. In that case, returns an empty cache for this walk only, because paths below ``base``
        do not lead where their text says.
        """
        with suppress(OSError):
            if self._walk("/", base, known, follow=True) == (base, None, ""):
                known.add_base(base)
                return known
        return Known()

    def _remember(self, path: str, known: Known) -> None:
        """Cache ``path``: a walk led to where its text says, so it contains no symlink."""
        if self.table.mount_of(path) is self.table.root and self.knows(path, known):
            known.add_path(path)

    def _walk(
        self, here: str, path: str, known: Known, *, follow: bool, creating: bool = False
    ) -> tuple[str, Place | Rule | Claimed | None, str]:
        """Returns the canonical path that ``path`` leads to, where the walk ended early, and an ending.

        The second item is the Place of a /proc link to something without a path, or the rule that makes the
        path absent; otherwise None. The third is the :func:`_ending` of the last symlinks that were followed.
        """
        table, directories = self.table, known.directories
        hidden = table.hidden
        names = _components(path)
        slash = path.endswith(("/", "/."))
        links, ending = 0, ""
        while names:
            name = names.pop()
            if name == "..":
                self.search(here)
                if ending == "/" and creating and not names:
                    raise os_error(EISDIR)
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
            if name.startswith(private.PREFIX) and self._is_claim(here, name):
                if names:
                    raise os_error(ENOENT)
                return child, CLAIMED, ending
            rule = None if hidden is None else hidden.rule(child)
            if rule is not None and not is_reading_sources():
                self._check_end(child, names, rule)
                return child, rule, ending
            if not names and not follow:
                return child, None, ending
            real, mode = self._look_at(child, not names, known if rule is None else None)
            if mode is None:
                return child, None, ending
            if modes.S_ISLNK(mode):
                links += 1
                target = self._behind_link(child, real, links, not names, slash)
                if isinstance(target, Place):
                    return child, target, ending
                here = "/" if target.startswith("/") else here
                further = _components(target)
                if not names and further and (own := _ending(target)):
                    slash, ending = True, own
                    if creating and own == "/":
                        further[0] = ".."  # the kernel refuses a file of that name before looking it up
                names.extend(further)
                continue
            here = child
        return here, None, ending

    def _look_at(self, path: str, is_last: bool, known: Known | None) -> tuple[str, int | None]:
        """The real path and the mode of the canonical ``path``; the mode is None if nothing is there.

        A read-only directory is added to ``known``, unless that is None because the application does not see
        the directory. Unless ``is_last``, raises OSError for anything that is not a directory or a symlink.
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
            if known is not None and not mount.writable and real not in private.roots:
                known.add_directory(path, real)
        elif not (is_last or modes.S_ISLNK(mode)):
            raise os_error(ENOTDIR)
        return real, mode

    def _is_claim(self, here: str, name: str) -> bool:
        """Whether ``name`` in the canonical directory ``here`` is a process's scratch directory (C4.1)."""
        return private.is_claim(name) and self.real(here, self.table.mount_of(here)) in private.roots

    def veil(self, directory: str) -> Veil | Unlisted | Unclaimed | None:
        """What a listing of the canonical path ``directory`` leaves out; None for nothing."""
        table = self.table
        found: Veil | Unlisted | None = table.unlisted.get(directory)
        if found is None and table.hidden is not None:
            found = table.hidden.veil(directory)
        mount = table.mount_of(directory)
        if mount is not table.scratch and self.real(directory, mount) in private.roots:
            return Unclaimed(found)
        return found

    def _cross(self, here: str, child: str) -> None:
        """Step from ``here`` to ``child``, which is a mount point or an ancestor of one."""
        if child in self.table.points:
            if self.locked:
                self.search(here)
        elif child != TMP:
            self._make_mount_points()

    def _check_end(self, child: str, names: list[str], rule: Rule) -> None:
        """Raise NotInBundle if the path continues with ``names`` after ``child``, which is absent."""
        hidden = self.table.hidden
        assert hidden is not None
        if names:
            raise NotInBundle(str(rule), _is_on_disk("/".join([hidden.real(child), *reversed(names)])))

    def _behind_link(self, link: str, real: str, links: int, is_last: bool, slash: bool) -> Place | str:
        """The target of ``link``: a path, or a Place that only this link leads to.

        ``links`` is the number of symlinks followed so far. Raises OSError(ELOOP) if it is too large.
        """
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
        """Raise OSError(EACCES) if the canonical ``directory`` may not be searched.

        The kernel checks this before each component. If the real path continues below the directory, the
        kernel itself does so here as well.
        """
        try:
            originals.lstat(self.real(directory, self.table.mount_of(directory)) + "/.")
        except PermissionError:
            raise
        except OSError:
            pass  # it was removed; a process whose working directory it was can still leave it

    def _check_link(self, link: str, target: str) -> None:
        """Raise NotInBundle if the bundle's ``link`` leads to a path that is not there after deployment."""
        deployed = self.table.deployed
        assert deployed is not None
        if target.startswith("/") and not any(
            is_below(os.path.normpath(target), directory) for directory in deployed
        ):
            raise NotInBundle(f"the link {link} leads out of it, to {target}", _is_on_disk(target))

    def _behind_magic(self, link: str, target: str, *, is_last: bool, slash: bool) -> Place | str:
        """The target of the magic ``link`` in /proc: a path, or a Place that only this link leads to.

        Raises OSError(ENOTDIR) if the path continues after a file. This takes precedence over directories on
        the way that may not be searched.
        """
        if is_own_cwd(link):
            return self.working_directory()
        if _has_no_path(target):
            if slash or not is_last:
                self._check_nameless(link, is_last=is_last)
            return self._magic_place(link, target)
        kind = originals.stat(link).st_mode
        if (slash or not is_last) and not modes.S_ISDIR(kind):
            raise os_error(ENOTDIR)
        # If the descriptor refers to a symlink, the kernel does not follow that symlink.
        if modes.S_ISLNK(kind) or (is_last and not _may_be_reached(target)):
            return self._magic_place(link, target)
        return self.path_of(own_descriptor(link), target)

    def _check_nameless(self, virtual: str, *, is_last: bool) -> None:
        """The path continues after an unnamed file or an unlinked directory, in which nothing can be found.

        Raises OSError as the kernel's look-up does.
        """
        if not modes.S_ISDIR(originals.stat(virtual).st_mode):
            raise os_error(ENOTDIR)
        if not is_last:
            raise os_error(ENOENT)

    def _magic_place(self, virtual: str, target: str) -> Place:
        """The Place of a pipe, a socket or an unlinked file, which only the link itself leads to."""
        table = self.table
        ours = self.root is not None and target.startswith(self.root + "/")
        return Place(virtual, virtual, table.scratch if ours else table.root, table.root, "", False)


class VeiledNamespace(Namespace):
    """A namespace in which some files are not in the bundle: an entry of a cached directory may be hidden."""

    __slots__ = ()

    def knows(self, path: str, known: Known) -> bool:
        hidden = self.table.hidden or self.table.watched
        assert hidden is not None
        return super().knows(path, known) and not hidden.may_hide(path)

    def known_directory(self, path: str) -> str | None:
        return super().known_directory(path) if self.table.watched is None else None


class _Live(Namespace):
    """The view of an invocation that only watches: the process's own (C2.5)."""

    __slots__ = ()

    def working_directory(self) -> str:
        return originals.getcwd()


class _LiveVeiled(_Live, VeiledNamespace):
    __slots__ = ()


def live_namespace(table: MountTable) -> Namespace:
    """The real file system, ``/tmp`` and the working directory included, with the mounts in ``table``."""
    made = (_Live if table.watched is None else _LiveVeiled)(table, lambda: TMP, lambda: None)
    made.root = TMP
    return made


def namespace_of(
    table: MountTable, make_scratch: Callable[[], str], make_mount_points: Callable[[], None]
) -> Namespace:
    """The namespace for an invocation of the guard whose mounts are in ``table``."""
    veiled = table.hidden is not None or table.watched is not None
    return (VeiledNamespace if veiled else Namespace)(table, make_scratch, make_mount_points)


def _components(path: str) -> list[str]:
    """The components of ``path`` in reverse order, without empty ones and ``.``."""
    return [name for name in reversed(path.split("/")) if name and name != "."]


def _is_magic(virtual: str) -> bool:
    """Whether ``virtual`` is a magic link of /proc, which the kernel follows without reading its text."""
    if not virtual.startswith("/proc/"):
        return False
    head, _, tail = virtual.rpartition("/")
    return head.endswith(("/fd", "/ns")) or tail in ("cwd", "root", "exe")


def _is_on_disk(real: str) -> bool:
    """Whether the real path exists, whatever the application sees there."""
    try:
        originals.stat(real)
    except OSError:
        return False
    return True


def _may_be_reached(real: str) -> bool:
    """Whether this process may search the directories that lead to ``real``."""
    try:
        originals.lstat(real)
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def is_own_cwd(virtual: str) -> bool:
    """Whether the canonical path ``virtual`` is this process's /proc link to its working directory."""
    return virtual.endswith("/cwd") and virtual.startswith(f"/proc/{os.getpid()}/")


def own_descriptor(path: str) -> int:
    """The number of this process's descriptor if ``path`` is its link in /proc, otherwise -1."""
    head, _, tail = path.rpartition("/")
    if not head.endswith("/fd") or not tail.isdecimal():
        return -1
    ours = head == "/dev/fd" or head.startswith(
        ("/proc/self/", "/proc/thread-self/", f"/proc/{os.getpid()}/")
    )
    return int(tail) if ours else -1


def _has_no_path(target: str) -> bool:
    return not target.startswith("/") or target.endswith(GONE)
