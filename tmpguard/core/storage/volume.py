"""One ``/tmp``: its scratch directory, its quota, and what is open in it.

An invocation has a volume of its own, made when it first uses files; with ``lifetime="instance"`` the
invocations of a process share one (:mod:`tmpguard.core.instance`).
"""

from __future__ import annotations

import os
import threading
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
from tmpguard.core.spelling import descriptor_path

from .dirfd import unlocked
from .openfiles import open_unlinked
from .pages import Usage, allocated, measure
from .quota import Quota

Retire = Callable[[Any], None]

#: More than this is never wiped by the thread that served the request.
_AT_ONCE_BYTES: Final = 1 << 20

#: Handles kept per volume before those already collected are sorted out.
_HANDLES_KEPT: Final = 256


class Volume(Attachments):
    """What stands behind one ``/tmp``. Making one makes the scratch directory: raises OSError as mkdir."""

    #: The real directory behind ``/tmp``.
    directory: str | None = None
    #: The same while a path below ``/tmp`` may be translated by its text alone: nobody made a symlink, no
    #: native code may be writing, and the volume is not closed. None otherwise.
    prefix: str | None = None
    #: The prefix while native code may be writing: whoever asks for it finds what was written meanwhile.
    _veiled_prefix: str | None = None
    #: The real addresses of local sockets, and what the application bound them to.
    addresses: Mapping[str, str] = MappingProxyType({})
    closed = False
    _handles: list[tuple[weakref.ref[Any], Retire]] | None = None
    _mount_points_made = 0
    #: What was left in it when it was wiped.
    _left = Usage(0, 0)

    quota: Quota

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # In no invocation: the backstop must not take it for the application's own.
        self.directory = Context().run(policy.scratch.make, self)
        self.quota = Quota(policy.quota_bytes, policy.max_files, self.measure)
        self.prefix = self.directory

    def owns(self, descriptor: int) -> bool:
        """Is ``descriptor`` a file in this volume?"""
        return self.directory is not None and is_below(descriptor_path(descriptor), self.directory)

    # --- the prefix ------------------------------------------------------------------------------------

    def expose(
        self, descriptor: int, status: os.stat_result | None, real: str, on_overrun: Callable[[str], None]
    ) -> None:
        """Native code may write to ``descriptor`` from now on (C3.5); see :meth:`.Quota.expose`."""
        status = status or originals.fstat(descriptor)
        self.quota.expose(descriptor, status, real or descriptor_path(descriptor), on_overrun)
        with self.quota.lock:
            if self.prefix is not None and not self.closed:
                self._veiled_prefix, self.prefix = self.prefix, None

    def checked_prefix(self) -> str | None:
        """The prefix while files are exposed, after a look at them; None where there is none."""
        if self._veiled_prefix is None or self.closed:
            return None
        exposed = self.quota.check()
        with self.quota.lock:
            prefix = self._veiled_prefix
            if not exposed:
                self._veiled_prefix, self.prefix = None, prefix
        if self._was_closed():
            self.prefix = None
        return prefix

    def forget_prefix(self) -> None:
        """From now on the text of a path alone does not tell where it leads: there is a link."""
        if self.prefix is None and self._veiled_prefix is None:
            return  # without the lock, for which a fork would wait
        with self.quota.lock:
            self.prefix = self._veiled_prefix = None

    def share(self) -> None:
        """A child process starts, and has what is exposed."""
        self.quota.share()

    # --- mount points ----------------------------------------------------------------------------------

    def make_mount_points(self) -> None:
        """Make the directories on which the bundle and others are mounted: a listing shows them (C5.1)."""
        table = self._policy.mounts
        if self._mount_points_made or not table.points:
            return
        made = sorted((table.points | table.ancestors) - {TMP}, key=len)
        made = [path for path in made if table.mount_of(path.rpartition("/")[0]) is table.scratch]
        root = self.directory
        assert root is not None
        status = originals.stat(root)
        with unlocked(root):  # whatever the application made of its mode
            for path in made:
                with suppress(FileExistsError):
                    originals.mkdir(root + path[len(TMP) :], 0o755)
        originals.utime(root, ns=(status.st_atime_ns, status.st_mtime_ns))  # they were always there
        self._mount_points_made = len(made)

    def measure(self) -> Usage:
        """What the scratch directory and the unlinked files that are still open hold, from the disk."""
        assert self.directory is not None
        head, _, tail = self.directory.rpartition("/")
        parent = originals.os_open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            usage = measure(parent, tail)
        finally:
            originals.close(parent)
        unlinked = [found for found in open_unlinked() if is_below(found[0], self.directory)]
        files = usage.files + len(unlinked) - self._mount_points_made
        if unlinked and self._policy.max_files is not None:
            files += len(set(_removed_around([path for path, _ in unlinked], self.directory)))
        return Usage(usage.bytes + sum(allocated(status, "") for _, status in unlinked), files)

    # --- the end ---------------------------------------------------------------------------------------

    def keep_handle(self, file: Any, retire: Retire) -> None:
        """Remember ``file``, which is open for writing: at the end ``retire`` is called with it, or with None
        where it was collected by then (C4.5)."""
        handles = self._handles
        if handles is None:
            handles = self._handles = []
        elif len(handles) > _HANDLES_KEPT:
            handles[:] = [kept for kept in handles if kept[0]() is not None]
        handles.append((weakref.ref(file), retire))

    def close(self) -> None:
        """Nothing may be written any more: what is open takes what it has in its buffers, and refuses."""
        self.closed = True
        self.prefix = None
        for handle, retire in self._handles or ():
            retire(handle())
        if self._veiled_prefix is not None:
            self.quota.check()

    def _was_closed(self) -> bool:
        """Asked again after a step during which another thread may have closed it."""
        return self.closed

    def wipe(self) -> Usage:
        """Remove the scratch directory and all that is in it (C4.2). Returns what was left there."""
        assert self.directory is not None
        usage = self._policy.scratch.discard(self.directory)
        if usage is None:
            return self._left  # it is gone already
        self._left = usage._replace(files=usage.files - self._mount_points_made)
        return self._left

    def wipe_if_small(self, *, reusable: bool) -> Usage | None:
        """The same where next to nothing is in it: cheaper than to wake the background thread.

        None where there is more to do. See :meth:`.ScratchRoot.discard_small`.
        """
        assert self.directory is not None
        if self.quota.peak > _AT_ONCE_BYTES:
            return None
        return self._policy.scratch.discard_small(self.directory, reusable=reusable)

    def free_locks(self) -> None:
        """In a forked child: whoever held them is another thread, of which there is no copy here."""
        self.quota.lock = threading.RLock()


class _NoVolume(Volume):
    """Stands for the volume of an invocation that has used no file yet."""

    def __init__(self) -> None:
        pass

    def share(self) -> None:
        pass

    def close(self) -> None:
        pass

    def free_locks(self) -> None:
        pass


NO_VOLUME: Final = _NoVolume()


def _removed_around(paths: Iterable[str], root: str) -> Iterator[str]:
    """The directories below ``root`` that are gone, but for what is open of that which was in them."""
    for path in paths:
        directory = os.path.dirname(path)
        while is_below(directory, root) and _is_gone(directory):
            yield directory
            directory = os.path.dirname(directory)


def _is_gone(path: str) -> bool:
    try:
        originals.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass  # it may not be searched, so it is there
    return False
