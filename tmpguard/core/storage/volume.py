"""One ``/tmp``: its scratch directory, its quota, and what is open in it.

An invocation has a volume of its own, which is made when it first uses files. With ``lifetime="instance"``,
the invocations of a process share one (:mod:`tmpguard.core.instance`).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from types import MappingProxyType
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.attachments import Attachments
from tmpguard.core.layout import TMP, is_below
from tmpguard.core.policy import Policy
from tmpguard.core.presence import is_gone
from tmpguard.core.spelling import descriptor_path

from .dirfd import unlocked
from .forgotten import Maker
from .openfiles import open_unlinked
from .pages import Usage, allocated, measure
from .quota import Quota

Retire = Callable[[Any], None]

#: Handles kept per volume before those of closed files are removed.
_HANDLES_KEPT: Final = 256


class Volume(Attachments):
    """What is behind one ``/tmp``. The constructor makes the scratch directory; raises OSError as mkdir."""

    #: The real directory behind ``/tmp``.
    directory: str | None = None
    #: The same as long as paths below ``/tmp`` can be translated by their text alone: there are no symlinks,
    #: no native code may be writing, and the volume is not closed. Otherwise None.
    prefix: str | None = None
    #: The prefix while native code may be writing: see :meth:`checked_prefix`.
    _veiled_prefix: str | None = None
    #: The real addresses of local sockets, and what the application bound them to.
    addresses: Mapping[str, str] = MappingProxyType({})
    closed = False
    #: Are there symlinks in it?
    _linked = False
    #: Are the handles of closed files being removed?
    _sorting = False
    #: How many times a file in it was about to be opened for writing.
    openings = 0
    _mount_points_made = 0
    #: What it held when it was wiped.
    _left = Usage(0, 0)
    #: Who uses it. If a later request misses a file of theirs, the note names them (C7.4).
    maker = Maker.REQUEST

    quota: Quota

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # Outside any invocation: the backstop must not mistake it for the application's own call.
        self.directory = Context().run(policy.scratch.make, self)
        self.quota = Quota(policy.quota_bytes, policy.max_files, self.measure, self._is_written)
        self.prefix = self.directory
        #: Files that are open for writing, or were: how each is retired, and its descriptor.
        self.handles: list[tuple[weakref.ref[Any], Retire, int]] = []

    def owns(self, descriptor: int) -> bool:
        """Is ``descriptor`` a file in this volume?"""
        return self.directory is not None and is_below(descriptor_path(descriptor), self.directory)

    # --- the prefix ------------------------------------------------------------------------------------

    def expose(
        self, descriptor: int, status: os.stat_result | None, real: str, on_overrun: Callable[[str], None]
    ) -> None:
        """From now on, native code may write to ``descriptor`` (C3.5); see :meth:`.Quota.expose`."""
        status = status or originals.fstat(descriptor)
        self.quota.expose(descriptor, status, real or descriptor_path(descriptor), on_overrun)
        with self.quota.lock:
            self._veiled_prefix, self.prefix = self.prefix or self._veiled_prefix, None

    def checked_prefix(self) -> str | None:
        """The prefix while files are exposed, after they were checked; None if there is none."""
        if self._veiled_prefix is None or self.closed:
            return None
        exposed = self.quota.check()
        with self.quota.lock:
            prefix = self._veiled_prefix
            if not exposed:
                self._veiled_prefix, self.prefix = None, prefix
        if self._was_closed() or self._linked:  # meanwhile
            self.prefix = None
        return prefix

    def forget_prefix(self) -> None:
        """From now on, there are symlinks: the text of a path does not tell where it leads."""
        if self.prefix is None and self._veiled_prefix is None:
            return  # without the lock, for which a fork would wait
        self._linked = True
        with self.quota.lock:
            self.prefix = self._veiled_prefix = None

    def share(self) -> None:
        """A child process starts, and inherits the exposed files."""
        self.quota.share()

    # --- mount points ----------------------------------------------------------------------------------

    def make_mount_points(self) -> None:
        """Make the mount points of the bundle and of others: a listing shows them (C5.1)."""
        table = self._policy.mounts
        if self._mount_points_made or not table.points:
            return
        made = sorted((table.points | table.ancestors) - {TMP}, key=len)
        made = [path for path in made if table.mount_of(path.rpartition("/")[0]) is table.scratch]
        root = self.directory
        assert root is not None
        status = originals.stat(root)
        with unlocked(root):  # whatever the application did to its mode
            for path in made:
                with suppress(FileExistsError):
                    if path in table.files:
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                        originals.close(originals.os_open(root + path[len(TMP) :], flags, 0o644))
                    else:
                        originals.mkdir(root + path[len(TMP) :], 0o755)
        originals.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if they had always existed
        self._mount_points_made = len(made)

    def mend(self) -> bool:
        """Make the scratch directory again if somebody else removed it (C4.6). Did they?

        A cleaner of temporary files may do that, or a child process that empties the real ``/tmp``. Its
        contents are gone; open files stay open, but unlinked.
        """
        directory = self.directory
        if directory is None or self.closed or not is_gone(directory):
            return False
        try:
            # Outside any invocation, as when it was first made.
            Context().run(self._policy.scratch.remake, directory)
        except OSError:
            return False  # the caller's own error reports that nothing is there
        self.quota.doubt()
        if self._mount_points_made:
            self._mount_points_made = 0
            Context().run(self.make_mount_points)
        return True

    def measure(self) -> tuple[Usage, dict[int, int]]:
        """What the scratch directory and its open unlinked files hold, from the disk; and how many of those
        bytes belong to unlinked files, by inode."""
        assert self.directory is not None
        head, _, tail = self.directory.rpartition("/")
        parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            usage = measure(parent, tail)
        finally:
            originals.close(parent)
        return self.with_unlinked(usage._replace(files=usage.files - self._mount_points_made))

    def with_unlinked(self, usage: Usage) -> tuple[Usage, dict[int, int]]:
        """``usage`` with the unlinked files that are still open, and the bytes of these by their inodes."""
        assert self.directory is not None
        unlinked = [found for found in open_unlinked() if is_below(found[0], self.directory)]
        files = usage.files + len(unlinked)
        if unlinked and self._policy.max_files is not None:
            files += len(set(_removed_around([path for path, _ in unlinked], self.directory)))
        held = {status.st_ino: allocated(status, "") for _, status in unlinked}
        return Usage(usage.bytes + sum(held.values()), files), held

    # --- the end ---------------------------------------------------------------------------------------

    def keep_handle(self, file: Any, retire: Retire, descriptor: int) -> None:
        """Remember ``file``, which is open for writing by ``descriptor``. At the end, ``retire`` is called
        with it, or with None if it was collected (C4.5)."""
        if len(self.handles) > _HANDLES_KEPT:
            self.has_open_handle()
        self.handles.append((weakref.ref(file), retire, descriptor))

    def writes(self) -> bool:
        """Before a file in it is opened for writing: is another one open?"""
        self.openings += 1
        return self.has_open_handle()

    def has_open_handle(self) -> bool:
        """Is a file in it open for writing? Forgets the handles that were collected or closed."""
        handles, known = self.handles, len(self.handles)
        if known and not self._sorting:  # by a finalizer in the middle of this
            self._sorting = True
            try:
                still_open = []
                for kept in handles[:known]:
                    file = kept[0]()
                    try:
                        if file is not None and not file.closed:
                            still_open.append(kept)
                    except ValueError:
                        pass  # its buffer was detached
                handles[:known] = still_open
            finally:
                self._sorting = False
        return bool(handles)

    def _is_written(self, inode: int) -> bool:
        """Is the file with that ``inode`` open for writing?"""
        if not self.has_open_handle():
            return False
        return any(_inode_of(descriptor) == inode for _, _, descriptor in self.handles.copy())

    def close(self) -> None:
        """Refuse all further writes: open files flush their buffers, and are then retired."""
        self.closed = True
        self.prefix = None
        for handle, retire, _ in self.handles.copy():
            retire(handle())
        if self._veiled_prefix is not None:
            self.quota.check()

    def _was_closed(self) -> bool:
        """Checked again after something during which another thread may have closed it."""
        return self.closed

    def wipe(self) -> Usage:
        """Remove the scratch directory and everything in it (C4.2). Returns what it held."""
        assert self.directory is not None
        usage = self._policy.scratch.discard(self.directory, self._remember)
        if usage is None:
            return self._left  # it was wiped before
        self._left = usage._replace(files=usage.files - self._mount_points_made)
        return self._left

    def discard(self) -> None:
        """The same, for a volume that was never used."""
        self.wipe()

    def wipe_if_small(self, *, reusable: bool) -> Usage | None:
        """The same if it holds next to nothing, which is cheaper than waking the background thread.

        Otherwise None. See :meth:`.ScratchRoot.discard_small`.
        """
        assert self.directory is not None
        return self._policy.scratch.discard_small(self.directory, self._remember, reusable=reusable)

    def _remember(self, names: list[str]) -> None:
        """Have the guard remember what was left in it (C7.4)."""
        self._policy.forgotten.add(names, self.maker)


class _NoVolume(Volume):
    """The volume of an invocation that has not used any files yet."""

    def __init__(self) -> None:
        pass

    def share(self) -> None:
        pass

    def close(self) -> None:
        pass


def _inode_of(descriptor: int) -> int:
    try:
        return originals.fstat(descriptor).st_ino
    except OSError:
        return 0  # it was closed by os.close()


NO_VOLUME: Final = _NoVolume()


def _removed_around(paths: Iterable[str], root: str) -> Iterator[str]:
    """The directories below ``root`` that were removed, and of whose files some are still open."""
    for path in paths:
        directory = os.path.dirname(path)
        while is_below(directory, root) and is_gone(directory):
            yield directory
            directory = os.path.dirname(directory)
