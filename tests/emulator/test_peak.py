"""The most bytes in use at one time, which the janitor samples and the supervisor asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmpguard.emulator.inside.peak import SIZE, Peak


@pytest.fixture
def sides() -> Iterator[tuple[Peak, Peak]]:
    """The supervisor's and the janitor's."""
    memory = os.memfd_create("peak")
    os.ftruncate(memory, SIZE)
    supervisor, janitor = Peak(memory), Peak(memory)
    yield supervisor, janitor
    supervisor.close()
    janitor.close()
    os.close(memory)


@pytest.fixture
def tmp(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a directory on a file system of which something is in use."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_the_largest_sample_of_a_period_is_told_until_the_next_begins(
    sides: tuple[Peak, Peak], tmp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, janitor = sides
    status = os.fstatvfs(tmp)
    for free in (30, 10, 20):
        sample = os.statvfs_result((4096, 4096, 100, free, *status[4:]))
        monkeypatch.setattr(os, "fstatvfs", lambda _, sample=sample: sample)
        janitor.sample(tmp)
    assert supervisor.highest() == 90 * 4096
    supervisor.start_period()
    assert supervisor.highest() == 0
    janitor.sample(tmp)
    assert supervisor.highest() == 80 * 4096


def test_what_was_in_use_as_the_next_period_began_is_none_of_its_own(
    sides: tuple[Peak, Peak], tmp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that goes on after its request frees something while the next request begins."""
    supervisor, janitor = sides
    original = os.fstatvfs

    def begins_meanwhile(descriptor: int) -> os.statvfs_result:
        status = original(descriptor)
        supervisor.start_period()
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstatvfs", begins_meanwhile)
        janitor.sample(tmp)
    assert supervisor.highest() == 0
    janitor.sample(tmp)
    assert supervisor.highest() > 0
