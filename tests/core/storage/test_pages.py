"""What a file costs is what a tmpfs would charge for it, however the disk stores it (C3.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.storage.pages import PAGE, allocated

#: In this order ext4 has no room beside the pages that are there: they end up in ten extents.
SCATTERED = (0, 2, 4, 6, 8, 10, 1, 3, 5, 7)


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    with guard.invocation() as invocation:
        yield invocation


def scatter(path: str) -> None:
    """Make a file of eleven pages, of which the last but one is a hole."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    for page in SCATTERED:
        os.pwrite(descriptor, b"x" * PAGE, page * PAGE)
        os.fsync(descriptor)
    os.close(descriptor)


def test_a_hole_in_a_fragmented_file_costs_nothing(invocation: tmpguard.Invocation) -> None:
    """ext4 needs a block for the extents, which made up for that of the hole."""
    scatter("/tmp/scattered")
    assert invocation.report.used_bytes == len(SCATTERED) * PAGE
    assert invocation.quota.balance == invocation.quota.limit - len(SCATTERED) * PAGE
    os.unlink("/tmp/scattered")
    assert invocation.report.used_bytes == 0


def test_writing_into_that_hole_is_charged(invocation: tmpguard.Invocation) -> None:
    scatter("/tmp/scattered")
    descriptor = os.open("/tmp/scattered", os.O_WRONLY)
    before = invocation.quota.balance
    os.pwrite(descriptor, b"x", 9 * PAGE)
    assert before - invocation.quota.balance == PAGE
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, PAGE, 4 * PAGE, 4 * PAGE + 1, 100 * PAGE + 5])
def test_a_file_without_holes_costs_its_pages(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert allocated(originals.stat(path), str(path)) == -(-size // PAGE) * PAGE


def test_a_file_that_cannot_be_opened_costs_its_length_at_most(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10 * PAGE)
    assert allocated(originals.stat(path), str(path) + "-gone") == 10 * PAGE
