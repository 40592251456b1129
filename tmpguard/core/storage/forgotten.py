"""The names of files that ended invocations left in ``/tmp``, so that a missing file can be explained (C7.4).

A request cannot see a file of another request, or of the start-up: each has its own ``/tmp``. The guard
remembers the names of such files, in bounded memory. They are recorded when a ``/tmp`` is wiped, so a request
that leaves nothing there pays nothing.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from typing import Final

from tmpguard.core import originals
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.private import PREFIX
from tmpguard.core.real import monotonic

from .scratch import ScratchRoot

#: The most names remembered of requests, and as many of start-ups.
REMEMBERED: Final = 4096

#: Longer names are not remembered, so the memory is bounded in bytes as well.
_LONGEST: Final = 512

#: Seconds after which the real ``/tmp`` is searched again for a name that was not there.
_EXPIRES: Final = 1.0


class Maker(Enum):
    """Who made a file that a request does not find."""

    #: A :func:`tmpguard.cold_start`, or the lifespan of an ASGI application.
    START = "start"
    #: Another request, running or ended.
    REQUEST = "request"
    #: The requests of an instance that has ended.
    INSTANCE = "instance"
    #: Code of this process or its children that belongs to no invocation: it used the real ``/tmp``.
    UNGUARDED = "unguarded"
    #: Somebody else, before the request began. Only an invocation that watches finds such a file (C2.5).
    OTHER = "other"


class Forgotten:
    """What the ended invocations of one guard left, and where else a missing file may be: in the directories
    of ``scratch`` that belong to running invocations, and in the real ``/tmp``.

    A name is a path below ``/tmp``, such as ``/cache/a.txt``. Each step is one operation on a dictionary, so
    no lock is needed: finalizers and signal handlers may get here at any time.
    """

    def __init__(self, scratch: ScratchRoot) -> None:
        self._scratch = scratch
        self._since = _started_at()
        self._names: OrderedDict[str, Maker] = OrderedDict()
        # Apart, because requests would soon displace what a start-up left, which is missed most often.
        self._started: OrderedDict[str, Maker] = OrderedDict()
        #: Paths below ``/tmp`` that nobody had made, for as long as no other invocation is running and the
        #: real ``/tmp`` need not be searched again: until ``expires``, by the monotonic clock.
        self.nowhere: set[str] = set()
        self.expires = 0.0

    def add(self, names: Iterable[str], maker: Maker) -> None:
        """An invocation has ended and left ``names``."""
        kept = self._started if maker is Maker.START else self._names
        for name in names:
            if len(name) <= _LONGEST:
                kept.pop(name, None)  # the most recent ones are kept
                kept[name] = maker
                self.nowhere.discard(TMP + name)
        while len(kept) > REMEMBERED:
            with suppress(KeyError):
                kept.popitem(last=False)

    def discard(self, name: str) -> None:
        """A request removes ``name`` itself: it would be missing from a shared ``/tmp``, too."""
        if self._names:
            self._names.pop(name, None)
        if self._started:
            self._started.pop(name, None)

    def maker_of(self, name: str, directory: str) -> Maker | None:
        """Who made ``name``, which is missing in the scratch directory ``directory``; None if nobody did.

        Every look-up that finds nothing gets here. If nothing is known and no other invocation is running,
        that costs one system call; callers that consult :attr:`nowhere` before save even that.
        """
        maker = self._names.get(name) or self._started.get(name)
        if maker is not None:
            return maker
        if self._scratch.is_shared() and self._scratch.is_elsewhere(name, directory):
            return Maker.REQUEST
        if originals.access(TMP + name, os.F_OK):
            return Maker.UNGUARDED if self._is_own_in_real_tmp(name) else None
        now = monotonic()
        if now >= self.expires or len(self.nowhere) >= REMEMBERED:
            self.nowhere, self.expires = set(), now + _EXPIRES
        self.nowhere.add(TMP + name)
        return None

    def _is_own_in_real_tmp(self, name: str) -> bool:
        if name.startswith(f"/{PREFIX}"):
            return False
        try:
            return self.is_own(originals.lstat(TMP + name))
        except OSError:
            return False

    def is_own(self, status: os.stat_result) -> bool:
        """Did this user make the file of ``status`` in the real ``/tmp`` since the process started?

        Such a file was made by start-up code outside any invocation, and no request sees it.
        """
        return status.st_uid == os.geteuid() and status.st_ctime >= self._since


@lru_cache(maxsize=1)
def _started_at() -> float:
    """When this process started, in seconds since the epoch; 0 if that is unknown.

    It is found when the first guard is built. Forked workers inherit the time.
    """
    try:
        with originals.open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_REALTIME) - age
