"""Judges what a call has done to the real file system: what a platform would have refused (C2.5).

A judge is a generator. It looks at what there is, yields while the call runs, is sent the result, and then
records its findings. A call that failed changed nothing: its judge is dropped. A judge never disturbs the
application: an error in it is logged.
"""

from __future__ import annotations

import logging
import os
import stat as modes
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from errno import ENOSPC, EROFS
from typing import Any, Final, TypeVar

from tmpguard.core import originals
from tmpguard.core.callers import is_reading_sources
from tmpguard.core.context import unguarded
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.table import Mount, Place
from tmpguard.core.reports import remedies
from tmpguard.core.spelling import GONE, descriptor_path
from tmpguard.core.storage.ledger import key_of, status_of
from tmpguard.core.storage.pages import allocated
from tmpguard.core.watching import Watching
from tmpguard.interpose.given import Given, is_descriptor
from tmpguard.interpose.modes import opens_to_write
from tmpguard.interpose.paths import known_file, resolve, resolve_entry
from tmpguard.interpose.readonly import O_PATH

from .temporary import Temporary, is_temporary

T = TypeVar("T")

logger = logging.getLogger("tmpguard")

#: One call that is being judged.
Judging = Generator[None, Any, None]
#: Takes the invocation, and the arguments of the call.
Judge = Callable[[Watching, tuple[Any, ...], Mapping[str, Any]], Judging]

# --- around a call -------------------------------------------------------------------------------------


