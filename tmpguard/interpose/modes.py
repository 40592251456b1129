"""Parses the mode of an ``open()``."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

WRITING: Final = os.O_WRONLY | os.O_RDWR
#: An open(2) without any of these flags only reads.
CHANGING: Final = WRITING | os.O_CREAT | os.O_TRUNC


def opens_to_write(flags: int) -> bool:
    """Whether an open(2) with these flags is good for writing. With both flags of WRITING set, it is not."""
    return flags & WRITING in (os.O_WRONLY, os.O_RDWR)


_FLAGS: Final = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "x": os.O_CREAT | os.O_EXCL,
    "a": os.O_CREAT | os.O_APPEND,
}


class Plan(NamedTuple):
    """The meaning of a mode."""

    flags: int
    raw_mode: str
    text: bool
    updating: bool
    valid: bool


_plans: dict[object, Plan | None] = {}


def plan_of(mode: object) -> Plan | None:
    """The plan of ``mode``, raw or buffered; None if it is not a mode."""
    try:
        return _plans[mode]
    except KeyError:
        pass
    except TypeError:
        return None  # not hashable, so not a string
    plan = parse(mode)
    if plan is not None:
        _plans[mode] = plan
    return plan


def raw_plan_of(mode: object) -> Plan | None:
    """The plan of a mode of :class:`FileIO`, in which ``b`` has no effect and ``t`` is invalid."""
    return plan_of(mode.replace("b", "") + "b") if isinstance(mode, str) and "t" not in mode else None


def parse(mode: object) -> Plan | None:
    """The plan of a mode that has not been cached; None if it is not a mode."""
    if not isinstance(mode, str) or set(mode) - set("rwxabt+") or len(set(mode)) != len(mode):
        return None
    verbs = [letter for letter in mode if letter in _FLAGS]
    if len(verbs) != 1:
        return None
    updating = "+" in mode
    access = os.O_RDWR if updating else os.O_RDONLY if verbs[0] == "r" else os.O_WRONLY
    text_mode = "b" not in mode
    raw_mode = verbs[0] + ("+" if updating else "")
    return Plan(_FLAGS[verbs[0]] | access, raw_mode, text_mode, updating, not ("t" in mode and "b" in mode))
