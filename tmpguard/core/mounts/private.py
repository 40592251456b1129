"""Hides the scratch directories of all guards and processes, wherever they are (C4.1).

Below the real ``/tmp`` they are invisible anyway. A scratch root elsewhere, for example in the project, would
show them to every request at their real paths.
"""

from __future__ import annotations

from typing import Final, Protocol

from tmpguard.core.layout import TMP
from tmpguard.core.spelling import GONE

#: The prefix of the names of the processes' scratch directories ("claims").
PREFIX: Final = "tmpguard-"
_DIGITS: Final = 12

#: The real paths of this process's scratch roots. A listing of a scratch root is never cached.
roots: Final[set[str]] = set()


class Leaving(Protocol):
    """What a listing leaves out."""

    def hidden(self, names: list[str], is_directory: bool | None = None) -> frozenset[str]: ...

    def take_out(self, names: list[str], is_directory: bool) -> list[str]: ...


def is_claim(name: str) -> bool:
    """Whether ``name`` is the name of a process's own directory in a scratch root."""
    if not name.startswith(PREFIX) or len(name) != len(PREFIX) + _DIGITS:
        return False
    return not name[len(PREFIX) :].strip("0123456789abcdef")


def shown_target(target: str) -> str:
    """The text of a link in ``/proc`` that leads to ``target``, without any scratch path (C7.1).

    The descriptors of other requests and of the wipe belong to the same process. Files that they have open
    are shown as the kernel shows a removed file.
    """
    path = target.removesuffix(GONE)
    for root in roots:
        below = root.rstrip("/") + "/"
        if path.startswith(below) and is_claim(path[len(below) :].partition("/")[0]):
            return TMP + GONE
    return target


class Claimed:
    """Takes the place of the ignore rule for a path that is absent without an explanation."""

    def __str__(self) -> str:
        return ""


CLAIMED: Final = Claimed()


class Unclaimed:
    """What the listing of a scratch root leaves out: the claims, and whatever ``others`` leaves out."""

    __slots__ = ("_others",)

    def __init__(self, others: Leaving | None) -> None:
        self._others = others

    def hidden(self, names: list[str], is_directory: bool | None = None) -> frozenset[str]:
        claims = frozenset(filter(is_claim, names))
        return claims if self._others is None else claims | self._others.hidden(names, is_directory)

    def take_out(self, names: list[str], is_directory: bool) -> list[str]:
        names = [name for name in names if not is_claim(name)]
        return names if self._others is None else self._others.take_out(names, is_directory)
