"""The file system that SQLite sees for one invocation: the part that does not need ctypes."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import Final

from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import TMP
from tmpguard.core.mounts.table import Place

#: The connection being made: the operation, and the name as the application gave it.
connecting: Final[ContextVar[tuple[str, object] | None]] = ContextVar("tmpguard_connecting", default=None)


class _Pending(threading.local):
    """The remedy of this thread's last refusal, until SQLite raises the corresponding error."""

    remedy = ""
    #: What a signal handler raised while SQLite called tmpguard: raised in the place of SQLite's error.
    raised: BaseException | None = None


pending: Final = _Pending()


class View:
    """The VFS of one invocation. It lives as long as one of its connections or open files needs it."""

    __slots__ = (
        "__weakref__",
        "_owner",
        "created",
        "invocation",
        "name",
        "read_only",
        "spelled",
        "uses_uris",
    )

    def __init__(self, invocation: Invocation, name: str, uses_uris: bool, *, owner: object) -> None:
        self.invocation = invocation
        #: The name under which the VFS is registered with SQLite.
        self.name = name
        #: True if names that start with "file:" are URIs even without ``uri=True``.
        self.uses_uris = uses_uris
        #: Databases that could only be opened read-only: canonical path to path as the application gave it.
        self.read_only: dict[str, object] = {}
        #: Databases that were created empty below /tmp: canonical path to operation and path as given.
        self.created: dict[str, tuple[str, object]] = {}
        #: Canonical path to path as a statement gave it.
        self.spelled: dict[str, str] = {}
        invocation.reusable = False  # SQLite's open files may outlast the invocation
        self._owner = owner

    def given(self, virtual: str, is_main: bool) -> tuple[str, object]:
        """The operation that opens ``virtual``, and the path as the application gave it.

        ``is_main`` is true for a main database file.
        """
        if not is_main:
            return "sqlite3 open", virtual or TMP
        return connecting.get() or ("sqlite3 ATTACH", self.spelled.get(virtual, virtual))

    def note(
        self, operation: str, code: int, path: object, remedy: str = "", where: Place | None = None
    ) -> None:
        """Record a violation (C2.3). SQLite raises its own error, which gets the remedy as a note (C2.4)."""
        pending.remedy = self.invocation.note(operation, code, path, remedy, where=where)

    def missing(self, virtual: str, *, making: bool) -> None:
        """The database ``virtual`` could not be opened: perhaps another invocation had created it (C7.4)."""
        operation, path = self.given(virtual, True)
        pending.remedy = self.invocation.missing(operation, path, virtual[len(TMP) :], making=making)

    def replaced(self) -> str:
        """The remedy for a missing table, if another invocation had created the database (C7.4), or ""."""
        for virtual, (operation, path) in self.created.items():
            remedy = self.invocation.missing(operation, path, virtual[len(TMP) :], replaced=True)
            if remedy:
                return remedy
        return ""


_views: Final[weakref.WeakKeyDictionary[Invocation, weakref.ref[View]]] = weakref.WeakKeyDictionary()


def keep_view(view: View) -> None:
    """Remember ``view`` as its invocation's view, for as long as something else holds it."""
    _views[view.invocation] = weakref.ref(view)


def known_view(invocation: Invocation) -> View | None:
    """The view of ``invocation``; None if it has none."""
    known = _views.get(invocation)
    return known() if known is not None else None
