"""The quota charges, grants and refuses as a tmpfs of that size does, step for step (C3)."""

from __future__ import annotations

from pathlib import Path

import pytest

import tmpguard
from tests.parity import charges, kernel
from tests.parity.charges import Step

SEEDS = list(range(10))
STEPS = 300


@pytest.fixture(scope="session")
def on_tmpfs() -> list[list[Step]]:
    return kernel.run([charges], "works", SEEDS, STEPS)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_work_uses_what_it_uses_on_a_tmpfs(
    seed: int, on_tmpfs: list[list[Step]], scratch_root: Path
) -> None:
    """C3.2, C3.3, C3.4, C3.6: counts and errors, bytes in use, lengths."""
    expected = on_tmpfs[seed]
    guard = tmpguard.Guard(storage_size=kernel.TMPFS_BYTES >> 20, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        done = charges.work(seed, STEPS)
        assert invocation.report.peak_bytes >= max(step[2] for step in expected)
    for number, (kernels, ours) in enumerate(zip(expected, done, strict=True)):
        assert ours == kernels, f"step {number}, after {expected[max(0, number - 3) : number]}"
    assert {"ENOSPC"} <= {str(step[1]) for step in expected}
