"""The unlinked files of a quota: what they cost, and which of them are probably in use."""

from __future__ import annotations

import os
from pathlib import Path

from tmpguard.core.storage.unlinked import UnlinkedFiles


def test_sizes_are_kept_apart_by_whether_a_file_was_open() -> None:
    files = UnlinkedFiles()
    files.add(1, 4096, held=False)
    files.add(2, 8192, held=True)
    assert (files.bytes, files.unheld_bytes, files.held) == (12288, 4096, {2})
    files.add(1, 12288, held=True)  # it was written to
    assert (files.bytes, files.unheld_bytes, files.held) == (20480, 0, {1, 2})
    files.add(2, 4096, held=False)
    assert (files.bytes, files.unheld_bytes, files.held) == (16384, 4096, {1})
    assert files.discard(2) == 4096
    assert files.discard(2) is None
    assert (files.bytes, files.unheld_bytes) == (12288, 0)
    files.replace({7: 4096})
    assert (files.sizes, files.unheld_bytes, files.held) == ({7: 4096}, 0, {7})


def test_what_is_closed_is_told_from_what_is_open(tmp_path: Path) -> None:
    files = UnlinkedFiles()
    assert files.closed() == []
    with open(tmp_path / "open", "wb") as file:
        inode = os.fstat(file.fileno()).st_ino
        os.unlink(tmp_path / "open")
        files.add(inode, 4096, held=True)
        files.add(inode + 1_000_000_000, 4096, held=True)
        assert files.closed() == [inode + 1_000_000_000]
    assert inode in files.closed()
