"""Whether there is an entry at a path, and what is made of errors other than ENOENT."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmpguard.core.presence import is_found, is_gone


@pytest.mark.parametrize(
    ("name", "found", "gone"),
    [
        ("file", True, False),
        ("dangling", True, False),
        ("none", False, True),
        ("none/below", False, True),
        ("file/below", False, False),  # ENOTDIR
        ("loop/below", False, False),  # ELOOP
        ("x" * 300, False, False),  # ENAMETOOLONG
    ],
)
def test_only_enoent_says_that_nothing_is_there(tmp_path: Path, name: str, found: bool, gone: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    path = str(tmp_path / name)
    assert (is_found(path), is_gone(path)) == (found, gone)
