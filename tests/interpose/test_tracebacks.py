"""A refusal's traceback, as a server logs it, ends at the application's line, or one line below it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core.layout import SOURCE_PREFIX


def frames(call: Callable[[], Any]) -> list[bool]:
    """Of each frame of the refusal of ``call``, below this one: whether it is tmpguard's."""
    with pytest.raises(OSError, match="Errno") as caught:
        call()
    found = traceback.extract_tb(caught.value.__traceback__)[1:]
    return [frame.filename.startswith(SOURCE_PREFIX) for frame in found]


@pytest.mark.parametrize(
    "call",
    [
        lambda: open("/usr/new", "w"),
        lambda: open("/usr/new", "w", buffering=1),
        lambda: os.open("/usr/new", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir("/usr/new"),
        lambda: os.rename("/usr/bin", "/usr/new"),
        lambda: os.truncate("/usr/bin/env", 0),
        lambda: os.symlink("a", "/usr/new"),
    ],
)
def test_at_most_one_frame_of_tmpguard_is_left(call: Callable[[], Any], scratch_root: Path) -> None:
    with tmpguard.invocation(scratch_root=scratch_root, bundle=None):
        assert frames(call) in ([False], [False, True])


def test_the_frames_of_an_opener_stay(scratch_root: Path) -> None:
    def opener(path: str, flags: int) -> int:
        return os.open("/usr/new", os.O_CREAT | os.O_WRONLY)

    with tmpguard.invocation(scratch_root=scratch_root, bundle=None):
        found = frames(lambda: open("/tmp/a", "w", opener=opener))
    assert found[0] is False
    assert found.count(False) == 2


def test_the_note_stays(scratch_root: Path) -> None:
    with tmpguard.invocation(scratch_root=scratch_root, bundle=None):
        with pytest.raises(OSError, match="Read-only") as caught:
            os.mkdir("/usr/new")
    assert caught.value.__notes__ == ["tmpguard: only /tmp is writable; write to /tmp/new"]
    assert caught.value.__context__ is None
    assert (caught.value.errno, caught.value.filename) == (30, "/usr/new")
