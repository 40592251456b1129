"""The quota charges and refuses exactly as a tmpfs of the same size, step by step (C3)."""

from __future__ import annotations

from pathlib import Path

import pytest

import tmpguard
from tests.parity import charges, kernel
from tests.parity.charges import Step
from tests.support import grows_by_a_page

SEEDS = list(range(10))
STEPS = 300


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Does the disk (btrfs) allocate a page that a tmpfs does not, if a file gets longer that ended in the
    middle of a hole's page? Then no file does."""
    return grows_by_a_page(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="session")
def on_tmpfs(whole: bool) -> list[list[Step]]:
    return kernel.run([charges], "works", SEEDS, STEPS, whole)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_work_uses_what_it_uses_on_a_tmpfs(
    seed: int, whole: bool, on_tmpfs: list[list[Step]], scratch_root: Path
) -> None:
    """C3.2, C3.3, C3.4, C3.6: counts and errors, bytes in use, lengths."""
    expected = on_tmpfs[seed]
    guard = tmpguard.Guard(storage_size=kernel.TMPFS_BYTES >> 20, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        done = charges.work(seed, STEPS, whole)
        assert invocation.report.peak_bytes >= max(step[2] for step in expected)
    for number, (kernels, ours) in enumerate(zip(expected, done, strict=True)):
        assert ours == kernels, f"step {number}, after {expected[max(0, number - 3) : number]}"
    assert {"ENOSPC"} <= {str(step[1]) for step in expected}
