"""Recognises database files by their first bytes and their names: in a bundle they are read-only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

#: A database of SQLite has at least one page, and pages are a multiple of this many bytes.
_SECTOR: Final = 512
_SQLITE: Final = b"SQLite format 3\0"
_SQLITE_SUFFIXES: Final = (".sqlite3", ".sqlite", ".db", ".db3")

_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")


def _in_either_order(*magics: int) -> tuple[bytes, ...]:
    return tuple(magic.to_bytes(4, order) for magic in magics for order in _ORDERS)


#: The first bytes of a GNU dbm database, and bytes 13 to 16 of a Berkeley DB one.
_GNU: Final = _in_either_order(0x13579ACD, 0x13579ACE, 0x13579ACF)
_BERKELEY: Final = _in_either_order(0x053162, 0x061561)

#: The suffixes of dbm.dumb's and ndbm's files. The first file is reported if the second one exists too.
_PAIRS: Final = ((".dat", ".dir"), (".pag", ".dir"))

_READ_ONLY: Final = "read-only once it is deployed, so writing to it will fail"
_CELERY: Final = "celerybeat-schedule"


def database(
    name: str, size: int, head: Callable[[], bytes | None], is_beside: Callable[[str], bool]
) -> str | None:
    """The finding for the file ``name`` of ``size`` bytes if it is a database; None if it is not.

    ``head`` returns its first bytes, or None if it cannot be read. ``is_beside`` returns whether the same
    directory contains a file with the given name.
    """
    what = _of_celery(name, is_beside) or _of_sqlite(name, size, head) or _of_dbm(name, size, head, is_beside)
    return None if what is None else f"{what}: {_READ_ONLY}"


def _of_celery(name: str, is_beside: Callable[[str], bool]) -> str | None:
    if not name.startswith(_CELERY):
        return None
    ending = name[len(_CELERY) :]
    if ending in ("", ".db", ".dat") or (ending == ".dir" and not is_beside(f"{_CELERY}.dat")):
        return "the schedule of Celery beat (a shelve)"
    return None


def _of_sqlite(name: str, size: int, head: Callable[[], bytes | None]) -> str | None:
    named = name.endswith(_SQLITE_SUFFIXES)
    if not named and (not size or size % _SECTOR):
        return None
    if not size:
        return None if name.endswith(".db") else "a SQLite database"
    start = head()
    is_database = named if start is None else start.startswith(_SQLITE)
    return "a SQLite database" if is_database else None


def _of_dbm(
    name: str, size: int, head: Callable[[], bytes | None], is_beside: Callable[[str], bool]
) -> str | None:
    for suffix, other in _PAIRS:
        stem = name.removesuffix(suffix)
        if stem != name and is_beside(stem + other):
            return "a database of dbm or shelve"
    if size < _SECTOR or size % _SECTOR:
        return None
    start = head() or b""
    is_database = start.startswith(_GNU) or start[12:16] in _BERKELEY
    return "a database of dbm or shelve" if is_database else None
