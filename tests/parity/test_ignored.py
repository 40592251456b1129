"""Files that .genezioignore names are as absent as in a bundle that was deployed without them (C5.2).

The kernel's side uses a project without these files. tmpguard's side uses one with the files and the rules.
"""

from __future__ import annotations

import logging
import os
import tempfile

import pytest

import tmpguard
from tests.parity import ignored, kernel, operations, places


@pytest.mark.parametrize("directories", [False, True], ids=["files", "directories"])
def test_ignored_files_are_as_absent_as_where_there_are_none(
    directories: bool, scratch_root: os.PathLike[str], caplog: pytest.LogCaptureFixture
) -> None:
    with tempfile.TemporaryDirectory(prefix="parity-", dir="/var/tmp") as parent:
        project = os.path.join(parent, "project")
        os.mkdir(project)
        places.make_project(project)
        ignored.deploy(project)
        expected = kernel.run([places, operations, ignored], "table", project, directories, bundle=project)
        ignored.add_ignored(project, directories)
        with caplog.at_level(logging.CRITICAL, "tmpguard"):
            found = _by_guard(project, directories, scratch_root)
        assert os.path.exists(f"{project}/missing")
    differences = {
        row: f"kernel: {outcome}, tmpguard: {found[row]}"
        for row, outcome in expected.items()
        if found[row] != outcome and not row.startswith("io.FileIO r Path")  # as KNOWN of test_refusals
    }
    assert len(expected) > 2000 // operations.SHARE
    assert not differences


def _by_guard(
    project: str, directories: bool, scratch_root: os.PathLike[str]
) -> dict[str, operations.Outcome]:
    current: list[tmpguard.Invocation] = []
    guard = tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch_root)
    umask = os.umask(0o022)

    def start() -> None:
        end()
        current.append(guard.invocation().__enter__())

    def end() -> None:
        while current:
            current.pop().__exit__(None, None, None)

    try:
        return dict(ignored.outcomes(project, directories, start))
    finally:
        end()
        os.umask(umask)
