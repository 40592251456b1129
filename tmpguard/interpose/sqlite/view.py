"""The file system that SQLite sees for one invocation, as far as it can be told without ctypes."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import Final

from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import TMP

#: What is being connected to: the operation, and the name as the application gave it.
connecting: Final[ContextVar[tuple[str, object] | None]] = ContextVar("tmpguard_connecting", default=None)


class _Pending(threading.local):
    """The remedy of this thread's last refusal, until SQLite raises the error that it belongs to."""

    remedy = ""


pending: Final = _Pending()


class View:
    """The VFS of one invocation. It lives as long as a connection or an open file of its needs it."""

    __slots__ = ("__weakref__", "_owner", "invocation", "name", "read_only", "spelled", "uses_uris")

    def __init__(self, invocation: Invocation, name: str, uses_uris: bool, *, owner: object) -> None:
        self.invocation = invocation
        #: The name by which SQLite knows the VFS.
        self.name = name
        #: Are names that start with "file:" URIs, even where nobody said so?
        self.uses_uris = uses_uris
        #: What was opened for writing in vain: canonical paths, and as the application gave them.
        self.read_only: dict[str, object] = {}
        #: Paths as the statements gave them, by the canonical ones.
        self.spelled: dict[str, str] = {}
        invocation.reusable = False  # what SQLite has open may outlast it
        self._owner = owner

    def given(self, virtual: str, is_main: bool) -> tuple[str, object]:
        """The operation that opens ``virtual``, a database itself where it ``is_main``, and the path as the
        application gave it."""
        if not is_main:
            return "sqlite3 open", virtual or TMP
        return connecting.get() or ("sqlite3 ATTACH", self.spelled.get(virtual, virtual))

    def note(self, operation: str, code: int, path: object, remedy: str) -> None:
        """Record a violation (C2.3); the error is SQLite's own, which gets ``remedy`` as a note (C2.4)."""
        pending.remedy = remedy
        self.invocation.note(operation, code, path, remedy)


_views: Final[weakref.WeakKeyDictionary[Invocation, weakref.ref[View]]] = weakref.WeakKeyDictionary()


def keep_view(view: View) -> None:
    """Remember ``view`` as that of its invocation, for as long as somebody else holds it."""
    _views[view.invocation] = weakref.ref(view)


def known_view(invocation: Invocation) -> View | None:
    """The view of ``invocation`` if it has one."""
    known = _views.get(invocation)
    return known() if known is not None else None
