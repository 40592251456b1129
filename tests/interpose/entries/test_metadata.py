"""A link's own mode: what the kernel says if the C library asks it, and what that says otherwise (C2.2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tmpguard
from tmpguard.interpose.entries import metadata


@pytest.fixture(params=[True, False], ids=["asked of the kernel", "asked of the C library"])
def reaches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of C libraries: those of Debian 13 and of Debian 12."""
    monkeypatch.setattr(metadata, "_chmod_reaches_links", lambda: request.param)
    return bool(request.param)


def test_a_link_on_the_read_only_mount(scratch_root: Path, tmp_path: Path, reaches: bool) -> None:
    project = tmp_path / "project"
    project.mkdir()
    link = project / "link"
    link.symlink_to("missing")
    with tmpguard.invocation(bundle=project, scratch_root=scratch_root) as invocation:
        if reaches:
            with pytest.raises(OSError, match="Read-only file system") as caught:
                link.lchmod(0o600)
            assert caught.value.filename == str(link)
        else:
            with pytest.raises(NotImplementedError, match="follow_symlinks unavailable"):
                link.lchmod(0o600)
    assert [violation.operation for violation in invocation.report.violations] == ["os.chmod"] * reaches


@pytest.mark.usefixtures("reaches")
def test_a_link_in_tmp(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        os.symlink("missing", "/tmp/link")
        descriptor = os.open("/tmp", os.O_RDONLY)
        with pytest.raises(NotImplementedError, match="follow_symlinks unavailable"):
            os.chmod("/tmp/link", 0o600, follow_symlinks=False)
        with pytest.raises(ValueError, match="cannot use dir_fd"):
            os.chmod("link", 0o600, dir_fd=descriptor, follow_symlinks=False)
        with open("/tmp/file", "w"):
            os.chmod("file", 0o600, dir_fd=descriptor, follow_symlinks=False)
            assert os.stat("/tmp/file").st_mode & 0o777 == 0o600
        os.close(descriptor)
    assert invocation.report.violations == ()
