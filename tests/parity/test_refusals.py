"""Every call in an invocation behaves as on a read-only root with a tmpfs on /tmp (C1, C2).

Each operation of the table is tried on each path in both places. The results, the errors (errno, ``filename``
and ``filename2``) and the changes have to be equal.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import tmpguard
from tests.parity import kernel, operations, places
from tests.parity.operations import Outcome

Table = dict[str, dict[str, Outcome]]


ROWS = [row for row, _, _ in operations.rows()]

#: Library calls that catch errors and try again.
COMPOSED = re.compile(r"(shutil|Path|os\.makedirs)\b.*")


@pytest.fixture(scope="session")
def project() -> Iterator[str]:
    """A project directory outside /tmp, which the tmpfs of the kernel set-up covers."""
    with tempfile.TemporaryDirectory(prefix="parity-", dir="/var/tmp") as parent:
        directory = os.path.join(parent, "project")  # so that nobody else changes its parent directory
        os.mkdir(directory)
        places.make_project(directory)
        yield directory


@pytest.fixture(scope="session")
def by_kernel(project: str) -> Table:
    """The outcomes of the whole table on the kernel set-up."""
    return kernel.run([places, operations], "table", project, bundle=project)  # type: ignore[no-any-return]


class Guarded(NamedTuple):
    """The outcomes of the whole table in invocations, and the errnos of each row's violations."""

    outcomes: Table
    violations: dict[tuple[str, str], list[int]]


@pytest.fixture(scope="session")
def by_guard(project: str, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """Keep the patched layer installed, so that only the first row pays for it."""
    logger = logging.getLogger("tmpguard")
    logger.disabled = True  # it would warn of thousands of refusals
    umask = os.umask(0o022)
    scratch = tmp_path_factory.mktemp("scratch")
    guard = tmpguard.Guard(storage_size=1, bundle=project, scratch_root=scratch)
    try:
        return _guarded(guard, project)
    finally:
        os.umask(umask)
        logger.disabled = False


def _guarded(guard: tmpguard.Guard, project: str) -> Guarded:
    found = Guarded({}, {})
    for row, operation, links in operations.rows():
        found.outcomes[row] = dict(_row(guard, project, operation, row, links, found.violations))
    return found


def _row(
    guard: tmpguard.Guard,
    project: str,
    operation: str,
    row: str,
    links: bool,
    violations: dict[tuple[str, str], list[int]],
) -> Iterator[tuple[str, Outcome]]:
    current: list[tmpguard.Invocation] = []

    def start() -> None:
        end()
        current.append(guard.invocation().__enter__())

    def end() -> None:
        while current:
            current.pop().__exit__(None, None, None)

    seen: tuple[Any, int] = (None, 0)
    try:
        for path, outcome in operations.outcomes(operation, project, links=links, start=start):
            report = current[0].report
            before = seen[1] if seen[0] is report else 0
            violations[row, path] = [violation.errno for violation in report.violations[before:]]
            seen = report, len(report.violations)
            yield path, outcome
    finally:
        end()


@pytest.mark.parametrize("row", ROWS)
def test_outcome_is_that_of_a_read_only_root(row: str, by_kernel: Table, by_guard: Guarded) -> None:
    """C1.2, C2.1, C2.2, C7.1."""
    differences = {
        path: f"kernel: {expected}, tmpguard: {by_guard.outcomes[row][path]}"
        for path, expected in by_kernel[row].items()
        if by_guard.outcomes[row][path] != expected
    }
    assert not differences


@pytest.mark.parametrize("row", [row for row in ROWS if not COMPOSED.fullmatch(row)])
def test_refusals_and_nothing_else_are_violations(row: str, by_guard: Guarded) -> None:
    """C2.3."""
    for path, (told, *_) in by_guard.outcomes[row].items():
        violations = by_guard.violations[row, path]
        if " EROFS " in told:
            assert violations == [30], path
        elif not told.startswith("OSError EXDEV"):
            assert not violations, path


def test_project_is_as_it_was(
    project: str, by_guard: Guarded, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """C1.1: after about ten thousand attempts to change it."""
    fresh = str(tmp_path_factory.mktemp("fresh"))
    places.make_project(fresh)
    assert _tree(project) == _tree(fresh)


def _tree(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parent, directories, files in os.walk(directory):
        for name in directories + files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else ""
            size = 0 if os.path.isdir(path) else status.st_size
            extra = os.listxattr(path, follow_symlinks=False)
            found[os.path.relpath(path, directory)] = status.st_mode, size, content, extra
    return found