def judged(judging: Judging, call: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call ``call``, the original, with the application's own arguments, and judge what it did.

    It is called outside the invocation, so that the backstop does not see it as well.
    """
    begun = begin(judging)
    try:
        with unguarded():
            result = call(*args, **options)
    except FileExistsError:
        if begun:
            quietly(_throw, judging)
        raise
    if begun:
        finish(judging, result)
    return result


def begin(judging: Judging) -> bool:
    """Before the call. Returns False if there is nothing to judge."""
    try:
        next(judging)
    except (StopIteration, OSError, TypeError, ValueError):
        return False  # nothing to judge, or the original raises the right error
    except Exception:
        _log_failure()
        return False
    return True


def finish(judging: Judging, result: object) -> None:
    """The call has succeeded."""
    quietly(_send, judging, result)


def _send(judging: Judging, result: object) -> None:
    with suppress(StopIteration):
        judging.send(result)


class Exists(Exception):
    """Raised in a judge where the call has failed with EEXIST."""


def _throw(judging: Judging) -> None:
    with suppress(StopIteration, Exists):
        judging.throw(Exists)


def quietly(judge: Callable[..., T], *args: Any, **options: Any) -> T | None:
    """Call ``judge``, which judges a call that has succeeded. Raises no error, but returns None."""
    try:
        return judge(*args, **options)
    except OSError:
        return None  # somebody else has changed it in the meantime
    except Exception:
        _log_failure()
        return None


def _log_failure() -> None:
    logger.exception("tmpguard could not judge a call that it watches")


def argument(args: tuple[Any, ...], options: Mapping[str, Any], position: int, name: str) -> Any:
    """An argument of a call, given by position or by name; None if it is left out."""
    return args[position] if len(args) > position else options.get(name)


# --- where it leads ------------------------------------------------------------------------------------


def is_charged(invocation: Watching, virtual: str, mount: Mount) -> bool:
    """Whether the canonical path ``virtual`` on ``mount`` would be in the invocation's own ``/tmp``."""
    if mount.writable:
        return mount.charged
    return is_temporary(invocation.attached(Temporary, Temporary), virtual)


def is_late(invocation: Watching, operation: str, path: object) -> bool:
    """Whether the invocation is over; if so, the change is recorded as a late write (C4.5)."""
    if invocation.is_late:
        invocation.stale(operation, path)
        return True
    return False


def find_elsewhere(
    invocation: Watching,
    operation: str,
    name: object,
    virtual: str,
    status: os.stat_result,
    *,
    replaced: bool = False,
) -> None:
    """Record a look-up of ``virtual`` in the real ``/tmp`` that production would not have (C7.4).

    ``replaced`` means that in production the call would have made a new file in its place.
    """
    table = invocation.guard.mounts
    if virtual in table.ancestors or virtual in table.points or table.mount_of(virtual) is not table.scratch:
        return
    below = virtual[len(TMP) :].rstrip("/")
    if not below or invocation.ended:
        return
    if modes.S_ISDIR(status.st_mode) and operation in _PASSING:
        if operation in _CHECKING:
            invocation.expect(key_of(status))
        return
    maker = invocation.maker_of(status)
    if maker is not None:
        invocation.made_elsewhere(operation, name, below, maker, "" if replaced else below)


#: Whoever asks whether a directory is there is going to make it if it is not.
_CHECKING: Final = frozenset({"os.stat", "os.statx", "os.access"})
#: These also reach directories that nobody has named: on the way to a file, and in a walk.
_PASSING: Final = _CHECKING | {"os.lstat", "os.scandir"}


def find_parent(invocation: Watching, operation: str, name: object, real: str) -> None:
    """An entry was made at the real path ``real`` in ``/tmp``: would its directory be there in production?"""
    parent = real.rpartition("/")[0]
    if parent != TMP:
        find_elsewhere(invocation, operation, name, parent, originals.stat(parent))


# --- looking -------------------------------------------------------------------------------------------


def looked(
    invocation: Watching,
    operation: str,
    given: Given,
    *,
    follow: bool = True,
    status: os.stat_result | None = None,
) -> None:
    """Something was found at a path: would it be there in production (C5.2, C7.4)? ``status`` is its own."""
    table = invocation.guard.mounts
    if given.odd or (
        given.dir_fd is None and table.watched is None and known_file(invocation, given.text) is not None
    ):
        return
    where = resolve(invocation, given, follow=follow)
    if where.why:
        if not is_reading_sources():
            invocation.absent(operation, given.name, where.why)
    elif where.mount is table.scratch:
        if status is None:
            status = (originals.stat if follow else originals.lstat)(where.real)
        find_elsewhere(invocation, operation, given.name, where.virtual, status)


def found(
    invocation: Watching, operation: str, path: Any, options: Mapping[str, Any], status: os.stat_result
) -> None:
    """:func:`os.stat` or :func:`os.lstat` has found ``status`` at ``path``."""
    if not is_descriptor(path):
        follow = bool(options.get("follow_symlinks"))
        looked(
            invocation,
            operation,
            Given(path, options.get("dir_fd"), wanted=None),
            follow=follow,
            status=status,
        )


# --- changing entries ----------------------------------------------------------------------------------


def entry_made(invocation: Watching, operation: str, given: Given) -> None:
    """An entry was made at a path."""
    if given.odd:
        return
    where = resolve_entry(invocation, given)
    if is_late(invocation, operation, given.name):
        return
    if is_charged(invocation, where.virtual, where.parent):
        real = where.real.rstrip("/")
        made(invocation, operation, given.name, real, originals.lstat(real))
    elif not where.parent.writable:
        invocation.refuse(operation, EROFS, given.name, where=where)


def entry_removed(invocation: Watching, operation: str, given: Given) -> Judging:
    """The judge of a call that removes the entry at a path."""
    if given.odd:
        return
    where = resolve_entry(invocation, given)
    status = status_of(where.real.rstrip("/"))
    charged = is_charged(invocation, where.virtual, where.parent)
    if charged:
        invocation.ledger.removing(where.real.rstrip("/"))
    yield
    if is_late(invocation, operation, given.name):
        return
    if charged:
        if status is not None:
            find_elsewhere(invocation, operation, given.name, where.virtual, status)
    elif not where.parent.writable:
        invocation.refuse(operation, EROFS, given.name, where=where)


def made(
    invocation: Watching,
    operation: str,
    name: object,
    real: str,
    status: os.stat_result,
    base: int | None = None,
) -> None:
    """A file was made at the real path ``real`` in ``/tmp``. One that was there before has ``base`` bytes."""
    if base is None:
        find_parent(invocation, operation, name, real)
    invocation.made(real, status, base)
    limit = invocation.guard.max_files
    if limit is not None and invocation.ledger.count > limit:
        over = invocation.ledger.measured().files > limit
        if over and not invocation.crowded:
            invocation.refuse(operation, ENOSPC, name, remedy=remedies.too_many_files(limit))
        invocation.crowded = over


# --- changing files ------------------------------------------------------------------------------------


def changed(invocation: Watching, operation: str, given: Given, where: Place) -> None:
    """The file at a path was changed, but not its data."""
    if is_late(invocation, operation, given.name):
        return
    if is_charged(invocation, where.virtual, where.mount):
        status = status_of(where.real.rstrip("/"))
        if status is not None:
            find_elsewhere(invocation, operation, given.name, where.virtual, status)
    elif not where.mount.writable:
        invocation.refuse(operation, EROFS, given.name, where=where)


def real_of(descriptor: int) -> str:
    """The real path of an open file; the former one if it has none any more, and "" if it never had one."""
    real = descriptor_path(descriptor).removesuffix(GONE)
    return real if real.startswith("/") else ""


def grown(invocation: Watching, operation: str, path: object, status: os.stat_result, written: int) -> None:
    """``written`` bytes were written to a file of the invocation that now has ``status``."""
    if is_late(invocation, operation, path):
        return
    over = invocation.ledger.wrote(status, written) > invocation.guard.quota_bytes
    if over and not invocation.full:
        invocation.exceeded_once = True
        invocation.refuse(operation, ENOSPC, path, remedy=remedies.full(invocation.guard.storage_size))
    invocation.full = over


#: Opened like this, a file is changed or made.
_MAKING: Final = os.O_CREAT | os.O_TRUNC


class Opening:
    """The judge of a call that opens a file: what was there before, and what was opened."""

    __slots__ = ("_before", "_flags", "_given", "_invocation", "_operation")

    def __init__(self, invocation: Watching, operation: str, given: Given, flags: int) -> None:
        self._invocation = invocation
        self._operation = operation
        self._given = given
        self._flags = flags
        self._before: os.stat_result | None = None
        if self._changes and not given.odd:
            with suppress(OSError, TypeError, ValueError):
                self._before = originals.stat(given.name, dir_fd=given.dir_fd)

    @property
    def _changes(self) -> bool:
        flags = self._flags
        return not flags & O_PATH and (opens_to_write(flags) or bool(flags & _MAKING))

    def opened(self, descriptor: int) -> bool:
        """It was opened. Returns True if what is written to it counts."""
        real = real_of(descriptor)
        if not real:
            return False
        status = originals.fstat(descriptor)
        if self._changes:
            return self._judge_change(real, status, descriptor)
        invocation, name = self._invocation, self._given.name
        rules = invocation.guard.mounts.watched
        rule = None if rules is None else rules.rule(real)
        if rule is not None:
            if not is_reading_sources():
                invocation.absent(self._operation, name, str(rule))
        else:
            find_elsewhere(invocation, self._operation, name, real, status)
        return False

    def _judge_change(self, real: str, status: os.stat_result, descriptor: int) -> bool:
        invocation, operation, name = self._invocation, self._operation, self._given.name
        before = self._before
        is_new = before is None or key_of(before) != key_of(status)
        writing = opens_to_write(self._flags) or self._flags & os.O_TRUNC
        if not is_new and not (writing and modes.S_ISREG(status.st_mode)):
            return False  # a device, a FIFO, or an existing file that is only read (C1.3)
        if is_late(invocation, operation, name):
            return False
        mount = invocation.guard.mounts.mount_of(real)
        if is_charged(invocation, real, mount):
            emptied = is_new or bool(self._flags & os.O_TRUNC)
            if not emptied:
                replaced = bool(self._flags & os.O_CREAT)
                find_elsewhere(invocation, operation, name, real, status, replaced=replaced)
            base = None if emptied else allocated(status, f"/proc/self/fd/{descriptor}", follow=0)
            made(invocation, operation, name, real, status, base)
            return True
        if not mount.writable:
            invocation.refuse(operation, EROFS, name)
        return False
